"""MAVE: spans of attribute values in Amazon products' texts, whole or as published labels joined with metadata."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from html.entities import html5
from html.parser import HTMLParser
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.cleaning import clean, title_key
from recfound_data.errors import RecfoundError
from recfound_data.identity import hash64, stable_id
from recfound_data.sources import Block, Unparsable, json_lines, line_blocks, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_EVIDENCE = pl.Struct({"value": pl.String, "pid": pl.Int64, "begin": pl.Int64, "end": pl.Int64})
_LABEL: dict[str, Any] = {
    "id": pl.String,
    "category": pl.String,
    "attributes": pl.List(pl.Struct({"key": pl.String, "evidences": pl.List(_EVIDENCE)})),
}
_PARAGRAPHS = pl.List(pl.Struct({"text": pl.String, "source": pl.String}))
_WHOLE: dict[str, Any] = {**_LABEL, "paragraphs": _PARAGRAPHS}
_SOURCES = ("title", "description", "feature", "price", "brand")
"""What of a product's metadata becomes paragraphs, in this order; labels count paragraphs by it."""
_HTML_LEFT = ("<a href", "javascript:", "background-color:", "background-image:", " li:", ".aloha")
_LONGEST_TEXT = 1 << 40
"""In characters: a span that ends behind it is none."""
_FOLDS = ("train",) * 8 + ("validation", "test")


