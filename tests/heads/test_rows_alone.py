"""A head predicts a row alike, whatever other rows it gets with it."""

import numpy as np
import pytest

from pipeline import heads
from tests.commands.predict.tables import same
from tests.heads.examples import QUICK, fit


@pytest.mark.processors
@pytest.mark.parametrize("name", list(heads.HEADS))
def test_no_heads_prediction_of_a_row_depends_on_the_others(name: str) -> None:
    generator = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[np.arange(90) % 3]
    X = generator.normal(size=(90, 160)).astype(np.float32) + (y == "a")[:, None]
    model = fit(name, {**QUICK.get(name, {}), "calibrate": "temperature"}, X, y).model
    rows = generator.normal(size=(heads.predicting.BLOCK + 45, 160)).astype(np.float16).astype(np.float32)
    together = heads.predict(model, rows)
    order = generator.permutation(len(rows))
    same(heads.predict(model, rows[order]), together[order])
    for some in ([3], [300], order[:37], order[:257]):
        same(heads.predict(model, rows[some]), together[some])
