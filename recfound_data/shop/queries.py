"""Searches in the shop and their judged products as the Shopping Queries dataset publishes them: two Parquet files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recfound_data.shop.catalogue import Buckets, Catalogue, Dirt
from recfound_data.shop.prose import description, features
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.sizes import Sizes
from recfound_data.shop.taxonomy import (
    ATTRIBUTES,
    CATEGORIES_PER_DEPARTMENT,
    COLOURS,
    KINDS,
    KINDS_PER_CATEGORY,
    category_of,
    department_of,
)

JUDGED = 12
MOST_EXACT, COMPLEMENTS, IRRELEVANT = 5, 2, 2
TEST_SHARE = 0.2
SMALL_SHARE = 0.5
NO_COLOUR, NO_BRAND = 0.2, 0.02
_TITLE_NOUN, _TITLE_ATTRIBUTE = 0.35, 0.25
_TEMPLATES = ("{attribute} {noun}", "{noun} {attribute}", "{attribute} {noun} for {use}", "best {attribute} {noun}")
_ROWS = 20_000
_TRIES = 20

_EXAMPLES = pa.schema(
    {
        "example_id": pa.int64(),
        "query": pa.string(),
        "query_id": pa.int64(),
        "product_id": pa.string(),
        "product_locale": pa.string(),
        "esci_label": pa.string(),
        "small_version": pa.int64(),
        "large_version": pa.int64(),
        "split": pa.string(),
    }
)
_PRODUCTS = pa.schema(
    {
        "product_id": pa.string(),
        "product_title": pa.string(),
        "product_description": pa.string(),
        "product_bullet_point": pa.string(),
        "product_brand": pa.string(),
        "product_color": pa.string(),
        "product_locale": pa.string(),
    }
)


def write_examples(path: Path, catalogue: Catalogue, sizes: Sizes, seed: int) -> tuple[int, int]:
    """Write every judged pair and return how many queries and judgements there are."""
    random = generator(seed, Part.QUERIES)
    wanted = _draw_queries(catalogue, sizes.queries, random)
    test = random.permutation(len(wanted)) < max(1, round(TEST_SHARE * len(wanted)))
    small = random.random(len(wanted)) < SMALL_SHARE
    columns: dict[str, list[object]] = {name: [] for name in _EXAMPLES.names}
    for query_id, (query, (kind, attribute)) in enumerate(wanted.items()):
        for label, item in _judge(catalogue, kind, attribute, random):
            columns["example_id"].append(len(columns["example_id"]))
            columns["query"].append(query)
            columns["query_id"].append(query_id)
            columns["product_id"].append(catalogue.ids[item])
            columns["product_locale"].append("us")
            columns["esci_label"].append(label)
            columns["small_version"].append(int(small[query_id]))
            columns["large_version"].append(1)
            columns["split"].append("test" if test[query_id] else "train")
    pq.write_table(pa.table(columns, schema=_EXAMPLES), path)
    return len(wanted), len(columns["query"])


def write_products(path: Path, catalogue: Catalogue, titles: Sequence[str], seed: int) -> int:
    """Write every item that has metadata, under its clean title, and return how many there are."""
    listed = np.flatnonzero(catalogue.dirt != Dirt.NO_METADATA)
    missing = generator(seed, Part.QUERIES, 1).random((len(catalogue), 2))
    with pq.ParquetWriter(path, _PRODUCTS) as writer:
        for first in range(0, len(listed), _ROWS):
            items = listed[first : first + _ROWS].tolist()
            rows = [_product(catalogue, index, titles[index], missing[index]) for index in items]
            writer.write_table(pa.Table.from_pylist(rows, schema=_PRODUCTS))
    return len(listed)


def _product(catalogue: Catalogue, index: int, title: str, missing: NDArray[np.float64]) -> dict[str, str | None]:
    return {
        "product_id": catalogue.ids[index],
        "product_title": title,
        "product_description": " ".join(description(catalogue, index)) or None,
        "product_bullet_point": "\n".join(features(catalogue, index)) or None,
        "product_brand": None if missing[0] < NO_BRAND else catalogue.brand_names[catalogue.brand[index]],
        "product_color": None if missing[1] < NO_COLOUR else COLOURS[catalogue.colour[index]],
        "product_locale": "us",
    }


def _draw_queries(catalogue: Catalogue, count: int, random: np.random.Generator) -> dict[str, tuple[int, int]]:
    """Return distinct queries and the kind and attribute that each asks for; some listed item has both."""
    listed = np.flatnonzero(catalogue.dirt != Dirt.NO_METADATA)
    queries: dict[str, tuple[int, int]] = {}
    for _ in range(_TRIES):
        for item in random.choice(listed, size=count).tolist():
            if len(queries) == count:
                return queries
            kind, attribute = int(catalogue.kind[item]), int(catalogue.attribute[item])
            queries.setdefault(_query_text(kind, attribute, random), (kind, attribute))
    return queries


def _query_text(kind: int, attribute: int, random: np.random.Generator) -> str:
    by_title = random.random(2)
    words, nouns, template, second = random.integers(12, size=4).tolist()
    style, product = ATTRIBUTES[attribute], KINDS[kind]
    return _TEMPLATES[template % len(_TEMPLATES)].format(
        attribute=style.title.lower() if by_title[0] < _TITLE_ATTRIBUTE else style.synonyms[words % 3],
        noun=product.titles[second % 2].lower() if by_title[1] < _TITLE_NOUN else product.synonyms[nouns % 3],
        use=product.use,
    )


def _judge(catalogue: Catalogue, kind: int, attribute: int, random: np.random.Generator) -> list[tuple[str, int]]:
    """Return the labels and items of one query, in no order of relevance.

    E is of the kind and the attribute, S of the kind alone, C of another kind of the category, I of another department.
    """
    exact = _some(catalogue, catalogue.by_attribute, kind * len(ATTRIBUTES) + attribute, MOST_EXACT, random)
    first = category_of(kind) * KINDS_PER_CATEGORY
    other = first + (kind - first + int(random.integers(1, KINDS_PER_CATEGORY))) % KINDS_PER_CATEGORY
    in_department = KINDS_PER_CATEGORY * CATEGORIES_PER_DEPARTMENT
    elsewhere = int(random.integers(len(KINDS) - in_department))
    elsewhere += in_department * (elsewhere >= department_of(kind) * in_department)
    complements = _some(catalogue, catalogue.by_kind, other, COMPLEMENTS, random)
    irrelevant = _some(catalogue, catalogue.by_kind, elsewhere, IRRELEVANT, random)
    spare = JUDGED - len(exact) - len(complements) - len(irrelevant)
    same_kind = _some(catalogue, catalogue.by_kind, kind, 2 * JUDGED, random)
    substitutes = [item for item in same_kind if catalogue.attribute[item] != attribute][:spare]
    judged = [
        *(("E", item) for item in exact),
        *(("S", item) for item in substitutes),
        *(("C", item) for item in complements),
        *(("I", item) for item in irrelevant),
    ]
    return [judged[place] for place in random.permutation(len(judged)).tolist()]


def _some(catalogue: Catalogue, buckets: Buckets, group: int, most: int, random: np.random.Generator) -> list[int]:
    """Return up to `most` distinct items of a group that have metadata, popular ones rather than others."""
    members = buckets.members(group)
    if len(members) > 2 * most:
        members = members[np.unique((len(members) * random.random(2 * most) ** 1.5).astype(np.int64))]
    members = members[catalogue.dirt[members] != Dirt.NO_METADATA]
    return random.permutation(members)[:most].tolist()
