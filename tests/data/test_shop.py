"""The synthetic shop: equal bytes for equal seeds, the corpora's own formats, and the structure that is planted."""

import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.shop import REVIEWER_NAMES, ShopSummary, generate, reviews_2018
from recfound_data.shop.review_prose import DETAILS
from recfound_data.shop.sizes import Sizes, blocks
from recfound_data.shop.tastes import without_repeats
from recfound_data.shop.taxonomy import ATTRIBUTES, CATEGORY_NAMES, DEPARTMENTS, KINDS

REVIEW_KEYS = {
    "overall", "vote", "verified", "reviewTime", "reviewerID", "asin", "style", "reviewerName", "reviewText", "summary",
    "unixReviewTime", "image",
}  # fmt: skip
METADATA_KEYS = [
    "category", "tech1", "description", "fit", "title", "also_buy", "tech2", "brand", "feature", "rank", "also_view",
    "details", "main_cat", "similar_item", "date", "price", "asin", "imageURL", "imageURLHighRes",
]  # fmt: skip
EXAMPLES = {
    "example_id": pl.Int64, "query": pl.String, "query_id": pl.Int64, "product_id": pl.String,
    "product_locale": pl.String, "esci_label": pl.String, "small_version": pl.Int64, "large_version": pl.Int64,
    "split": pl.String,
}  # fmt: skip
PRODUCTS = dict.fromkeys(
    ("product_id", "product_title", "product_description", "product_bullet_point", "product_brand", "product_color",
     "product_locale"),
    pl.String,
)  # fmt: skip


