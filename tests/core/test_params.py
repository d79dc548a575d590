from pathlib import Path
from typing import Any

import pytest

from pipeline.core import params
from pipeline.core.errors import InputError
from tests.conftest import REPOSITORY, Project


def problems(**sections: Any) -> str:
    with pytest.raises(InputError) as caught:
        sections["project"].write(**{name: value for name, value in sections.items() if name != "project"})
    return "\n".join(caught.value.problems)


def test_the_repositorys_own_file_is_valid() -> None:
    assert params.load(REPOSITORY / "params.yaml").run.backbones == ["efficientnet_lite0"]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"sead": 1}, "params.yaml: top level: unknown key: got 'sead', expected one of: "),
        ({"sead": 1}, "did you mean 'seed'?"),
        ({"embed": {"batchsize": 8}}, "params.yaml: embed: unknown key: got 'batchsize'"),
        ({"embed": {"batchsize": 8}}, "did you mean 'batch_size'?"),
        ({"plans": {"last": {"unfreeze_from": "second", "epoch": 1}}}, "plans.last: unknown key: got 'epoch'"),
        ({"backbones": {"tiny": {"image_sise": 8}}}, "did you mean 'image_size'?"),
        ({"embed": {"batch_size": 0}}, "embed.batch_size: got 0, expected a number above 0"),
        (
            {"embed": {"dtype": "float8"}},
            "embed.dtype: got 'float8', expected one of: float16, float32; did you mean 'float32'?",
        ),
        (
            {"run": {"heads": ["logreg", "Last"]}, "heads": {"logreg": {}, "Last": {"kind": "knn"}}},
            "params.yaml: run: 'Last' and 'last' differ in case alone, and some file systems take them for one",
        ),
        ({"split": {"val": 0.5, "test": 0.5}}, "split: val + test = 1, expected less than 1"),
        ({"run": {"heads": ["logrg"]}}, "run.heads: got 'logrg', expected one of: knn, logreg; did you mean 'logreg'?"),
        ({"run": {"backbones": ["tinny"]}}, "did you mean 'tiny'?"),
        ({"run": {"plans": ["lats"]}}, "did you mean 'last'?"),
        ({"run": {"heads": ["knn", "knn"]}}, "run.heads: 'knn' is listed twice"),
        ({"heads": {"last": {}}}, "'last' is both a head and a plan"),
        ({"heads": {"../up": {}}}, "a name becomes a file name"),
        ({"heads": {"rbf.v2": {}}}, "a part of a DVC key"),
        ({"heads": {"--help": {}}}, "letters, digits, '_' and '-' only"),
        ({"heads": {"logreg": {"C": float("inf")}}}, "heads.logreg.C: expected a finite single value"),
        ({"heads": {"logreg": {"C": {"min": 1}}}}, "heads.logreg.C: expected a finite single value"),
        ({"embed": {"batch_size": 10**9}}, "got 1000000000, expected a number of at most 4096"),
        ({"compare": {"bootstrap": "many"}}, "compare.bootstrap: got 'many', expected a whole number"),
        ({"compare": {"bootstrap": 200.5}}, "compare.bootstrap: got 200.5, expected a whole number"),
        ({"compare": {"margin": "small"}}, "compare.margin: got 'small', expected a number"),
        ({"compare": {"margin": 1}}, "compare.margin: got 1, expected a number below 1"),
        ({"embed": {"scaled_jpeg": "perhaps"}}, "embed.scaled_jpeg: got 'perhaps', expected true or false"),
        ({"embed": {"dtype": 16}}, "embed.dtype: got '16', expected one of: float16, float32"),
        ({"data": {"source": 3}}, "data.source: got 3, expected text"),
        ({"run": {"heads": "knn"}}, "run.heads: got 'knn', expected a list"),
        ({"run": {"heads": []}}, "run.heads: got [], expected at least 1 of them"),
        ({"split": "hash"}, "split: got 'hash', expected a mapping of names to values"),
        ({"backbones": {"own": {"weights": "own.pth"}}}, "need their sha256 stated"),
    ],
)
def test_a_mistake_is_one_line_that_names_field_and_remedy(
    project: Project, sections: dict[str, Any], expected: str
) -> None:
    assert expected in problems(project=project, **sections)


