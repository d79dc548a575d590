"""Near-duplicates: images whose pixels agree once one is registered to the other.

Embeddings alone do not find them: a copy without 2.5% of each border may be further from its original than two
different images of one task are from each other. So candidates are registered (`registration`) and compared, at 32
pixels and, if they are similar there, at 64. Only what distinguishes the images of this data set is compared:

- Both pictures are band-passed by normalised convolution within their common part (Knutsson & Westin 1993), from the
  resolution of the smaller one up, so that cropping, scaling and slow shading do not count.
- The data set's first 16 principal pictures, and its mean, are regressed out of both, as in a partial correlation: so
  the frame, busbars and corners that all cells of a solar panel share do not count.

The score is the correlation of the residuals. docs/quality.md measures the effect of the thresholds.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.core import systems
from pipeline.core.threads import one_thread
from pipeline.quality import candidates, registration, signatures
from pipeline.quality.candidates import Pairs, normalised, shrunk
from pipeline.quality.registration import Floats, Single

BLANK = 3.0
"""Standard deviation, in grey values of 255: an image that varies less has nothing to compare."""
COLOUR = 16.0
"""Mean difference in Cb or Cr, of 255: images that differ so much are no copies."""
PRINCIPAL, FITTED = 16, 1000
STEPS = {32: 3, 64: 2}
"""Pixels of a side -> steps of the registration."""
SLACK = 0.2
"""How far a pair may be below the threshold at 32 pixels and still be compared at 64."""
COARSE_DETAIL = 3.5
"""Standard deviation, in pixels of 64, of the Gaussian that removes slow shading."""
_FEWEST = 8
"""Images per principal picture that is regressed out."""
_EDGE = 3
"""Pixels of 64 at every border that resampling makes unreliable."""
_BLOCK = 128


def contrast(given: signatures.Parts) -> Floats:
    """Return each picture's larger standard deviation, of brightness or colour, in values of 255: (N,)."""
    colour = given.colour.reshape(len(given.colour), 2, -1).std(axis=2).max(axis=1)
    return np.asarray(np.maximum(_spread(given.grey), colour))


def _spread(grey: npt.NDArray[np.uint8]) -> Floats:
    """Return each picture's standard deviation (N,), in blocks: in double precision pictures are large."""
    starts = range(0, len(grey), 1024)
    return np.concatenate([np.empty(0), *(grey[start : start + 1024].std(axis=(1, 2)) for start in starts)])


def find(
    given: signatures.Parts, least: float, seed: int, progress: Callable[[int], object] = id
) -> tuple[Pairs, Floats]:
    """Return the pairs of near-duplicates, equal images included, and their scores, from `least` to 1.

    Args:
        given: N signatures.
        least: the least score of near-duplicates.
        seed: of the sample from which the principal pictures are computed.
        progress: called with the number of newly compared candidates.

    """
    pictured = np.flatnonzero(_spread(given.grey) >= BLANK)
    pictures = given.grey[pictured]
    with one_thread(), ThreadPoolExecutor(systems.cores()) as pool:
        pairs = candidates.find(pictures, seed)
        if not len(pairs.first):
            return pairs, np.empty(0)
        pairs = pairs.chosen(_same_colour(given.colour[pictured], pairs))
        compare = partial(
            _scores, pictures, given.side[pictured], _PrincipalPictures(pictures, given.side, seed), least
        )
        scores: list[Floats] = [np.empty(0)]
        for of_block in pool.map(compare, _blocks(pairs)):
            scores.append(of_block)
            progress(len(of_block))
    score = np.round(np.concatenate(scores), 4)
    chosen = np.flatnonzero(score >= least)
    chosen = chosen[np.argsort(-score[chosen], kind="stable")]
    found = pairs.chosen(chosen)
    return found._replace(first=pictured[found.first], second=pictured[found.second]), score[chosen]


def _blocks(pairs: Pairs) -> Iterator[Pairs]:
    for start in range(0, len(pairs.first), _BLOCK):
        yield pairs.chosen(np.arange(start, min(start + _BLOCK, len(pairs.first))))


def _same_colour(colour: npt.NDArray[np.uint8], pairs: Pairs) -> npt.NDArray[np.bool_]:
    same = [np.empty(0, bool)]
    for one in _blocks(pairs):
        second = np.where(one.mirrored[:, None, None, None], colour[one.second][..., ::-1], colour[one.second])
        differing = np.abs(colour[one.first].astype(np.int16) - second).mean(axis=(2, 3)).max(axis=1)
        same.append(differing < COLOUR)
    return np.concatenate(same)


