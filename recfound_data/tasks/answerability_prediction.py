"""answerability_prediction (AP): a question and reviews → whether the reviews answer it. F1 of yes.

The completion is `yes` or `no`, as the corpus labels it: people's judgement in ePQA (one of the passages answers in
full) and SubjQA (its annotators agree), a classifier trained on people's judgements in AmazonQA. The balance is the
corpus's own. All evidence is shown and none is cut, since what is cut off might be the answer; questions with more than
`EVIDENCE_CHARS` characters of it are left out whatever their label.
"""

from __future__ import annotations

import polars as pl

from recfound_data.identity import sample_id
from recfound_data.samples import Built, Corpus, generative_rows
from recfound_data.tasks.answer_generation import asked, prompt

TASK = "answerability_prediction"
DRIVEN_BY = "questions"
READS = ("catalogue",)
PHRASINGS = (
    "Do the reviews and details below answer the question? Reply with yes or no.",
    "Decide whether the question can be answered from what is written about the product. Answer yes or no.",
    "Is there enough below to answer this shopper's question? Say yes or no.",
    "Someone wants to answer the question from the text below alone. Is that possible? Answer yes or no.",
)
EVIDENCE_CHARS = 6000
OPTIONS = ("yes", "no")


def build(corpus: Corpus) -> Built:
    """Return a sample for every question with evidence and a label; of equal questions and evidence there is one."""
    rows = asked(corpus)
    labelled = rows.drop_nulls("answerable")
    backed = labelled.filter(pl.col("evidence").list.len() > 0)
    shown = backed.filter(pl.col("evidence").list.eval(pl.element().str.len_chars()).list.sum() <= EVIDENCE_CHARS)
    same = shown.with_columns(read=pl.col("evidence").list.sort().list.join("\n"))
    agreed = same.filter(pl.col("answerable").n_unique().over("group", "key", "read") == 1)
    label = pl.when("answerable").then(pl.lit("yes")).otherwise(pl.lit("no"))
    parts = (TASK, corpus.name, pl.col("question_id"), pl.col("question"), pl.col("read"))
    named = agreed.with_columns(label=label, id=sample_id(pl.col("group"), *parts)).sort("id")
    single = named.unique(["group", "key", "read"], keep="first", maintain_order=True)
    samples = single.with_columns(
        prompt=prompt(PHRASINGS, corpus.recipe.seed, pl.col("evidence")),
        options=pl.lit(list(OPTIONS), pl.List(pl.String)),
    )
    drops = {
        "question without text": len(corpus.tables[DRIVEN_BY]) - len(rows),
        "question that nobody labelled": len(rows) - len(labelled),
        "question without evidence": len(labelled) - len(backed),
        f"question with more than {EVIDENCE_CHARS} characters of evidence": len(backed) - len(shown),
        "question with both labels": len(shown) - len(agreed),
        "question asked before with the same evidence": len(named) - len(single),
    }
    return Built(generative_rows(samples, corpus, TASK), drops=drops)
