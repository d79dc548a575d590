"""An altered file is named with the way to get its bytes back that costs least."""

from pathlib import Path

import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.stamps import Stamp


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("predictions/tiny/knn.parquet", "delete it, then: dvc checkout predictions/tiny/knn.parquet"),
        ("models/tiny/knn/head.skops", "delete it, then: dvc checkout models/tiny/knn/head.skops"),
        ("data/manifest.parquet", "delete it, then: dvc checkout data/manifest.parquet"),
        ("reports/verdict.json", "delete it, then: dvc checkout reports/verdict.json"),
        ("metrics/tiny/knn.json", "restore it: git checkout metrics/tiny/knn.json"),
        ("data/raw/a/1.png", "restore the original, or run `dvc repro` if the change was meant"),
    ],
)
def test_an_altered_file_is_restored_and_not_everything_run_again(
    name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True)
    Path(name).write_text("altered")
    with pytest.raises(StateError) as caught:
        stamps.check(Path(name), Stamp("train", {name: "0" * 64}, {}))
    assert str(caught.value).endswith(f"as stamped; {advice}")