class _PrincipalPictures:
    """The mean and first principal pictures of a data set (S * S, K), band-passed at each resolution."""

    def __init__(self, pictures: npt.NDArray[np.uint8], side: npt.NDArray[np.uint8], seed: int) -> None:
        rows = np.sort(np.random.default_rng(seed).permutation(len(pictures))[:FITTED])
        self.sample = normalised(pictures[rows].astype(np.float32))
        details = [DETAILS[number] for number in np.unique(_detail(side))]
        self.pictures = {(pixels, detail): self._principal(pixels, detail) for pixels in STEPS for detail in details}

    def _principal(self, side: int, detail: float) -> Single:
        rows = _band_pass(shrunk(self.sample, side), np.ones((1, side, side), np.float32), detail)
        rows = rows.reshape(len(rows), -1)
        mean = rows.mean(axis=0, keepdims=True)
        number = min(PRINCIPAL, len(rows) // _FEWEST)
        if number == 0:
            return np.ones((side * side, 1), np.float32)
        # By the Gram matrix, since there are fewer pictures than pixels.
        _, axes = np.linalg.eigh((rows - mean) @ (rows - mean).T)
        principal = axes[:, -number:].T @ (rows - mean)
        shared = np.concatenate([np.ones_like(mean), mean, principal])
        norm = np.maximum(np.linalg.norm(shared, axis=1, keepdims=True), 1e-6)
        return np.ascontiguousarray((shared / norm * side).T, np.float32)


DETAILS = (0.7, 1.4, 2.8)
"""Standard deviations, in pixels of 64, of the Gaussian that removes detail which the smaller image cannot show."""


def _detail(side: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return the index in DETAILS for an image's shorter side: at least 64 pixels, at least 32, or fewer."""
    return np.where(side >= 64, 0, np.where(side >= 32, 1, 2))


def _scores(
    pictures: npt.NDArray[np.uint8], side: npt.NDArray[np.uint8], shared: _PrincipalPictures, least: float, pairs: Pairs
) -> Floats:
    """Return the scores of pairs (P,): at 64 pixels, or 0 if they already differ at 32."""
    first, second = (normalised(pictures[rows].astype(np.float32)) for rows in (pairs.first, pairs.second))
    second = np.where(pairs.mirrored[:, None, None], second[:, :, ::-1], second)
    detail = _detail(np.minimum(side[pairs.first], side[pairs.second]))
    warp: Floats = pairs.warp
    kept, score = np.arange(len(first)), np.zeros(len(first))
    for pixels, steps in STEPS.items():
        one, other = shrunk(first[kept], pixels), shrunk(second[kept], pixels)
        warp = registration.refined(one, other, warp, steps)
        score[:] = 0
        for number, width in enumerate(DETAILS):
            here = detail[kept] == number
            if here.any():
                common = shared.pictures[pixels, width]
                score[kept[here]] = _partial_correlation(one[here], other[here], warp[here], width, common)
        alike = score[kept] >= least - SLACK
        warp, kept = warp[alike], kept[alike]
        if not len(kept):
            break
    return score


def _partial_correlation(first: Single, second: Single, warp: Floats, detail: float, shared: Single) -> Floats:
    """Return the partial correlation (P,) of pictures (P, S, S) within their common part, given `shared` (S * S, K)."""
    moved, inside = registration.warped(second, warp)
    edge = _EDGE * first.shape[-1] // 64
    inside[:, :edge] = inside[:, -edge:] = inside[:, :, :edge] = inside[:, :, -edge:] = 0
    weight = inside.reshape(len(first), -1)
    both = [
        _band_pass(one, inside, detail).reshape(len(first), -1) * weight for one in (first, moved)
    ]  # (P, S * S) each
    basis = weight[:, :, None] * shared  # (P, S * S, K)
    gram = (basis.transpose(0, 2, 1) @ basis).astype(np.float64)
    diagonal = range(gram.shape[1])
    gram[:, diagonal, diagonal] += 1e-4 * np.trace(gram, axis1=1, axis2=2)[:, None] / gram.shape[1]
    wanted = basis.transpose(0, 2, 1) @ np.stack(both, axis=2)  # (P, K, 2)
    left = np.stack(both, axis=2) - basis @ np.linalg.solve(gram, wanted).astype(np.float32)
    one, other = left[:, :, 0].astype(np.float64), left[:, :, 1].astype(np.float64)
    norm = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / np.maximum(norm, 1e-6))


def _band_pass(pictures: Single, inside: Single, detail: float) -> Single:
    """Return the difference of two Gaussian blurs of pictures (P, S, S), each over `inside` (P or 1, S, S) only.

    The finer one is at least 0.7 pixels wide: finer detail does not survive resampling.
    """
    side = pictures.shape[-1]
    fine = max(detail * side / 64, DETAILS[0])

    def blurred(width: float) -> Single:
        blur = _gaussian(side, width)
        return np.asarray((blur @ (pictures * inside) @ blur) / np.maximum(blur @ inside @ blur, 1e-3))

    return blurred(fine) - blurred(max(COARSE_DETAIL * side / 64, 2 * fine))


def _gaussian(side: int, width: float) -> Single:
    """Return the matrix (S, S) that blurs along one axis."""
    apart = np.subtract.outer(np.arange(side), np.arange(side))
    kernel = np.exp(-(apart**2) / (2 * width**2))
    return np.asarray(kernel / kernel.sum(axis=1).max(), np.float32)
