import contextlib

import pytest

from pipeline.cli import main
from pipeline.core.errors import InputError
from tests.conftest import Project


def test_it_lists_the_catalogue_and_the_entries_of_params(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.networks import backbones

    few = {name: backbones.BACKBONES[name] for name in ("efficientnet_lite0", "resnet18", "tiny")}
    monkeypatch.setattr(backbones, "BACKBONES", few)
    monkeypatch.setenv("TORCH_HOME", "empty")
    project.content["backbones"]["mine"] = {"kind": "timm:gone"}
    project.write()
    assert main(["backbones"]) == 0
    summary, header, *rows, hint, use = capsys.readouterr().out.splitlines()
    assert "4 backbones, 2 of them set in params.yaml" in summary
    assert header.split() == ["name", "width", "parameters", "input", "weights", "here"]
    cells = {row.split()[0]: row.split() for row in rows}
    assert cells["efficientnet_lite0"][1:5] == ["1280", "3.4", "M", "224"]
    assert cells["efficientnet_lite0"][-1] == "yes"
    assert cells["resnet18"][1:] == ["512", "11.2", "M", "224", "torch-hub:resnet18-f37072fd.pth", "no"]
    assert cells["tiny"][-2:] == ["tiny.pth", "yes"]
    assert "got 'gone', expected one of" in next(row for row in rows if row.startswith("mine"))
    assert "timm:<model>" in hint
    assert "`  NAME: {}` under `backbones:`" in use


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        ("backbones", "efficientnet_lite1", "put this line under `backbones:`: `  efficientnet_lite1: {}`"),
        ("heads", "ridge", "put this line under `heads:`: `  ridge: {}`"),
        ("backbones", "efficientnet_lit1", "; did you mean 'efficientnet_lite1'?"),
        ("heads", "rigde", "; did you mean 'ridge'?"),
        ("plans", "lats", "; did you mean 'last'?"),
    ],
)
def test_a_backbone_without_an_entry_is_an_error_with_the_missing_line(
    project: Project, capsys: pytest.CaptureFixture[str], section: str, name: str, expected: str
) -> None:
    project.content["run"][section] = [name]
    with contextlib.suppress(InputError):
        project.write()
    for command in (["backbones"], ["doctor"]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(expected)


def test_the_line_is_enough(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.content["run"].update(heads=["ridge", "lda"], plans=[])
    project.content["heads"].update(ridge={}, lda=None)
    assert list(project.write().runs()) == [("tiny", "ridge"), ("tiny", "lda")]
    assert main(["train", "--backbone", "tiny", "--head", "nearest_mean"]) == 2
    assert "`heads:`: `  nearest_mean: {}`" in capsys.readouterr().err
