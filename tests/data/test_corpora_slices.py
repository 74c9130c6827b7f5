"""Real slices of the corpora: they are read, built and checked, and what is wrong with them is counted."""

import gzip
import json
import re
from pathlib import Path

import audit
import polars as pl
import pytest
import yaml
from datasets import load_dataset
from raw_shop import rows, words

from recfound_data import TASKS, BuildSummary, build, check
from recfound_data.corpora import AmazonReviews2018, MovieLens
from recfound_data.errors import RecfoundError
from recfound_data.people import UserKey

pytestmark = pytest.mark.corpora
RECIPE = Path(__file__).parents[2] / "recipes" / "slices.yaml"
KEY = UserKey("key", secret=True)


@pytest.fixture(scope="module")
def built(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildSummary:
    """The dataset of `recipes/slices.yaml`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFOUND_CORPORA", str(corpora))
        return build(RECIPE, tmp_path_factory.mktemp("slices") / "dataset", quiet=True)


def test_the_recipe_of_the_slices_builds_and_passes_the_check(built: BuildSummary) -> None:
    assert check(built.path).findings == ()
    for task in yaml.safe_load(RECIPE.read_text())["tasks"]:
        assert min(built.rows[task][split] for split in ("train", "validation", "test")) > 50


def test_one_recipe_builds_all_thirteen_tasks(corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECFOUND_CORPORA", str(corpora))
    built = build(RECIPE.with_name("thirteen.yaml"), tmp_path / "dataset", workers=2, quiet=True)
    assert set(TASKS) < set(built.rows)
    assert all(built.rows[task][split] >= 20 for task in TASKS for split in ("train", "validation", "test"))
    assert check(built.path).findings == () and audit.audit(built.path) == []
    for task in TASKS:
        assert len(load_dataset(str(built.path), task, cache_dir=str(tmp_path / "cache"))) == 3


def test_every_corpus_gives_samples_and_says_what_it_dropped(built: BuildSummary) -> None:
    manifest = json.loads((built.path / "recfound.json").read_text())
    of_interactions = {"gift_cards", "movielens"}
    for task in ("user2item", "item2item", "sequential_recommendation"):
        assert set(manifest["configs"][task]["corpora"]) == of_interactions
    assert set(manifest["configs"]["query2item"]["corpora"]) == {"shopping_queries"}
    assert manifest["configs"]["items"]["corpora"]["movielens"] == {"train": 9_742}
    drops = built.drops["gift_cards"]
    assert drops["interaction repeated exactly"] > 0 and drops["interaction with a product again"] > 0


def test_official_test_queries_are_all_in_test(built: BuildSummary, corpora: Path) -> None:
    judged = pl.read_parquet(corpora / "shopping_queries/shopping_queries_dataset_examples.parquet")
    official = {words(query) for query in judged.filter(split="test")["query"]}
    exact = {words(query) for query in judged.filter(split="test", esci_label="E")["query"]}
    found = {split: {words(row["anchor"]) for row in rows(built.path, "query2item", split)} for split in
             ("train", "validation", "test")}  # fmt: skip
    assert found["test"] <= official and len(found["test"]) >= 0.9 * len(exact) > 10
    assert not official & (found["train"] | found["validation"])


def test_no_raw_user_id_is_in_a_sample(built: BuildSummary, corpora: Path) -> None:
    with gzip.open(corpora / "amazon_reviews_2018/Gift_Cards_5.json.gz", "rt") as lines:
        reviewers = {json.loads(line)["reviewerID"] for line in lines}
    assert len(reviewers) > 400 and all(re.fullmatch("A[A-Z0-9]{9,}", user) for user in reviewers)
    samples = json.dumps([rows(built.path, task) for task in ("user2item", "sequential_recommendation", "qrels")])
    assert not reviewers & set(re.findall("A[A-Z0-9]{9,}", samples))


def test_load_dataset_reads_the_slices(built: BuildSummary, tmp_path: Path) -> None:
    loaded = load_dataset(str(built.path), "query2item", cache_dir=str(tmp_path))
    assert {split: len(found) for split, found in loaded.items()} == built.rows["query2item"]


def test_movielens_1m_is_read(corpora: Path) -> None:
    folder = corpora / "movielens/ml-1m"
    reader = MovieLens(ratings=str(folder / "sample_movielens_rating.dat"), movies=str(folder / "movies.dat"))
    batches = list(reader.batches(KEY))
    tables = {name: pl.concat(b.frame for b in batches if b.table == name) for name in ("interactions", "items")}
    assert len(tables["interactions"]) == 100_000 and len(tables["items"]) == 3_883
    assert not any(batch.unparsable or sum(batch.drops.values()) for batch in batches)
    titles = dict(tables["items"].select("item_id", "title").iter_rows())
    assert titles["1"] == "Toy Story (1995)" and titles["11"] == "The American President (1995)"
    assert any("é" in title for title in titles.values())  # latin-1 bytes
    assert tables["interactions"].join(tables["items"], on="item_id", how="anti").is_empty()


def test_reviews_without_metadata_are_read_and_the_build_says_what_is_missing(corpora: Path, tmp_path: Path) -> None:
    path = corpora / "amazon_reviews_2018/All_Beauty_5.json.gz"
    empty = tmp_path / "meta.json"
    empty.write_text("")
    reader = AmazonReviews2018(reviews=str(path), metadata=str(empty))
    reviews = next(iter(reader.batches(KEY)))
    assert len(reviews.frame) == 5_269 and not reviews.unparsable and not sum(reviews.drops.values())
    recipe = tmp_path / "recipe.yaml"
    corpus = {"corpus": "amazon_reviews_2018", "name": "beauty", "reviews": str(path), "metadata": str(empty)}
    recipe.write_text(yaml.safe_dump({"corpora": [corpus], "tasks": ["user2item"]}))
    with pytest.raises(RecfoundError, match="corpus 'beauty' is empty: its files hold no item that can be used"):
        build(recipe, tmp_path / "dataset", quiet=True)
    corpus["metadata"] = str(corpora / "amazon_reviews_2018/meta_Gift_Cards.json.gz")  # of another category
    recipe.write_text(yaml.safe_dump({"corpora": [corpus], "tasks": ["user2item"]}))
    with pytest.raises(RecfoundError, match="task 'user2item' has no sample"):
        build(recipe, tmp_path / "dataset", quiet=True)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["meta.json", "recipe.yaml"]
