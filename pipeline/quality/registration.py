"""Registration: align pictures that may be cropped or scaled parts of one another.

A picture fills the square [-1, 1] x [-1, 1], y downwards. A warp (sy, ty, sx, tx) maps the point (y, x) of one picture
to the point (sy y + ty, sx x + tx) of the other. All functions work on P pairs at once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Single = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]

MOST = 0.13
"""How far a warp's scale may be from 1, and its shift from 0: enough for a copy cropped by a few percent."""
_STEP = 0.06
_LEAST_GAIN = 0.2
_DAMPING = 1e-3


def coordinates(side: int) -> Single:
    """Return the coordinates of the centres of `side` pixels: (side,)."""
    return np.asarray((np.arange(side) + 0.5) / side * 2 - 1, np.float32)


def warped(pictures: Single, warp: Floats) -> tuple[Single, Single]:
    """Return pictures (P, S, S) under warps (P, 4), linearly interpolated, and a mask of the points inside, 1 or 0."""
    side = pictures.shape[-1]
    down, inside_down = interpolation(warp[:, :2], side)
    across, inside_across = interpolation(warp[:, 2:], side)
    moved = np.asarray(down @ pictures @ across.transpose(0, 2, 1), np.float32)
    return moved, inside_down[:, :, None] * inside_across[:, None, :]


def interpolation(warp: Floats, side: int) -> tuple[Single, Single]:
    """Return matrices (P, S, S) that apply warps (P, 2) along one axis, and a mask (P, S) of points inside, 1 or 0."""
    at = warp[:, :1] * coordinates(side) + warp[:, 1:]
    pixel = (at + 1) / 2 * side - 0.5
    inside = (pixel >= -0.5) & (pixel <= side - 0.5)
    pixel = np.clip(pixel, 0, side - 1)
    before = np.minimum(pixel.astype(np.intp), side - 2)
    share = (pixel - before).astype(np.float32)
    matrix = np.zeros((*at.shape, side), np.float32)
    pair, row = np.ogrid[: at.shape[0], : at.shape[1]]
    matrix[pair, row, before], matrix[pair, row, before + 1] = 1 - share, share
    return matrix, inside.astype(np.float32)


def refined(first: Single, second: Single, warp: Floats, steps: int) -> Floats:
    """Improve warps (P, 4) from the first pictures (P, S, S) to the second ones, by Gauss-Newton steps.

    It minimises the squares of first - (gain * warped second + offset), linearised in the warp (Lucas & Kanade 1981,
    with gain and offset as in Baker, Gross & Matthews 2003), so that brightness and contrast do not matter.
    """
    pairs, side, _ = first.shape
    at = coordinates(side)
    J = np.empty((pairs, 6, side, side), np.float32)
    flat, wanted = J.reshape(pairs, 6, -1), first.reshape(pairs, -1, 1)
    for _ in range(steps):
        moved, inside = warped(second, warp)
        _gradients(moved, J[:, 1], J[:, 3])
        J[:, 1] /= warp[:, 0, None, None]
        J[:, 3] /= warp[:, 2, None, None]
        np.multiply(J[:, 1], at[:, None], out=J[:, 0])
        np.multiply(J[:, 3], at, out=J[:, 2])
        J[:, 4], J[:, 5] = moved, 1
        J *= inside[:, None]
        H = (flat @ flat.transpose(0, 2, 1)).astype(np.float64)
        H[:, range(6), range(6)] = H[:, range(6), range(6)] * (1 + _DAMPING) + 1e-6
        solution = np.linalg.solve(H, flat @ wanted)[:, :, 0]
        gain = np.maximum(np.abs(solution[:, 4:5]), _LEAST_GAIN)
        warp = warp + np.clip(solution[:, :4] / gain, -_STEP, _STEP)
        warp[:, ::2] = np.clip(warp[:, ::2], 1 / (1 + MOST), 1 + MOST)
        warp[:, 1::2] = np.clip(warp[:, 1::2], -MOST, MOST)
    return warp


def _gradients(pictures: Single, down: Single, across: Single) -> None:
    """Write the gradients of pictures (P, S, S) into two arrays: central differences, 0 at the border."""
    half = np.float32(pictures.shape[-1] / 4)  # a pixel is 2 / S wide
    down[:, 0] = down[:, -1] = across[:, :, 0] = across[:, :, -1] = 0
    np.subtract(pictures[:, 2:], pictures[:, :-2], out=down[:, 1:-1])
    np.subtract(pictures[:, :, 2:], pictures[:, :, :-2], out=across[:, :, 1:-1])
    down *= half
    across *= half
