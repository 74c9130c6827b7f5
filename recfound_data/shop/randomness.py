"""Random numbers that depend on the seed, the part of the shop and the block alone, never on what was drawn before."""

from enum import IntEnum

import numpy as np


class Part(IntEnum):
    """The parts of the shop that draw random numbers; a value is a promise, since it decides the bytes of a shop."""

    CATALOGUE = 1
    NAMES = 2
    RELATIONS = 3
    TASTES = 4
    REVIEWS = 5
    FILMS = 6
    FILM_TASTES = 7
    QUERIES = 8
    QUESTIONS = 9
    OFFERS = 10
    ATTRIBUTES = 11
    DIALOGUES = 12
    DEMOGRAPHICS = 13


def generator(seed: int, part: Part, block: int = 0) -> np.random.Generator:
    """Return the generator of one block of one part: a Philox stream of its own."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(int(part), block))
    return np.random.Generator(np.random.Philox(sequence))
