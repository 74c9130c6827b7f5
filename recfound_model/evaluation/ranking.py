"""What an embedding task ranks, and the metrics of a ranking, by one of two protocols.

`full` ranks the whole catalogue of the query's corpus. An item that is known to be a positive of the query in another
split (a user's history, a pair seen in training) is taken out of the query's ranking, unless it is asked for, and so is
the anchor itself: neither could be a right answer. Of items with the same score, the first by id comes first.

`sampled` is the paper's: one positive among 19 negatives. A query's negatives are drawn by its id and the seed alone,
so that neither other queries nor their order change them; each of its positives is ranked among them apart from the
others, and the query's metrics are the means over its positives. Equal scores are ordered by the same draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_model.training.streams import known_positives, load_split, seed_of, split_names

METRICS = ("mrr@20", "ndcg@20", "recall@100")
SAMPLED_METRICS = ("mrr@20", "ndcg@20", "recall@1")
GRADED = "ndcg_graded@20"
GAINS = {3: 1.0, 2: 0.1, 1: 0.01}
"""Of exact, substitute and complement, as in the Shopping Queries challenge (arXiv 2206.06588, KDD Cup 2022)."""
NEGATIVES = 19
_DEPTH = 100
_CUT = 20
_SHOWN = 5
_EXACT = 3
# An empty list has no type of its own.
_LISTS = {"ranked": pl.List(pl.String)}

Places = NDArray[np.int64]


@dataclass(frozen=True)
class CatalogueRanking:
    """The queries of one task that search one corpus, and that corpus's items.

    Attributes:
        relevant: right answers of each query, by query id.
        known: items that are known to be positives of a query in other splits.
        popularity: number of training positives of each item.
        titles: of the items.
        domains: of the items.
        graded: gains of all judged items of each query, where the corpus grades.
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
    titles: list[str]
    domains: list[str]
    graded: Mapping[str, Mapping[str, float]]


def load_rankings(
    data: str, task: str, split: str, revision: str | None = None, most: int | None = None, keep_known: bool = False
) -> list[CatalogueRanking]:
    """Return the rankings of a task, one a corpus; `most` queries of each, the first by id, where given.

    Args:
        data: a dataset folder or repository.
        task: an embedding task.
        split: of the dataset.
        revision: of the repository.
        most: queries of a corpus.
        keep_known: positives of other splits are not taken out of the rankings.

    Raises:
        RecfoundError: the dataset lacks `items`, `queries` or `qrels`, or the split has no query of the task.
    """
    items = load_split(data, "items", "train", revision).to_polars()
    items = items.select("item_id", "corpus", "text", "title", "domain")
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
    judged = qrels.filter(pl.col("split") == split).join(queries.select("query_id"), on="query_id", how="semi")
    right = judged.filter(pl.col("grade") >= least)
    known = qrels.filter(pl.col("split") != split).join(right.select("query_id"), on="query_id", how="semi")
    trained = load_split(data, task, "train", revision).to_polars().group_by(item_id="positive_id").len("popularity")
    found = []
    for (corpus,), part in sorted(right.group_by("corpus"), key=lambda pair: str(pair[0][0])):
        here = queries.join(part.select("query_id"), on="query_id", how="semi").sort("query_id")
        here = here.head(most) if most else here
        catalogue = items.filter(pl.col("corpus") == corpus).join(trained, on="item_id", how="left").sort("item_id")
        known_here = {} if keep_known else known_positives(known.filter(pl.col("corpus") == corpus))
        found.append(
            CatalogueRanking(
                task=task,
                corpus=str(corpus),
                query_ids=here["query_id"].to_list(),
                queries=here["text"].to_list(),
                item_ids=catalogue["item_id"].to_list(),
                items=catalogue["text"].to_list(),
                relevant=known_positives(part),
                known=known_here,
                popularity=catalogue["popularity"].fill_null(0).to_list(),
                titles=catalogue["title"].to_list(),
                domains=catalogue["domain"].to_list(),
                graded=_gains(judged.filter(pl.col("corpus") == corpus)) if task == "query2item" else {},
            )
        )
    return found


