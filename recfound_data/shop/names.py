"""Made-up names and ids: brands, product lines, ASINs, reviewer ids and reviewer names."""

import base64
import hashlib

import numpy as np

REVIEWER_NAMES: tuple[str, ...] = (
    "Orlaith Vandermoor", "Quillon Tazewell", "Bexley Strandqvist", "Ignatz Plumtree", "Zephyra Holloquist",
    "Thaddeo Wrenfold", "Marisca Oddleby", "Caspian Drumgoole", "Philippa Snorrason", "Jorunn Applegarth",
    "Lucasta Fennimore", "Barnabus Quirke", "Yolantha Merriweather", "Evander Stobbs", "Rosalba Kittredge",
    "Ulfric Pennyfeather", "Dorothea Zabriskie", "Hollis Grundvig", "Araminta Vosskuhler", "Cornelis Babbage-Roe",
)  # fmt: skip
"""Who signs the reviews. No other text of the shop holds any of these words, so one found in a dataset is a leak."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASINS = len(_DIGITS) ** 8
_ASIN_STEP = 1_586_874_322_001  # coprime with 36, so that the step visits every ASIN once

_ONSETS = (
    "b", "br", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p", "r", "s", "sk", "t", "tr", "v",
    "w", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "or", "el", "un")
_CODAS = ("", "n", "r", "l", "s", "x", "th", "nd", "rk", "m")


def made_up_names(random: np.random.Generator, count: int, syllables: int) -> list[str]:
    """Return `count` distinct pronounceable words, each with a capital."""
    names: dict[str, None] = {}
    while len(names) < count:
        batch = count - len(names) + 16
        onsets = random.integers(len(_ONSETS), size=(batch, syllables)).tolist()
        vowels = random.integers(len(_VOWELS), size=(batch, syllables)).tolist()
        codas = random.integers(len(_CODAS), size=batch).tolist()
        for heads, middles, coda in zip(onsets, vowels, codas, strict=True):
            word = "".join(_ONSETS[head] + _VOWELS[middle] for head, middle in zip(heads, middles, strict=True))
            names[(word + _CODAS[coda]).capitalize()] = None
    return list(names)[:count]


def asins(seed: int, first: int, count: int) -> list[str]:
    """Return the ids of `count` items from the `first` on: `B0` and eight characters, never the same for two items."""
    offset = int.from_bytes(hashlib.blake2b(f"asin/{seed}".encode(), digest_size=8).digest(), "big")
    ids = []
    for index in range(first, first + count):
        value = (index * _ASIN_STEP + offset) % _ASINS
        characters = []
        for _ in range(8):
            value, digit = divmod(value, len(_DIGITS))
            characters.append(_DIGITS[digit])
        ids.append("B0" + "".join(reversed(characters)))
    return ids


def reviewer_ids(seed: int, first: int, count: int) -> list[str]:
    """Return the ids of `count` reviewers from the `first` on: `A` and thirteen characters."""
    ids = []
    for index in range(first, first + count):
        digest = hashlib.blake2b(f"reviewer/{seed}/{index}".encode(), digest_size=8).digest()
        ids.append("A" + base64.b32encode(digest).decode()[:13])
    return ids


def account_ids(seed: int, first: int, count: int) -> list[str]:
    """Return the ids of `count` accounts from the `first` on, as the 2023 corpus has them: `AE` and 26 characters."""
    ids = []
    for index in range(first, first + count):
        digest = hashlib.blake2b(f"account/{seed}/{index}".encode(), digest_size=17).digest()
        ids.append("AE" + base64.b32encode(digest).decode()[:26])
    return ids
