"""answer_generation (AG): a question and what is written about the product → the most helpful answer. BERTScore F1.

The completion is the answer alone, in the answerer's words, from two words to `ANSWER_CHARS` characters, never cut:
the most helpful of those that say something. Questions whose evidence is labelled as not answering them are left out,
and so are those that people answered with both yes and no.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from recfound_data.cleaning import clean, shorten, title_key
from recfound_data.identity import sample_id
from recfound_data.samples import Built, Corpus, generative_rows, official_split, phrased

TASK = "answer_generation"
DRIVEN_BY = "questions"
READS = ("catalogue",)
PHRASINGS = (
    "Answer the customer's question about the product.",
    "Write the answer that would help this shopper most.",
    "A shopper asks the following about a product. Reply in a sentence or a few.",
    "Give a helpful answer to this product question.",
    "Below is a question from a product page. Answer it as someone who knows the product would.",
)
TITLE_CHARS = 150
QUESTION_CHARS = 300
ANSWER_CHARS = 800
PASSAGES = 10
PASSAGE_CHARS = 600
FEWEST_WORDS = 5
"""The shortest question, in words, that is asked with neither evidence nor title: `model number` alone says nothing."""

_NAME = r"(?:there|[A-Z][\w.'-]*)"
_HI = r"^(?i:hi|hello|hey|dear|greetings)"
_NAMES = {
    rf"{_HI}[\s,]+((?i:yes|no|not|sure|sorry|it|i|this|the|you|we|my)\b)": "$1",
    rf"{_HI}(?:[ ,]+\S+?)?(?:[ ,]+{_NAME}){{0,2}}\s*[,.!:-]+\s*": "",
    rf"{_HI} [A-Z][a-z]+ ([A-Z][a-z]* )": "$1",
    r"[\s,.!-]+(?i:thanks|thank you|(?:(?:kind|best|warm) )?regards|sincerely|cheers)"
    rf"[\s,.!-]+{_NAME}(?: {_NAME})?\W*$": ".",
}
"""People are addressed by name and sign with it; both go. Case tells most names from words."""
_HELLO = r"(?i)^\W*(?:(?:hi|hello|hey|sorry|well|honestly|actually|unfortunately|but|thanks?|thank you)\b\W*)*"
_UNSURE = _HELLO + (
    r"(?:i|we)?(?:'?m| am|'re| are)?\s*(?:really |just |honestly |truly )?(?:"
    r"not (?:really |too |entirely |completely |totally |100% |quite |exactly )?(?:sure|certain|positive)\b|unsure\b"
    r"|(?:have )?no (?:idea|clue)\b|have(?: ?n'?t| not) (?:tried|used|installed|got|received|any (?:idea|clue))\b"
    r"|do(?: ?n'?t| not) (?:really |actually )?(?:know|remember|recall|understand|own|have (?:one|it|this|that))\b"
    r"|did(?: ?n'?t| not) (?:buy|purchase|order|try|use)\b|(?:ca ?n'?t|can ?not) (?:say|tell|answer|help|remember)\b"
    r"|would(?: ?n'?t| not) know\b|wish i (?:knew|could)\b)"
)
_ELSEWHERE = _HELLO + (
    r"(?:(?:please|just|simply|best to|try|you|i|should|could|can|may|might|would|'d|will have to|need to|want to"
    r"|suggest|recommend|that|to)\b\s*)*(?:"
    r"(?:contact|call|e-?mail|ask|consult|refer|see|visit|google|message|search)(?:ing)?\b"
    r"|(?:check|look|read|go)(?:ing)? (?:above|below|on-? ?line|with|(?:at |in |to |on )?(?:the|your|my|their|our)"
    r" (?:[\w']+ )?(?:manual|description|web ?site|site|internet|web|listing|pictures?|photos?|specs|specifications"
    r"|answers?|reviews?)))\b"
)
_UNFIT = {
    "answer of one word": r"^\W*\w*(?:[.'/-]\w+)*\W*$",
    "answer with a link": r"(?i)https?:|\bwww\.|\.com\b",
    "answer with an address or a phone number": r"\[(?:email|phone)\]",
    "answer that does not know": _UNSURE,
    "answer that sends elsewhere": _ELSEWHERE,
    "answer that asks back": r"\?\W*$",
    f"answer longer than {ANSWER_CHARS} characters": rf"(?s)^.{{{ANSWER_CHARS + 1}}}",
}
_YES = r"(?i)^\W*(?:yes|yep|yeah)\b"
_NO = r"(?i)^\W*(?:no|nope)\b\s*(?:[,.;:!-]|$|(?:it|you|they|this|these|i)\b)"


def build(corpus: Corpus) -> Built:
    """Return a sample for every question with a usable answer, one a question and product."""
    rows = asked(corpus)
    answered = rows.filter(pl.col("answers").list.len() > 0)
    agreed = answered.filter(~(_any_answer(_YES) & _any_answer(_NO)))
    held = agreed.filter(pl.col("answerable").fill_null(True))
    usable, unfit = _labelled(held)
    alone = (pl.col("evidence").list.len() == 0) & (pl.col("title") == "")
    clear = usable.filter(~alone | (pl.col("question").str.split(" ").list.len() >= FEWEST_WORDS))
    parts = (TASK, corpus.name, pl.col("question_id"), pl.col("question"), pl.col("label"))
    named = clear.with_columns(id=sample_id(pl.col("group"), *parts)).sort("id")
    single = named.unique(["group", "key"], keep="first", maintain_order=True)
    shown = pl.col("evidence").list.head(PASSAGES).list.eval(shorten(pl.element(), PASSAGE_CHARS))
    samples = single.with_columns(prompt=prompt(PHRASINGS, corpus.recipe.seed, shown))
    drops = {
        "question without text": len(corpus.tables[DRIVEN_BY]) - len(rows),
        "question without an answer": len(rows) - len(answered),
        "question answered with both yes and no": len(answered) - len(agreed),
        "question that its evidence does not answer": len(agreed) - len(held),
        "question without a usable answer": len(held) - len(usable),
        "question too short to be asked alone": len(usable) - len(clear),
        "question asked before of the same product": len(named) - len(single),
    }
    return Built(generative_rows(samples, corpus, TASK), drops=drops | unfit)


def asked(corpus: Corpus) -> pl.DataFrame:
    """Return the questions that have a text, with their split; texts clean, `title` empty where nobody knows it."""
    rows = corpus.tables[DRIVEN_BY].with_columns(split=official_split(corpus, DRIVEN_BY, DRIVEN_BY))
    title = pl.col("title")
    if "catalogue" in corpus.tables:
        known = corpus.tables["catalogue"].select(product="item_id", named="title").unique("product", keep="first")
        rows = rows.with_columns(product=pl.format("{}/{}", pl.lit(corpus.name), "item_id"))
        rows = rows.join(known, on="product", how="left", maintain_order="left")
        title = pl.coalesce(title, "named")
    rows = rows.with_columns(
        title=shorten(clean(title), TITLE_CHARS),
        question=shorten(clean(pl.col("question")), QUESTION_CHARS),
        evidence=_texts("evidence"),
        answers=_texts("answers", _nameless),
    )
    return rows.with_columns(key=title_key(pl.col("question"))).filter(pl.col("question") != "")


def prompt(phrasings: tuple[str, ...], seed: int, evidence: pl.Expr) -> pl.Expr:
    """Return what the user says: the instruction, the product as far as it is known, the question, the evidence."""
    bare = evidence.list.len() == 0
    product = (
        pl.when(pl.col("title") != "").then(pl.format("Product: {}\n", "title"))
        .when(bare).then(pl.format("Product category: {}\n", "domain"))
        .otherwise(pl.lit(""))
    )  # fmt: skip
    listed = pl.format("\n\nReviews and product details:\n- {}", evidence.list.join("\n- "))
    told = pl.when(bare).then(pl.lit("")).otherwise(listed)
    return pl.format("{}\n\n{}Question: {}{}", phrased(phrasings, seed, pl.col("id")), product, "question", told)


def _texts(column: str, then: Callable[[pl.Expr], pl.Expr] = lambda text: text) -> pl.Expr:
    cleaned = pl.col(column).fill_null([]).list.eval(then(clean(pl.element())))
    return cleaned.list.filter(pl.element() != "").list.unique(maintain_order=True)


def _nameless(text: pl.Expr) -> pl.Expr:
    for pattern, rest in _NAMES.items():
        text = text.str.replace(pattern, rest)
    return text


def _any_answer(pattern: str) -> pl.Expr:
    return pl.col("answers").list.eval(pl.element().str.contains(pattern)).list.any()


def _labelled(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the rows with the first answer that says something as `label`; how many answers do not, by reason."""
    rows = rows.with_row_index("row")
    plain = pl.col("label").str.replace_all("[’`]", "'")
    reason = pl.coalesce(pl.when(plain.str.contains(pattern)).then(pl.lit(why)) for why, pattern in _UNFIT.items())
    answers = rows.select("row", label="answers").explode("label").with_columns(unfit=reason)
    counts = answers.drop_nulls("unfit")["unfit"].value_counts()
    fit = answers.filter(pl.col("unfit").is_null()).unique("row", keep="first", maintain_order=True)
    return rows.join(fit, on="row", how="inner", maintain_order="left"), dict(counts.iter_rows())