class Shop:
    """A generated shop and its files, read without the project's own readers."""

    def __init__(self, folder: Path, summary: ShopSummary) -> None:
        self.folder, self.summary = folder, summary
        self.review_lines = self.text("amazon_reviews_2018/Shop_5.json.gz").splitlines()
        self.reviews = [json.loads(line) for line in self.review_lines]
        self.metadata_lines = self.text("amazon_reviews_2018/meta_Shop.json.gz").splitlines()
        self.items = {item["asin"]: item for item in map(json.loads, self.metadata_lines)}
        self.examples = pl.read_parquet(folder / "shopping_queries/shopping_queries_dataset_examples.parquet")
        self.products = pl.read_parquet(folder / "shopping_queries/shopping_queries_dataset_products.parquet")
        self.ratings = pl.read_csv(folder / "movielens/ratings.csv")
        self.films = pl.read_csv(folder / "movielens/movies.csv")

    def text(self, path: str) -> str:
        return gzip.decompress((self.folder / path).read_bytes()).decode("ascii")

    def kind(self, asin: str) -> str | None:
        return self.items[asin]["category"][2] if asin in self.items else None

    def category(self, asin: str) -> str | None:
        return self.items[asin]["category"][1] if asin in self.items else None

    def histories(self) -> list[list[str]]:
        """Each user's items in order of time, duplicates left out."""
        bought = defaultdict(set)
        for review in self.reviews:
            bought[review["reviewerID"]].add((review["unixReviewTime"], review["asin"]))
        return [[asin for _, asin in sorted(history)] for history in bought.values()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    return Shop(folder, generate(folder, reviews=20_000, seed=7))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = "import sys; from recfound_data.shop import generate; generate(sys.argv[1], 600, 3)"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": f"UTC-{hash_seed}"}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / hash_seed)], env=environment, check=True)
    generate(tmp_path / "here", 600, 3)
    generate(tmp_path / "other", 600, 4)
    first, here, other = (digests(tmp_path / name) for name in ("1", "here", "other"))
    assert first == digests(tmp_path / "2") == here
    assert len(here) == 8
    assert here.keys() == other.keys()
    assert not set(here.values()) & set(other.values())


def test_gzip_header_has_no_time_and_no_name(small: Shop) -> None:
    for path in (small.folder / "amazon_reviews_2018").iterdir():
        header = path.read_bytes()[:10]
        assert header[3] == 0
        assert header[4:8] == bytes(4)


@pytest.mark.parametrize("reviews", [200, 217, 5_000])
def test_any_size_fills_an_empty_folder(tmp_path: Path, reviews: int) -> None:
    (tmp_path / "shop").mkdir()
    made = Shop(tmp_path / "shop", generate(tmp_path / "shop", reviews=reviews))
    assert len(made.reviews) == made.summary.reviews == reviews
    assert set(made.examples["split"]) == {"train", "test"}
    assert set(made.examples["esci_label"]) == set("ESCI")
    assert min(map(len, made.histories())) >= 5
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_sizes_are_bounded_and_blocks_share_out_all_rows() -> None:
    assert Sizes.of(20_000).items == 1_500
    assert Sizes.of(10_000_000_000).items == 500_000
    sizes = Sizes.of(123_457)
    cut = list(blocks(sizes.users, sizes.reviews - sizes.duplicate_reviews, sizes.duplicate_reviews))
    assert len(cut) > 2
    assert sum(block.users for block in cut) == sizes.users
    assert sum(block.rows + block.duplicates for block in cut) == sizes.reviews
    assert all(block.rows >= 5 * block.users for block in cut)
    assert [block.first_user for block in cut[1:]] == [block.first_user + block.users for block in cut[:-1]]


def test_summary_counts_what_was_written(small: Shop) -> None:
    summary = small.summary
    assert summary.reviews == len(small.review_lines) == 20_000
    assert summary.duplicate_reviews == len(small.review_lines) - len(set(small.review_lines)) == 200
    assert summary.users == len({review["reviewerID"] for review in small.reviews}) == 2_000
    assert summary.products == len(small.items) == len(small.products)
    assert summary.items == summary.products + summary.items_without_metadata
    assert summary.film_ratings == len(small.ratings)
    assert summary.film_users == small.ratings["userId"].n_unique()
    assert summary.films == len(small.films)
    assert summary.queries == small.examples["query_id"].n_unique()
    assert summary.judgements == len(small.examples)
    readme = (small.folder / "README.md").read_text(encoding="utf-8")
    assert "--reviews 20000 --seed 7" in readme
    assert f"{summary.judgements:,} judgements of {summary.queries:,} queries" in readme


def test_reviews_have_the_form_of_the_corpus(small: Shop) -> None:
    for line, review in zip(small.review_lines, small.reviews, strict=True):
        assert json.dumps(review) == line
        assert review.keys() <= REVIEW_KEYS
        assert REVIEW_KEYS - review.keys() <= {"vote", "style", "image", "reviewText"}
        assert type(review["overall"]) is float
        assert type(review["unixReviewTime"]) is int
        assert type(review.get("vote", "")) is str
        moment = datetime.fromtimestamp(review["unixReviewTime"], UTC)
        assert review["reviewTime"] == f"{moment:%m} {moment.day}, {moment.year}"
    assert {len(review["asin"]) for review in small.reviews} == {10}
    for key, fewest in (("vote", 0.05), ("style", 0.3), ("image", 0.001)):
        assert fewest < sum(key in review for review in small.reviews) / len(small.reviews) < 0.7


def test_metadata_has_the_form_of_the_corpus(small: Shop) -> None:
    assert len(small.metadata_lines) == len(small.items)
    for item in small.items.values():
        assert list(item) == METADATA_KEYS
        assert item["price"] == "" or re.fullmatch(r"\$[\d,]+\.\d\d( - \$[\d,]+\.\d\d)?", item["price"])
        assert isinstance(item["rank"], str | list)
        assert item["main_cat"] == item["category"][0]
        assert item["asin"] not in item["also_buy"] + item["also_view"]
        assert len(set(item["also_view"])) == len(item["also_view"])
    titles = small.products["product_title"]
    assert titles.n_unique() == len(titles)


def test_queries_have_the_official_columns(small: Shop) -> None:
    assert dict(small.examples.schema) == EXAMPLES
    assert dict(small.products.schema) == PRODUCTS
    assert set(small.examples["product_id"]) <= set(small.products["product_id"])
    by_query = small.examples.group_by("query_id").agg(
        pl.col("split").n_unique(), pl.col("query").n_unique(), pl.col("product_id").is_duplicated().any(), pl.len()
    )
    assert (by_query["split"] == 1).all()
    assert (by_query["query"] == 1).all()
    assert not by_query["product_id"].any()
    assert 10 < by_query["len"].mean() <= 12
    test = small.examples.filter(split="test")["query_id"].n_unique()
    assert test / len(by_query) == pytest.approx(0.2, abs=0.01)
    assert small.examples["query"].n_unique() == len(by_query)


def test_films_have_the_form_of_the_corpus(small: Shop) -> None:
    assert small.ratings.columns == ["userId", "movieId", "rating", "timestamp"]
    assert small.films.columns == ["movieId", "title", "genres"]
    lines = (small.folder / "movielens/ratings.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"\d+,\d+,(0\.5|[1-4]\.[05]|5\.0),\d{9,10}", line) for line in lines)
    assert not small.ratings.select("userId", "movieId").is_duplicated().any()
    assert small.ratings.group_by("userId").len()["len"].min() >= 20
    assert small.films["title"].n_unique() == len(small.films)
    with_year = small.films["title"].str.contains(r" \(\d{4}\)$").mean()
    assert 0.97 < with_year < 1
    with (small.folder / "movielens/movies.csv").open(newline="", encoding="utf-8") as file:
        assert any(row[1].split(" (")[0].endswith(", The") for row in csv.reader(file))


def test_recipe_names_the_files_that_are_there(small: Shop) -> None:
    recipe = yaml.safe_load((small.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["seed"] == 7
    assert [corpus["corpus"] for corpus in recipe["corpora"]] == [
        "amazon_reviews_2018",
        "movielens",
        "shopping_queries",
    ]
    paths = [value for corpus in recipe["corpora"] for key, value in corpus.items() if "/" in value]
    assert len(paths) == 6
    assert all((small.folder / path).is_file() for path in paths)
    assert recipe["tasks"] == ["user2item", "query2item", "item2item", "sequential_recommendation"]


def test_vocabulary_is_unambiguous() -> None:
    nouns = [word.lower() for kind in KINDS for word in (*kind.titles, *kind.synonyms)]
    styles = [word.lower() for attribute in ATTRIBUTES for word in (attribute.title, *attribute.synonyms)]
    assert len(set(nouns + styles)) == len(nouns) + len(styles)
    assert 12 <= len(CATEGORY_NAMES) <= 24
    assert {len(kinds) for categories in DEPARTMENTS.values() for kinds in categories.values()} == {4}


def test_no_user_buys_an_item_twice(small: Shop) -> None:
    for history in small.histories():
        assert len(set(history)) == len(history)
        assert len(history) >= 5
    days = {(review["reviewerID"], review["unixReviewTime"]) for review in small.reviews}
    assert len(days) == small.summary.reviews - small.summary.duplicate_reviews


def test_repeats_are_replaced_even_where_redraws_fail() -> None:
    chosen = np.array([0, 3, 2])
    without_repeats(chosen, np.array([[0, 1], [3, 0], [0, 1]]), 4, lambda rows: np.zeros(len(rows), dtype=np.int64))
    assert chosen.tolist() == [2, 1, 2]


def test_history_tells_the_next_category_and_kind(small: Shop) -> None:
    order = {kind.titles[0]: place for place, kind in enumerate(KINDS)}
    cases, favourite, last_stays, follows, popular = 0, 0, 0, 0, Counter()
    for history in small.histories():
        *seen, target = [asin for asin in history if asin in small.items]
        categories = Counter(map(small.category, seen))
        cases += 1
        popular[small.category(target)] += 1
        favourite += categories.most_common(1)[0][0] == small.category(target)
        if small.category(seen[-1]) == small.category(target):
            last_stays += 1
            follows += (order[small.kind(target)] - order[small.kind(seen[-1])]) % 4 == 1
    assert max(popular.values()) / cases < 0.15
    assert favourite / cases > 0.5
    assert last_stays / cases > 0.5
    assert follows / last_stays > 0.6


def test_items_are_bought_by_taste_and_popularity(small: Shop) -> None:
    counts = sorted(Counter(review["asin"] for review in small.reviews).values(), reverse=True)
    assert sum(counts[: len(counts) // 10]) > 0.25 * sum(counts)
    pairs = agree = 0
    styles = [attribute.title for attribute in ATTRIBUTES]
    for history in small.histories():
        titles = [small.items[asin]["title"] for asin in history if asin in small.items]
        worn = [next((style for style in styles if f"{style} " in title), None) for title in titles]
        pairs += len(worn) - 1
        agree += sum(first == second for first, second in pairwise(worn))
    assert agree / pairs > 2 / len(styles)


def test_related_items_are_substitutes_and_complements(small: Shop) -> None:
    same_kind, other_kind, same_brand = [], [], []
    absent = 0
    for item in small.items.values():
        for asin in item["also_view"]:
            absent += asin not in small.items
            if asin in small.items:
                same_kind.append(small.kind(asin) == item["category"][2])
        for asin in item["also_buy"]:
            if asin in small.items:
                other_kind.append(
                    small.kind(asin) != item["category"][2] and small.items[asin]["main_cat"] == item["main_cat"]
                )
                same_brand.append(small.items[asin]["brand"] == item["brand"])
    assert 0.9 < np.mean(same_kind) < 1
    assert np.mean(other_kind) == 1
    assert np.mean(same_brand) > 0.6
    assert absent > 0


def test_labels_follow_kind_and_attribute(small: Shop) -> None:
    attribute_of = {word.lower(): a.title for a in ATTRIBUTES for word in (a.title, *a.synonyms)}
    kind_of = {word.lower(): k.titles[0] for k in KINDS for word in (*k.titles, *k.synonyms)}
    titles = dict(small.products.select("product_id", "product_title").iter_rows())
    overlap = []
    for query, asin, label in small.examples.select("query", "product_id", "esci_label").iter_rows():
        words = f" {query.split(' for ')[0].removeprefix('best ')} "
        attribute = next(a for word, a in attribute_of.items() if f" {word} " in words)
        kind = kind_of[max((word for word in kind_of if f" {word} " in words), key=len)]
        same_kind = small.kind(asin) == kind
        same_attribute = attribute in titles[asin]
        if label == "E":
            assert same_kind and same_attribute, (query, titles[asin])
            overlap.append(bool(set(words.split()) & set(titles[asin].lower().replace(",", "").split())))
        elif label == "S":
            assert same_kind and not same_attribute, (query, titles[asin])
        elif label == "C":
            wanted = next(item for item in small.items.values() if item["category"][2] == kind)
            assert not same_kind and small.category(asin) == wanted["category"][1]
        else:
            wanted = next(item for item in small.items.values() if item["category"][2] == kind)
            assert small.items[asin]["main_cat"] != wanted["main_cat"]
    assert 0.3 < np.mean(overlap) < 0.8


def test_sentiment_agrees_with_the_stars(small: Shop) -> None:
    stars = Counter(review["overall"] for review in small.reviews)
    assert 0.6 < stars[5.0] / len(small.reviews) < 0.7
    assert min(stars[star] for star in (1.0, 2.0, 3.0, 4.0)) > 0.01 * len(small.reviews)
    tails = {text.split("{noun}")[1]: place for place, pool in enumerate(DETAILS) for text in pool}
    del tails["."]
    found = 0
    for review in small.reviews:
        for tail, pool in tails.items():
            if tail in review.get("reviewText", ""):
                found += 1
                assert pool + 1 == review["overall"]
    assert found > 0.4 * len(small.reviews)


def test_films_are_seen_within_taste(small: Shop) -> None:
    joined = (
        small.ratings.join(small.films, on="movieId").with_columns(pl.col("genres").str.split("|")).explode("genres")
    )
    top = joined.group_by("userId", "genres").agg(pl.len(), pl.col("rating").mean()).sort("len", descending=True)
    seen = small.ratings.group_by("userId").agg(pl.len().alias("seen"), pl.col("rating").mean().alias("usual"))
    favourite = top.group_by("userId", maintain_order=True).first().join(seen, on="userId")
    assert (favourite["len"] / favourite["seen"]).mean() > 0.4
    assert (favourite["rating"] - favourite["usual"]).mean() > 0.15
    ordered = small.ratings.sort("userId", "timestamp")
    follows = (ordered["movieId"].diff() == 1) & (ordered["userId"].diff() == 0)
    assert follows.mean() > 0.08


def test_planted_faults_are_there_and_counted(small: Shop) -> None:
    items = small.items.values()
    readme = (small.folder / "README.md").read_text(encoding="utf-8")
    described = {item["asin"]: " ".join(item["description"]) for item in items}
    script = sum("getTime" in item["title"] for item in items)
    markup = sum(bool(re.search(r"<\w|&\w+;", item["title"])) for item in items)
    contacts = sum(bool(re.search(r"@example\.com|555-01\d\d", text)) for text in described.values())
    only_html = sum(text == "<p><br /></p>" for text in described.values())
    assert f"| titles that are a piece of script (`getTime`) | {script} |" in readme
    assert f"| titles with HTML tags or entities | {markup} |" in readme
    assert f"| descriptions with an e-mail address or phone number | {contacts} |" in readme
    assert f"| descriptions of HTML alone | {only_html} |" in readme
    assert min(script, markup, contacts, only_html) > 0
    assert 0.1 < np.mean([item["price"] == "" for item in items]) < 0.2
    assert any(review["asin"] not in small.items for review in small.reviews)
    assert any("reviewText" not in review for review in small.reviews)
    assert any("@example.com" in review.get("reviewText", "") for review in small.reviews)


def test_reviewer_names_stand_in_their_field_alone(small: Shop) -> None:
    assert {review["reviewerName"] for review in small.reviews} <= set(REVIEWER_NAMES)
    elsewhere = "\n".join(
        [
            *small.metadata_lines,
            *(f"{review.get('reviewText')} {review['summary']}" for review in small.reviews),
            *small.products["product_title"],
            *small.films["title"],
        ]
    ).lower()
    assert not [word for name in REVIEWER_NAMES for word in name.lower().split() if word in elsewhere]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder: remove it, or give --out"):
        generate(tmp_path, 200)
    with pytest.raises(UsageError, match="not an empty folder"):
        generate(tmp_path / "mine.txt", 200)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("reviews", "seed", "option"), [(199, 0, "--reviews"), (200, -1, "--seed")])
def test_impossible_numbers_are_refused(tmp_path: Path, reviews: int, seed: int, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        generate(tmp_path / "out", reviews, seed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_shop_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(reviews_2018, "write_reviews", fail)
    with pytest.raises(RecfoundError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        generate(tmp_path / "out", 200)
    if isinstance(error, OSError):
        assert "No space left on device" in str(raised.value)
    assert not list(tmp_path.iterdir())
