"""The shop's items as Amazon Reviews 2023 publishes their metadata: gzipped JSON lines."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from recfound_data.shop.catalogue import Catalogue, Dirt
from recfound_data.shop.files import gzip_writer
from recfound_data.shop.prose import description, features, listed_title
from recfound_data.shop.relations import Related, related_items
from recfound_data.shop.reviews_2023 import Opinions
from recfound_data.shop.taxonomy import CATEGORY_NAMES, COLOURS, DEPARTMENT_NAMES, KINDS, category_of, department_of

LISTED = 0.6
"""The share of items that show what they are bought with, if anything; most of the real corpus has null there."""
_NO_PRICE, _FROM_PRICE, _PRICES_OF = 5, 1, 20
_PICKS = 2**16


def write_metadata(path: Path, catalogue: Catalogue, titles: Sequence[str], opinions: Opinions, seed: int) -> None:
    """Write one line an item, but for the items that are planted to have none."""
    with gzip_writer(path) as file:
        for index, related in enumerate(related_items(catalogue, seed)):
            if catalogue.dirt[index] != Dirt.NO_METADATA:
                record = _record(catalogue, index, titles[index], related, opinions)
                file.write((json.dumps(record) + "\n").encode("ascii"))


def _record(catalogue: Catalogue, index: int, title: str, related: Related, opinions: Opinions) -> dict[str, object]:
    kind, asin = int(catalogue.kind[index]), catalogue.ids[index]
    department = DEPARTMENT_NAMES[department_of(kind)]
    reviews = int(opinions.reviews[index])
    listed = catalogue.picks[index, 13] < LISTED * _PICKS
    return {
        "main_category": department,
        "title": listed_title(catalogue, index, title),
        "average_rating": round(int(opinions.stars[index]) / reviews, 1) if reviews else None,
        "rating_number": reviews,
        "features": features(catalogue, index),
        "description": description(catalogue, index),
        "price": _price(int(catalogue.picks[index, 19])),
        "images": [
            {
                "thumb": f"https://images.example.com/{asin}_t.jpg",
                "large": f"https://images.example.com/{asin}_l.jpg",
                "variant": "MAIN",
                "hi_res": None,
            }
        ],
        "videos": [],
        "store": catalogue.brand_names[catalogue.brand[index]],
        "categories": [department, CATEGORY_NAMES[category_of(kind)], KINDS[kind].titles[0]],
        "details": _details(catalogue, index, department),
        "parent_asin": asin,
        "bought_together": (related.also_buy or None) if listed else None,
    }


def _details(catalogue: Catalogue, index: int, department: str) -> dict[str, object]:
    """Return the details of an item, texts but for the sales rank, which is a number by department."""
    weight, rank = int(catalogue.picks[index, 16]), int(catalogue.picks[index, 18])
    first = date(2009, 1, 1) + timedelta(days=weight % 1_500)
    details: dict[str, object] = {
        "Brand": catalogue.brand_names[catalogue.brand[index]],
        "Item Weight": f"{1 + weight % 40} ounces",
        "Date First Available": f"{first:%B} {first.day}, {first.year}",
    }
    if rank % 3:
        details["Color"] = COLOURS[catalogue.colour[index]]
    if rank % 2:
        details["Best Sellers Rank"] = {department: rank * 7 + 1}
    return details


def _price(pick: int) -> float | str | None:
    """Return a price: a number, none, or the lowest of several as a text."""
    kind, cents = pick % _PRICES_OF, 499 + pick // _PRICES_OF * 11
    if kind < _NO_PRICE:
        return None
    return f"from {cents / 100:.2f}" if kind < _NO_PRICE + _FROM_PRICE else cents / 100
