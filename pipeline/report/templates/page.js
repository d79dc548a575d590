"use strict";
// Sorts tables, and draws the map with the image under the pointer. All text is inserted as text, never as markup.

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      const value = (row) => row.cells[column].dataset.value;
      const order = (one, other) => {
        if (value(one) === "" || value(other) === "") return (value(one) === "") - (value(other) === ""); // unknown last
        const difference = Number(value(one)) - Number(value(other));
        return sign * (Number.isNaN(difference) ? value(one).localeCompare(value(other)) : difference);
      };
      table.tBodies[0].append(...rows.sort(order));
    });
  });
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
addEventListener("hashchange", openTarget);
openTarget();

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

const page = JSON.parse(document.getElementById("data").textContent);
if (document.getElementById("map-canvas")) drawMap(page);

async function drawMap(data) {
  const element = (name) => document.getElementById(`map-${name}`);
  const canvas = element("canvas"), card = element("card"), thumb = element("thumb"), words = element("words");
  const names = (pairs) => pairs.map(([name]) => name);
  const classes = names(data.classes), splits = names(data.splits);
  const judged = new Map(data.judged.map((image, place) => [image, place]));
  let shown = data.maps[0], at = -1; // the number of the image in the card, -1 for none

  const colourings = {
    class: { key: data.classes, of: (image) => data.label[image] },
    split: { key: data.splits, of: (image) => data.split[image] },
  };
  data.runs.forEach((run, number) => {
    colourings[number] = {
      key: data.outcomes,
      of: (image) => {
        const decided = run.decided[judged.get(image)] ?? -1;
        return decided < 0 ? 2 : decided === data.label[image] ? 0 : 1;
      },
    };
  });

  // `ast`: expressions are interpreted, not compiled, so that the page's policy need not allow eval.
  const { view } = await vegaEmbed(canvas.firstElementChild, data.spec,
    { mode: "vega", renderer: "canvas", actions: false, ast: true, hover: false, tooltip: false });
  view.addEventListener("pointermove", point).addEventListener("click", point);
  canvas.addEventListener("pointerleave", () => { card.hidden = true; });
  canvas.addEventListener("blur", () => { card.hidden = true; });
  canvas.addEventListener("keydown", step);
  element("colour").addEventListener("change", colour);
  element("backbone")?.addEventListener("change", (event) => {
    shown = data.maps.find((map) => map.backbone === event.target.value);
    at = -1;
    colour();
  });
  new ResizeObserver(fit).observe(canvas);
  colour();

  function colour() {
    const { key, of } = colourings[element("colour").value];
    const points = shown.row.map((image, place) => ({ x: shown.x[place], y: shown.y[place], place, colour: key[of(image)][1] }));
    const wrong = key === data.outcomes && key[1][1];
    if (wrong) points.sort((one, other) => (one.colour === wrong) - (other.colour === wrong)); // drawn last, on top
    element("legend").replaceChildren(...key.map(([name, value]) => {
      const entry = document.createElement("li"), dot = document.createElement("i");
      dot.style.background = value;
      entry.append(dot, bdi(name));
      entry.title = name;
      return entry;
    }));
    view.data("points", points);
    fit();
  }

  function fit() {
    const width = canvas.clientWidth;
    if (width) view.width(width).height(Math.min(Math.max(0.62 * width, 300), 620)).runAsync();
  }

  function point(event, item) {
    if (item?.datum?.place === undefined) {
      card.hidden = true;
      return;
    }
    show(item.datum.place, item.x, item.y);
  }

  function step(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") card.hidden = true;
    if (!by) return;
    event.preventDefault();
    const last = shown.row.length - 1;
    at = at + by > last ? 0 : at + by < 0 ? last : at + by;
    show(at, view.scale("x")(shown.x[at]), view.scale("y")(shown.y[at]));
  }

  function show(place, x, y) {
    const image = shown.row[place];
    at = place;
    picture(image);
    words.replaceChildren(...lines(image));
    card.hidden = false;
    const room = canvas.clientWidth - card.offsetWidth;
    card.style.left = `${Math.max(0, Math.min(x + 14, x + 14 > room ? x - card.offsetWidth - 14 : x + 14))}px`;
    card.style.top = `${Math.max(0, Math.min(y + 14, canvas.clientHeight - card.offsetHeight))}px`;
  }

  function picture(image) {
    const cell = data.cell[image], side = data.sprite.cell;
    thumb.hidden = cell < 0;
    thumb.style.width = thumb.style.height = `${side}px`;
    thumb.style.backgroundPosition = `${-side * (cell % data.sprite.columns)}px ${-side * Math.floor(cell / data.sprite.columns)}px`;
    thumb.dataset.cell = cell;
  }

  function lines(image) {
    const label = data.label[image], place = judged.get(image);
    const title = document.createElement("div");
    title.append(bdi(data.images[image]));
    const facts = document.createElement("div");
    facts.append(bdi(classes[label]), `, ${splits[data.split[image]]}`);
    const runs = document.createElement("ul");
    for (const run of data.runs) {
      if (place === undefined || run.decided[place] < 0) continue;
      const line = document.createElement("li"), right = run.decided[place] === label;
      line.className = right ? "name right" : "name wrong";
      line.append(right ? "✓ " : "✗ ", bdi(run.title), ": ", bdi(classes[run.decided[place]]), `, ${run.percent[place]}%`);
      runs.append(line);
    }
    if (!runs.childElementCount) runs.append("no run predicts it");
    title.className = facts.className = "name";
    return [title, facts, runs];
  }

  function bdi(text) {
    const isolated = document.createElement("bdi");
    isolated.textContent = text;
    return isolated;
  }
}
