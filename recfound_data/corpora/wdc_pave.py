"""WDC-PAVE: offers of the web with the values of their categories' attributes, in its own form or in MAVE's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from recfound_data.records import Values, in_batches, json_records
from recfound_data.tables import Batch, People, Source, Terms

_ABSENT = "n/a"
_JOINT = " \n "
"""Between title and description where MAVE's form holds both in one paragraph."""
_NULL = re.compile(r"(?:^|\s)Null(?!\S)")
"""What a page's template wrote for a value that it lacks; it stands in every fourth title, and in no labelled value."""


class WdcPave(Source):
    """WDC-PAVE; each path may hold either form, one of them for the whole corpus.

    Attributes:
        train: path, glob or URL of `train_large.jsonl`, or of MAVE's form in the folder `train`.
        test: `test.jsonl`, or the folder `test`.
        validation: the folder `validation` of MAVE's form. It holds other attributes of the training products, so its
            rows join their products in training.
    """

    corpus: Literal["wdc_pave"] = "wdc_pave"
    train: str = ""
    test: str = ""
    validation: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("train", "test", "validation")
    terms: ClassVar[Terms] = Terms(
        title="WDC-PAVE",
        address="https://webdatacommons.org/structureddata/wdc-pave/",
        licence="no licence file in its repository",
        citation="Nick Baumann, Alexander Brinkmann, Christian Bizer. Using LLMs for the Extraction and Normalization "
        "of Product Attribute Values. ADBIS 2024.",
        redistributable=False,
    )

    @field_validator("train", "test", "validation")
    @classmethod
    def _as_written(cls, path: str) -> str:
        for part in PurePosixPath(path).parts[-2:]:
            if "normalized" in part:
                raise ValueError(
                    f"{part} holds normalized values, which do not stand in the texts; "
                    f"name {part.replace('normalized', '').strip('_') or 'the folder beside it'}"
                )
        return path

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if not self.paths():
            raise ValueError("names no file; give `train`, `test` or `validation`")
        return self

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield attributes: a row an offer, or a row for each of its attributes in MAVE's form."""
        for path, split in ((self.train, "train"), (self.validation, "train"), (self.test, "test")):
            if not path:
                continue
            lost: Counter[str] = Counter()

            def rows(values: Values, split: str = split, lost: Counter[str] = lost) -> list[Values] | str:
                try:
                    row = _of_paragraphs(values, lost) if "paragraphs" in values else _of_offer(values, lost)
                except (AttributeError, IndexError, KeyError, TypeError):
                    return "offer in neither form"
                if isinstance(row, str):
                    return row
                domain = self.domain or values.get("category") or self.label
                return [{**row, "split": split, "domain": domain}]

            for batch in in_batches("attributes", json_records(path), rows):
                yield replace(batch, drops=dict(Counter(batch.drops) + lost))
                lost.clear()


def _of_offer(values: Values, lost: Counter[str]) -> Values | str:
    """Return the row of an offer: `target_scores` maps attributes to values, values to the texts that hold them."""
    texts = {"title": _text(values.get("input_title")), "description": _text(values.get("input_description"))}
    scores = values.get("target_scores")
    if not texts["title"] or not isinstance(scores, dict):
        return "offer without a title or attributes"
    sources = tuple(texts)
    found: list[Values] = []
    for attribute, choices in scores.items():
        stated = [
            (value, sources[place] if place in (0, 1) else "")
            for value, where in choices.items()
            if value != _ABSENT
            for place in where.get("pid", [])
        ]
        if not stated and _ABSENT in choices:
            found.append({"attribute": attribute, "value": None, "source": None})
            continue
        kept = [(value, source) for value, source in stated if value and value in texts.get(source, "")]
        _count(lost, len(stated) - len(kept), bool(kept))
        found += [{"attribute": attribute, "value": value, "source": source} for value, source in kept]
    if not found:
        return "offer without a label left"
    cluster = values.get("cluster_id")
    product = texts["title"] if cluster is None else f"cluster {cluster}"
    return {"product_id": product, "texts": _texts(texts), "attributes": found}


def _of_paragraphs(values: Values, lost: Counter[str]) -> Values | str:
    """Return the row of one attribute of an offer in MAVE's form, title and description taken apart again."""
    paragraphs = values["paragraphs"]
    whole = paragraphs[0]["text"] if paragraphs else ""
    title, joint, description = whole.partition(_JOINT)
    texts = {"title": title, "description": description}
    if not title.strip():
        return "offer without a title or attributes"
    found: list[Values] = []
    for attribute in values["attributes"]:
        evidences = attribute["evidences"]
        kept = []
        for evidence in evidences:
            begin, end, value = evidence["begin"], evidence["end"], evidence["value"]
            if evidence["pid"] == 0 and 0 <= begin < end and whole[begin:end] == value:
                # A value that runs over the joint stands in neither text.
                source = "title" if end <= len(title) else "description" if begin >= len(title + joint) else ""
                kept += [{"attribute": attribute["key"], "value": value, "source": source}] if source else []
        _count(lost, len(evidences) - len(kept), bool(kept))
        found += kept
        if not evidences:
            found.append({"attribute": attribute["key"], "value": None, "source": None})
    if not found:
        return "offer without a label left"
    return {"product_id": whole, "texts": _texts(texts), "attributes": found}


def _count(lost: Counter[str], values: int, others: bool) -> None:
    lost["value that is not where its label says"] += values
    lost["attribute without a value that is where its label says"] += values > 0 and not others


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(texts: dict[str, str]) -> list[Values]:
    known = texts | {"title": _NULL.sub("", texts["title"]).strip()}
    return [{"source": source, "text": text} for source, text in known.items() if text.strip()]
