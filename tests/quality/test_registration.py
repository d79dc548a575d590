"""Pictures that were moved and stretched are laid over each other again."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.quality import registration
from pipeline.quality.candidates import normalised
from tests.quality.examples import cloud

scale, shift = st.floats(0.95, 1.05), st.floats(-0.04, 0.04)


def pictures(n: int = 3) -> np.ndarray:
    return normalised(np.stack([np.asarray(cloud(number, 64)) for number in range(n)]).astype(np.float32))


@given(scale, shift, scale, shift, st.floats(0.5, 2))
@settings(max_examples=20)
def test_a_warp_is_recovered_at_any_brightness(sy: float, ty: float, sx: float, tx: float, gain: float) -> None:
    original, warp = pictures(), np.tile([sy, ty, sx, tx], (3, 1))
    moved, _ = registration.warped(original, warp)
    found = registration.refined(gain * moved + 3, original, np.tile([1.0, 0, 1, 0], (3, 1)), 12)
    np.testing.assert_allclose(found, warp, atol=0.01)  # a third of a pixel


def test_no_warp_changes_nothing_and_shows_everything() -> None:
    original = pictures()
    moved, inside = registration.warped(original, np.tile([1.0, 0, 1, 0], (3, 1)))
    np.testing.assert_allclose(moved, original, atol=1e-5)
    assert inside.all()


def test_what_a_crop_does_not_show_is_outside() -> None:
    _, inside = registration.warped(pictures(1), np.array([[1.0, 0, 1.1, 0]]))
    columns = inside[0, 0]
    assert columns[:3].tolist() == columns[-3:].tolist() == [0, 0, 0]
    assert columns[3:-3].all()