def test_all_mistakes_are_reported_at_once(project: Project) -> None:
    found = problems(project=project, sead=1, embed={"batch_size": -1, "dtype": "int8"})
    assert len(found.splitlines()) == 3


@pytest.mark.parametrize("key", ["seed", "data", "split", "embed", "selection", "compare", "run"])
def test_what_dvc_yaml_names_must_be_there(project: Project, key: str) -> None:
    del project.content[key]
    assert f"params.yaml: {key}: missing" in problems(project=project)


def test_a_wrong_value_of_a_head_is_one_line(project: Project) -> None:
    assert len(problems(project=project, heads={"logreg": {"C": {"min": 1}}}).splitlines()) == 1


def test_numbers_are_read_as_dvc_reads_them(project: Project) -> None:
    text = Path("params.yaml").read_text().replace("bootstrap: 200", "bootstrap: 1e3, margin: 1e-2")
    Path("params.yaml").write_text(text)
    read = params.load()
    assert (read.compare.bootstrap, read.compare.margin) == (1000, 0.01)


def test_a_missing_file_and_broken_yaml_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("run: [")
    with pytest.raises(InputError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: 1\ndata:\n  path: a\n source: b\n")
    with pytest.raises(InputError, match=r"params.yaml: line 4: not valid YAML: [^\n]*; look there and at"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(InputError, match="not valid YAML: not UTF-8 text"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a\n- b")
    with pytest.raises(InputError, match="expected sections"):
        params.load(tmp_path / "params.yaml")


def test_a_head_entry_need_not_be_a_mapping_of_anything(project: Project) -> None:
    assert "heads.logreg" in problems(project=project, heads={"logreg": "C"})


class TestEngine:
    @pytest.mark.parametrize(
        ("engine", "expected"),
        [
            ({"address": "tcp://h:1"}, "backend: got 'local' beside address 'tcp://h:1', expected dask or ray"),
            ({"backend": "dask"}, "address: got None, expected tcp://HOST:PORT of the scheduler"),
            ({"backend": "dask", "address": "h:8786"}, "address: got 'h:8786', expected tcp://HOST:PORT"),
            ({"backend": "dask", "address": "tcp://h"}, "address: got 'tcp://h', expected tcp://HOST:PORT"),
            ({"backend": "dask", "address": "http://h:8787"}, "got 'http://h:8787', expected tcp://HOST:PORT"),
            ({"backend": "ray"}, "address: got None, expected HOST:PORT of the head"),
            ({"backend": "ray", "address": "auto"}, "address: got 'auto', expected HOST:PORT of the head"),
            ({"backend": "ray", "address": "ray://h:10001"}, "got 'ray://h:10001', expected HOST:PORT of the head"),
            ({"backend": "spark"}, "embed.engine.backend: got 'spark', expected one of: dask, local, ray"),
            (
                {"backend": "dsak"},
                "embed.engine.backend: got 'dsak', expected one of: dask, local, ray; did you mean 'dask'?",
            ),
            ({"adress": "h:1"}, "embed.engine: unknown key: got 'adress', expected one of: address, backend; did you"),
        ],
    )
    def test_a_place_that_is_none_is_one_line(self, project: Project, engine: dict[str, Any], expected: str) -> None:
        found = problems(project=project, embed={"engine": engine})
        assert found.startswith("params.yaml: embed.engine")
        assert expected in found
        assert len(found.splitlines()) == 1

    @pytest.mark.parametrize(
        "engine",
        [
            {"backend": "dask", "address": "tcp://10.0.0.1:8786"},
            {"backend": "dask", "address": "tls://[::1]:8786"},
            {"backend": "ray", "address": "head.example.org:6379"},
            {"backend": "local"},
        ],
    )
    def test_a_place_is_read_as_it_stands(self, project: Project, engine: dict[str, Any]) -> None:
        assert project.write(embed={"engine": engine}).embed.engine.model_dump() == {"address": None, **engine}

    def test_work_stays_here_unless_told_otherwise(self, project: Project) -> None:
        assert project.write().embed.engine.backend == "local"
