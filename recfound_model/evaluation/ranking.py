"""Full-catalogue ranking: the queries of a task, all items of their corpus, and the metrics of each query.

An item that is known to be a positive of the query in another split (a user's history, a pair seen in training) is
taken out of the query's ranking, and so is the anchor itself: neither could be a right answer. What is left is ranked
whole; of items with the same score, the first by id comes first. The metrics are those of sentence-transformers' own
evaluator, query by query.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import polars as pl
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_model.training.streams import known_positives, load_split, split_names

METRICS = ("mrr@20", "ndcg@20", "recall@100")
_DEPTH = 100
_EXACT = 3


@dataclass(frozen=True)
class CatalogueRanking:
    """The queries of one task that search one corpus, and that corpus's items.

    Attributes:
        relevant: right answers of each query, by query id.
        known: items that are left out of each query's ranking.
        popularity: number of training positives of each item.
    """

    task: str
    corpus: str
    query_ids: list[str]
    queries: list[str]
    item_ids: list[str]
    items: list[str]
    relevant: Mapping[str, AbstractSet[str]]
    known: Mapping[str, AbstractSet[str]]
    popularity: list[int]


def load_rankings(
    data: str, task: str, split: str, revision: str | None = None, most: int | None = None
) -> list[CatalogueRanking]:
    """Return the rankings of a task, one a corpus; `most` queries of each, the first by id, where given.

    Raises:
        RecfoundError: the dataset lacks `items`, `queries` or `qrels`, or the split has no query of the task.
    """
    items = load_split(data, "items", "train", revision).to_polars().select("item_id", "corpus", "text")
    queries = load_split(data, "queries", split, revision).to_polars().filter(pl.col("task") == task)
    if queries.is_empty():
        raise RecfoundError(f"{data}: {task} has no query in {split}")
    graded = [
        load_split(data, "qrels", name, revision).to_polars().with_columns(split=pl.lit(name))
        for name in split_names(data, "qrels", revision)
    ]
    qrels = pl.concat(graded).join(items.select("item_id", "corpus"), on="item_id")
    qrels = qrels.filter(pl.col("grade") > 0)
    least = pl.when(pl.lit(task == "query2item")).then(_EXACT).otherwise(1)
    right = qrels.filter((pl.col("split") == split) & (pl.col("grade") >= least)).join(
        queries.select("query_id"), on="query_id", how="semi"
    )
    known = qrels.filter(pl.col("split") != split).join(right.select("query_id"), on="query_id", how="semi")
    trained = load_split(data, task, "train", revision).to_polars().group_by(item_id="positive_id").len("popularity")
    found = []
    for (corpus,), part in sorted(right.group_by("corpus"), key=lambda pair: str(pair[0][0])):
        here = queries.join(part.select("query_id"), on="query_id", how="semi").sort("query_id")
        here = here.head(most) if most else here
        catalogue = items.filter(pl.col("corpus") == corpus).join(trained, on="item_id", how="left").sort("item_id")
        found.append(
            CatalogueRanking(
                task=task,
                corpus=str(corpus),
                query_ids=here["query_id"].to_list(),
                queries=here["text"].to_list(),
                item_ids=catalogue["item_id"].to_list(),
                items=catalogue["text"].to_list(),
                relevant=known_positives(part),
                known=known_positives(known.filter(pl.col("corpus") == corpus)),
                popularity=catalogue["popularity"].fill_null(0).to_list(),
            )
        )
    return found


def rank_by_scores(ranking: CatalogueRanking, scores: Tensor, first: int = 0) -> pl.DataFrame:
    """Return the metrics of the queries from `first` on.

    Args:
        ranking: gives right and left-out items.
        scores: [queries, items]; higher is better.
        first: the place of the first scored query among the ranking's queries.

    Returns:
        Columns `query_id`, `corpus` and the metrics, a row a query.
    """
    place = {item: at for at, item in enumerate(ranking.item_ids)}
    scores = scores.clone()
    ids = ranking.query_ids[first : first + len(scores)]
    for row, query in enumerate(ids):
        out = [place[item] for item in ranking.known.get(query, set()) - ranking.relevant[query] if item in place]
        out += [place[query]] if query in place else []
        scores[row, out] = float("-inf")
    values, indices = _top(scores, min(_DEPTH, scores.shape[1]))
    rows = []
    for query, best, places in zip(ids, values.tolist(), indices.tolist(), strict=True):
        hits = [
            {"corpus_id": ranking.item_ids[at], "score": value}
            for at, value in zip(places, best, strict=True)
            if value != float("-inf")
        ]
        rows.append({"query_id": query, "corpus": ranking.corpus, **_metrics(query, hits, ranking.relevant[query])})
    return pl.DataFrame(rows)


def _top(scores: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Return values and places [queries, depth] of the highest scores; of equal ones, those of the first items.

    Among the returned ones, the evaluator breaks ties by id. Which of several equal ones are the last to be returned,
    `topk` leaves open, so those rows are sorted.
    """
    values, places = torch.topk(scores, depth, dim=1)
    last = values[:, -1:]
    torn = (scores == last).sum(dim=1) > (values == last).sum(dim=1)
    if torn.any():
        ordered = scores[torn].sort(dim=1, descending=True, stable=True)
        values[torn], places[torn] = ordered.values[:, :depth], ordered.indices[:, :depth]
    return values, places


def _metrics(query: str, hits: list[dict[str, object]], relevant: AbstractSet[str]) -> dict[str, float]:
    evaluator = InformationRetrievalEvaluator(
        queries={query: ""},
        corpus={},
        relevant_docs={query: relevant},
        mrr_at_k=[20],
        ndcg_at_k=[20],
        accuracy_at_k=[1],
        precision_recall_at_k=[100],
        map_at_k=[100],
    )
    found = evaluator.compute_metrics([hits])
    return {
        "mrr@20": float(found["mrr@k"][20]),
        "ndcg@20": float(found["ndcg@k"][20]),
        "recall@100": float(found["recall@k"][100]),
    }
