"""item_profile (IP): what is known of an item → a description in prose. BERTScore F1.

The prompt has the title, maker, categories, further facts, the mean rating of the training period (from
`_MIN_RATINGS` ratings on) and the beginning of the item's own text, a labelled line each. The description has two to
four sentences, composed of these facts alone; of the item's own text it quotes the first sentence where that stands by
itself. Ratings are called very good from 84 % of the scale on, good from 70 %, poor up to 56 %. Items of which fewer
than three facts besides the title can be told give no sample. Offers of one product are in one split.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import OPTION_CHARS, clean, product_key, shorten
from recfound_data.identity import draw, sample_id, stable_id
from recfound_data.prose import (
    GOOD,
    HIGH,
    POOR,
    agreeing,
    article,
    at_least,
    at_most,
    figure,
    joined,
    kind,
    listed,
    not_empty,
    one_of,
    paragraph,
    quoted,
    rating_scale,
    year,
)
from recfound_data.samples import Built, Corpus, generative_rows, group_split, phrased

TASK = "item_profile"
DRIVEN_BY = "catalogue"
READS = ("item_stats",)
PHRASINGS = (
    "Describe this item in a few sentences, using the facts below.",
    "Write a short description of the item from what is known about it.",
    "Turn these facts into a brief profile of the item in prose.",
    "Introduce the item to somebody who has not seen it, going by the details given.",
    "Sum up the item below in one paragraph.",
)

_MIN_FACTS = 3
_MIN_RATINGS = 5
_SENTENCES = 4
_CATEGORIES = 4
_FACTS = 6
_DETAILS = 3
_NAME_CHARS = 40
_VALUE_CHARS = 80
_TEXT_CHARS = 300

_NAMED = (
    "{title} is {a} {kind}{made}.",
    "This {kind}{made} is called {title}.",
    "The {kind} described here is {title}{made}.",
    "Here is {title}, {a} {kind}{made}.",
)
_NAMED_AND_FILED = (
    "{title} is {a} {kind}{made}, filed under {categories}.",
    "Filed under {categories}, {title} is {a} {kind}{made}.",
    "{title}, {a} {kind}{made}, belongs to {categories}.",
    "Under {categories} stands {title}, {a} {kind}{made}.",
)
_FILED = (
    "It is filed under {categories}.",
    "It belongs to {categories}.",
    "The catalogue has it under {categories}.",
    "Its {category} {are} {categories}.",
)
_RATED = (
    "Over {rated} ratings it averages {mean} out of {scale}, which is {verdict}.",
    "Its mean rating is {verdict}: {mean} out of {scale} over {rated} ratings.",
    "It is {liked} by those who rated it, with a mean of {mean} out of {scale} over {rated} ratings.",
    "With {mean} out of {scale} on average over {rated} ratings, it is {liked}.",
)
_DETAILED = (
    "{details}.",
    "As for details, {details}.",
    "It can be added that {details}.",
    "To say more, {details}.",
)
_TOLD = (
    "Its own text says: {sentence}",
    "The text that comes with it begins: {sentence}",
    "In the words of its description: {sentence}",
    "The description opens with this: {sentence}",
)

_LABELLED = r"^(By|Categories): "
"""Lines of a catalogue text that repeat what has a line of its own."""
_SENTENCE = r"^([\"'(]?[A-Z0-9][^“”:\[\]]{30,150}?(?:[a-z]{4}|\d\d|\))[.!])(?:\s+[A-Z0-9]|$)"
"""A first sentence of about 35 to 160 characters; four letters before its end, so that it is no abbreviation's."""
_NO_NOUN = r"(?i)^(is|are|has|have|does|can|was)\b|[?:]|\b(included|required|available|discontinued)\b"
_NO_VALUE = r"(?i)^(yes|no|true|false|n/?a|none|unknown|null|-*)$"
_PLURAL = r"(?i)[^sui]s$"


def build(corpus: Corpus) -> Built:
    """Return one sample for every product of which three facts are known."""
    catalogue = corpus.tables["catalogue"].sort("item")
    once = catalogue.unique("product", keep="first", maintain_order=True)
    known = _known(once, corpus)
    kept = known.filter(pl.col("told") >= _MIN_FACTS)
    group = stable_id(corpus.name, product_key(pl.col("title")))
    rows = kept.with_columns(
        id=sample_id(group, TASK, corpus.name, pl.col("item_id")),
        split=group_split(group, corpus.recipe, TASK),
        label_source=pl.lit("composed"),
    )
    scale, seed = rating_scale(corpus.tables.get("item_stats")), corpus.recipe.seed
    rows = rows.with_columns(prompt=_prompt(seed, scale), label=_profile(seed, scale))
    drops = {
        "item that repeats a product": len(catalogue) - len(once),
        "item with fewer than three facts to tell": len(once) - len(kept),
    }
    return Built(generative_rows(rows, corpus, TASK), drops=drops)


