"""The shop's products with their attributes marked, as MAVE is published once it is joined: JSON lines."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recfound_data.shop.attribute_prose import BULLETS, FILLERS, MATERIALS, ORIGINS, SENTENCES
from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import COLOURS, KINDS

POSITIVES, NEGATIVES = "mave_positives.jsonl", "mave_negatives.jsonl"
SAID = 0.55
"""How often a page says the value of an attribute at all."""
IN_TITLE = 0.35
"""How often a colour or pack size that is said is said in the title too."""


@dataclass(frozen=True)
class _Page:
    """What is written on a product's page, and the value of each attribute: none where it is not said."""

    paragraphs: list[dict[str, str]]
    values: dict[str, str | None]


def write_attributes(folder: Path, catalogue: Catalogue, count: int, seed: int) -> int:
    """Write `count` products, each in the file of attributes that are found, and of those that are not."""
    random = generator(seed, Part.ATTRIBUTES)
    items = random.permutation(len(catalogue))[:count].tolist()
    with (
        (folder / POSITIVES).open("w", encoding="ascii", newline="\n") as positives,
        (folder / NEGATIVES).open("w", encoding="ascii", newline="\n") as negatives,
    ):
        for item in items:
            page = _page(catalogue, item, random)
            product = {
                "id": catalogue.ids[item],
                "category": KINDS[catalogue.kind[item]].titles[0],
                "paragraphs": page.paragraphs,
            }
            found = {name: _evidences(value, page.paragraphs) for name, value in page.values.items() if value}
            absent = [name for name, value in page.values.items() if not value]
            labels = [{"key": name, "evidences": evidences} for name, evidences in found.items()]
            positives.write(json.dumps({**product, "attributes": labels}) + "\n")
            if absent:
                labels = [{"key": name, "evidences": []} for name in absent]
                negatives.write(json.dumps({**product, "attributes": labels}) + "\n")
    return len(items)


def _page(catalogue: Catalogue, item: int, random: np.random.Generator) -> _Page:
    kind = int(catalogue.kind[item])
    brand, line = catalogue.brand_names[catalogue.brand[item]], catalogue.line_names[catalogue.line[item]]
    noun = KINDS[kind].titles[int(random.integers(2))]
    true = {
        "Color": COLOURS[catalogue.colour[item]],
        "Material": MATERIALS[kind][int(random.integers(2))],
        "Country of Origin": ORIGINS[int(random.integers(len(ORIGINS)))],
        "Item Weight": f"{random.integers(2, 90) / 10} pounds",
        "Pack Size": f"pack of {random.integers(2, 7)}",
    }
    said = {name: value for name, value in true.items() if random.random() < SAID}
    title = f"{brand} {line} {noun}" if random.random() < 0.5 else f"{noun} by {brand}, {line}"
    sentences, bullets = [], []
    for name, value in said.items():
        if name in ("Color", "Pack Size") and random.random() < IN_TITLE:
            title = f"{title}, {value}"
        elif random.random() < 0.6:
            sentences.append(_one(SENTENCES[name], random).format(value=value))
        else:
            bullets.append(_one(BULLETS[name], random).format(value=value))
    fillers = random.permutation(len(FILLERS))[: int(random.integers(1, 4))].tolist()
    sentences += [FILLERS[place] for place in fillers]
    prose = " ".join(sentences[place] for place in random.permutation(len(sentences)).tolist())
    paragraphs = [{"text": title, "source": "title"}, {"text": prose, "source": "description"}]
    paragraphs += [{"text": text, "source": "feature"} for text in bullets]
    paragraphs.append({"text": brand, "source": "brand"})
    values: dict[str, str | None] = {"Type": noun, "Brand": brand}
    return _Page(paragraphs, values | {name: said.get(name) for name in true})


def _evidences(value: str, paragraphs: list[dict[str, str]]) -> list[dict[str, object]]:
    """Return every place where a value stands as whole words."""
    return [
        {"value": value, "pid": number, "begin": match.start(), "end": match.end()}
        for number, paragraph in enumerate(paragraphs)
        for match in re.finditer(rf"\b{re.escape(value)}\b", paragraph["text"])
    ]


def _one(texts: tuple[str, ...], random: np.random.Generator) -> str:
    return texts[int(random.integers(len(texts)))]
