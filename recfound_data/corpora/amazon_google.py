"""Amazon-Google and other product matching corpora in the same forms: pairs with offers inline, or tables of offers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from recfound_data.errors import RecfoundError
from recfound_data.records import Record, Values, decoded, in_batches, table_records, whole_files
from recfound_data.sources import Unparsable, line_blocks, listed
from recfound_data.tables import Batch, People, Source, Terms

_SIDES = {"left": ("left_", "ltable_"), "right": ("right_", "rtable_")}
_LABELS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_MISSING = {"", "nan", "null", "none"}


class AmazonGoogle(Source):
    """Product offers of two shops, and which of them are of one product.

    Attributes:
        train: path, glob or URL of labelled pairs: `label`, and `left_<column>`, `right_<column>` (both offers inline)
            or `ltable_id`, `rtable_id` (rows of `left` and `right`).
        validation: the same.
        test: the same.
        left: path, glob or URL of one shop's offers: `id`, `title` or `name`, and what there is of `description`,
            `manufacturer` or `brand`, `price`, `modelno`.
        right: the other shop's.
        matches: path, glob or URL of pairs of ids of `left` and `right`, all of them matches.
    """

    corpus: Literal["amazon_google"] = "amazon_google"
    train: str = ""
    validation: str = ""
    test: str = ""
    left: str = ""
    right: str = ""
    matches: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "left", "right", "matches")
    terms: ClassVar[Terms] = Terms(
        title="Amazon-Google Products",
        address="https://dbs.uni-leipzig.de/research/projects/benchmark-datasets-for-entity-resolution",
        licence="no licence text; made available by Leipzig University's database group for research. Its form with "
        "splits comes with DeepMatcher (https://github.com/anhaidgroup/deepmatcher), whose code is BSD-3",
        citation="Hanna Köpcke, Andreas Thor, Erhard Rahm. Evaluation of entity resolution approaches on real-world "
        "match problems. PVLDB 3(1), 2010. Splits: Sidharth Mudgal et al. Deep Learning for Entity Matching: A Design "
        "Space Exploration. SIGMOD 2018.",
        redistributable=False,
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not (self.train or self.validation or self.test or self.matches):
            raise ValueError("needs labelled pairs: `train`, `validation`, `test`, or `matches`")
        if bool(self.left) != bool(self.right) or (self.matches and not self.left):
            raise ValueError("needs both `left` and `right`, the tables of offers")
        return self

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield the offers, then the pairs.

        Raises:
            RecfoundError: a file lacks a column, or names offers that no table holds.
        """
        for side in ("left", "right"):
            if path := getattr(self, side):
                yield from in_batches("offers", _rows(path, ("id",)), self._offers(side))
        for split in ("train", "validation", "test"):
            if path := getattr(self, split):
                yield from self._labelled(path, split)
        if self.matches:
            yield from in_batches("matches", _rows(self.matches, ()), _match)

    def _offers(self, side: str) -> Callable[[Values], list[Values] | str]:
        return lambda values: _offer(values, side, self.domain or "Software")

    def _labelled(self, path: str, split: str) -> Iterator[Batch]:
        # A reference to a row of a table is a side that has an id and nothing else.
        if not self.left:
            _require_titles(path)
            for side in _SIDES:
                offers = (row for row in _rows(path, ("label",)) if isinstance(row, Record))
                sides = (Record(row.path, row.line, _side(row.values, side)) for row in offers)
                yield from in_batches("offers", _once(sides), self._offers(side))

        def pair(values: Values) -> list[Values] | str:
            label = _LABELS.get(values["label"].strip().lower())
            if label is None:
                return "pair without a label"
            ids = {f"{side}_id": _offer_id(_side(values, side), side) for side in _SIDES}
            return [{**ids, "match": label, "split": split}]

        yield from in_batches("matches", _rows(path, ("label",)), pair)


def _require_titles(path: str) -> None:
    """Raise RecfoundError if the pairs name their offers by id alone."""
    for row in _rows(path, ("label",)):
        if isinstance(row, Unparsable):
            continue
        for side in _SIDES:
            if not {"title", "name"} & set(_side(row.values, side)):
                raise RecfoundError(
                    f"{row.path}: line 1: has no title of the {side} offer, only {listed(row.values)}; "
                    "name the tables of offers too: `left` (tableA.csv) and `right` (tableB.csv)"
                )
        return