def _known(items: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the items with their facts as they are shown, null where not known, and how many can be told, `told`."""
    own = pl.col("text").str.split("\n").list.slice(1).list.filter(~pl.element().str.contains(_LABELLED))
    named = items.select(
        "item",
        "item_id",
        "domain",
        "facts",
        title=shorten(pl.col("title"), OPTION_CHARS),
        maker=not_empty(shorten(pl.col("brand"), _VALUE_CHARS)),
        categories=pl.col("categories").fill_null([]).list.unique(maintain_order=True).list.head(_CATEGORIES),
        year=year(pl.col("facts")),
        text=not_empty(shorten(own.list.join(" "), _TEXT_CHARS)),
    )
    named = named.join(_ratings(items["item"], corpus.tables.get("item_stats")), on="item", how="left")
    named = named.join(_facts(named), on="item", how="left").sort("item")
    named = named.with_columns(sentence=pl.col("text").str.extract(_SENTENCE))
    single = [pl.col(name).is_not_null().cast(pl.Int64) for name in ("maker", "year", "rated", "sentence")]
    several = [(pl.col("categories").list.len() > 0).cast(pl.Int64), pl.col("details").list.len().fill_null(0)]
    return named.with_columns(told=pl.sum_horizontal(*single, *several))


def _ratings(items: pl.Series, stats: pl.DataFrame | None) -> pl.DataFrame:
    """Return `rated` and `mean` of the items that have enough ratings."""
    if stats is None:
        return pl.DataFrame(schema={"item": pl.UInt32, "rated": pl.UInt32, "mean": pl.Float64})
    near = stats.filter(pl.col("item").is_between(items.min(), items.max()) & (pl.col("rated") >= _MIN_RATINGS))
    return near.select("item", "rated", mean=pl.col("rating_mean").cast(pl.Float64))


def _facts(items: pl.DataFrame) -> pl.DataFrame:
    """Return each item's further facts: `lines` as the prompt shows them, `details` as clauses of a sentence.

    What has a line of its own, the maker and the mean rating, is left out.
    """
    facts = items.select("item", "maker", "rated", "facts").explode("facts").drop_nulls("facts").unnest("facts")
    facts = facts.with_columns(
        name=clean(pl.col("name")).str.strip_chars_end(": "), value=clean(pl.col("value")).str.strip_chars_end(". ")
    )
    name, value = pl.col("name"), pl.col("value")
    again = name.str.contains(r"(?i)\brating\b") & pl.col("rated").is_not_null()
    said = again | value.str.contains(pl.col("maker"), literal=True).fill_null(False)
    usable = (name.str.len_chars() <= _NAME_CHARS) & (value.str.len_chars() <= _VALUE_CHARS) & (name != "")
    readable = ~name.str.contains(_NO_NOUN) & ~value.str.contains(_NO_VALUE) & ~name.str.contains(r"(?i)\byear\b")
    # A name in capitals, such as ISBN, keeps them.
    noun = pl.when(name.str.contains(r"\p{Lu}{2}")).then(name).otherwise(name.str.to_lowercase())
    verb = pl.when(name.str.contains(_PLURAL)).then(pl.lit("are")).otherwise(pl.lit("is"))
    shown = facts.filter(usable & ~value.str.contains(_NO_VALUE) & ~said)
    return shown.group_by("item", maintain_order=True).agg(
        lines=pl.format("{}: {}", name, value).head(_FACTS),
        details=pl.format("the {} {} {}", noun, verb, value).head(_FACTS).filter(readable.head(_FACTS)).head(_DETAILS),
    )


def _prompt(seed: int, scale: int) -> pl.Expr:
    lines = [
        pl.format("Title: {}", pl.col("title")),
        pl.format("By: {}", pl.col("maker")),
        pl.format("Categories: {}", not_empty(pl.col("categories").list.join(", "))),
        pl.col("lines").list.join("\n"),
        pl.format(f"Mean rating: {{}} out of {scale} ({{}} ratings)", figure(pl.col("mean")), pl.col("rated")),
        pl.format("Text: {}", pl.col("text")),
    ]
    return pl.format("{}\n\n{}", phrased(PHRASINGS, seed, pl.col("id")), joined(lines, "\n"))


def _profile(seed: int, scale: int) -> pl.Expr:
    def said(salt: str, patterns: tuple[str, ...], **facts: pl.Expr) -> pl.Expr:
        return one_of(patterns, seed, f"{TASK} {salt}", pl.col("id"), **facts)

    mean, dated = pl.col("mean"), pl.col("year")
    # `Toy Story (1995)`, of 1995, is `Toy Story` from 1995.
    bare = pl.col("title").str.strip_suffix(pl.format(" ({})", dated))
    what = kind(pl.col("domain"))
    made = pl.format(" by {}", pl.col("maker")).fill_null("") + pl.format(" from {}", dated).fill_null("")
    named = {"title": quoted(pl.coalesce(bare, "title")), "kind": what, "a": article(what), "made": made}
    count = pl.col("categories").list.len()
    filed = {
        "categories": listed(pl.col("categories")),
        "category": agreeing(count, "category", "categories"),
        "are": agreeing(count, "is", "are"),
    }
    very_good, good, poor = (at_least(mean, HIGH, scale), at_least(mean, GOOD, scale), at_most(mean, POOR, scale))

    def graded(*words: str) -> pl.Expr:
        best, better, worst, other = (pl.lit(word) for word in words)
        return pl.when(very_good).then(best).when(good).then(better).when(poor).then(worst).otherwise(other)

    rating = {
        "rated": pl.col("rated"),
        "mean": figure(mean),
        "scale": pl.lit(str(scale)),
        "verdict": graded("very good", "good", "poor", "fair"),
        "liked": graded("very well liked", "well liked", "not much liked", "fairly liked"),
    }
    rated = said("rated", _RATED, **rating)
    detailed = said("details", _DETAILED, details=not_empty(pl.col("details").list.join("; ")))
    told = said("told", _TOLD, sentence=quoted(pl.col("sentence")))
    more = pl.any_horizontal(rated.is_not_null(), detailed.is_not_null(), told.is_not_null())
    together = (count > 0) & more & ((made == "") | (draw(seed, f"{TASK} together", pl.col("id")) % 2 == 0))
    both, name_alone = said("filed", _NAMED_AND_FILED, **named, **filed), said("named", _NAMED, **named)
    opening = pl.when(together).then(both).otherwise(name_alone)
    apart = pl.when(~together).then(said("apart", _FILED, **filed))
    return paragraph(_SENTENCES, opening, apart, rated, detailed, told)
