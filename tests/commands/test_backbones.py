import pytest

from pipeline.cli import main
from tests.conftest import Project


def test_it_lists_the_catalogue_and_the_entries_of_params(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.nn import backbones

    few = {name: backbones.BACKBONES[name] for name in ("efficientnet_lite0", "resnet18", "tiny")}
    monkeypatch.setattr(backbones, "BACKBONES", few)
    monkeypatch.setenv("TORCH_HOME", "empty")
    project.content["backbones"]["mine"] = {"kind": "timm:gone"}
    project.write()
    assert main(["backbones"]) == 0
    summary, header, *rows, hint = capsys.readouterr().out.splitlines()
    assert "4 backbones, 2 of them set in params.yaml" in summary
    assert header.split() == ["name", "width", "parameters", "input", "weights", "here"]
    cells = {row.split()[0]: row.split() for row in rows}
    assert cells["efficientnet_lite0"][1:5] == ["1280", "3.4", "M", "224"]
    assert cells["efficientnet_lite0"][-1] == "yes"
    assert cells["resnet18"][1:] == ["512", "11.2", "M", "224", "torch-hub:resnet18-f37072fd.pth", "no"]
    assert cells["tiny"][-2:] == ["tiny.pth", "yes"]
    assert "got 'gone', expected one of" in next(row for row in rows if row.startswith("mine"))
    assert "timm:<model>" in hint
