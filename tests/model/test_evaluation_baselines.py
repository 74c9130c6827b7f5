"""Baselines: their expectation, their counts by hand, their seeds."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recfound_data.errors import UsageError
from recfound_data.layout import read_split
from recfound_data.samples import LETTERS
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.baselines import BASELINES, TASKS_OF, Together, WordIndex, item_scorer
from recfound_model.evaluation.ranking import load_rankings

GENERATIVE = "sequential_recommendation"


def likes_of(folder: Path) -> dict[str, set[str]]:
    """Of each user, what they liked in training."""
    users = set(read_split(folder, "queries", "train").filter(pl.col("task") == "user2item")["query_id"])
    found: dict[str, set[str]] = {}
    for query, item, _ in read_split(folder, "qrels", "train").iter_rows():
        if query in users:
            found.setdefault(query, set()).add(item)
    return found


def test_random_is_near_its_expectation(dataset):
    means = {"mrr@20": [], "recall@100": [], "recall@1": []}
    for seed in range(6):
        results = evaluate("random", dataset, tasks=["item2item", GENERATIVE], seed=seed).results
        for name, values in means.items():
            values += (results[GENERATIVE] if name == "recall@1" else results["item2item"]).scores[name].to_list()
    expected = {"mrr@20": [], "recall@100": []}
    for ranking in load_rankings(dataset, "item2item", "test"):
        for query in ranking.query_ids:
            out = (ranking.known.get(query, set()) - ranking.relevant[query]) | {query}
            candidates = len(set(ranking.item_ids) - out)
            right = len(ranking.relevant[query])
            expected["recall@100"].append(min(1, 100 / candidates))
            # P(first right answer at rank r) for answers drawn without replacement.
            none, mean = 1.0, 0.0
            for rank in range(1, min(20, candidates) + 1):
                hit = none * right / (candidates - rank + 1)
                none, mean = none - hit, mean + hit / rank
            expected["mrr@20"].append(mean)
    for name in ("mrr@20", "recall@100"):
        spread = np.std(means[name]) / len(means[name]) ** 0.5
        assert abs(np.mean(means[name]) - np.mean(expected[name])) < 4 * spread, name
    assert abs(np.mean(means["recall@1"]) - 1 / 20) < 4 * (1 / 20 * 19 / 20 / len(means["recall@1"])) ** 0.5


def test_popularity_chooses_the_option_that_most_users_liked_in_training(dataset):
    folder = Path(dataset)
    titles = {item: (corpus, title) for item, corpus, title in read_split(folder, "items")[:, [0, 1, 3]].iter_rows()}
    likes: dict[tuple[str, str], int] = {}
    for items in likes_of(folder).values():
        for item in items:
            likes[titles[item]] = likes.get(titles[item], 0) + 1
    result = evaluate("popularity", dataset, tasks=[GENERATIVE]).results[GENERATIVE].scores
    samples = read_split(folder, GENERATIVE, "test")
    assert result["query_id"].to_list() == samples["id"].to_list()
    decided = 0
    for hit, corpus, options, label in zip(
        result["recall@1"], samples["corpus"], samples["options"], samples["label"], strict=True
    ):
        counts = [likes.get((corpus, option), 0) for option in options]
        right, best = counts[LETTERS.index(label)], max(counts)
        decided += best > 0
        if right < best:
            assert hit == 0
        elif counts.count(best) == 1:
            assert hit == 1
    assert decided > len(samples) / 2


@pytest.mark.parametrize("task", ["user2item", "item2item"])
def test_cooccurrence_counts_users_who_liked_both(dataset, task):
    folder = Path(dataset)
    likes = likes_of(folder).values()
    checked = 0
    for ranking in load_rankings(dataset, task, "test", most=12):
        scorer = item_scorer("cooccurrence", ranking, dataset, None, seed=0)
        scores = scorer.scores(range(len(ranking.queries))).floor()
        for row, query in enumerate(ranking.query_ids):
            last = {query}
            if task == "user2item":
                title = ranking.queries[row].split("\n")[0]
                last = {i for i, t in zip(ranking.item_ids, ranking.titles, strict=True) if t == title}
            having = [items for items in likes if items & last]
            expected = [sum(item in items for items in having) for item in ranking.item_ids]
            assert scores[row].tolist() == expected
            checked += max(expected) > 1
    assert checked > 3


def test_cooccurrence_chooses_options_by_the_last_item_of_the_history(dataset):
    folder = Path(dataset)
    names: dict[tuple[str, str], set[str]] = {}
    for item, corpus, title in read_split(folder, "items")[:, [0, 1, 3]].iter_rows():
        names.setdefault((corpus, title), set()).add(item)
    likes = likes_of(folder).values()
    result = evaluate("cooccurrence", dataset, tasks=[GENERATIVE]).results[GENERATIVE].scores
    decided = 0
    for row, chosen in zip(read_split(folder, GENERATIVE, "test").iter_rows(named=True), result["answer"], strict=True):
        last = row["prompt"][0]["content"].split("latest first:\n- ")[1].split("\n")[0]
        having = [items for items in likes if items & names.get((row["corpus"], last), set())]
        counts = [
            sum(item in items for items in having for item in names.get((row["corpus"], option), ()))
            for option in row["options"]
        ]
        decided += max(counts) > 0
        assert counts[LETTERS.index(chosen)] == max(counts)
    assert decided > 5


def test_users_who_have_an_item_are_counted_once():
    from scipy.sparse import csr_matrix

    both = Together(csr_matrix(np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1]], np.float32)))
    assert both.counts([0]).tolist() == [2, 1, 1]
    assert both.counts([0, 1]).tolist() == [2, 1, 1]
    assert both.popularity().tolist() == [2, 1, 2]


def test_bm25_is_its_formula():
    texts = ["Red kettle of two litres", "a red, red mug", "running shoes", "mug", "x y"]
    words = [["red", "kettle", "two", "litres"], ["red", "red", "mug"], ["running", "shoes"], ["mug"], []]
    index = WordIndex(texts)
    length = sum(map(len, words)) / len(words)
    for query in (["red"], ["red", "mug"], ["mug", "unknown"], ["unknown"]):
        expected = []
        for held in words:
            score = 0.0
            for word in query:
                having = sum(word in other for other in words)
                idf = np.log(1 + (len(words) - having + 0.5) / (having + 0.5))
                often = held.count(word)
                score += idf * often / (often + 1.5 * (0.25 + 0.75 * len(held) / length)) if having else 0
            expected.append(score)
        assert index.scores(" ".join(query).upper()) == pytest.approx(expected, abs=1e-5)


def test_bm25_finds_what_shares_words(dataset):
    found = evaluate("bm25", dataset, tasks=["query2item"]).results["query2item"].summary["mrr@20"].value
    chance = evaluate("random", dataset, tasks=["query2item"]).results["query2item"].summary["mrr@20"].value
    assert found > 3 * chance


@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_baselines_are_seeded_and_do_not_depend_on_how_many_queries_there_are(dataset, protocol):
    tasks = ["query2item", GENERATIVE]

    def scores(seed, most=None):
        results = evaluate("random", dataset, tasks=tasks, seed=seed, most=most, protocol=protocol).results
        return [result.scores for result in results.values()]

    first, again, other, part = scores(0), scores(0), scores(1), scores(0, most=3)
    assert all(a.equals(b) for a, b in zip(first, again, strict=True))
    assert not any(a.equals(b) for a, b in zip(first, other, strict=True))
    for few, all_of_them in zip(part, first, strict=True):
        assert len(few) < len(all_of_them)
        assert few.equals(all_of_them.join(few.select("query_id"), on="query_id", how="semi", maintain_order="left"))


def test_each_baseline_does_the_tasks_it_has_something_to_say_to(thirteen):
    assert set(TASKS_OF) == set(BASELINES)
    for name in ("popularity", "cooccurrence"):
        found = evaluate(name, str(thirteen), most=2).results
        assert set(found) == set(TASKS_OF[name])
    labels = read_split(thirteen, "sentiment_analysis", "train")["label"].value_counts(sort=True)["label"][0]
    chosen = evaluate("popularity", str(thirteen), tasks=["sentiment_analysis"]).results["sentiment_analysis"].scores
    assert set(chosen["answer"]) == {labels}
    with pytest.raises(UsageError, match="cooccurrence cannot do query2item; it does user2item"):
        evaluate("cooccurrence", str(thirteen), tasks=["query2item"])
