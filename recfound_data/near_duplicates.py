"""Samples that read almost as one in another split: found by MinHash, and taken from training first of all.

Two texts are compared by the share of runs of five characters that they have in common (Jaccard), which 128 minima of
each estimate to about 0.04 (Broder 1997). Minima are made where the texts are; held-out ones alone are held in memory.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfound_data.errors import UsageError
from recfound_data.recipe import NearDuplicateSettings
from recfound_data.samples import SPLITS

SKETCH = "sketch.npy"
MINIMA = 128
_RUN = 5
_SPACES = re.compile(r"[\W_]+")

Sketch = NDArray[np.uint32]
Mask = NDArray[np.bool_]


def require_minhash() -> None:
    """Raise unless the library is installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("datasketch") is None:
        raise UsageError("near_duplicates needs datasketch; install it with: pip install 'recfound[near-duplicates]'")


def sketch(texts: Sequence[str]) -> Sketch:
    """Return the minima of each text, `[texts, 128]`; case and punctuation do not count."""
    found = np.empty((len(texts), MINIMA), np.uint32)
    for row, text in enumerate(texts):
        minima = _empty().copy()
        minima.update_batch(_runs(text))
        found[row] = minima.hashvalues
    return found


def _runs(text: str) -> list[bytes]:
    plain = _SPACES.sub(" ", text.lower()).strip()
    return sorted({plain[at : at + _RUN].encode() for at in range(max(len(plain) - _RUN + 1, 1))})


@lru_cache(maxsize=1)
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=MINIMA, seed=1, scheme="affine32")


def without_near_duplicates(
    folders: Sequence[Path],
    splits: Sequence[NDArray[np.uint8]],
    kept: Sequence[Mask],
    settings: NearDuplicateSettings,
) -> dict[str, int]:
    """Take from `kept` what is almost a sample of another split, and return how many went by reason.

    A test sample always stays; one of validation goes for a test sample, one of training for either.

    Args:
        folders: where the sketches of each plan lie.
        splits: of each plan's samples.
        kept: which of each plan's samples stay; changed here.
        settings: of the recipe.
    """
    held = _HeldOut(settings.threshold)
    gone: dict[str, int] = {}
    for split in reversed(range(len(SPLITS))):
        fresh = []
        for folder, of, mask in zip(folders, splits, kept, strict=True):
            rows = np.flatnonzero(mask & (of == split))
            if not len(rows):
                continue
            minima = np.load(folder / SKETCH, mmap_mode="r")[rows]
            near = held.nearest(minima)
            mask[rows[near >= 0]] = False
            for other in near[near >= 0]:
                reason = f"near-duplicate of a sample in {SPLITS[other]}"
                gone[reason] = gone.get(reason, 0) + 1
            fresh.append(minima[near < 0])
        if split:
            for minima in fresh:  # a split is no reason to take from itself
                held.add(minima, split)
    return gone


class _HeldOut:
    """Held-out samples, found again by their minima."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        # What is found is compared, so that finding too much costs little and missing some is what counts.
        self._found = MinHashLSH(threshold=threshold, num_perm=MINIMA, weights=(0.1, 0.9))
        self._minima: list[Sketch] = []
        self._split: list[int] = []

    def add(self, minima: Sketch, split: int) -> None:
        """Remember samples."""
        for row in minima:
            self._found.insert(len(self._split), _with(row))
            self._minima.append(row)
            self._split.append(split)

    def nearest(self, minima: Sketch) -> NDArray[np.int64]:
        """Return the split of the nearest sample of each row, -1 where none is near enough."""
        found = np.full(len(minima), -1, np.int64)
        for place, row in enumerate(minima):
            near = [
                (float((self._minima[key] == row).mean()), self._split[key]) for key in self._found.query(_with(row))
            ]
            share, split = max(near, default=(0.0, -1))
            if share >= self._threshold:
                found[place] = split
        return found


def _with(minima: Sketch) -> Any:
    filled = _empty().copy()
    filled.hashvalues = minima
    return filled
