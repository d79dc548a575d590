"""Which images go through the CNN, counted."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.cluster import RemoteCluster
from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError
from pipeline.data import manifest
from pipeline.embeddings import cache, matrix, skipped
from pipeline.networks import embedding, frozen_pass
from pipeline.stages import embed, prepare
from tests.conftest import Project, write_image

Count = Callable[[], int]
MATRIX = Path("data/embeddings/tiny.h5")


def run(project: Project, **sections: object) -> bytes:
    params = project.write(**sections)
    prepare.main(params)
    embed.main(params, "tiny")
    return MATRIX.read_bytes()


def test_a_second_run_computes_nothing_and_writes_the_same_bytes(project: Project, forwards: Count) -> None:
    first = run(project)
    assert forwards() == 36
    MATRIX.unlink()
    assert run(project) == first
    assert forwards() == 36


def test_new_images_are_the_only_ones_computed(project: Project, forwards: Count) -> None:
    run(project)
    write_image(Path("data/raw/red/new.png"), "red", 99)
    run(project)
    assert forwards() == 37


def test_renamed_and_copied_files_are_not_computed_again(project: Project, forwards: Count) -> None:
    run(project)
    Path("data/raw/red/00.png").rename("data/raw/red/other.png")
    shutil.copy("data/raw/red/01.png", "data/raw/red/copy.png")
    run(project)
    assert forwards() == 36
    assert len(matrix.read("tiny").image_id) == 37


def test_odd_but_printable_names_are_names_like_any_other(project: Project) -> None:
    names = ["-rf.png", "a b.png", "'\"`$(x).png", "ünï—漢.png", "%2e.png", "x.tar.png"]
    for number, name in enumerate(names):
        write_image(Path("data/raw/red") / name, "red", 200 + number)
    run(project)
    assert {f"red/{name}" for name in names} < set(matrix.read("tiny").image_id)


def test_two_files_with_the_same_bytes_are_computed_once(project: Project, forwards: Count) -> None:
    shutil.copy("data/raw/red/01.png", "data/raw/red/copy.png")
    run(project)
    assert forwards() == 36


def test_another_split_computes_nothing(project: Project, forwards: Count) -> None:
    run(project)
    run(project, seed=5, split={"test": 0.2})
    assert forwards() == 36


def test_another_image_size_computes_all_and_going_back_none(project: Project, forwards: Count) -> None:
    first = run(project)
    entry = project.content["backbones"]["tiny"]
    run(project, backbones={"tiny": {**entry, "image_size": 40}})
    assert forwards() == 72
    assert run(project, backbones={"tiny": entry}) == first
    assert forwards() == 72


def test_the_order_of_work_and_a_crash_on_the_way_leave_no_trace(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(project)
    shutil.rmtree(".headswap")
    monkeypatch.setattr(frozen_pass, "SHARD_ROWS", 5)
    real = cache.EmbeddingCache.append
    appended = []

    def dying(self: cache.EmbeddingCache, *args: object) -> None:
        if len(appended) == 3:
            raise KeyboardInterrupt
        appended.append(args)
        real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.EmbeddingCache, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        run(project)
    monkeypatch.setattr(cache.EmbeddingCache, "append", real)
    assert run(project) == whole


def test_after_an_error_only_the_rest_is_computed(project: Project, forwards: Count) -> None:
    params = project.write()
    prepare.main(params)
    broken = project.images[20]
    content = broken.read_bytes()
    broken.write_bytes(b"changed on disk")
    with pytest.raises(StateError, match="changed since `prepare` hashed it"):
        embed.main(params, "tiny")
    done = forwards()
    broken.write_bytes(content)
    embed.main(params, "tiny")
    assert 0 < done < 36
    assert forwards() == 36


def test_the_matrix_has_the_manifests_order_and_keys(project: Project) -> None:
    run(project)
    table, embedded = manifest.read(), matrix.read("tiny")
    assert list(embedded.image_id) == list(table.image_id)
    assert [bytes(row).hex() for row in embedded.sha256] == list(table.sha256)
    assert embedded.manifest_sha256 == stamps.sha256_file(manifest.MANIFEST)
    assert embedded.features.shape == (36, 16)


def test_a_warm_cache_does_not_look_free(project: Project) -> None:
    run(project)
    cold = matrix.read_cost("tiny")
    run(project)
    assert matrix.read_cost("tiny") == cold
    assert cold.seconds > 0
    assert cold.images == 36


class TestBadImages:
    def test_one_fails_the_stage_in_one_line_and_writes_no_matrix(self, project: Project) -> None:
        Path("data/raw/red/00.png").write_bytes(b"no image")
        with pytest.raises(InputError, match="data/raw/red/00.png: not an image"):
            run(project)
        assert not MATRIX.exists()

    def test_the_good_ones_are_not_computed_again_once_it_is_mended(self, project: Project, forwards: Count) -> None:
        Path("data/raw/red/00.png").write_bytes(b"no image")
        with pytest.raises(InputError):
            run(project)
        write_image(Path("data/raw/red/00.png"), "red", 50)
        run(project)
        assert forwards() == 36

    def test_skipped_ones_are_listed_with_reasons_and_have_no_row(self, project: Project) -> None:
        Path("data/raw/red/00.png").write_bytes(b"no image")
        run(project, embed={"on_bad_image": "skip"})
        assert list(skipped.read("tiny")) == ["red/00.png"]
        assert "red/00.png" not in matrix.read("tiny").image_id

    def test_a_class_that_loses_its_last_image_of_a_split_is_named(self, project: Project) -> None:
        prepare.main(project.write())
        table = manifest.read()
        for path, label, split in zip(table.path, table.label, table.split, strict=True):
            if (label, split) == ("red", "val"):
                Path(path).write_bytes(f"no image, {path}".encode())
        params = project.write(embed={"on_bad_image": "skip"}, split={"method": "predefined"})
        rows = zip(table.image_id, table.label, table.split, strict=True)
        lines = ["path,label,split", *(",".join(row) for row in rows)]
        Path("data/raw/labels.csv").write_text("\n".join(lines))
        params = project.write(data={"source": "csv_file"})
        prepare.main(params)
        with pytest.raises(InputError, match="class 'red': got 10 images, 6 in train, 0 in val, 4 in test"):
            embed.main(params, "tiny")

    def test_a_class_that_loses_all_its_images_is_named(self, project: Project) -> None:
        for path in project.images:
            if path.parent.name == "red":
                path.write_bytes(f"no image, {path}".encode())
        params = project.write(embed={"on_bad_image": "skip"})
        prepare.main(params)
        said = "class 'red': got 0 images, .*; expected at least 1 in each: the others of its images cannot be decoded"
        with pytest.raises(InputError, match=said):
            embed.main(params, "tiny")
        assert not MATRIX.exists()

    def test_copies_of_a_bad_image_are_counted_each(self, project: Project) -> None:
        for name in ("00", "01", "02"):
            Path(f"data/raw/red/{name}.png").write_bytes(b"no image")
        params = project.write(embed={"on_bad_image": "skip"})
        prepare.main(params)
        assert embed.main(params, "tiny") == "33 rows: 33 computed, 0 from the cache; 3 images skipped"


def test_features_too_large_for_float16_are_refused_with_the_remedy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.networks import runtime

    real = runtime.prepare

    def huge(*args: object) -> runtime.Forward:
        forward = real(*args)  # type: ignore[arg-type]
        return lambda batch: forward(batch) + 1e6

    monkeypatch.setattr(runtime, "prepare", huge)
    with pytest.raises(InputError, match="got 'float16', too narrow"):
        run(project)
    run(project, embed={"dtype": "float32"})


class TestFurtherViews:
    AUGMENT: ClassVar = {"copies": 2, "augment": {"flips": "both", "crop": 0.7}}

    def test_each_training_image_has_as_many_as_asked_for(self, project: Project) -> None:
        run(project, embed=self.AUGMENT)
        embedded, table = matrix.read("tiny"), manifest.read()
        assert embedded.augmented is not None
        train = [row for row, split in enumerate(table.split) if split == "train"]
        assert embedded.augmented.row.tolist() == [row for row in train for _ in range(2)]
        assert embedded.augmented.features.shape == (36, 16)
        assert (embedded.augmented.features != embedded.features[embedded.augmented.row]).any(axis=1).all()

    def test_they_leave_the_images_own_rows_as_they_were(self, project: Project, forwards: Count) -> None:
        run(project)
        plain = matrix.read("tiny").features.copy()
        run(project, embed=self.AUGMENT)
        np.testing.assert_array_equal(matrix.read("tiny").features, plain)
        assert forwards() == 36 + 36

    def test_more_of_them_cost_only_the_further_ones_and_fewer_none(self, project: Project, forwards: Count) -> None:
        run(project, embed=self.AUGMENT)
        run(project, embed={**self.AUGMENT, "copies": 3})
        assert forwards() == 36 + 3 * 18
        run(project, embed={**self.AUGMENT, "copies": 1})
        assert forwards() == 36 + 3 * 18

    def test_other_settings_are_another_recipe(self, project: Project, forwards: Count) -> None:
        run(project, embed=self.AUGMENT)
        run(project, embed={**self.AUGMENT, "augment": {"flips": "none", "rotate": 10}})
        assert forwards() == 36 + 2 * 36

    def test_their_cost_is_counted(self, project: Project) -> None:
        run(project, embed=self.AUGMENT)
        assert matrix.read_cost("tiny").images == 72

    def test_the_stamp_tells_both_recipes(self, project: Project) -> None:
        run(project, embed=self.AUGMENT)
        facts = stamps.read(matrix.stamp_path("tiny")).facts
        assert facts["augmented_recipe"].items() > facts["recipe"].items()


def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(project: Project, forwards: Count) -> None:
    params = project.write()
    prepare.main(params)
    assert embed.main(params, "tiny", dry_run=True).startswith("36 of 36 images would go through the CNN; nothing")
    assert forwards() == 0
    assert not MATRIX.exists()
    embed.main(params, "tiny")
    write_image(Path("data/raw/red/new.png"), "red", 99)
    prepare.main(params)
    assert "1 of 37 images would go through the CNN, about" in embed.main(params, "tiny", dry_run=True)
    assert forwards() == 36


class TestEngine:
    AWAY: ClassVar = {"engine": {"backend": "dask", "address": "tcp://127.0.0.1:9"}}
    """Where nothing listens."""

    def test_what_is_cached_needs_no_cluster(self, project: Project) -> None:
        views = {"copies": 1}
        first = run(project, embed=views)
        MATRIX.unlink()
        assert run(project, embed={**views, **self.AWAY}) == first

    def test_what_is_not_says_that_nothing_answers_and_leaves_nothing(self, project: Project) -> None:
        pytest.importorskip("distributed")
        with pytest.raises(StateError, match="embed.engine: dask at tcp://127.0.0.1:9: nothing answers"):
            run(project, embed=self.AWAY)
        assert not MATRIX.exists()
        assert not [path for path in Path(".headswap/embeddings").iterdir() if path.name.endswith(".tmp")]

    def test_a_dry_run_names_it_and_joins_nothing(self, project: Project, forwards: Count) -> None:
        params = project.write(embed=self.AWAY)
        prepare.main(params)
        said = embed.main(params, "tiny", dry_run=True)
        assert said == (
            "36 of 36 images would go through the CNN on the workers of dask at tcp://127.0.0.1:9; nothing was computed"
        )
        assert forwards() == 0

    def test_a_dry_run_tells_the_pace_of_one_worker(self, project: Project) -> None:
        run(project)
        write_image(Path("data/raw/red/new.png"), "red", 99)
        params = project.write(embed=self.AWAY)
        prepare.main(params)
        assert re.search(r"tcp://127.0.0.1:9, about \d+ s of one worker at", embed.main(params, "tiny", dry_run=True))

    def test_its_workers_make_the_matrix_that_one_process_makes(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        views = {"copies": 2, "on_bad_image": "skip"}
        Path("data/raw/red/00.png").write_bytes(b"no image")
        expected = run(project, embed=views)
        shutil.rmtree(".headswap")
        dealt = list[object]()

        class Here:
            rounds = RemoteCluster.rounds

            def slots(self, *, gpu: bool = False) -> int:
                return 0 if gpu else 2

            def each(self, function: Callable[[Any], Any], tasks: Any, *, gpu: bool = False) -> Iterator[Any]:
                dealt.extend(tasks)
                yield from map(function, reversed(tasks))

        @contextmanager
        def joined(engine: object, identity: Callable[[], object]) -> Iterator[Here]:
            identity()
            yield Here()

        monkeypatch.setattr(embedding, "joined", joined)
        assert run(project, embed={**views, **self.AWAY}) == expected
        assert len(dealt) > 9
