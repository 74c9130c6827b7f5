"""The shop's items as Amazon Reviews 2018 publishes their metadata: gzipped JSON lines."""

import json
from collections.abc import Sequence
from pathlib import Path

from recfound_data.shop.catalogue import Catalogue, Dirt
from recfound_data.shop.files import gzip_writer
from recfound_data.shop.prose import description, features, listed_title
from recfound_data.shop.relations import Related, related_items
from recfound_data.shop.taxonomy import CATEGORY_NAMES, DEPARTMENT_NAMES, KINDS, category_of, department_of

_EMPTY_PRICES = 3
_RANGE_PRICES = 1
_PRICES_OF = 20


def write_metadata(path: Path, catalogue: Catalogue, titles: Sequence[str], seed: int) -> None:
    """Write one line an item, but for the items that are planted to have none."""
    with gzip_writer(path) as file:
        for index, related in enumerate(related_items(catalogue, seed)):
            if catalogue.dirt[index] != Dirt.NO_METADATA:
                record = _record(catalogue, index, titles[index], related)
                file.write((json.dumps(record) + "\n").encode("ascii"))


def _record(catalogue: Catalogue, index: int, title: str, related: Related) -> dict[str, object]:
    kind, asin = int(catalogue.kind[index]), catalogue.ids[index]
    department = DEPARTMENT_NAMES[department_of(kind)]
    category = CATEGORY_NAMES[category_of(kind)]
    return {
        "category": [department, category, KINDS[kind].titles[0]],
        "tech1": "",
        "description": description(catalogue, index),
        "fit": "",
        "title": listed_title(catalogue, index, title),
        "also_buy": related.also_buy,
        "tech2": "",
        "brand": catalogue.brand_names[catalogue.brand[index]],
        "feature": features(catalogue, index),
        "rank": _rank(int(catalogue.picks[index, 18]), department, category),
        "also_view": related.also_view,
        "details": {"Shipping Weight:": f"{1 + int(catalogue.picks[index, 16]) % 40} ounces", "ASIN: ": asin},
        "main_cat": department,
        "similar_item": "",
        "date": "",
        "price": _price(int(catalogue.picks[index, 19])),
        "asin": asin,
        "imageURL": [],
        "imageURLHighRes": [],
    }


def _rank(pick: int, department: str, category: str) -> str | list[str]:
    """Return a sales rank, which the corpus writes as a text, as a list of texts or as an empty list."""
    place = f"{pick * 7 + 1:,}"
    if pick % 3 == 0:
        return []
    if pick % 3 == 1:
        return f"{place} in {department} ("
    within = f"{pick % 997 + 1:,}"
    return [f">#{place} in {department} (See Top 100 in {department})", f">#{within} in {department} > {category}"]


def _price(pick: int) -> str:
    kind, cents = pick % _PRICES_OF, 499 + pick // _PRICES_OF * 11
    if kind < _EMPTY_PRICES:
        return ""
    low = f"${cents / 100:,.2f}"
    return f"{low} - ${cents / 50:,.2f}" if kind < _EMPTY_PRICES + _RANGE_PRICES else low
