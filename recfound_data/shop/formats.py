"""The formats that a shop can be written in: which files each has, and what a recipe and the README say of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from recfound_data.errors import UsageError
from recfound_data.recipe import nearest
from recfound_data.shop import attributes, metadata_2018, metadata_2023, offers, questions, reviews_2018, reviews_2023
from recfound_data.shop.catalogue import Catalogue, draw_catalogue
from recfound_data.shop.demographics import write_users
from recfound_data.shop.dialogues import write_dialogues
from recfound_data.shop.films import write_films
from recfound_data.shop.prose import titles
from recfound_data.shop.queries import write_examples, write_products
from recfound_data.shop.sizes import Sizes

_OTHER_SHOP = 1 << 64
"""Added to the seed of the 2023 corpus: two corpora with the same items would give the same samples twice."""


@dataclass(frozen=True)
class Stock:
    """What the formats are written from.

    Attributes:
        sizes: of every part.
        seed: of every draw.
        everything: all formats are written, so that films have users too.
    """

    sizes: Sizes
    seed: int
    everything: bool

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items of all formats but Amazon Reviews 2023."""
        return draw_catalogue(self.seed, self.sizes.items)

    @cached_property
    def titles(self) -> list[str]:
        """The clean titles of `catalogue`."""
        return titles(self.catalogue)


@dataclass(frozen=True)
class Format:
    """One corpus's format.

    Attributes:
        write: writes the files into a folder of their own, and returns how many there are of what.
        entries: keys and values of the corpus's entry in a recipe; paths are relative to the corpus's folder.
        tasks: what it feeds.
        rows: of the README's table: files, form, size, with the counts that `write` returns.
    """

    write: Callable[[Path, Stock], dict[str, int]]
    entries: dict[str, str]
    tasks: tuple[str, ...]
    rows: tuple[tuple[str, str, str], ...]


def _amazon_2018(folder: Path, stock: Stock) -> dict[str, int]:
    metadata_2018.write_metadata(folder / "meta_Shop.json.gz", stock.catalogue, stock.titles, stock.seed)
    reviews_2018.write_reviews(folder / "Shop_5.json.gz", stock.catalogue, stock.sizes, stock.seed)
    return {}


def _amazon_2023(folder: Path, stock: Stock) -> dict[str, int]:
    seed = stock.seed + _OTHER_SHOP
    catalogue = draw_catalogue(seed, stock.sizes.items)
    opinions = reviews_2023.write_reviews(folder / "Shop.jsonl.gz", catalogue, stock.sizes, seed)
    metadata_2023.write_metadata(folder / "meta_Shop.jsonl.gz", catalogue, titles(catalogue), opinions, seed)
    return {}


def _movielens(folder: Path, stock: Stock) -> dict[str, int]:
    write_films(folder, stock.sizes, stock.seed)
    if stock.everything:
        write_users(folder / "u.user", stock.sizes.film_users, stock.seed)
    return {"film_ratings": stock.sizes.film_ratings, "film_users": stock.sizes.film_users, "films": stock.sizes.films}


def _shopping_queries(folder: Path, stock: Stock) -> dict[str, int]:
    products = folder / "shopping_queries_dataset_products.parquet"
    write_products(products, stock.catalogue, stock.titles, stock.seed)
    examples = folder / "shopping_queries_dataset_examples.parquet"
    queries, judgements = write_examples(examples, stock.catalogue, stock.sizes, stock.seed)
    return {"queries": queries, "judgements": judgements}


_HISTORIES = ("user2item", "item2item", "sequential_recommendation")