def _gains(judged: pl.DataFrame) -> dict[str, dict[str, float]]:
    gains: dict[str, dict[str, float]] = {}
    for query, item, grade in judged.select("query_id", "item_id", "grade").iter_rows():
        gains.setdefault(query, {})[item] = GAINS[grade]
    return gains


def rank_by_scores(ranking: CatalogueRanking, scores: Tensor, first: int = 0) -> pl.DataFrame:
    """Return the metrics of the queries from `first` on, the whole catalogue ranked.

    Args:
        ranking: gives right and left-out items.
        scores: [queries, items]; higher is better.
        first: the place of the first scored query among the ranking's queries.

    Returns:
        Columns `query_id`, `corpus`, `domain` (of the first right answer by id), the metrics, `graded` where the corpus
        grades, `top`, the item ranked first, and `ranked`, the first few; a row a query.
    """
    place = {item: at for at, item in enumerate(ranking.item_ids)}
    scores = scores.clone()
    ids = ranking.query_ids[first : first + len(scores)]
    for row, query in enumerate(ids):
        out = [place[item] for item in ranking.known.get(query, set()) - ranking.relevant[query] if item in place]
        out += [place[query]] if query in place else []
        scores[row, out] = float("-inf")
    values, places = _top(scores, min(_DEPTH, scores.shape[1]))
    rows = []
    for query, best, order in zip(ids, values, places, strict=True):
        ranked = order[best != -np.inf]
        right = np.fromiter((place[item] for item in ranking.relevant[query]), np.int64)
        hit = np.isin(ranked, right)
        found = {
            "query_id": query,
            "corpus": ranking.corpus,
            "domain": ranking.domains[right.min()],
            "mrr@20": reciprocal_rank(hit[:_CUT]),
            "ndcg@20": ndcg(hit[:_CUT].astype(float), np.ones(len(right))),
            "recall@100": float(hit.sum() / len(right)),
        }
        if ranking.graded:
            gains = {place[item]: gain for item, gain in ranking.graded[query].items()}
            gained = np.fromiter((gains.get(int(at), 0.0) for at in ranked[:_CUT]), float)
            found[GRADED] = ndcg(gained, np.fromiter(gains.values(), float))
        shown = [ranking.item_ids[at] for at in ranked[:_SHOWN]]
        rows.append({**found, "top": shown[0] if shown else "", "ranked": shown})
    return pl.DataFrame(rows, schema_overrides=_LISTS)


def reciprocal_rank(hit: NDArray[np.bool_]) -> float:
    """Return 1 / rank of the first hit of a ranking [depth], 0 without one."""
    return float(1 / (hit.argmax() + 1)) if hit.any() else 0.0


