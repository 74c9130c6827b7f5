"""Who the film users say they are, as MovieLens 100K publishes it: `u.user`."""

from pathlib import Path

from recfound_data.shop.randomness import Part, generator

OCCUPATIONS: tuple[str, ...] = (
    "artist", "doctor", "educator", "engineer", "homemaker", "lawyer", "librarian", "marketing", "none", "other",
    "programmer", "retired", "scientist", "student", "technician", "writer",
)  # fmt: skip
_RETIRED, _STUDENT = 63, 22
"""From the one age on everybody is retired, below the other everybody is a student."""


def write_users(path: Path, users: int, seed: int) -> None:
    """Write a line a user: id, age, gender, occupation and a zip code that no place has."""
    random = generator(seed, Part.DEMOGRAPHICS)
    with path.open("w", encoding="ascii", newline="\n") as file:
        for user in range(1, users + 1):
            age = int(random.integers(14, 78))
            occupation = OCCUPATIONS[int(random.integers(len(OCCUPATIONS)))]
            if age >= _RETIRED or age < _STUDENT:
                occupation = "retired" if age >= _RETIRED else "student"
            file.write(f"{user}|{age}|{'MF'[int(random.integers(2))]}|{occupation}|00000\n")