FORMATS: dict[str, Format] = {
    "amazon_reviews_2018": Format(
        _amazon_2018,
        {"name": "shop", "domain": "Shop", "reviews": "Shop_5.json.gz", "metadata": "meta_Shop.json.gz"},
        _HISTORIES,
        (
            (
                "Shop_5.json.gz`",
                "Amazon Reviews 2018, 5-core in its users",
                "{reviews:,} reviews by {users:,} users, {duplicate_reviews:,} of them exact duplicates",
            ),
            ("meta_Shop.json.gz`", "Amazon Reviews 2018 metadata", "{products:,} of {items:,} items"),
        ),
    ),
    "amazon_reviews_2023": Format(
        _amazon_2023,
        {"name": "shop_2023", "domain": "Shop", "reviews": "Shop.jsonl.gz", "metadata": "meta_Shop.jsonl.gz"},
        _HISTORIES,
        (
            (
                "Shop.jsonl.gz`",
                "Amazon Reviews 2023",
                "{reviews:,} reviews by {users:,} users, {duplicate_reviews:,} of them exact duplicates",
            ),
            ("meta_Shop.jsonl.gz`", "Amazon Reviews 2023 metadata", "{products:,} of {items:,} items"),
        ),
    ),
    "movielens": Format(
        _movielens,
        {"name": "shop_films", "ratings": "ratings.csv", "movies": "movies.csv"},
        _HISTORIES,
        (
            (
                "ratings.csv`, `movies.csv`",
                "MovieLens, ml-latest",
                "{film_ratings:,} ratings by {film_users:,} users of {films:,} films",
            ),
        ),
    ),
    "shopping_queries": Format(
        _shopping_queries,
        {
            "name": "shop_queries",
            "examples": "shopping_queries_dataset_examples.parquet",
            "products": "shopping_queries_dataset_products.parquet",
        },
        ("query2item",),
        (
            (
                "*.parquet`",
                "Shopping Queries (ESCI)",
                "{judgements:,} judgements of {queries:,} queries, {products:,} products",
            ),
        ),
    ),
    "mudoco_qr": Format(
        lambda folder, stock: {
            "dialogues": write_dialogues(
                folder / "mudoco_shopping.json", stock.catalogue, stock.sizes.dialogues, stock.seed
            )
        },
        {"name": "shop_dialogues", "dialogues": "mudoco_shopping.json"},
        ("query_rewriting",),
        (("mudoco_shopping.json`", "MuDoCo-QR, one domain", "{dialogues:,} dialogues"),),
    ),
    "mave": Format(
        lambda folder, stock: {
            "labelled_products": attributes.write_attributes(
                folder, stock.catalogue, stock.sizes.labelled_products, stock.seed
            )
        },
        {"name": "shop_attributes", "positives": attributes.POSITIVES, "negatives": attributes.NEGATIVES},
        ("attribute_value_extraction",),
        (("*.jsonl`", "MAVE, joined with its texts", "{labelled_products:,} products"),),
    ),
    "amazonqa": Format(
        lambda folder, stock: {
            "questions": questions.write_questions(folder, stock.catalogue, stock.sizes.questions, stock.seed)
        },
        {"name": "shop_questions", "questions": "*-qar.jsonl"},
        ("answer_generation", "answerability_prediction"),
        (("*-qar.jsonl`", "AmazonQA", "{questions:,} questions"),),
    ),
    "amazon_google": Format(
        lambda folder, stock: {
            "offer_pairs": offers.write_pairs(folder, stock.catalogue, stock.sizes.offer_pairs, stock.seed)
        },
        {"name": "shop_offers", "domain": "Shop", **offers.SPLIT_FILES},
        ("product_matching",),
        (("*.csv`", "Amazon-Google, DeepMatcher's form", "{offer_pairs:,} pairs of offers"),),
    ),
}
DEFAULT = ("amazon_reviews_2018", "movielens", "shopping_queries")


def chosen(formats: Iterable[str]) -> tuple[str, ...]:
    """Return the formats asked for in the order of `FORMATS`, all of them for `all`.

    Raises:
        UsageError: one of them is unknown, or there is none.
    """
    wanted = set(formats)
    for name in sorted(wanted - {"all", *FORMATS}):
        raise UsageError(
            f"--formats: unknown format {name!r}{nearest(name, FORMATS)}; known: all, {', '.join(FORMATS)}"
        )
    if not wanted:
        raise UsageError(f"--formats names none; known: all, {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted or "all" in wanted)
