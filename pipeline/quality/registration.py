"""Registration: lay pictures over each other that may be cropped or scaled parts of one another.

A picture fills the square [-1, 1] x [-1, 1], y downwards. A warp (sy, ty, sx, tx) says where the other picture shows
what one shows at (y, x): at (sy y + ty, sx x + tx). All is done for P pairs at once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Single = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]

MOST = 0.13
"""Of a warp: how far a scale may lie from 1 and a shift from 0; more is no copy cropped by a few percent."""
_STEP = 0.06
_LEAST_GAIN = 0.2
_DAMPING = 1e-3


def coordinates(side: int) -> Single:
    """Return where the middles of so many pixels lie: (side,)."""
    return np.asarray((np.arange(side) + 0.5) / side * 2 - 1, np.float32)


def warped(pictures: Single, warp: Floats) -> tuple[Single, Single]:
    """Return pictures (P, S, S) under warps (P, 4), linearly interpolated, and 1 where they show something, else 0."""
    side = pictures.shape[-1]
    down, inside_down = interpolation(warp[:, :2], side)
    across, inside_across = interpolation(warp[:, 2:], side)
    moved = np.asarray(down @ pictures @ across.transpose(0, 2, 1), np.float32)
    return moved, inside_down[:, :, None] * inside_across[:, None, :]


def interpolation(warp: Floats, side: int) -> tuple[Single, Single]:
    """Return matrices (P, S, S) that apply warps (P, 2) along one axis, and 1 for places that are inside, else 0."""
    at = warp[:, :1] * coordinates(side) + warp[:, 1:]
    place = (at + 1) / 2 * side - 0.5
    inside = (place >= -0.5) & (place <= side - 0.5)
    place = np.clip(place, 0, side - 1)
    before = np.minimum(place.astype(np.intp), side - 2)
    share = (place - before).astype(np.float32)
    matrix = np.zeros((*at.shape, side), np.float32)
    pair, row = np.ogrid[: at.shape[0], : at.shape[1]]
    matrix[pair, row, before], matrix[pair, row, before + 1] = 1 - share, share
    return matrix, inside.astype(np.float32)


def refined(first: Single, second: Single, warp: Floats, steps: int) -> Floats:
    """Improve warps (P, 4) from the first pictures (P, S, S) to the second ones, by Gauss-Newton steps.

    The least squares of first - (gain * warped second + offset), linearised in the warp (Lucas & Kanade 1981, with gain
    and offset as in Baker, Gross & Matthews 2003): what is brighter or flatter is laid over just as well.
    """
    pairs, side, _ = first.shape
    at = coordinates(side)
    J = np.empty((pairs, 6, side, side), np.float32)
    flat, wanted = J.reshape(pairs, 6, -1), first.reshape(pairs, -1, 1)
    for _ in range(steps):
        moved, inside = warped(second, warp)
        _slopes(moved, J[:, 1], J[:, 3])
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


def _slopes(pictures: Single, down: Single, across: Single) -> None:
    """Put the slopes of pictures (P, S, S) into two arrays of their shape: central differences, 0 at the border."""
    half = np.float32(pictures.shape[-1] / 4)  # a pixel is 2 / S wide
    down[:, 0] = down[:, -1] = across[:, :, 0] = across[:, :, -1] = 0
    np.subtract(pictures[:, 2:], pictures[:, :-2], out=down[:, 1:-1])
    np.subtract(pictures[:, :, 2:], pictures[:, :, :-2], out=across[:, :, 1:-1])
    down *= half
    across *= half
