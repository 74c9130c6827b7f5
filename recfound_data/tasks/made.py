"""Finished samples of another project, in this dataset's schema: the corpus's own besides what a task makes itself.

Anchors, positives and negatives are those of the corpus. What breaks this dataset's rules goes: a positive that is its
anchor's own item or a duplicate of it takes the sample along, a negative that is one, or a positive of the same anchor,
leaves the others. Prompts and answers are passed on as they were written, so labels keep the format that each prompt asks
for; the options of a recommendation are read from its prompt, `A` to `T`, and its label is the letter.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import clean, shorten
from recfound_data.identity import sample_id, stable_id
from recfound_data.people import scrub
from recfound_data.samples import EMBEDDING, GENERATIVE, LETTERS, Built, Corpus, generative_rows, official_split
from recfound_data.tasks.catalogue import TASKS

DRIVEN_BY = "made"
READS = ("catalogue",)
ANCHOR_CHARS = 4_000
PROMPT_CHARS = 16_000
ANSWER_CHARS = 6_000
POSITIVE_GRADE = {"query2item": 3}
_WRITTEN_BY_A_MODEL = ("user_profile", "item_profile")
_A_LINE_EACH = "(?m)" + r"\n+".join(rf"^[ \t]*{letter}[.:)][ \t]*(\S.*?)[ \t]*$" for letter in LETTERS)
_A_LIST = r"\[\s*" + r"\s*,\s*".join(rf"""["']{letter}[.:)]\s*(\S.*?)\s*["']""" for letter in LETTERS) + r"\s*\]"


def build(corpus: Corpus, task: str) -> Built:
    """Return the corpus's own samples of `task`, and for an embedding task their queries and judgements."""
    rows = corpus.tables[DRIVEN_BY].filter(pl.col("task") == task)
    rows = rows.with_columns(split=official_split(corpus, DRIVEN_BY, task))
    return _embedding(rows, corpus, task) if TASKS[task].kind == "embedding" else _generative(rows, corpus, task)


def _embedding(rows: pl.DataFrame, corpus: Corpus, task: str) -> Built:
    items = corpus.tables["catalogue"].select("item_id", "product", "text", "domain")
    own = pl.lit(f"{corpus.name}/")
    # An item that is an anchor has the id of that item; a history or a query is known by its group.
    item = own + stable_id(pl.col("anchor")) if task == "item2item" else pl.lit(None, pl.String)
    asked = rows.with_columns(
        anchor_item=item,
        anchor=shorten(clean(pl.col("anchor")), ANCHOR_CHARS),
        positive_id=own + pl.col("positive"),
        id=sample_id(pl.col("group"), task, corpus.name, pl.col("positive")),
    ).filter(pl.col("anchor") != "")
    anchors = items.select(anchor_item="item_id", anchor_product="product")
    known = asked.join(anchors, on="anchor_item", how="left", maintain_order="left").join(
        items.select(positive_id="item_id", product="product", positive="text", domain="domain"),
        on="positive_id", how="inner", suffix="_of_item", maintain_order="left",
    )  # fmt: skip
    known = known.with_columns(
        anchor_id=pl.coalesce("anchor_item", stable_id(task, corpus.name, pl.col("group"))),
        positive=pl.col("positive_of_item"),
    )
    other = known.filter(pl.col("product").ne_missing(pl.col("anchor_product")))
    once = other.unique(["anchor_id", "product"], keep="first", maintain_order=True)
    negatives, dropped = _negatives(once, items, own, corpus.recipe.negatives)
    samples = once.join(negatives, on="id", how="inner", maintain_order="left").with_columns(
        corpus=pl.lit(corpus.name),
        instruction=clean(pl.col("instruction")),
        negative=pl.col("texts").list.first(),
        more_negatives=pl.col("texts").list.slice(1),
    )
    queries = samples.select("split", query_id="anchor_id", task="task", text="anchor").unique(
        ["split", "query_id"], keep="first", maintain_order=True
    )
    grade = pl.lit(POSITIVE_GRADE.get(task, 1), pl.Int8)
    qrels = once.select("split", query_id="anchor_id", item_id="positive_id", grade=grade)
    qrels = qrels.join(queries, on=["split", "query_id"], how="semi", maintain_order="left")
    drops = {
        "sample without an anchor": len(rows) - len(asked),
        "sample whose positive is not in the catalogue": len(asked) - len(known),
        "sample whose positive is the anchor or its duplicate": len(known) - len(other),
        "sample whose positive is stated again": len(other) - len(once),
        "sample without a negative left": len(once) - len(samples),
        **dropped,
    }
    return Built(samples.select(*EMBEDDING, "split"), qrels, drops)


def _negatives(rows: pl.DataFrame, items: pl.DataFrame, own: pl.Expr, most: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return `id`, `negative_ids`, `texts`: the first `most` negatives of each sample that are true ones."""
    columns = ("id", "anchor_id", "anchor_product", "domain")
    flat = rows.select(*columns, item_id="negatives").explode("item_id", empty_as_null=False, keep_nulls=False)
    flat = flat.with_columns(item_id=own + pl.col("item_id"))
    # Inner on the domain too: what is another shop's is no hard negative.
    found = flat.join(items, on=["item_id", "domain"], how="inner", maintain_order="left")
    apart = found.filter(pl.col("product").ne_missing(pl.col("anchor_product")))
    true = apart.join(
        rows.select("anchor_id", "product"), on=["anchor_id", "product"], how="anti", maintain_order="left"
    )
    once = true.unique(["id", "product"], keep="first", maintain_order=True)
    lists = once.group_by("id", maintain_order=True).agg(negative_ids="item_id", texts="text")
    return lists.with_columns(pl.col("negative_ids", "texts").list.head(most)), {
        "negative that is not in the catalogue": len(flat) - len(found),
        "negative that is the anchor or its duplicate": len(found) - len(apart),
        "negative that is a positive or its duplicate": len(apart) - len(true),
        "negative stated again": len(true) - len(once),
    }


def _generative(rows: pl.DataFrame, corpus: Corpus, task: str) -> Built:
    # Resolved entities would break the JSON of extracted values, and part them from their text.
    tidy = scrub if task == "attribute_value_extraction" else _lines
    texts = rows.with_columns(prompt=tidy(pl.col("prompt")), label=tidy(pl.col("answer")))
    texts = texts.filter((pl.col("prompt") != "") & (pl.col("label") != ""))
    short = texts.filter(
        (pl.col("prompt").str.len_chars() <= PROMPT_CHARS) & (pl.col("label").str.len_chars() <= ANSWER_CHARS)
    )
    fit = _with_options(short) if task == "sequential_recommendation" else short
    once = fit.unique(["group", "prompt", "label"], keep="first", maintain_order=True)
    samples = once.with_columns(
        id=sample_id(pl.col("group"), task, corpus.name, pl.col("prompt"), pl.col("label")),
        domain=pl.lit(corpus.name),
        label_source=pl.lit("recfound_release" if task in _WRITTEN_BY_A_MODEL else "corpus"),
    )
    return Built(generative_rows(samples, corpus, task).select(*GENERATIVE, "split"), drops={
        "sample without a prompt or an answer": len(rows) - len(texts),
        f"prompt over {PROMPT_CHARS:,} characters or answer over {ANSWER_CHARS:,}": len(texts) - len(short),
        "recommendation without twenty options and the letter of one": len(short) - len(fit),
        "sample repeated": len(fit) - len(once),
    })  # fmt: skip


def _with_options(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the recommendations with `options`, as their prompts list them, and `label`, a letter."""
    ways = [_groups(pl.col("prompt").str.extract_groups(pattern)) for pattern in (_A_LINE_EACH, _A_LIST)]
    letter = pl.col("label").str.extract(rf"^\W*([{LETTERS[0]}-{LETTERS[-1]}])\b")
    found = rows.with_columns(options=pl.coalesce(ways), label=letter)
    return found.filter((pl.col("options").list.n_unique() == len(LETTERS)) & pl.col("label").is_not_null())


def _groups(found: pl.Expr) -> pl.Expr:
    first = found.struct.field("1")
    options = pl.concat_list(found.struct.field(str(place + 1)) for place in range(len(LETTERS)))
    return pl.when(first.is_not_null()).then(options)


def _lines(text: pl.Expr) -> pl.Expr:
    """Return `text` cleaned line by line: finished prompts set their parts apart by lines."""
    return text.str.split("\n").list.eval(clean(pl.element())).list.join("\n").str.strip_chars()