class Mave(Source):
    """MAVE, as its whole form or as labels and metadata.

    Attributes:
        positives: path, glob or URL of `mave_positives.jsonl`, or of `mave_positives_labels.jsonl` with `metadata`.
        negatives: the same for `mave_negatives.jsonl` or `mave_negatives_labels.jsonl`; empty for none.
        metadata: path, glob or URL of `All_Amazon_Meta.json.gz` where the labels have no paragraphs.
    """

    corpus: Literal["mave"] = "mave"
    positives: str
    negatives: str = ""
    metadata: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("positives", "negatives", "metadata")
    terms: ClassVar[Terms] = Terms(
        title="MAVE",
        address="https://github.com/google-research-datasets/MAVE",
        licence="no licence text with the labels; the texts are those of Amazon Review Data (2018), made available for "
        "research",
        citation="Li Yang, Qifan Wang, Zac Yu, Anand Kulkarni, Sumit Sanghai, Bin Shu, Jon Elsas, Bhargav Kanagal. "
        "MAVE: A Product Dataset for Multi-source Attribute Value Extraction. WSDM 2022.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield attributes, one row a labelled product of each file.

        With `metadata` the labels are held in memory, about half of their size on disk; the metadata are read
        once, a block at a time.

        Raises:
            RecfoundError: without `metadata`, where the labels have no paragraphs.
        """
        if self.metadata:
            yield from self._joined()
            return
        for block in self._blocks():
            frame, bad = json_lines(block, _WHOLE)
            if len(frame) and frame["paragraphs"].null_count() == len(frame):
                raise RecfoundError(
                    f"{block.path}: holds labels without texts; name `metadata`, Amazon's metadata of 2018, to join "
                    "them with"
                )
            yield self._batch(frame, {"product unparsable": len(bad)}, bad)

    def _blocks(self) -> Iterator[Block]:
        for pattern in filter(None, (self.positives, self.negatives)):
            yield from line_blocks(pattern)

    def _joined(self) -> Iterator[Batch]:
        parts = []
        for block in self._blocks():
            frame, bad = json_lines(block, _LABEL)
            parts.append(frame.drop_nulls("id"))
            drops = {"label unparsable": len(bad), "label without a product": len(frame) - len(parts[-1])}
            yield self._batch(frame.clear().with_columns(paragraphs=pl.lit(None, _PARAGRAPHS)), drops, bad)
        labels = _Labels(parts)
        for block in line_blocks(self.metadata):
            frame, drops, bad = _labelled(block, labels)
            yield self._batch(frame, drops, bad)
        missing = {"label of a product that the metadata lack": int((~labels.found).sum())}
        yield self._batch(pl.DataFrame(schema=_WHOLE), missing, [])

    def _batch(self, frame: pl.DataFrame, drops: dict[str, int], bad: list[Unparsable]) -> Batch:
        rows, more = _rows(frame)
        domain = pl.lit(self.domain) if self.domain else pl.col("category").fill_null(self.label)
        return Batch("attributes", rows.with_columns(domain=domain).drop("category"), {**drops, **more}, bad)


def _rows(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return a row of `attributes` for every product that keeps a label, and what went.

    A value is kept where its span holds it. An attribute that loses all of its values goes: it is not one that the
    product lacks.
    """
    frame = frame.with_row_index("row")
    texts = frame.select("row", "paragraphs").explode("paragraphs", empty_as_null=False, keep_nulls=False)
    texts = texts.unnest("paragraphs").with_columns(pid=pl.int_range(pl.len()).over("row"))
    stated = frame.select("row", "attributes").explode("attributes", empty_as_null=False, keep_nulls=False)
    stated = stated.unnest("attributes").filter(pl.col("key").fill_null("") != "").with_row_index("place")
    values = stated.explode("evidences", empty_as_null=True, keep_nulls=True).unnest("evidences")
    values = values.join(texts, on=["row", "pid"], how="left", maintain_order="left")
    absent = pl.col("value").is_null() & pl.col("pid").is_null()
    begin, length = (part.clip(0, _LONGEST_TEXT) for part in (pl.col("begin"), pl.col("end") - pl.col("begin")))
    stands = pl.col("text").str.slice(begin, length) == pl.col("value")
    right = stands & (pl.col("begin") >= 0) & (pl.col("end") <= _LONGEST_TEXT) & (pl.col("value") != "")
    kept = values.filter(absent | right.fill_null(False))
    attributes = kept.select("row", pl.struct("value", "source", attribute="key").alias("attributes"))
    attributes = attributes.group_by("row", maintain_order=True).agg("attributes")
    titles = texts.filter(pl.col("source") == "title").group_by("row").agg(title=pl.col("text").first())
    rows = frame.select("row", "id", "category", texts="paragraphs").join(attributes, on="row", how="inner")
    rows = rows.join(titles, on="row", how="left").sort("row").with_columns(split=_published_split(rows["texts"]))
    # Variants that are sold under one title are one product.
    product = stable_id(title_key(clean(pl.coalesce("title", "id"))))
    return rows.select("category", "texts", "attributes", "split", product_id=product), {
        "value that is not where its label says": len(values) - len(kept),
        "attribute without a value that is where its label says": len(stated) - kept["place"].n_unique(),
        "product without a label left": len(frame) - len(rows),
    }


def _published_split(paragraphs: pl.Series) -> pl.Series:
    """Return the split that the benchmark's code gives a product: by the bytes of its paragraphs as JSON, 8 : 1 : 1."""
    written = (
        json.dumps([one and {"text": one["text"], "source": one["source"]} for one in (() if row is None else row)])
        for row in paragraphs
    )
    return pl.Series("split", [_FOLDS[sum(text.encode()) % 10] for text in written], pl.String)


class _Labels:
    """All labels, sorted so that those of a few products are found without going through the others.

    Attributes:
        found: by row number, whether the product was met.
    """

    def __init__(self, parts: list[pl.DataFrame]) -> None:
        self._rows = pl.concat([pl.DataFrame(schema=_LABEL), *parts]).sort(hash64(pl.col("id"))).with_row_index("label")
        self._keys = self._rows.select(hash64(pl.col("id"))).to_series().to_numpy()
        self.found: NDArray[np.bool_] = np.zeros(len(self._rows), np.bool_)

    def of(self, products: pl.Series) -> pl.DataFrame:
        """Return the labels of `products`, with their row number `label`."""
        keys = np.unique(products.to_frame("id").drop_nulls().select(hash64(pl.col("id"))).to_series().to_numpy())
        first, behind = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        several = [np.arange(low, high) for low, high in zip(first, behind, strict=True) if low < high]
        return self._rows[np.concatenate(several)] if several else self._rows.clear()


def _labelled(block: Block, labels: _Labels) -> tuple[pl.DataFrame, dict[str, int], list[Unparsable]]:
    """Return the products of a block of metadata that have labels, with their paragraphs, in the whole form.

    Args:
        block: lines of the metadata; only those of labelled products are parsed.
        labels: of all products; a product that was found before is dropped.
    """
    lines = text_lines(block).with_columns(id=pl.col("line").str.extract(r'"asin":\s*"([^"]+)"'))
    bad = [Unparsable(block.path, number, "has no asin") for number in lines.filter(pl.col("id").is_null())["number"]]
    known = lines.join(labels.of(lines["id"]), on="id", how="inner", maintain_order="left_right")
    fresh = known.unique("label", keep="first", maintain_order=True)
    fresh = fresh.filter(~pl.Series(labels.found[fresh["label"].to_numpy()], dtype=pl.Boolean))
    labels.found[fresh["label"].to_numpy()] = True
    paragraphs: list[list[dict[str, str]] | None] = []
    for number, line in fresh.select("number", "line").iter_rows():
        try:
            paragraphs.append(_paragraphs(json.loads(line)))
        except (ValueError, RecursionError, AttributeError) as error:  # AttributeError: the line is no object
            bad.append(Unparsable(block.path, number, str(error)))
            paragraphs.append(None)
    joined = fresh.with_columns(paragraphs=pl.Series(paragraphs, dtype=_PARAGRAPHS)).drop_nulls("paragraphs")
    titled = joined.filter(pl.col("paragraphs").list.first().struct.field("source") == "title")
    drops = Counter({
        "metadata line unparsable": len(bad),
        "metadata of a product repeated": len(known) - len(fresh),
        "product without a title": len(joined) - len(titled),
    })  # fmt: skip
    return titled.select(list(_WHOLE)), dict(drops), bad


def _paragraphs(product: dict[str, Any]) -> list[dict[str, str]]:
    """Return a product's paragraphs as MAVE's labels count them."""
    found = []
    for source in _SOURCES:
        texts = product.get(source) or []
        for text in [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else []:
            if not isinstance(text, str) or (source == "title" and "getTime" in text):
                continue
            plain = " ".join(_plain(text.encode("utf-8", "ignore").decode()).split())
            if plain and not any(mark in plain for mark in _HTML_LEFT) and not _is_style_sheet(plain):
                found.append({"text": plain, "source": source})
    return found


def _is_style_sheet(text: str) -> bool:
    tokens = text.split()
    rules = sum(
        token.startswith((".", "#", "div")) or "px" in token or token.count("-") > 1
        for token in (tokens if len(tokens) > 20 else ())
    )
    return rules > 20 and rules > 0.3 * len(tokens)


def _plain(text: str) -> str:
    if not re.search("[<&]", text):
        return text
    pieces = _Pieces()
    pieces.feed(text)
    pieces.close()
    pieces.cut()
    return " ".join(pieces.done)


class _Pieces(HTMLParser):
    """The texts between tags, stripped, without scripts and styles; references are resolved as Beautiful Soup does."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.done: list[str] = []
        self._parts: list[str] = []
        self._hidden = ""

    def cut(self) -> None:
        """End a piece."""
        if piece := "".join(self._parts).strip():
            self.done.append(piece)
        self._parts = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.cut()
        if tag in ("script", "style"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if not self._hidden:
            self.cut()
        elif tag == self._hidden:
            self._parts, self._hidden = [], ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.cut()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(html5.get(f"{name};", f"&{name}"))

    def handle_charref(self, name: str) -> None:
        self.handle_data(html.unescape(f"&#{name};"))

    def handle_comment(self, data: str) -> None:  # noqa: ARG002
        self.cut()

    def handle_decl(self, decl: str) -> None:  # noqa: ARG002
        self.cut()

    def handle_pi(self, data: str) -> None:  # noqa: ARG002
        self.cut()
