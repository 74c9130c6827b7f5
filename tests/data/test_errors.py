"""What a person sees when something given is wrong: one line that says what and where; nothing is left over."""

import errno
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from raw_shop import KEY

from recfound_data.cli import main

REVIEWS = "amazon_reviews_2018/Shop_5.json.gz"
METADATA = "amazon_reviews_2018/meta_Shop.json.gz"
EXAMPLES = "shopping_queries/shopping_queries_dataset_examples.parquet"
DAMAGED, WRONG = 1, 2
pytestmark = pytest.mark.usefixtures("no_plots")


class Shop:
    """A raw shop that a test damages, and the command that builds from it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.folder, self._capsys = folder, capsys
        self.out = folder.parent / "out" / "dataset"
        self.out.parent.mkdir()

    def path(self, name: str) -> Path:
        return self.folder / name

    def settings(self) -> dict[str, Any]:
        return yaml.safe_load(self.path("recipe.yaml").read_text())

    def recipe(self, settings: Any) -> None:
        self.path("recipe.yaml").write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))

    def refusal(self, code: int, *options: str) -> str:
        """Build, and return the one line that says why not."""
        before = listing(self.folder.parent)
        assert main(["data", "build", str(self.path("recipe.yaml")), "--out", str(self.out), *options]) == code
        out, err = self._capsys.readouterr()
        said = [line for line in err.splitlines() if not re.match(r"\w+: [\d,]+/[\d,]+, ", line)]  # progress
        assert out == "" and len(said) == 1, err
        assert said[0].startswith("recfound: ") and "Traceback" not in err and KEY not in err
        assert listing(self.folder.parent) == before
        return said[0]

    def drops(self, *options: str) -> dict[str, dict[str, int]]:
        """Build, and return what the manifest says was dropped."""
        assert main(["data", "build", str(self.path("recipe.yaml")), "--out", str(self.out), *options]) == 0
        self._capsys.readouterr()
        return json.loads((self.out / "recfound.json").read_text())["drops"]


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def shop(shop_copy: Path, capsys: pytest.CaptureFixture) -> Shop:
    return Shop(shop_copy, capsys)


# Raw files


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def not_compressed(path: Path) -> None:
    path.write_bytes(b'{"reviewerID": "A"}\n' * 100)


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncated, not_compressed, damaged])
@pytest.mark.parametrize("name", [REVIEWS, METADATA])
def test_a_damaged_gzip_file(shop: Shop, name: str, damage: Callable[[Path], None]) -> None:
    damage(shop.path(name))
    said = shop.refusal(DAMAGED)
    assert f"{shop.path(name)}: truncated or damaged after" in said and said.endswith("download it again")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_missing_file(shop: Shop, workers: str) -> None:
    shop.path(EXAMPLES).unlink()
    said = shop.refusal(DAMAGED, "--workers", workers)
    assert said == f"recfound: {shop.path(EXAMPLES)}: no such file; check the path in the recipe"


def test_a_glob_without_a_match(shop: Shop) -> None:
    settings = shop.settings()
    settings["corpora"][0]["reviews"] = "amazon_reviews_2018/*_5.jsonl"
    shop.recipe(settings)
    assert "amazon_reviews_2018/*_5.jsonl: no such file" in shop.refusal(DAMAGED)


UNUSABLE = [
    (b"", ""),
    (b"\n\n", ""),
    (b'{"reviewerID": \n' * 3, "; 3 times review unparsable"),
    (b"{'asin': 'B'}\n[1]\nnull\n", "; 3 times review unparsable"),
    (b'{"overall": 5.0}\n', "; 1 times review without user, item, rating or time"),
]


@pytest.mark.parametrize(("content", "dropped"), UNUSABLE)
def test_files_of_nothing_usable_are_an_empty_corpus(shop: Shop, content: bytes, dropped: str) -> None:
    shop.path(REVIEWS).write_bytes(gzip.compress(content))
    shop.path(METADATA).write_bytes(gzip.compress(b""))
    said = shop.refusal(DAMAGED)
    assert said == f"recfound: corpus 'shop' is empty: its files hold nothing that can be used{dropped}"


def test_a_corpus_without_reviews_still_gives_its_items_and_says_what_it_lost(shop: Shop) -> None:
    shop.path(REVIEWS).write_bytes(gzip.compress(UNUSABLE[2][0]))
    assert shop.drops()["shop"]["review unparsable"] == 3
    corpora = json.loads((shop.out / "recfound.json").read_text())["configs"]
    assert "shop" not in corpora["user2item"]["corpora"] and corpora["items"]["corpora"]["shop"]
    shop.recipe(shop.settings() | {"corpora": shop.settings()["corpora"][:1], "tasks": ["user2item"]})
    shutil.rmtree(shop.out)
    assert "task 'user2item' has no sample" in shop.refusal(DAMAGED)


def test_metadata_of_nothing_usable_is_an_empty_corpus(shop: Shop) -> None:
    shop.path(METADATA).write_bytes(gzip.compress(b""))
    assert "corpus 'shop' is empty: its files hold no item that can be used" in shop.refusal(DAMAGED)


@pytest.mark.parametrize("split", ["leave_last", "global_time"])
def test_reviews_of_other_items_than_the_metadatas_are_counted_one_by_one(shop: Shop, split: str) -> None:
    text = gzip.decompress(shop.path(REVIEWS).read_bytes()).replace(b'"asin": "B', b'"asin": "X')
    shop.path(REVIEWS).write_bytes(gzip.compress(text))
    shop.recipe(shop.settings() | {"split": split})
    assert shop.drops()["shop"]["interaction with an item that has no metadata"] == 1_500


BROKEN = [
    b'{"reviewerID": "A1", "asin"',
    b"[1, 2]",
    b"{'reviewerID': 'A1'}",
    b'{"reviewerID": "\xe9"}',
    b'{"overall": NaN}',
    b"{} {}",
    b"\x00",
]


def test_broken_json_lines_are_counted_or_with_strict_named(shop: Shop) -> None:
    lines = gzip.decompress(shop.path(REVIEWS).read_bytes()).splitlines()
    clean = shop.drops()
    dataset = {path.name: path.read_bytes() for path in shop.out.rglob("user2item/*.parquet")}
    shutil.rmtree(shop.out)
    mixed = [*lines[:700], BROKEN[0], b"", *BROKEN[1:5], *lines[700:], *BROKEN[5:]]
    shop.path(REVIEWS).write_bytes(gzip.compress(b"\n".join(mixed)))
    said = shop.refusal(DAMAGED, "--strict")
    assert f"{shop.path(REVIEWS)}: line 701: cannot be parsed: Expecting ':' delimiter" in said
    drops = shop.drops()
    assert drops["shop"] == clean["shop"] | {"review unparsable": len(BROKEN)}
    assert {path.name: path.read_bytes() for path in shop.out.rglob("user2item/*.parquet")} == dataset


def test_a_broken_csv_row_is_counted_or_with_strict_named(shop: Shop) -> None:
    path = shop.path("movielens/ratings.csv")
    clean = shop.drops()
    header, *lines = path.read_text().splitlines()
    broken = ["7,8", "7,8,high,964982703", ",,,"]
    path.write_text("\n".join([header, broken[0], *lines[:100], broken[1], *lines[100:], broken[2], ""]))
    shutil.rmtree(shop.out)
    said = shop.refusal(DAMAGED, "--strict")
    assert f"{path}: line 2: cannot be parsed: a value is missing or of the wrong type" in said
    assert shop.drops()["shop_films"] == clean.get("shop_films", {}) | {"rating unparsable": 3}


def test_a_csv_file_that_lacks_a_column(shop: Shop) -> None:
    path = shop.path("movielens/ratings.csv")
    path.write_text(path.read_text().replace("timestamp", "time", 1))
    said = shop.refusal(DAMAGED)
    assert said == f"recfound: {path}: line 1: has no column 'timestamp'; it has userId, movieId, rating, time"


def test_a_csv_file_that_is_compressed_under_a_plain_name(shop: Shop) -> None:
    path = shop.path("movielens/ratings.csv")
    path.write_bytes(gzip.compress(path.read_bytes()))
    said = shop.refusal(DAMAGED)
    assert f"{path}: line 1: is no text" in said and "the name of a compressed file ends in" in said


@pytest.mark.parametrize("name", [EXAMPLES, "shopping_queries/shopping_queries_dataset_products.parquet"])
def test_a_parquet_file_that_lacks_a_column(shop: Shop, name: str) -> None:
    pl.read_parquet(shop.path(name)).drop("product_locale").write_parquet(shop.path(name))
    assert f"{shop.path(name)}: has no column 'product_locale'; it has " in shop.refusal(DAMAGED)


@pytest.mark.parametrize("content", [b"", b"query,product_id\n", None])
def test_a_file_that_is_not_parquet(shop: Shop, content: bytes | None) -> None:
    path = shop.path(EXAMPLES)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    said = shop.refusal(DAMAGED)
    assert f"{path}: is not a readable Parquet file" in said and said.endswith("download it again")


def test_a_parquet_column_of_another_kind(shop: Shop) -> None:
    path = shop.path(EXAMPLES)
    pl.read_parquet(path).with_columns(pl.concat_list("query_id")).write_parquet(path)
    assert str(path) in shop.refusal(DAMAGED)


def test_a_corpus_that_gives_a_task_nothing(shop: Shop) -> None:
    settings = shop.settings()
    shop.recipe(settings | {"corpora": settings["corpora"][:2]})
    assert "task 'query2item' has no sample" in shop.refusal(DAMAGED)


# Recipes


def test_a_missing_recipe(shop: Shop) -> None:
    shop.path("recipe.yaml").unlink()
    assert shop.refusal(WRONG) == f"recfound: {shop.path('recipe.yaml')}: no such recipe"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("corpora: [", "is not valid YAML"),
        ("seed: 2001-99-99", "is not valid YAML"),
        ("- seed: 1", "a recipe is a mapping of keys to values, found list"),
        ("", "a recipe is a mapping of keys to values, found NoneType"),
        ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_recipe_that_is_no_mapping(shop: Shop, text: str, why: str) -> None:
    shop.recipe(text)
    assert f"{shop.path('recipe.yaml')}: {why}" in shop.refusal(WRONG)


def test_a_recipe_that_is_no_text(shop: Shop) -> None:
    shop.path("recipe.yaml").write_bytes(b"seed: \xff\xfe")
    assert f"{shop.path('recipe.yaml')}: cannot be read" in shop.refusal(WRONG)
    shop.path("recipe.yaml").unlink()
    shop.path("recipe.yaml").mkdir()
    assert f"{shop.path('recipe.yaml')}: cannot be read" in shop.refusal(WRONG)


def set_in(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *parents, last = key.split(".")
    at: Any = settings
    for parent in parents:
        at = at[int(parent)] if parent.isdigit() else at.setdefault(parent, {})
    at[last] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("sed", 1, "unknown key 'sed', did you mean 'seed'?"),
        ("history.min_histroy", 3, "unknown key 'history.min_histroy', did you mean 'min_history'?"),
        ("corpora.0.review", "x", "corpora[0]: unknown key 'review', did you mean 'reviews'?"),
        ("corpora.2.locale", ["us"], "corpora[2]: unknown key 'locale', did you mean 'locales'?"),
        ("corpora.1.corpus", "movilens", "corpora[1]: unknown corpus 'movilens', did you mean 'movielens'?"),
        ("corpora.1.corpus", ["movielens"], "corpora[1]: unknown corpus ['movielens']"),
        ("corpora.1.corpus", None, "corpora[1]: unknown corpus None"),
        ("tasks", ["user2items"], "tasks: task 'user2items' cannot be built, did you mean 'user2item'?"),
        ("tasks", ["churn"], "tasks: task 'churn' cannot be built; known: user2item"),
        ("tasks", ["user2item", "user2item"], "tasks: a task is named twice"),
        ("tasks", [], "tasks: List should have at least 1 item"),
        ("corpora", [], "corpora: List should have at least 1 item"),
        ("corpora", ["movielens"], "corpora.0: Input should be a valid dictionary"),
        ("seed", "zero", "seed: Input should be a valid integer"),
        ("split", "random", "split: Input should be 'leave_last' or 'global_time'"),
        ("history", {"max_history": 0}, "history.max_history: Input should be greater than or equal to 1"),
        ("validation_share", 0.5, "validation_share: Input should be less than 0.5"),
        ("corpora.1.name", "shop", "two corpora are called 'shop'; give each a `name` of its own"),
        ("corpora.1.name", "../films", "corpora[1]: name: String should match pattern"),
        ("corpora.2.version", "tiny", "corpora[2]: version: Input should be 'small' or 'large'"),
        ("corpora.0.reviews", "${RECFOUND_NOWHERE}/x", "needs the environment variable RECFOUND_NOWHERE, which is not"),
    ],
)
def test_a_recipe_with_a_wrong_key_or_value(shop: Shop, key: str, value: Any, why: str) -> None:
    shop.recipe(set_in(shop.settings(), key, value))
    said = shop.refusal(WRONG)
    assert said.startswith(f"recfound: {shop.path('recipe.yaml')}: ") and why in said


def test_a_corpus_entry_that_lacks_a_path(shop: Shop) -> None:
    settings = shop.settings()
    del settings["corpora"][1]["ratings"]
    shop.recipe(settings)
    assert "corpora[1]: ratings: Field required" in shop.refusal(WRONG)


# The folder to write


def test_an_out_that_is_a_file(shop: Shop) -> None:
    shop.out.write_text("mine")
    assert f"{shop.out}: exists and holds something else" in shop.refusal(WRONG)
    assert shop.out.read_text() == "mine"


def test_an_out_below_a_file(shop: Shop) -> None:
    (shop.folder.parent / "file").write_text("mine")
    shop.out = shop.folder.parent / "file" / "dataset"
    assert f"{shop.out.parent}: cannot be written: File exists" in shop.refusal(DAMAGED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many kilobytes, or skips."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes: int) -> Path:
        option = f"size={kilobytes}k" + (",remount" if folder.is_mount() else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no disk of a given size can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"), reason="mounting needs root")
@pytest.mark.parametrize("kilobytes", [16, 250, 600, 1000])
def test_a_full_disk(shop: Shop, small_disk: Callable[[int], Path], kilobytes: int) -> None:
    shop.out = small_disk(kilobytes) / "dataset"
    said = shop.refusal(DAMAGED)
    assert said.startswith(f"recfound: {shop.out.parent}/")
    assert said.endswith("cannot be written: No space left on device; free space or name another folder")


def test_a_disk_that_takes_no_file_of_that_size(shop: Shop) -> None:
    for size in (1_000, 20_000, 60_000, 90_000):  # a unit's result, a run, a catalogue, a file of the dataset
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            said = shop.refusal(DAMAGED)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert said.startswith(f"recfound: {shop.out.parent}/") and "cannot be written: " in said
        assert "File too large" in said and said.endswith("; free space or name another folder")


def test_a_disk_that_is_full_when_polars_writes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    assert f"cannot be written: {os.strerror(errno.ENOSPC)}; free space" in shop.refusal(DAMAGED)


# Other commands of the group


def test_a_check_of_what_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert main(["data", "check", str(path)]) == DAMAGED
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"recfound: {path}: is no recfound dataset: it has no recfound.json")


@pytest.mark.parametrize("arguments", [["build"], ["build", "r.yaml", "--out", "x", "--workers", "0"], ["bild"]])
def test_a_wrong_command_line_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["data", *arguments])
    assert raised.value.code == WRONG and "usage: recfound" in capsys.readouterr().err
