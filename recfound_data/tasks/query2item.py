"""query2item (Q2I): a search query → a product that answers it. Ranked by MRR@20."""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import clean, title_key
from recfound_data.identity import draw, sample_id, stable_id
from recfound_data.negatives import draw_negatives, ranked
from recfound_data.samples import Built, Corpus, embedding_rows, group_split

TASK = "query2item"
DRIVEN_BY = "judgements"
READS = ("catalogue",)
PHRASINGS = (
    "Find the product that a customer searching for this wants.",
    "Retrieve a product that answers this shopping query.",
    "Match the search words with the product they ask for.",
    "Given a query typed into a shop's search box, retrieve a product that fits it exactly.",
)
EXACT, SUBSTITUTE = 3, 2


def build(corpus: Corpus) -> Built:
    """Return a sample for every exact match.

    Negatives are products judged irrelevant or complements first, then drawn from the unjudged ones.
    """
    assert corpus.judgements is not None, "NEEDS names the table that build() is given"
    recipe, cleaned = corpus.recipe, corpus.judgements.with_columns(query=clean(pl.col("query")))
    worded = cleaned.filter(pl.col("query") != "")
    judged = _split(worded, corpus)
    known_items = corpus.catalogue.select("item_id", "title_key", "domain")
    usable = judged.join(known_items, on="item_id", how="inner", maintain_order="left")
    exact = usable.filter(pl.col("grade") == EXACT).unique(["query_id", "title_key"], keep="first", maintain_order=True)
    rows = exact.select(
        "split",
        "query_id",
        anchor="query",
        positive_id="item_id",
        anchor_id="query_id",
        id=sample_id(pl.col("query_id"), TASK, corpus.name, pl.col("item_id")),
    )
    wanted = rows.select("id", "positive_id", owner="query_id")
    known = usable.select("item_id", owner="query_id")
    drawn = draw_negatives(wanted, known, ranked(corpus.catalogue, None), recipe.negatives, recipe.seed)
    kept = rows.join(drawn, on="id", how="inner", maintain_order="left")
    kept = kept.join(_judged_negatives(rows, usable, recipe.seed), on="id", how="left", maintain_order="left")
    both = pl.concat_list(pl.col("judged_ids").fill_null([]), "negative_ids").list.head(recipe.negatives)
    samples = embedding_rows(kept.with_columns(negative_ids=both), corpus, TASK, PHRASINGS)
    queries = samples.select("split", query_id="anchor_id", task="task", text="anchor").unique(
        "query_id", keep="first", maintain_order=True
    )
    qrels = usable.select("split", "query_id", "item_id", "grade").join(
        queries.select("query_id"), on="query_id", how="semi", maintain_order="left"
    )
    drops = {
        "judgement of a query without words": len(cleaned) - len(worded),
        "judgement of an item that has no metadata": len(judged) - len(usable),
        "exact match repeated": len(usable.filter(pl.col("grade") == EXACT)) - len(exact),
        "exact match without enough negatives": len(rows) - len(kept),
    }
    return Built(samples, queries, qrels.unique(["query_id", "item_id"], keep="first", maintain_order=True), drops)


def _split(judgements: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the judgements with `query_id` and `split` decided by the query's words.

    The official test split is kept; validation comes out of training. Queries of the same words have one id, so they
    cannot fall apart over splits; where the official splits tear them apart, test wins.
    """
    words = judgements.with_columns(query_id=stable_id(TASK, corpus.name, pl.col("domain"), title_key(pl.col("query"))))
    official = pl.col("split").fill_null("").str.to_lowercase()
    in_test = (official == "test").any().over("query_id")
    drawn = group_split(pl.col("query_id"), corpus.recipe, TASK)
    has_official = bool(words.select((official == "test").any()).item())
    train = (
        pl.when(drawn == "validation").then(pl.lit("validation")).otherwise(pl.lit("train")) if has_official else drawn
    )
    words = words.with_columns(split=pl.when(in_test).then(pl.lit("test")).otherwise(train))
    text = words.unique("query_id", keep="first", maintain_order=True).select("query_id", "query")
    best = (
        words.drop("query", "domain")
        .sort("grade", descending=True, maintain_order=True)
        .unique(["query_id", "item_id"], keep="first", maintain_order=True)
    )
    return best.join(text, on="query_id", maintain_order="left").sort("query_id", "item_id")


def _judged_negatives(rows: pl.DataFrame, judged: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return `id` and `judged_ids`: products judged irrelevant to the query, then its complements, each in drawn order.

    A substitute is no negative: it answers the query, only not exactly.
    """
    keys = judged.select("query_id", "title_key", "item_id", "grade")
    answers = keys.filter(pl.col("grade") >= SUBSTITUTE).select("query_id", "title_key").unique()
    wrong = keys.join(answers, on=["query_id", "title_key"], how="anti", maintain_order="left")
    pairs = rows.select("id", "query_id").join(wrong, on="query_id", how="inner", maintain_order="left")
    pairs = pairs.sort("grade", maintain_order=True).unique(["id", "title_key"], keep="first", maintain_order=True)
    pairs = pairs.with_columns(order=draw(seed, "judged", pl.col("id"), pl.col("item_id"))).sort(
        "id", "grade", "order", "item_id"
    )
    return pairs.group_by("id", maintain_order=True).agg(judged_ids="item_id")
