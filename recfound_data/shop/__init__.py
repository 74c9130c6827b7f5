"""A synthetic shop in the raw formats of Amazon Reviews 2018, MovieLens and Shopping Queries, of any size."""

from dataclasses import dataclass
from pathlib import Path

from recfound_data.errors import UsageError
from recfound_data.shop.catalogue import draw_catalogue
from recfound_data.shop.files import whole_folder
from recfound_data.shop.films import write_films
from recfound_data.shop.metadata import write_metadata
from recfound_data.shop.names import REVIEWER_NAMES
from recfound_data.shop.prose import titles
from recfound_data.shop.queries import write_examples, write_products
from recfound_data.shop.readme import readme, recipe
from recfound_data.shop.reviews import write_reviews
from recfound_data.shop.sizes import Sizes

__all__ = ["REVIEWER_NAMES", "ShopSummary", "generate"]


@dataclass(frozen=True)
class ShopSummary:
    """What a shop holds: how many of each thing, and the seed that gives it again."""

    out: str
    seed: int
    reviews: int
    duplicate_reviews: int
    users: int
    items: int
    items_without_metadata: int
    film_ratings: int
    film_users: int
    films: int
    queries: int
    judgements: int
    products: int


def generate(out: str | Path, reviews: int = 20_000, seed: int = 0) -> ShopSummary:
    """Write a synthetic shop of `reviews` Amazon reviews, and films and searches to match, with a build recipe.

    Memory holds the items and one block of users, never the reviews. Equal `reviews` and `seed` give equal bytes.

    Args:
        out: The folder to write; it must not exist or be empty, and appears once everything is in it.
        reviews: How many reviews, exact duplicates included; 200 at least.
        seed: Zero or more.

    Raises:
        UsageError: `out` is not empty, or `reviews` or `seed` is too small.
        RecfoundError: A file could not be written; nothing is left behind.
    """
    if seed < 0:
        raise UsageError(f"a seed is zero or more, not {seed}: give --seed another number")
    sizes = Sizes.of(reviews)
    with whole_folder(Path(out)) as folder:
        amazon, movielens, searches = folder / "amazon_reviews_2018", folder / "movielens", folder / "shopping_queries"
        for part in (amazon, movielens, searches):
            part.mkdir()
        catalogue = draw_catalogue(seed, sizes.items)
        item_titles = titles(catalogue)
        write_metadata(amazon / "meta_Shop.json.gz", catalogue, item_titles, seed)
        products = write_products(searches / "shopping_queries_dataset_products.parquet", catalogue, item_titles, seed)
        queries, judgements = write_examples(
            searches / "shopping_queries_dataset_examples.parquet", catalogue, sizes, seed
        )
        write_films(movielens, sizes, seed)
        write_reviews(amazon / "Shop_5.json.gz", catalogue, sizes, seed)
        (folder / "README.md").write_text(readme(sizes, seed, products, queries, judgements), encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe(seed), encoding="utf-8")
    return ShopSummary(
        out=str(out),
        seed=seed,
        reviews=sizes.reviews,
        duplicate_reviews=sizes.duplicate_reviews,
        users=sizes.users,
        items=sizes.items,
        items_without_metadata=sizes.items - products,
        film_ratings=sizes.film_ratings,
        film_users=sizes.film_users,
        films=sizes.films,
        queries=queries,
        judgements=judgements,
        products=products,
    )
