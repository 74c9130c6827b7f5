"""The shop's films and their ratings as MovieLens publishes them: two CSV files."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.shop.catalogue import POPULARITY_SKEW, Buckets
from recfound_data.shop.names import made_up_names
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.sizes import RATINGS_PER_FILM_USER, Block, Sizes, blocks, history_lengths
from recfound_data.shop.tastes import DAYS, FIRST_DAY, without_repeats

WITHIN_TASTE = 0.8
SEQUEL_NEXT = 0.6
SEQUELS = 0.3
SECOND_GENRE = 0.4
NO_GENRE = 0.005
NO_YEAR = 0.005
_TITLE_NAMES = 600
_FIRST_SECOND = FIRST_DAY * 86_400


class Genre(NamedTuple):
    """A genre by its MovieLens name, and the words of its titles."""

    name: str
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]


GENRES: tuple[Genre, ...] = (
    Genre(
        "Action", ("Explosive", "Relentless", "Bulletproof", "Furious"), ("Commando", "Pursuit", "Mercenary", "Strike")
    ),
    Genre("Adventure", ("Lost", "Uncharted", "Golden", "Distant"), ("Expedition", "Treasure", "Voyage", "Island")),
    Genre(
        "Children", ("Little", "Cuddly", "Giggling", "Brave Little"), ("Puppy", "Treehouse", "Playground", "Balloon")
    ),
    Genre(
        "Comedy", ("Clumsy", "Awkward", "Hilarious", "Accidental"), ("Bridesmaid", "Roommates", "Vacation", "Butler")
    ),
    Genre("Crime", ("Crooked", "Stolen", "Guilty", "Undercover"), ("Heist", "Detective", "Racket", "Alibi")),
    Genre("Documentary", ("Untold", "Inside", "Living", "True"), ("Archive", "Glacier", "Portrait", "Chronicle")),
    Genre("Drama", ("Broken", "Quiet", "Tender", "Unspoken"), ("Daughter", "Promise", "Harvest", "Inheritance")),
    Genre("Fantasy", ("Enchanted", "Crystal", "Ancient", "Winged"), ("Dragon", "Wizard", "Kingdom", "Prophecy")),
    Genre("Horror", ("Haunted", "Bloody", "Cursed", "Screaming"), ("Crypt", "Cellar", "Asylum", "Scarecrow")),
    Genre("Romance", ("Forever", "Moonlit", "Secret", "Parisian"), ("Kiss", "Wedding", "Sweetheart", "Valentine")),
    Genre("Sci-Fi", ("Galactic", "Android", "Quantum", "Orbital"), ("Starship", "Colony", "Robot", "Nebula")),
    Genre("War", ("Fallen", "Wounded", "Frontline", "Last"), ("Battalion", "Trenches", "Armistice", "Soldier")),
)


@dataclass(frozen=True)
class Films:
    """All films, `[films]`; the parts of a series stand one after another."""

    titles: list[str]
    genres: list[str]
    genre: NDArray[np.int64]
    has_sequel: NDArray[np.bool_]
    quality: NDArray[np.float64]
    by_genre: Buckets


def write_films(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write `movies.csv` and `ratings.csv`."""
    films = draw_films(seed, sizes.films)
    with (folder / "movies.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("movieId", "title", "genres"))
        writer.writerows(zip(range(1, sizes.films + 1), films.titles, films.genres, strict=True))
    with (folder / "ratings.csv").open("wb") as ratings:
        ratings.write(b"userId,movieId,rating,timestamp\n")
        for block in blocks(sizes.film_users, sizes.film_ratings):
            table = _ratings(films, block, generator(seed, Part.FILM_TASTES, block.index))
            ratings.write(table.write_csv(include_header=False).encode("ascii"))


def draw_films(seed: int, count: int) -> Films:
    """Draw all films: a title tells its first genre, and some are sequels, which carry the first part's title."""
    random = generator(seed, Part.FILMS)
    names = made_up_names(random, _TITLE_NAMES, syllables=2)
    sequel = random.random(count) < SEQUELS
    sequel[0] = False
    genre = random.integers(len(GENRES), size=count)
    second = random.integers(len(GENRES), size=count)
    year = random.integers(1950, 2016, size=count)
    picks = random.integers(2**16, size=(count, 5)).tolist()
    part, titles, genres, taken = 1, [], [], set[str]()
    base = ""
    for index in range(count):
        if sequel[index]:
            part += 1
            genre[index], second[index] = genre[index - 1], second[index - 1]
            year[index] = min(year[index - 1] + 2, 2017)
        else:
            part, base = 1, _base_title(GENRES[genre[index]], picks[index], names)
            while base in taken:
                base = f"{base} in {names[picks[index][4] % len(names)]}"
                picks[index][4] += 1
            taken.add(base)
        title = base if part == 1 else f"{base} {part}"
        if title.startswith("The "):
            title = f"{title[4:]}, The"
        titles.append(title if random.random() < NO_YEAR else f"{title} ({year[index]})")
        genres.append(_genre_names(random, int(genre[index]), int(second[index])))
    return Films(
        titles=titles,
        genres=genres,
        genre=genre,
        has_sequel=np.append(sequel[1:], False),
        quality=random.standard_normal(count),
        by_genre=Buckets.by(genre, len(GENRES), random.random(count)),
    )


def _base_title(genre: Genre, picks: list[int], names: list[str]) -> str:
    adjective = genre.adjectives[picks[0] % len(genre.adjectives)]
    noun = genre.nouns[picks[1] % len(genre.nouns)]
    name = names[picks[2] % len(names)]
    forms = (f"The {adjective} {noun}", f"{noun} of {name}", f"{name}'s {adjective} {noun}", f"{adjective} {name}")
    return forms[picks[3] % len(forms)]


def _genre_names(random: np.random.Generator, first: int, second: int) -> str:
    if random.random() < NO_GENRE:
        return "(no genres listed)"
    both = {GENRES[first].name, GENRES[second].name} if random.random() < SECOND_GENRE else {GENRES[first].name}
    return "|".join(sorted(both))


def _ratings(films: Films, block: Block, random: np.random.Generator) -> pl.DataFrame:
    """Return the ratings of a block's users, by user and film as in MovieLens; nobody rates a film twice."""
    lengths = history_lengths(random, block, RATINGS_PER_FILM_USER)
    favourites = random.integers(len(GENRES), size=(block.users, 2))
    seen = np.full((block.users, int(lengths[0])), -1, dtype=np.int64)
    fits = np.zeros(seen.shape, dtype=np.bool_)
    for step in range(seen.shape[1]):
        active = int(np.searchsorted(-lengths, -step, side="left"))
        rows = np.arange(active)
        favourite = favourites[rows, (random.random(active) < 0.35).astype(np.int64)]
        elsewhere = films.genre[random.integers(len(films.genre), size=active)]
        genre = np.where(random.random(active) < WITHIN_TASTE, favourite, elsewhere)
        chosen = films.by_genre.draw(genre, random.random(active), POPULARITY_SKEW)
        if step:
            last = seen[:active, step - 1]
            sequel = films.has_sequel[last] & (random.random(active) < SEQUEL_NEXT)
            chosen = np.where(sequel, last + 1, chosen)

        def any_of_genre(rows: NDArray[np.int64], genre: NDArray[np.int64] = genre) -> NDArray[np.int64]:
            return films.by_genre.draw(genre[rows], random.random(len(rows)), 1.0)

        without_repeats(chosen, seen[:active, :step], len(films.genre), any_of_genre)
        seen[:active, step] = chosen
        fits[:active, step] = (films.genre[chosen][:, None] == favourites[:active]).any(axis=1)
    return _table(films, block, lengths, seen, fits, random)


def _table(
    films: Films,
    block: Block,
    lengths: NDArray[np.int64],
    seen: NDArray[np.int64],
    fits: NDArray[np.bool_],
    random: np.random.Generator,
) -> pl.DataFrame:
    written = seen >= 0
    gaps = 20 + (random.exponential(400, size=seen.shape)).astype(np.int64)
    start = random.integers((DAYS - 60) * 86_400, size=(block.users, 1))
    film = seen[written]
    opinion = 3.0 + np.where(fits[written], 1.0, -0.3) + 0.4 * films.quality[film]
    opinion += 0.6 * random.standard_normal(len(film))
    return pl.DataFrame(
        {
            "userId": 1 + block.first_user + np.repeat(np.arange(block.users), lengths),
            "movieId": film + 1,
            "rating": np.clip(np.round(opinion * 2) / 2, 0.5, 5.0),
            "timestamp": (_FIRST_SECOND + start + np.cumsum(gaps, axis=1))[written],
        }
    ).sort("userId", "movieId")
