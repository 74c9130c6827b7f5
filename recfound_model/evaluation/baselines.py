"""Baselines: what needs no model. Each scores the items of a ranking, or the options of a prompt, from the data alone.

- `random`: a drawn order; a drawn option.
- `popularity`: the items that the most training samples have as positives; of options that are items, those that the
  most users liked in training; of other options, the one that the most training samples are labelled with.
- `cooccurrence`: items that the most users liked in training together with the last item of the history, or with the
  anchor; of those with as many, the more popular first.
- `bm25`: Lucene's BM25 (library bm25s, k1 1.5, b 0.75) of the query's words in the items' texts; for options, of the
  history's words in the options' titles. Words are runs of two or more letters, digits or underscores in lower case,
  without English stop words, not stemmed.

What is left equal is ordered by a seeded draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import bm25s
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_data.tasks import TASKS
from recfound_data.tasks.sequential_recommendation import option_title
from recfound_model.evaluation.ranking import CatalogueRanking
from recfound_model.training.streams import load_split, seed_of

BASELINES = ("random", "popularity", "cooccurrence", "bm25")
_CHOICE = "sequential_recommendation"
_LABELLED = tuple(name for name, spec in TASKS.items() if spec.metric in ("macro_f1", "f1_yes"))
_RANKED = tuple(name for name, spec in TASKS.items() if spec.kind == "embedding")
TASKS_OF = {
    "random": (*_RANKED, _CHOICE, *_LABELLED),
    "popularity": (*_RANKED, _CHOICE, *_LABELLED),
    "cooccurrence": ("user2item", "item2item", _CHOICE),
    "bm25": (*_RANKED, _CHOICE),
}
"""The tasks that each baseline has something to say to."""
_TIE = 1e-4
"""Below this, scores of BM25 are taken for equal."""


class ItemScorer(Protocol):
    """Scores all items of a ranking for some of its queries."""

    def scores(self, rows: range) -> Tensor:
        """Return [rows, items]; higher is better. Rows are asked for in order."""
        ...


class _Drawn:
    """Numbers below 1, [rows, items], the same for a query whatever other queries there are."""

    def __init__(self, ranking: CatalogueRanking, seed: int) -> None:
        self._ranking, self._seed = ranking, seed

    def scores(self, rows: range) -> Tensor:
        size = len(self._ranking.item_ids)
        draws = [
            np.random.default_rng(seed_of(self._seed, "noise", self._ranking.query_ids[at])).random(size, np.float32)
            for at in rows
        ]
        return torch.from_numpy(np.stack(draws))


class _Popularity:
    def __init__(self, ranking: CatalogueRanking, drawn: _Drawn) -> None:
        self._counts, self._drawn = torch.tensor(ranking.popularity).float(), drawn

    def scores(self, rows: range) -> Tensor:
        # Below one, the noise only breaks the ties between items that are as popular as each other.
        return self._counts + 0.5 * self._drawn.scores(rows)


class _Cooccurrence:
    def __init__(self, ranking: CatalogueRanking, liked: Likes, drawn: _Drawn) -> None:
        self._ranking, self._drawn = ranking, drawn
        place = {item: at for at, item in enumerate(ranking.item_ids)}
        self._together = Together(liked.matrix(place))
        self._places = {query: [place[query]] if query in place else [] for query in ranking.query_ids}
        if ranking.task == "user2item":
            titled: dict[str, list[int]] = {}
            for at, title in enumerate(ranking.titles):
                titled.setdefault(title, []).append(at)
            self._places = {
                query: titled.get(text.split("\n")[0], [])
                for query, text in zip(ranking.query_ids, ranking.queries, strict=True)
            }
        popularity = np.array(ranking.popularity, np.float32)
        self._popularity = popularity / (popularity.max(initial=0.0) + 1)

    def scores(self, rows: range) -> Tensor:
        found = np.zeros((len(rows), len(self._ranking.item_ids)), np.float32)
        for row, at in enumerate(rows):
            last = self._places[self._ranking.query_ids[at]]
            if last:
                found[row] = self._together.counts(last)
        return torch.from_numpy(found + 0.5 * self._popularity) + _TIE * self._drawn.scores(rows)


class Together:
    """Which items the same users have."""

    def __init__(self, users: csr_matrix) -> None:
        """`users`: [users, items] of 0 and 1."""
        self._users, self._by_item = users, users.tocsc()

    def popularity(self) -> NDArray[np.float32]:
        """Return how many users have each item [items]."""
        return np.asarray(self._users.sum(axis=0), np.float32).ravel()

    def counts(self, items: Sequence[int]) -> NDArray[np.float32]:
        """Return how many users have each item [items] and one of `items`."""
        having = np.unique(self._by_item[:, list(items)].indices)
        return np.asarray(self._users[having].sum(axis=0), np.float32).ravel()


class _Words:
    def __init__(self, ranking: CatalogueRanking, drawn: _Drawn) -> None:
        self._index = WordIndex(ranking.items)
        self._queries, self._drawn = ranking.queries, drawn

    def scores(self, rows: range) -> Tensor:
        found = np.stack([self._index.scores(self._queries[at]) for at in rows])
        return torch.from_numpy(found) + _TIE * self._drawn.scores(rows)


class WordIndex:
    """BM25 over texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        self._bm25 = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        self._bm25.index(_words(texts), show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return the score of each text [texts]."""
        words = [word for word in _words([query])[0] if word in self._bm25.vocab_dict]
        if not words:
            return np.zeros(self._size, np.float32)
        return np.asarray(self._bm25.get_scores(words), np.float32)


def _words(texts: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords="en", stemmer=None, return_ids=False, show_progress=False
    )
    return found


class Likes:
    """What the users of a dataset liked in training: pairs of user and item."""

    def __init__(self, data: str, revision: str | None) -> None:
        # Likes of users, not related items or judged products, which are qrels too.
        users = load_split(data, "queries", "train", revision).to_polars().filter(pl.col("task") == "user2item")
        judged = load_split(data, "qrels", "train", revision).to_polars().filter(pl.col("grade") > 0)
        self.pairs = judged.join(users, on="query_id", how="semi").select("query_id", "item_id").unique()
        if self.pairs.is_empty():
            raise RecfoundError(f"{data}: has no user2item, and this baseline counts what its users like")

    def matrix(self, place: dict[str, int]) -> csr_matrix:
        """Return [users, items] of 0 and 1, items at their places; users who like none of them have no row."""
        known = self.pairs.filter(pl.col("item_id").is_in(list(place)))
        rows = known.select(pl.col("query_id").rank("dense") - 1).to_series().to_numpy().astype(np.int64)
        columns = np.fromiter((place[item] for item in known["item_id"]), np.int64, len(known))
        shape = (int(rows.max(initial=-1)) + 1, len(place))
        return csr_matrix((np.ones(len(known), np.float32), (rows, columns)), shape=shape)


def item_scorer(name: str, ranking: CatalogueRanking, data: str, revision: str | None, seed: int) -> ItemScorer:
    """Return a baseline for a ranking.

    Raises:
        RecfoundError: the data lack what it counts.
    """
    drawn = _Drawn(ranking, seed)
    if name == "random":
        return drawn
    if name == "popularity":
        return _Popularity(ranking, drawn)
    return _Words(ranking, drawn) if name == "bm25" else _Cooccurrence(ranking, Likes(data, revision), drawn)


def option_scores(
    name: str, task: str, samples: pl.DataFrame, options: list[list[str]], data: str, revision: str | None, seed: int
) -> list[list[float]]:
    """Return a score of each option of each sample.

    Args:
        name: of the baseline.
        task: of the samples.
        samples: rows of the task.
        options: of each row; for sequential_recommendation titles.
        data: the dataset, whose training samples are counted.
        revision: of its repository.
        seed: of the draw that orders equal scores.

    Raises:
        RecfoundError: the data lack what it counts.
    """
    noise = [
        np.random.default_rng(seed_of(seed, "noise", one)).random(len(row))
        for one, row in zip(samples["id"], options, strict=True)
    ]
    if name == "random":
        return [row.tolist() for row in noise]
    if task in _LABELLED:
        labels = load_split(data, task, "train", revision).to_polars()["label"]
        counted = dict(labels.value_counts().iter_rows())
        found = [[float(counted.get(option, 0)) for option in row] for row in options]
    else:
        found = _title_scores(name, samples, options, data, revision)
    scale = 0.5 if name == "popularity" else _TIE
    return [(np.array(row) + scale * drawn).tolist() for row, drawn in zip(found, noise, strict=True)]


def _title_scores(
    name: str, samples: pl.DataFrame, options: list[list[str]], data: str, revision: str | None
) -> list[list[float]]:
    """Return scores of options that are titles of items, corpus by corpus."""
    catalogue = load_split(data, "items", "train", revision).to_polars()
    items = catalogue.select("item_id", "corpus", title=option_title(pl.col("title")))
    liked = None if name == "bm25" else Likes(data, revision)
    found: list[list[float]] = [[] for _ in options]
    corpora = samples["corpus"].to_list()
    histories = [_history(prompt[-1]["content"]) for prompt in samples["prompt"]]
    for corpus in sorted(set(corpora)):
        titled: dict[str, list[int]] = {}
        own = items.filter(pl.col("corpus") == corpus)
        for at, title in enumerate(own["title"]):
            titled.setdefault(title, []).append(at)
        place = {item: at for at, item in enumerate(own["item_id"])}
        popular = np.zeros(len(own), np.float32)
        index = WordIndex(own["title"].to_list()) if liked is None else None
        both = None if liked is None else Together(liked.matrix(place))
        if both is not None:
            popular = both.popularity()
        for row, (history, shown) in enumerate(zip(histories, options, strict=True)):
            if corpora[row] != corpus:
                continue
            if index is not None:
                scores = index.scores("\n".join(history))
            elif name == "popularity":
                scores = popular
            else:
                assert both is not None, "likes are counted for all but bm25"
                last = titled.get(history[0], []) if history else []
                scores = 0.5 * popular / (popular.max() + 1) + (both.counts(last) if last else 0)
            found[row] = [_of_title(scores, titled.get(option, []), name) for option in shown]
    return found


def _of_title(scores: NDArray[np.float32], places: list[int], name: str) -> float:
    """Return the score of a title: several items may have it; what is counted adds up, words are the same."""
    if not places:
        return 0.0
    return float(scores[places].max() if name == "bm25" else scores[places].sum())


def _history(prompt: str) -> list[str]:
    """Return the titles of the history in a prompt of sequential_recommendation, latest first."""
    lines = prompt.split("\n\n")
    listed = next((part for part in lines[1:] if "\n- " in part), "")
    return [line[2:] for line in listed.split("\n")[1:] if line.startswith("- ")]
