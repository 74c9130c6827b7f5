"""query_rewriting (QR): a dialogue → the same dialogue, every turn self-contained. BERTScore F1.

The prompt shows the dialogue, one line a turn (`User: ...`, `Assistant: ...`); the label is as many lines by the same
speakers. A turn that nobody rewrote, or whose rewrite differs in case and punctuation alone, stands in the label as it
stands in the prompt. Where a corpus rewrites the user's turns only, the instruction says so. Tokenised spacing
(`Bonn ?`, `it 's`) is closed in prompt and label alike, because rewrites were typed without it; a rewrite that begins
like its turn but has lost the full stop gets it back.

A dialogue has two turns or more, one of them rewritten; of a longer one the first `MAX_TURNS` are taken, so that what
a rewrite refers to is always there. A dialogue with a turn of more than `TURN_CHARS` characters is left out, as a cut
turn could not be rewritten.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import clean, title_key
from recfound_data.identity import sample_id
from recfound_data.samples import Built, Corpus, generative_rows, official_split, phrased

TASK = "query_rewriting"
DRIVEN_BY = "dialogues"
READS: tuple[str, ...] = ()
EVERY_TURN = (
    "Rewrite the dialogue so that every turn can be understood on its own. Keep turns that already can as they are.",
    "Make each line of this conversation self-contained: put in what it leaves out or only refers to. Copy the lines "
    "that need nothing.",
    "Below is a conversation with an assistant. Return it line by line with references and omissions resolved, and "
    "leave clear lines unchanged.",
    "Resolve what each turn takes from earlier ones, so that it makes sense alone. Give back the whole dialogue in the "
    "same form.",
)
USER_TURNS = (
    "Rewrite the user's turns so that each can be understood on its own. Copy the assistant's turns, and the user's "
    "that need no change.",
    "Make every line of the user self-contained: put in what it leaves out or only refers to. Leave all other lines as "
    "they are.",
    "Below is a conversation with an assistant. Return it line by line with references and omissions in the user's "
    "requests resolved; change nothing else.",
    "Resolve what each user turn takes from earlier ones, so that it makes sense alone. Give back the whole dialogue "
    "in the same form, the assistant's lines untouched.",
)
PHRASINGS = (*EVERY_TURN, *USER_TURNS)
MAX_TURNS = 12
TURN_CHARS = 600


def build(corpus: Corpus) -> Built:
    """Return a sample for every dialogue with a turn that was really rewritten."""
    dialogues = (
        corpus.tables[DRIVEN_BY].with_row_index("row").with_columns(split=official_split(corpus, DRIVEN_BY, TASK))
    )
    turns = _turns(dialogues)
    lines = turns.group_by("row", maintain_order=True).agg(
        both=(pl.col("judged") & (pl.col("speaker") == "assistant")).any(),
        rewritten=pl.col("changed").any(),
        turns=pl.len(),
        longest=pl.max_horizontal(pl.col("text", "rewrite").str.len_chars()).max(),
        said=_line("text").str.join("\n"),
        label=_line("rewrite").str.join("\n"),
    )
    several = lines.filter(pl.col("turns") > 1)
    rewritten = several.filter("rewritten")
    kept = rewritten.filter(pl.col("longest") <= TURN_CHARS)
    rows = dialogues.drop("turns").join(kept, on="row", how="inner", maintain_order="left")
    rows = rows.with_columns(id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("said"), pl.col("label")))
    seed = corpus.recipe.seed
    instruction = (
        pl.when("both").then(phrased(EVERY_TURN, seed, pl.col("id"))).otherwise(phrased(USER_TURNS, seed, pl.col("id")))
    )
    drops = {
        "dialogue of fewer than two turns": len(dialogues) - len(several),
        "dialogue without a rewritten turn": len(several) - len(rewritten),
        "dialogue with a turn that is too long": len(rewritten) - len(kept),
    }
    prompt = pl.format("{}\n\nDialogue:\n{}", instruction, pl.col("said"))
    return Built(generative_rows(rows.with_columns(prompt=prompt), corpus, TASK), drops=drops)


def _turns(dialogues: pl.DataFrame) -> pl.DataFrame:
    """Return the first turns of each dialogue: `row`, `speaker`, `text`, `rewrite`, `judged`, `changed`."""
    turns = dialogues.select("row", pl.col("turns").list.head(MAX_TURNS)).explode("turns").drop_nulls("turns")
    turns = turns.unnest("turns").with_columns(
        text=_spaced(clean(pl.col("text"))),
        rewrite=_spaced(clean(pl.col("rewrite"))),
        judged=pl.col("rewrite").is_not_null(),
    )
    # Words in another spacing are no rewrite: `L. A.` and `L.A.`.
    said, meant = (title_key(pl.col(name)).str.replace_all(" ", "") for name in ("text", "rewrite"))
    changed = (pl.col("rewrite") != "") & (said != meant)
    first, last = r"^(\w+)", r"([.!?]+)$"
    lost = ~pl.col("rewrite").str.contains(last) & (
        pl.col("rewrite").str.to_lowercase().str.extract(first) == pl.col("text").str.to_lowercase().str.extract(first)
    )
    finished = pl.col("rewrite") + pl.when(lost).then(pl.col("text").str.extract(last)).fill_null("")
    return turns.filter(pl.col("text") != "").with_columns(
        changed=changed, rewrite=pl.when(changed).then(finished).otherwise("text")
    )


def _line(column: str) -> pl.Expr:
    return pl.format("{}: {}", pl.col("speaker").str.to_titlecase(), pl.col(column))


def _spaced(text: pl.Expr) -> pl.Expr:
    """Return `text` without the spaces that a tokeniser put before punctuation, endings and inside brackets."""
    return (
        text.str.replace_all(r"\s+([,.?!;:%)\]])", "$1")
        .str.replace_all(r"([(\[$#])\s+", "$1")
        .str.replace_all(r"(\w)\s+('s|'m|'re|'ve|'ll|'d|n't)\b", "$1$2")
        .str.replace_all(r"(\w) ' (s|m|re|ve|ll|d|t)\b", "$1'$2")
        .str.replace_all(r"s ' (\w)", "s' $1")
        .str.replace_all(r"(\d) / (\d)", "$1/$2")
    )