def _side(values: Values, side: str) -> Values:
    """Return one offer of a pair: its columns without `left_` or `right_`."""
    return {
        name.removeprefix(prefix): value
        for prefix in _SIDES[side]
        for name, value in values.items()
        if name.startswith(prefix)
    }


def _once(records: Iterator[Record]) -> Iterator[Record]:
    """Yield each offer the first time that a pair names it."""
    seen: set[str] = set()
    for record in records:
        name = _offer_id(record.values, "")
        if name not in seen:
            seen.add(name)
            yield record


def _offer_id(values: Values, side: str) -> str:
    """Return `<side>/<id>`; an offer without an id has a hash of all that it says."""
    name = (values.get("id") or "").strip()
    if not name:
        name = hashlib.sha256("\x1f".join(map(str, values.values())).encode()).hexdigest()[:16]
    return f"{side}/{name}"


def _match(values: Values) -> list[Values] | str:
    ids = [value.strip() for value in values.values()][:2]
    if len(ids) < 2 or not all(ids):
        return "match without two ids"
    return [{"left_id": f"left/{ids[0]}", "right_id": f"right/{ids[1]}", "match": True, "split": None}]


def _offer(values: Values, side: str, domain: str) -> list[Values] | str:
    def first(*names: str) -> str:
        # Titles of the WDC product corpus may begin with a value that the page lacked: `null , red spade`.
        texts = (re.sub(r"^null\s*,\s*", "", (values.get(name) or "").strip()) for name in names)
        return next((text for text in texts if text.lower() not in _MISSING), "")

    title, model, price = first("title", "name"), first("modelno"), first("price")
    if not title:
        return "offer without a title"
    # What a shop writes for an unknown price is zero.
    known = re.search(r"[1-9]", price) is not None
    about = [first("description"), f"Model number: {model}" if model else ""]
    offer = {"title": title, "brand": first("manufacturer", "brand"), "price": price if known else None}
    return [
        {
            "offer_id": _offer_id(values, side),
            **offer,
            "description": " ".join(part for part in about if part),
            "domain": domain,
        }
    ]


def _rows(pattern: str, columns: tuple[str, ...]) -> Iterator[Record | Unparsable]:
    """Yield the rows of a table in the form that its header shows: the separator, and whether quotes are single.

    Raises:
        RecfoundError: a file lacks a column or has only one.
    """
    header = ""
    for block in line_blocks(pattern):
        header = decoded(block.data.partition(b"\n")[0]).removeprefix("\ufeff").strip()
        break
    if header.startswith("'"):
        return _single_quoted(pattern, columns)
    separators = [mark for mark in "#|\t;," if mark in header]
    if not separators:
        raise RecfoundError(f"{pattern}: line 1: has one column, {header[:80]!r}; is this a table of offers or pairs?")
    return table_records(pattern, columns, delimiter=separators[0])


# A quoted value ends where a comma or the line's end follows and the comma is not one of the text: `the kids', and`.
_VALUE = re.compile(r"(?:'(.*?)(?<!\\)'|([^,']*))(?:,(?! )|$)")


def _single_quoted(pattern: str, columns: tuple[str, ...]) -> Iterator[Record | Unparsable]:
    """Yield the rows of a table whose values stand between single quotes, with apostrophes that are not escaped."""
    for path, data in whole_files(pattern):
        header: list[str] = []
        for number, line in enumerate(decoded(data).removeprefix("\ufeff").split("\n"), 1):
            if not line.strip():
                continue
            values = _values(line.strip())
            if not header:
                header = values
                missing = [name for name in columns if name not in header]
                if missing:
                    raise RecfoundError(f"{path}: line 1: has no column {missing[0]!r}; it has {listed(header)}")
            elif len(values) == len(header):
                yield Record(path, number, dict(zip(header, values, strict=True)))
            else:
                yield Unparsable(path, number, f"expected {len(header)} values, found {len(values)}")


def _values(line: str) -> list[str]:
    values: list[str] = []
    at = 0
    while at <= len(line):
        value = _VALUE.match(line, at)
        if value is None:
            return [*values, line[at:], ""]
        values.append((value.group(1) or value.group(2) or "").replace("\\'", "'"))
        if value.end() == len(line) and not value.group().endswith(","):
            return values
        at = value.end()
    return values