def ndcg(gained: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    """Return NDCG at 20: gains [depth] in the order of the ranking, by the best order of all `gains` of the query.

    The gain at rank r counts 1 / log2(r + 1).
    """
    discount = 1 / np.log2(np.arange(2, _CUT + 2))
    best = np.sort(gains)[::-1][:_CUT]
    return float(gained @ discount[: len(gained)] / (best @ discount[: len(best)]))


def _top(scores: Tensor, depth: int) -> tuple[NDArray[np.float64], Places]:
    """Return values and places [queries, depth] of the highest scores; of equal ones, those of the first items.

    Which of several equal ones are the last to be returned, `topk` leaves open, so those rows are sorted.
    """
    values, places = torch.topk(scores, depth, dim=1)
    last = values[:, -1:]
    torn = (scores == last).sum(dim=1) > (values == last).sum(dim=1)
    if torn.any():
        ordered = scores[torn].sort(dim=1, descending=True, stable=True)
        values[torn], places[torn] = ordered.values[:, :depth], ordered.indices[:, :depth]
    found, at = values.double().numpy(), places.numpy()
    order = np.lexsort((at, -found), axis=-1)
    return np.take_along_axis(found, order, axis=-1), np.take_along_axis(at, order, axis=-1)


@dataclass(frozen=True)
class Candidates:
    """Of one query: places of its positives and of the negatives that each of them is ranked among, in drawn order."""

    positives: Places
    negatives: Places


def draw_candidates(ranking: CatalogueRanking, seed: int) -> list[Candidates]:
    """Return the candidates of each query of a ranking.

    Negatives are of a domain that a positive of the query has. None is a positive of the query in any split or judged
    above irrelevant, none is the anchor, and none has the text of one of these. Where fewer than 19 are left, all
    are taken.
    """
    place = {item: at for at, item in enumerate(ranking.item_ids)}
    texts = [" ".join(text.casefold().split()) for text in ranking.items]
    by_domain: dict[str, list[int]] = {}
    for at, domain in enumerate(ranking.domains):
        by_domain.setdefault(domain, []).append(at)
    found = []
    for query in ranking.query_ids:
        right = {place[item] for item in ranking.relevant[query]}
        others = set(ranking.known.get(query, ())) | set(ranking.graded.get(query, ())) | {query}
        taken = right | {place[item] for item in others if item in place}
        alike = {texts[at] for at in taken}
        pools = [by_domain[domain] for domain in sorted({ranking.domains[at] for at in right})]
        pool = pools[0] if len(pools) == 1 else [at for one in pools for at in one]
        draw = np.random.default_rng(seed_of(seed, ranking.task, query))
        negatives: list[int] = []
        # A few more than are needed, in drawn order; all of the pool where these were not enough.
        for tried in (4 * NEGATIVES, len(pool)):
            order = draw.choice(len(pool), min(tried, len(pool)), replace=False, shuffle=True)
            fit = (pool[at] for at in order if pool[at] not in taken and texts[pool[at]] not in alike)
            negatives = [at for _, at in zip(range(NEGATIVES), fit, strict=False)]
            if len(negatives) == NEGATIVES:
                break
        found.append(Candidates(np.sort(np.fromiter(right, np.int64)), np.array(negatives, np.int64)))
    return found


def narrowed(ranking: CatalogueRanking, candidates: list[Candidates]) -> tuple[CatalogueRanking, list[Candidates]]:
    """Return the ranking with no items but the candidates, and the candidates at their places in it."""
    used = np.unique(np.concatenate([part for one in candidates for part in (one.positives, one.negatives)]))
    moved = [
        Candidates(np.searchsorted(used, one.positives), np.searchsorted(used, one.negatives)) for one in candidates
    ]
    places = used.tolist()
    smaller = replace(
        ranking,
        item_ids=[ranking.item_ids[at] for at in places],
        items=[ranking.items[at] for at in places],
        popularity=[ranking.popularity[at] for at in places],
        titles=[ranking.titles[at] for at in places],
        domains=[ranking.domains[at] for at in places],
    )
    return smaller, moved


def rank_candidates(
    ranking: CatalogueRanking, candidates: list[Candidates], scores: Tensor, first: int, seed: int
) -> pl.DataFrame:
    """Return the metrics of the queries from `first` on, each positive ranked among its query's negatives.

    Args:
        ranking: gives the names.
        candidates: of all of the ranking's queries.
        scores: [queries, items]; higher is better.
        first: the place of the first scored query among the ranking's queries.
        seed: of the protocol; with the query's id it orders equal scores.

    Returns:
        As `rank_by_scores` does, with `SAMPLED_METRICS` and `negatives`, their number.
    """
    rows = []
    for row, query in enumerate(ranking.query_ids[first : first + len(scores)]):
        one, values = candidates[first + row], scores[row].double().numpy()
        right, wrong = values[one.positives], values[one.negatives]
        ahead = (wrong > right[:, None]).sum(axis=1)
        equal = (wrong == right[:, None]).sum(axis=1)
        draw = np.random.default_rng(seed_of(seed, ranking.task, query, "equal"))
        rank = 1 + ahead + draw.integers(0, equal + 1)
        best = one.positives if right.max() >= wrong.max(initial=-np.inf) else one.negatives
        both = np.concatenate([one.positives, one.negatives])
        rows.append(
            {
                "query_id": query,
                "corpus": ranking.corpus,
                "domain": ranking.domains[one.positives.min()],
                "mrr@20": float((1 / rank).mean()),
                "ndcg@20": float((1 / np.log2(rank + 1)).mean()),
                "recall@1": float((rank == 1).mean()),
                "negatives": len(one.negatives),
                "top": ranking.item_ids[best[values[best].argmax()]],
                "ranked": [ranking.item_ids[at] for at in both[np.argsort(-values[both], kind="stable")[:_SHOWN]]],
            }
        )
    return pl.DataFrame(rows, schema_overrides=_LISTS)
