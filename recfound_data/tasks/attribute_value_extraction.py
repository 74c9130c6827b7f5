"""attribute_value_extraction (AVE): a product's texts and some attributes → their values as JSON. Micro-F1.

The label is a compact JSON list of objects with the keys `attribute`, `value` and `source`, in the order in which the
prompt names the attributes. A value is copied from a text and `source` is that text's name. An attribute with several
values has an object for each, in the order in which they stand; a value that is repeated, in whatever case, is listed
where it stands first. A value stands in whole words: "Men" is no value of "Women". An attribute that no text states has
one object whose value and source are null.

Texts are cut to `TEXT_CHARS`, and end where they add up to `PRODUCT_CHARS`; an attribute whose values are all cut off
is not asked for. A prompt asks for at most `MOST_ATTRIBUTES`, of which at most `MOST_ABSENT`, and never more than are
stated, are absent.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import clean, shorten
from recfound_data.identity import draw, sample_id, stable_id
from recfound_data.samples import GENERATIVE, Built, Corpus, generative_rows, official_split, phrased

TASK = "attribute_value_extraction"
DRIVEN_BY = "attributes"
READS = ()
PHRASINGS = (
    "Extract the value of each attribute from the product's texts. Reply with a JSON list of objects with the keys "
    '"attribute", "value" and "source", in the order of the attributes. Copy each value from a text and name that text '
    "as its source; where no text gives a value, value and source are null.",
    "Which values do the product's texts give for the attributes below? Write JSON: a list with one object "
    '{"attribute", "value", "source"} for every value found, attributes in the order given. The value is quoted as it '
    "stands, the source is the text it stands in, and both are null for an attribute that the texts do not state.",
    "Read the product and fill in its attributes. Answer only with a JSON list: each object holds an attribute, a "
    "value that is a span of one of the texts, and the source, which is the name of that text. Keep the order of the "
    "attributes, repeat an attribute that has several values, and use null for value and source if it has none.",
    "For every attribute listed, find where the product's texts state it. Return a JSON array of "
    '{"attribute": ..., "value": ..., "source": ...}, in the listed order, with the exact words of the text as value '
    "and the text's name as source, or null for both when nothing is stated.",
    "List the product's attribute values as JSON objects with attribute, value and source in one array. Take values "
    "word for word from the title or another text, say in source which one, follow the order of the attributes asked "
    "for, and put null in value and source for those that are missing.",
)
TEXT_CHARS = 1_000
PRODUCT_CHARS = 3_000
NAME_CHARS = 60
MOST_ATTRIBUTES = 8
MOST_ABSENT = 3
MOST_VALUES = 5
_OCCURRENCES = 8
"""How often a value is looked for in a text, in case that it first stands within a longer word."""


def build(corpus: Corpus) -> Built:
    """Return a sample for every product with a stated attribute; a product's rows, and its offers, are in one split."""
    rows = corpus.tables[DRIVEN_BY].with_row_index("row")
    rows = rows.with_columns(split=official_split(corpus, DRIVEN_BY, TASK))
    texts = _texts(rows)
    # Rows of one product that show the same texts are one offer, such as those of a corpus with a row an attribute.
    shown = texts.group_by("row", maintain_order=True).agg(shown=pl.format("- {}: {}", "source", "text").str.join("\n"))
    offers = rows.select("row", "group", "split", "domain").join(shown, on="row", how="inner", maintain_order="left")
    offers = offers.with_columns(offer=stable_id(pl.col("group"), pl.col("shown")))
    labels, drops = _labels(rows, offers, texts)
    asked = _asked(labels, corpus.recipe.seed)
    answers = asked.group_by("offer", maintain_order=True).agg(
        names=pl.format("- {}", pl.col("attribute").unique(maintain_order=True)).str.join("\n"),
        label=pl.col("object").str.join(","),
    )
    once = offers.unique("offer", keep="first", maintain_order=True)
    samples = once.join(answers, on="offer", how="inner", maintain_order="left").with_columns(
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("shown")), label=pl.format("[{}]", "label")
    )
    samples = samples.with_columns(
        prompt=pl.format(
            "{}\n\nAttributes:\n{}\n\nProduct:\n{}",
            phrased(PHRASINGS, corpus.recipe.seed, pl.col("id")),
            "names",
            "shown",
        )
    )
    drops["product without a text"] = len(rows) - len(offers)
    drops["product without a stated attribute"] = len(once) - len(samples)
    return Built(generative_rows(samples.sort("id"), corpus, TASK).select(*GENERATIVE, "split"), drops=drops)


