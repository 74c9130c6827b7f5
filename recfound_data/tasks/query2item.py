"""query2item (Q2I): a search query → a product that answers it. Ranked by MRR@20."""

from __future__ import annotations

import numpy as np
import polars as pl

from recfound_data.catalogue import global_id
from recfound_data.cleaning import clean
from recfound_data.identity import draw, hash64, sample_id, seeds_of
from recfound_data.mining import Mined, Queries, mine
from recfound_data.negatives import Items, Ranking, draw_negatives, known_products
from recfound_data.samples import Built, Corpus, embedding_rows, lists, official_split

TASK = "query2item"
DRIVEN_BY = "judgements"
READS = ("catalogue", "item_stats")
PHRASINGS = (
    "Find the product that a customer searching for this wants.",
    "Retrieve a product that answers this shopping query.",
    "Match the search words with the product they ask for.",
    "Given a query typed into a shop's search box, retrieve a product that fits it exactly.",
)
EXACT, SUBSTITUTE = 3, 2


def build(corpus: Corpus) -> Built:
    """Return a plan of a sample for every exact match.

    Negatives are products judged irrelevant or complements first, then drawn from the unjudged ones; where they are
    mined, what the search found comes before both. A query is its words: queries of the same words have one id, so they
    cannot fall apart over splits.
    """
    recipe, catalogue = corpus.recipe, corpus.tables["catalogue"]
    cleaned = corpus.tables["judgements"].with_columns(query=clean(pl.col("query")))
    worded = cleaned.filter(pl.col("query") != "")
    judged = _judged(worded.with_columns(split=official_split(corpus, "judgements", TASK)), corpus.name)
    items = catalogue.select("item_id", "item", "product", "text_hash")
    usable = judged.join(items, on="item_id", how="inner", maintain_order="left")
    owners = usable.select(owner=pl.col("group").rank("dense")).to_series().to_numpy()
    usable = usable.with_columns(owner=owners)
    exact = usable.filter(pl.col("grade") == EXACT).unique(["group", "product"], keep="first", maintain_order=True)
    exact = exact.with_columns(id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("item_id")))
    seeds = seeds_of(exact["id"], recipe.seed)
    ranks = Ranking.of(corpus.tables["item_stats"], catalogue)
    known = known_products(owners, usable["product"].to_numpy())
    found = _mined(corpus, exact, usable, ranks)
    positive, wrong = exact["item"].to_numpy(), _judged_negatives(exact, usable, recipe.seed)
    preferred = np.hstack([found.candidates, _placed(wrong, exact, recipe.negatives)]) if found else None
    rows, drawn = draw_negatives(positive, exact["owner"].to_numpy(), seeds, known, ranks, recipe.negatives, preferred)
    kept = exact[rows].with_columns(negatives=lists(drawn.ravel(), np.full(len(rows), recipe.negatives, np.int64)))
    both = pl.col("negatives")
    if not found:
        kept = kept.join(wrong, on="id", how="left", maintain_order="left")
        both = pl.concat_list(pl.col("wrong").fill_null([]), both).list.head(recipe.negatives)
    plan = kept.select(
        "id",
        "split",
        query="group",
        words="query",
        positive="item",
        negatives=both,
        twin=hash64(pl.concat_str("query", pl.col("text_hash").cast(pl.String), separator="\n")),
    )
    qrels = usable.select("split", "item", "grade", query="group").join(
        plan.select("query"), on="query", how="semi", maintain_order="left"
    )
    return Built(
        plan,
        qrels,
        {
            "judgement of a query without words": len(cleaned) - len(worded),
            "judgement of an item that has no metadata": len(judged) - len(usable),
            "exact match repeated": len(usable.filter(pl.col("grade") == EXACT)) - len(exact),
            "exact match without enough negatives": len(exact) - len(kept),
        },
        found.counts(rows, drawn) if found else {},
    )


def render(plan: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the samples of a plan."""
    return embedding_rows(plan, corpus, TASK, PHRASINGS, anchors(plan, corpus))


def anchors(plan: pl.DataFrame, corpus: Corpus) -> pl.Series:  # noqa: ARG001  (the plan holds the words)
    """Return the words of each query."""
    return plan["words"]


def _mined(corpus: Corpus, exact: pl.DataFrame, judged: pl.DataFrame, ranks: Ranking) -> Mined | None:
    """Return what the query of each exact match finds; what is judged irrelevant to it may be among that."""
    index = corpus.mined(TASK)
    if index is None:
        return None
    fits = judged.filter(pl.col("grade") > 0)
    known = known_products(fits["owner"].to_numpy() - 1, fits["product"].to_numpy())
    queries = Queries(judged.unique("owner", keep="first", maintain_order=True)["query"])
    query, positive = exact["owner"].to_numpy() - 1, exact["item"].to_numpy()
    return mine(index, ranks, queries, query, (positive,), known, corpus.recipe.negatives)


def _placed(wrong: pl.DataFrame, rows: pl.DataFrame, width: int) -> Items:
    """Return the first of each row's `wrong` products, `[rows, width]`; the positive where there are fewer."""
    found = rows.select("id", "item").join(wrong, on="id", how="left", maintain_order="left")
    places = [pl.col("wrong").list.get(place, null_on_oob=True) for place in range(width)]
    columns = [found.select(pl.coalesce(place, "item")).to_series().to_numpy() for place in places]
    return np.stack(columns, axis=1)


def _judged(judgements: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the best judgement of each query and item, the query in one wording, sorted."""
    named = judgements.with_columns(item_id=global_id(name, pl.col("item_id")))
    text = named.unique("group", keep="first", maintain_order=True).select("group", "query")
    best = (
        named.select("group", "item_id", "grade", "split")
        .sort("grade", descending=True, maintain_order=True)
        .unique(["group", "item_id"], keep="first", maintain_order=True)
    )
    return best.join(text, on="group", maintain_order="left").sort("group", "item_id")


def _judged_negatives(rows: pl.DataFrame, judged: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return `id` and `wrong`: products judged irrelevant to the query, then its complements, each in drawn order.

    A substitute is no negative: it answers the query, only not exactly.
    """
    keys = judged.select("group", "product", "item", "grade")
    answers = keys.filter(pl.col("grade") >= SUBSTITUTE).select("group", "product").unique()
    wrong = keys.join(answers, on=["group", "product"], how="anti", maintain_order="left")
    pairs = rows.select("id", "group").join(wrong, on="group", how="inner", maintain_order="left")
    pairs = pairs.sort("grade", maintain_order=True).unique(["id", "product"], keep="first", maintain_order=True)
    pairs = pairs.with_columns(order=draw(seed, "judged", pl.col("id"), pl.col("item"))).sort(
        "id", "grade", "order", "item"
    )
    return pairs.group_by("id", maintain_order=True).agg(wrong="item")
