"""A synthetic shop in the raw, published formats of recommendation corpora, of any size."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recfound_data.errors import UsageError
from recfound_data.shop.catalogue import Dirt, faulty_items
from recfound_data.shop.files import whole_folder
from recfound_data.shop.formats import DEFAULT, FORMATS, Stock, chosen
from recfound_data.shop.names import REVIEWER_NAMES
from recfound_data.shop.readme import readme, recipe
from recfound_data.shop.sizes import Sizes

__all__ = ["DEFAULT", "FORMATS", "REVIEWER_NAMES", "ShopSummary", "generate"]


@dataclass(frozen=True)
class ShopSummary:
    """What a shop holds: how many of each thing, and the seed that gives it again.

    Each of the Amazon formats has `reviews` reviews; counts of what no chosen format holds are 0.
    """

    out: str
    seed: int
    formats: tuple[str, ...]
    reviews: int
    duplicate_reviews: int
    users: int
    items: int
    items_without_metadata: int
    products: int
    film_ratings: int = 0
    film_users: int = 0
    films: int = 0
    queries: int = 0
    judgements: int = 0
    dialogues: int = 0
    labelled_products: int = 0
    questions: int = 0
    offer_pairs: int = 0


def generate(out: str | Path, reviews: int = 20_000, seed: int = 0, formats: Iterable[str] = DEFAULT) -> ShopSummary:
    """Write a synthetic shop of `reviews` Amazon reviews, and what goes with it, with a build recipe.

    Memory holds the items and one block of users, never the reviews. Equal arguments give equal bytes, and a format's
    files do not depend on which others are written.

    Args:
        out: The folder to write; it must not exist or be empty, and appears once everything is in it.
        reviews: How many reviews, exact duplicates included; 200 at least.
        seed: Zero or more.
        formats: Names of `FORMATS`, or `all`, which also gives the film users' ages, genders and occupations.

    Raises:
        UsageError: `out` is not empty, `reviews` or `seed` is too small, or a format is unknown.
        RecfoundError: A file could not be written; nothing is left behind.
    """
    if seed < 0:
        raise UsageError(f"a seed is zero or more, not {seed}: give --seed another number")
    names = chosen(formats)
    sizes = Sizes.of(reviews)
    stock = Stock(sizes, seed, everything=names == tuple(FORMATS))
    counts: dict[str, int] = {}
    with whole_folder(Path(out)) as folder:
        for name in names:
            (folder / name).mkdir()
            counts |= FORMATS[name].write(folder / name, stock)
        summary = ShopSummary(
            out=str(out),
            seed=seed,
            formats=names,
            reviews=sizes.reviews,
            duplicate_reviews=sizes.duplicate_reviews,
            users=sizes.users,
            items=sizes.items,
            items_without_metadata=faulty_items(Dirt.NO_METADATA, sizes.items),
            products=sizes.items - faulty_items(Dirt.NO_METADATA, sizes.items),
            **counts,
        )
        (folder / "README.md").write_text(readme(summary), encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe(names, seed), encoding="utf-8")
    return summary