def _texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the texts that are shown: `row`, `place` in the prompt, `source`, `text`."""
    flat = rows.select("row", "texts").explode("texts", empty_as_null=False, keep_nulls=False).unnest("texts")
    flat = flat.with_columns(source=clean(pl.col("source")), text=shorten(clean(pl.col("text")), TEXT_CHARS))
    flat = flat.filter((pl.col("text") != "") & (pl.col("source") != ""))
    flat = flat.unique(["row", "source", "text"], keep="first", maintain_order=True)
    flat = flat.filter(pl.col("text").str.len_chars().cum_sum().over("row") <= PRODUCT_CHARS)
    return flat.with_columns(place=pl.int_range(pl.len()).over("row"))


def _labels(rows: pl.DataFrame, offers: pl.DataFrame, texts: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return what the shown texts state, `offer`, `attribute`, `value`, `source`, a row a value in order; and drops."""
    flat = rows.select("row", "attributes").explode("attributes", empty_as_null=False, keep_nulls=False)
    flat = flat.unnest("attributes").with_columns(attribute=clean(pl.col("attribute")), source=clean(pl.col("source")))
    flat = flat.join(offers.select("row", "offer"), on="row", how="inner", maintain_order="left")
    named = flat.filter((pl.col("attribute") != "") & (pl.col("attribute").str.len_chars() <= NAME_CHARS))
    stated = named.drop_nulls("value").with_columns(value=clean(pl.col("value")))
    readable = stated.filter((pl.col("value") != "") & ~pl.col("value").str.contains(r"\[(email|phone)\]"))
    found = readable.join(texts, on=["row", "source"], how="inner", maintain_order="left")
    found = _located(found).sort("offer", "attribute", "place", "at", pl.col("value").str.len_chars())
    found = found.with_columns(folded=pl.col("value").str.to_lowercase()).unique(
        ["offer", "attribute", "folded"], keep="first", maintain_order=True
    )
    few = found.filter(pl.len().over("offer", "attribute") <= MOST_VALUES)
    both = ["offer", "attribute"]
    absent = named.filter(pl.col("value").is_null()).unique(both, keep="first", maintain_order=True)
    absent = absent.join(stated, on=both, how="anti", maintain_order="left").with_columns(
        source=pl.lit(None, pl.String)
    )
    columns = ["offer", "attribute", "value", "source"]
    counts = {frame: frames.select(both).n_unique() for frame, frames in
              {"stated": stated, "found": found, "few": few}.items()}  # fmt: skip
    return pl.concat([few.select(columns), absent.select(columns)]), {
        f"attribute without a name of at most {NAME_CHARS} characters": len(flat) - len(named),
        "attribute whose values the shown texts do not hold as whole words": counts["stated"] - counts["found"],
        f"attribute with more than {MOST_VALUES} values": counts["found"] - counts["few"],
    }


def _located(values: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose `text` holds `value` as whole words, with `at`, the characters before its first such place.

    Words that were run together (`KitPart`) end where a capital begins.
    """
    letter, capital, small, digit = r"^\p{L}", r"^\p{Lu}", r"^\p{Ll}", r"^\p{N}"
    first, last = pl.col("value").str.head(1), pl.col("value").str.tail(1)
    before, after = pl.col("before"), pl.col("parts").struct.field("field_1")
    goes_on = (
        (first.str.contains(capital) & before.str.contains(capital))
        | (first.str.contains(small) & before.str.contains(letter))
        | (first.str.contains(digit) & before.str.contains(digit))
        | (last.str.contains(small) & after.str.contains(small))
        | (last.str.contains(capital) & after.str.contains(letter) & ~after.str.contains(r"^\p{Lu}\p{Ll}"))
        | (last.str.contains(digit) & after.str.contains(digit))
    )
    open_ones = values.with_columns(rest=pl.col("text"), at=pl.lit(0, pl.UInt32), before=pl.lit(""))
    found = []
    for _ in range(_OCCURRENCES):
        split = open_ones.with_columns(parts=pl.col("rest").str.splitn(pl.col("value"), 2)).filter(after.is_not_null())
        head = pl.col("parts").struct.field("field_0")
        split = split.with_columns(
            at=pl.col("at") + head.str.len_chars(),
            before=pl.when(head == "").then("before").otherwise(head.str.tail(1)),
        )
        split = split.with_columns(goes_on=goes_on)
        found.append(split.filter(~pl.col("goes_on")).select(*values.columns, "at"))
        open_ones = split.filter("goes_on").with_columns(
            rest=after, at=pl.col("at") + pl.col("value").str.len_chars(), before=last
        )
    return pl.concat(found)


def _asked(labels: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return the labels of the attributes that are asked for, in the order of the prompt, each as a JSON `object`."""
    attributes = labels.group_by("offer", "attribute").agg(absent=pl.col("value").null_count() > 0)
    attributes = attributes.with_columns(order=draw(seed, "attribute", pl.col("offer"), pl.col("attribute")))
    attributes = attributes.sort("offer", "order", "attribute")
    stated = (~pl.col("absent")).sum().over("offer").cast(pl.Int64)
    absences = pl.min_horizontal(
        pl.col("absent").sum().over("offer").cast(pl.Int64), stated, pl.lit(MOST_ABSENT, pl.Int64)
    )
    room = pl.when("absent").then(absences).otherwise(MOST_ATTRIBUTES - absences)
    rank = pl.int_range(pl.len()).over("offer", "absent")
    chosen = attributes.filter((rank < room) & (stated > 0))
    asked = chosen.join(labels, on=["offer", "attribute"], how="left", maintain_order="left_right")
    return asked.with_columns(object=pl.struct("attribute", "value", "source").struct.json_encode())
