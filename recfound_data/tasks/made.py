"""Finished samples of another project, in this dataset's schema; they stand beside what a task makes of raw tables.

Anchors, positives and negatives are the corpus's own. What breaks this dataset's rules goes: a positive that is the
anchor's own item, or a duplicate of it, takes the sample along; a negative that is one, or is a positive of the same
anchor, leaves the others. Prompts and answers are passed on as they were written, but for blank lines, so an answer has
the format that its prompt asks for. Of a choice the label is the letter alone, and `options` are the letters; a
recommendation has its titles there, and its prompt lists them as this dataset does, `A. title`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import polars as pl

from recfound_data.cleaning import clean, shorten
from recfound_data.identity import sample_id, stable_id
from recfound_data.people import scrub
from recfound_data.samples import (
    EMBEDDING,
    GENERATIVE,
    LETTERS,
    Built,
    Corpus,
    generative_rows,
    official_split,
    phrased,
)
from recfound_data.tasks import item2item, query2item, user2item
from recfound_data.tasks.catalogue import TASKS

DRIVEN_BY = "made"
READS = ("catalogue",)
ANCHOR_CHARS = 4_000
PROMPT_CHARS = 16_000
ANSWER_CHARS = 4_000
POSITIVE_GRADE = {"query2item": query2item.EXACT}
_PHRASINGS = {module.TASK: module.PHRASINGS for module in (user2item, query2item, item2item)}
_WRITTEN_BY_A_MODEL = ("user_profile", "item_profile")
_A_LINE_EACH = "(?m)" + r"\n".join(rf"^[ \t]*{letter}[.:)][ \t]*(\S.*?)[ \t]*$" for letter in LETTERS)
_A_LIST = r"\[\s*" + r"\s*,\s*".join(rf"""["']{letter}[.:)]\s*(\S.*?)\s*["']""" for letter in LETTERS) + r"\s*\]"
_PLACE = "\x1a"


def build(corpus: Corpus, task: str) -> Built:
    """Return the corpus's own samples of `task`, and for an embedding task their judgements."""
    rows = corpus.tables[DRIVEN_BY].filter(pl.col("task") == task)
    rows = rows.with_columns(split=official_split(corpus, DRIVEN_BY, task))
    return _embedding(rows, corpus, task) if TASKS[task].kind == "embedding" else _generative(rows, corpus, task)


def _embedding(rows: pl.DataFrame, corpus: Corpus, task: str) -> Built:
    items = corpus.tables["catalogue"].select("item_id", "product", "text", "domain")
    rows = rows.with_columns(id=sample_id(pl.col("group"), task, corpus.name, pl.col("positive")))
    placed = _anchors(rows, corpus, task, items)
    positives = items.select(positive_id="item_id", product="product", positive_text="text", domain="domain")
    placed = placed.with_columns(positive_id=_global(corpus, pl.col("positive")))
    known = placed.join(positives, on="positive_id", how="inner", maintain_order="left")
    other = known.filter(pl.col("product").ne_missing(pl.col("anchor_product")))
    once = other.unique(["anchor_id", "product"], keep="first", maintain_order=True)
    negatives, dropped = _negatives(once, corpus, items)
    samples = once.join(negatives, on="id", how="inner", maintain_order="left")
    instruction = clean(pl.col("instruction"))
    samples = samples.with_columns(
        corpus=pl.lit(corpus.name),
        instruction=pl.when(instruction == "")
        .then(phrased(_PHRASINGS[task], corpus.recipe.seed, pl.col("id")))
        .otherwise(instruction),
        positive=pl.col("positive_text"),
        negative=pl.col("texts").list.first(),
        more_negatives=pl.col("texts").list.slice(1),
    )
    grade = pl.lit(POSITIVE_GRADE.get(task, 1), pl.Int8)
    qrels = once.select("split", query_id="anchor_id", item_id="positive_id", grade=grade)
    qrels = qrels.join(samples, left_on="query_id", right_on="anchor_id", how="semi", maintain_order="left")
    drops = {
        "sample whose anchor is empty or not in the catalogue": len(rows) - len(placed),
        "sample whose positive is not in the catalogue": len(placed) - len(known),
        "sample whose positive is the anchor or its duplicate": len(known) - len(other),
        "sample whose positive is stated again": len(other) - len(once),
        "sample without a negative left": len(once) - len(samples),
        **dropped,
    }
    return Built(samples.select(*EMBEDDING, "split"), qrels=qrels, drops=drops)


def _global(corpus: Corpus, item: pl.Expr) -> pl.Expr:
    return pl.concat_str(pl.lit(corpus.name), item, separator="/")


def _anchors(rows: pl.DataFrame, corpus: Corpus, task: str, items: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with `anchor`, `anchor_id` and, where the anchor is an item, `anchor_product`."""
    if task == "item2item":
        # The corpus names an item by the hash of its text.
        named = rows.with_columns(anchor_id=_global(corpus, stable_id(pl.col("anchor")))).drop("anchor")
        texts = items.select(anchor_id="item_id", anchor_product="product", anchor="text")
        return named.join(texts, on="anchor_id", how="inner", maintain_order="left")
    return rows.with_columns(
        anchor=shorten(clean(pl.col("anchor")), ANCHOR_CHARS),
        anchor_id=stable_id(task, corpus.name, pl.col("group")),
        anchor_product=pl.lit(None, items.schema["product"]),
    ).filter(pl.col("anchor") != "")


def _negatives(rows: pl.DataFrame, corpus: Corpus, items: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return `id`, `negative_ids`, `texts`: the first true negatives of each sample, as many as the recipe wants."""
    flat = rows.select("id", "anchor_id", "anchor_product", "domain", item_id="negatives")
    flat = flat.explode("item_id", empty_as_null=False, keep_nulls=False)
    flat = flat.with_columns(item_id=_global(corpus, pl.col("item_id")))
    found = flat.join(items, on=["item_id", "domain"], how="inner", maintain_order="left")
    apart = found.filter(pl.col("product").ne_missing(pl.col("anchor_product")))
    answers = rows.select("anchor_id", "product")
    true = apart.join(answers, on=["anchor_id", "product"], how="anti", maintain_order="left")
    once = true.unique(["id", "product"], keep="first", maintain_order=True)
    lists = once.group_by("id", maintain_order=True).agg(negative_ids="item_id", texts="text")
    return lists.with_columns(pl.col("negative_ids", "texts").list.head(corpus.recipe.negatives)), {
        "negative that is not in the catalogue": len(flat) - len(found),
        "negative that is the anchor or its duplicate": len(found) - len(apart),
        "negative that is a positive or its duplicate": len(apart) - len(true),
        "negative stated again": len(true) - len(once),
    }


def _generative(rows: pl.DataFrame, corpus: Corpus, task: str) -> Built:
    # Resolved entities would break the JSON of extracted values, and part them from their text.
    tidy = scrub if task == "attribute_value_extraction" else clean
    texts = rows.with_columns(prompt=_lines(pl.col("prompt"), tidy), label=_lines(pl.col("answer"), tidy))
    texts = texts.filter((pl.col("prompt") != "") & (pl.col("label") != ""))
    short = texts.filter(
        (pl.col("prompt").str.len_chars() <= PROMPT_CHARS) & (pl.col("label").str.len_chars() <= ANSWER_CHARS)
    ).with_columns(options=pl.lit([], pl.List(pl.String)))
    fit = _FITTING[task](short) if task in _FITTING else short
    samples = fit.with_columns(
        id=sample_id(pl.col("group"), task, corpus.name, pl.col("prompt"), pl.col("label")),
        domain=pl.lit(corpus.name),
        label_source=pl.lit("recfound_release" if task in _WRITTEN_BY_A_MODEL else "corpus"),
    ).unique("id", keep="first", maintain_order=True)
    drops = {
        "sample without a prompt or an answer": len(rows) - len(texts),
        f"prompt over {PROMPT_CHARS:,} characters or answer over {ANSWER_CHARS:,}": len(texts) - len(short),
        "sample whose answer does not fit its prompt": len(short) - len(fit),
        "sample repeated": len(fit) - len(samples),
    }
    return Built(generative_rows(samples, corpus, task).select(*GENERATIVE, "split"), drops=drops)


def _lines(text: pl.Expr, tidy: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """Return `text` made tidy line by line, blank lines left out: finished prompts set their parts apart by lines."""
    lines = text.str.split("\n").list.eval(tidy(pl.element()).str.strip_chars_end())
    return lines.list.eval(pl.element().filter(pl.element() != "")).list.join("\n")


def _recommendations(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose prompts list twenty options and whose label is the letter of one."""
    lined, listed = (pl.col("prompt").str.extract_groups(pattern) for pattern in (_A_LINE_EACH, _A_LIST))
    letter = pl.col("label").str.extract(rf"^\W*([{LETTERS[0]}-{LETTERS[-1]}])\b")
    found = rows.with_columns(options=pl.coalesce(_captured(lined), _captured(listed)), label=letter)
    found = found.filter((pl.col("options").list.n_unique() == len(LETTERS)) & pl.col("label").is_not_null())
    shown = [pl.format("{}. {}", pl.lit(letter), pl.col("options").list.get(at)) for at, letter in enumerate(LETTERS)]
    prompt = pl.col("prompt").str.replace(_A_LINE_EACH, _PLACE).str.replace(_A_LIST, _PLACE)
    prompt = prompt.str.replace(rf"\s*{_PLACE}\s*", f"\n{_PLACE}\n").str.strip_chars("\n")
    return found.with_columns(prompt=prompt.str.replace(_PLACE, pl.concat_str(shown, separator="\n"), literal=True))


def _captured(groups: pl.Expr) -> pl.Expr:
    options = pl.concat_list(groups.struct.field(str(place + 1)) for place in range(len(LETTERS)))
    return pl.when(groups.struct.field("1").is_not_null()).then(options)


def _choices(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose answers name one of the lettered choices of their prompts, by that letter."""
    options = (
        pl.col("prompt")
        .str.extract_all(r"""(?m)(?:^|[\s\["'(])[A-E][.:)]\s""")
        .list.eval(pl.element().str.extract(r"([A-E])[.:)]"))
    )
    letter = pl.col("label").str.extract(r"^([A-E])(?:[.:)].*)?$")
    found = rows.with_columns(options=options.list.unique().list.sort(), label=letter)
    return found.filter(pl.col("options").list.contains(pl.col("label")).fill_null(False))


def _extractions(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose answers are a JSON list of attribute, value and source, with values of their prompts."""
    pairs = rows.select("label", "prompt").iter_rows()
    return rows.filter(pl.Series([_extracts(label, prompt) for label, prompt in pairs], dtype=pl.Boolean))


def _extracts(label: str, prompt: str) -> bool:
    try:
        found = json.loads(label)
    except ValueError:
        return False
    return (
        isinstance(found, list)
        and bool(found)
        and all(
            isinstance(one, dict)
            and set(one) == {"attribute", "value", "source"}
            and isinstance(one["attribute"], str)
            and (
                one["value"] is None
                or (isinstance(one["value"], str) and one["value"] != "" and one["value"] in prompt)
            )
            for one in found
        )
    )


def _rewrites(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(~pl.col("prompt").str.ends_with(pl.col("label")))


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(label=pl.col("label").str.to_lowercase()).filter(pl.col("label").is_in(["yes", "no"]))


_FITTING = {
    "sequential_recommendation": _recommendations,
    "sentiment_analysis": _choices,
    "product_relation_prediction": _choices,
    "attribute_value_extraction": _extractions,
    "query_rewriting": _rewrites,
    "answerability_prediction": _answers,
    "product_matching": _answers,
}
"""For tasks whose answers have a form: those rows whose answers have it."""
