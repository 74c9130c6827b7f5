"""product_relation_prediction (PRP): two titles → bought together, viewed together or similar. Ranked by macro-F1.

The label is one of the three options, word for word. A pair of which the corpus says two of them has no sample: nobody
could know which is asked for.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import OPTION_CHARS, shorten
from recfound_data.identity import draw, hash64, sample_id
from recfound_data.pairs import JUDGED_SIMILAR, JUDGED_TOGETHER, LIKED_TOGETHER
from recfound_data.samples import Built, Corpus, generative_rows, group_split, phrased
from recfound_data.tables import RELATIONS

TASK = "product_relation_prediction"
DRIVEN_BY = "pairs"
READS = ("catalogue",)
PHRASINGS = (
    "How are these two products related: bought together, viewed together or similar?",
    "Name the relation between the two products below. Choose one of: bought together, viewed together, similar.",
    "Two products of one shop are given. Do customers buy them together, view them together, or are they similar?"
    " Answer with: bought together, viewed together or similar.",
    "Decide which of the three holds for this pair of products: bought together, viewed together, similar.",
)
_LABELS = {JUDGED_SIMILAR: "similar", JUDGED_TOGETHER: "bought together"} | {name: name for name in RELATIONS}


def build(corpus: Corpus) -> Built:
    """Return a plan of a sample for every drawn pair that one relation alone is stated of."""
    seed = corpus.recipe.seed
    pairs = corpus.tables["pairs"].filter(pl.col("from_left") | pl.col("from_right"))
    labels = pl.col("relations").list.eval(
        pl.element().filter(pl.element() != LIKED_TOGETHER).replace_strict(_LABELS, return_dtype=pl.String)
    )
    related = pairs.with_columns(labels=labels.list.unique()).filter(pl.col("labels").list.len() > 0)
    clear = related.filter(pl.col("labels").list.len() == 1).with_columns(
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("group")), label=pl.col("labels").list.first()
    )
    # Two corpora may state two relations of the same titles: of these one stays.
    keys = corpus.tables["catalogue"]["title_key"]
    clear = clear.with_columns(one=keys.gather(clear["left"]), two=keys.gather(clear["right"]))
    # Which comes first says nothing.
    swapped = draw(seed, "order of pair", pl.col("id")) % 2 == 1
    plan = clear.select(
        "id",
        "label",
        split=group_split(pl.col("group"), corpus.recipe, "pair"),
        first=pl.when(swapped).then("right").otherwise("left"),
        second=pl.when(swapped).then("left").otherwise("right"),
        twin=hash64(pl.concat_str("one", "two", separator="\n")),
    )
    return Built(plan, drops={"pair with two relations": len(related) - len(clear)})


def render(plan: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the samples of a plan."""
    catalogue = corpus.tables["catalogue"]
    shown = plan.select(
        "id",
        "label",
        "split",
        domain=catalogue["domain"].gather(plan["first"]),
        first=catalogue["title"].gather(plan["first"]),
        second=catalogue["title"].gather(plan["second"]),
    )
    prompt = pl.format(
        "{}\n\nFirst product: {}\nSecond product: {}",
        phrased(PHRASINGS, corpus.recipe.seed, pl.col("id")),
        shorten(pl.col("first"), OPTION_CHARS),
        shorten(pl.col("second"), OPTION_CHARS),
    )
    options = pl.lit(pl.Series([list(RELATIONS)])).first()
    return generative_rows(shown.with_columns(prompt=prompt, options=options), corpus, TASK)
