"""The catalogue: which items are in it, what is read of them, and that it stays in its file."""

from pathlib import Path

import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue, read_mapped, write_mapped
from recfound_data.recipe import DataRecipe
from recfound_data.tables import TABLES

RECIPE = DataRecipe(corpora=[{}], tasks=["item_profile"])


def items(*titles: str | None, **columns: str) -> pl.DataFrame:
    rows = [{"item_id": f"i{number}", "title": title, **columns} for number, title in enumerate(titles)]
    return pl.DataFrame([{name: row.get(name) for name in TABLES["items"]} for row in rows], schema=TABLES["items"])


@pytest.mark.parametrize(
    "title", ["The Great Dysfunction (Novel, #1)", "Covar x = 2: algebra for two", "Functional (and cheap) mug"]
)
def test_a_title_that_only_looks_like_script_stays(title: str) -> None:
    catalogue, drops = make_catalogue([items(title)], "shop", RECIPE)
    assert catalogue["title"].to_list() == [title] and not sum(drops.values())


@pytest.mark.parametrize("title", ["var aPageStart = (new Date()).getTime();", "function (x) { return x }"])
def test_a_title_of_script_is_dropped_and_counted(title: str) -> None:
    catalogue, drops = make_catalogue([items("Mug", title)], "shop", RECIPE)
    assert catalogue["title"].to_list() == ["Mug"] and drops["item whose title is script"] == 1


def test_titles_that_read_the_same_are_one_product() -> None:
    catalogue, _ = make_catalogue([items("Red Mug!", "red mug", "Blue Mug", None, " ")], "shop", RECIPE)
    products = dict(catalogue.select("item_id", "product").iter_rows())
    assert products["shop/i0"] == products["shop/i1"] != products["shop/i2"] and len(products) == 3
    assert catalogue["item"].to_list() == [0, 1, 2]


def test_parts_are_one_catalogue() -> None:
    whole, lost = make_catalogue([items("Red Mug", "", "Blue Mug")], "shop", RECIPE)
    rows = items("Red Mug", "", "Blue Mug")
    parts, dropped = make_catalogue([rows[2:], rows[:2], rows[:1]], "shop", RECIPE)
    assert parts.equals(whole) and dropped == lost | {"item repeated": 1}


def test_a_mapped_catalogue_is_the_one_written(tmp_path: Path) -> None:
    mugs = items("Red Mug", "Blue Mug", description="For <b>tea</b>.<br/>Holds 0.3 l.")
    catalogue, _ = make_catalogue([mugs], "shop", RECIPE)
    write_mapped(catalogue, tmp_path / "catalogue.arrow")
    assert read_mapped(tmp_path / "catalogue.arrow").equals(catalogue)
    assert catalogue["text"][0] == "Red Mug\nFor tea. Holds 0.3 l."
