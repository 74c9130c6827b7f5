"""A build that is killed, stopped, locked out or cut otherwise ends with the same bytes and leaves nothing behind."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml
from many_shards import BUILD, cut_small
from raw_shop import digests

from recfound_data import build, check
from recfound_data.cli import main
from recfound_data.shop import generate

SCRIPT = Path(__file__).with_name("many_shards.py")
INTERRUPTED, WRONG = 130, 2


@pytest.fixture(scope="module", autouse=True)
def nothing_drawn() -> Iterator[None]:
    """Builds draw nothing, as those of the script do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.plots.write_plots", lambda *_: [])
        yield


class Shop(NamedTuple):
    """A recipe, and the files of its dataset built at once in shards of the usual size."""

    recipe: Path
    expected: dict[str, str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop of 200 reviews; not to be changed."""
    folder = tmp_path_factory.mktemp("small")
    generate(folder / "shop", reviews=200, seed=5)
    build(folder / "shop/recipe.yaml", folder / "dataset", quiet=True)
    return Shop(folder / "shop/recipe.yaml", digests(folder / "dataset"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The films of a shop, and what people are to see next; not to be changed."""
    folder = tmp_path_factory.mktemp("films")
    generate(folder / "shop", reviews=600, seed=5, formats=["movielens"])
    settings = yaml.safe_load((folder / "shop/recipe.yaml").read_text()) | {"tasks": ["user2item"]}
    (folder / "shop/recipe.yaml").write_text(yaml.safe_dump(settings))
    build(folder / "shop/recipe.yaml", folder / "dataset", quiet=True)
    return Shop(folder / "shop/recipe.yaml", digests(folder / "dataset"))


class Build:
    """A build in another process group, and what lies where it writes."""

    def __init__(self, recipe: Path, out: Path, workers: int = 1) -> None:
        self._recipe, self.out, self._workers = recipe, out, workers
        self.work = out.with_name(f".{out.name}.building")

    @contextmanager
    def running(self, fault: str = "none") -> Iterator[subprocess.Popen[str]]:
        """Start it; end it and all of its workers when the block ends."""
        command = [sys.executable, str(SCRIPT), fault, "data", "build", str(self._recipe), "--out", str(self.out)]
        process = subprocess.Popen([*command, "--workers", str(self._workers)], start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        try:
            yield process
        finally:
            kill(process, signal.SIGKILL)
            process.communicate()

    def done(self) -> dict[str, int]:
        """When each unit was finished, in nanoseconds."""
        found = {}
        for folder, _, files in os.walk(self.work):  # which minds no folder that goes meanwhile
            if "done.json" in files and ".partial-" not in folder:
                found[folder] = (Path(folder) / "done.json").stat().st_mtime_ns
        return found

    def wait(self, process: subprocess.Popen[str], units: int) -> None:
        """Wait until so many units are done; the build must not end before."""
        while len(self.done()) < units:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.005)

    def finish(self) -> str:
        """Let it end, and return what it said."""
        with self.running() as process:
            _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said


def kill(process: subprocess.Popen[str], how: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, how)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("workers", "shop", "moments"), [(1, "small", (1, 12, 30, 55)), (4, "films", (12,))])
def test_a_build_that_is_killed_again_and_again_gives_the_bytes_of_one_that_is_not(
    workers: int, shop: str, moments: tuple[int, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe, expected = request.getfixturevalue(shop)
    task = Build(recipe, tmp_path / "dataset", workers)
    draw = random.Random()
    before: dict[str, int] = {}
    for units in moments:
        with task.running() as process:
            task.wait(process, units)
            time.sleep(draw.random() * 0.03)
            kill(process, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not task.out.exists()
        after = task.done()
        assert len(after) >= units
        assert before.items() <= after.items()  # nothing that was done is done again
        before = after
    assert "going on with the build that was stopped" in task.finish()
    assert digests(task.out) == expected
    assert listing(tmp_path) == ["dataset"]


@pytest.mark.parametrize(("fault", "earlier"), [("card", True), ("replace", True), ("tidy", False)])
def test_a_build_that_is_killed_at_its_end_is_built_by_the_next_which_tidies_up(
    films: Shop, tmp_path: Path, fault: str, earlier: bool
) -> None:
    task = Build(films.recipe, tmp_path / "dataset")
    other = {"README.md": "of an earlier dataset", "recfound.json": "{}"}
    if earlier:
        task.out.mkdir()
        for name, text in other.items():
            (task.out / name).write_text(text)
    with task.running(fault) as process:
        assert process.wait(timeout=120) == -signal.SIGKILL
    if fault == "tidy":
        assert digests(task.out) == films.expected
    elif earlier and fault == "card":  # nothing has taken its place
        assert {path.name: path.read_text() for path in task.out.iterdir()} == other
    else:
        assert not task.out.exists()
    task.finish()
    assert digests(task.out) == films.expected
    assert listing(tmp_path) == ["dataset"]


def test_an_interrupted_build_keeps_its_work_and_says_so(films: Shop, tmp_path: Path) -> None:
    task = Build(films.recipe, tmp_path / "dataset", workers=2)
    with task.running() as process:
        task.wait(process, 10)
        kill(process, signal.SIGINT)  # as a terminal does: to all of the group
        _, said = process.communicate(timeout=60)
        assert process.returncode == INTERRUPTED
    assert said.splitlines()[-1].startswith("recfound: interrupted")
    assert listing(tmp_path) == [".dataset.building"]
    kept = task.done()
    assert len(kept) >= 10
    with task.running() as process:
        task.wait(process, len(kept) + 5)
        assert kept.items() <= task.done().items()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and digests(task.out) == films.expected and listing(tmp_path) == ["dataset"]


def test_two_builds_of_one_folder_at_a_time_are_refused(
    films: Shop, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    task = Build(films.recipe, tmp_path / "dataset")
    with task.running() as process:
        task.wait(process, 5)
        kill(process, signal.SIGSTOP)
        before = listing(tmp_path), digests(task.work)
        assert main(["data", "build", str(films.recipe), "--out", str(task.out)]) == WRONG
        assert capsys.readouterr().err.startswith(f"recfound: {task.out}: another build is writing it")
        assert (listing(tmp_path), digests(task.work)) == before
        build(films.recipe, tmp_path / "other", quiet=True)
        kill(process, signal.SIGCONT)
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert digests(task.out) == films.expected == digests(tmp_path / "other") and listing(tmp_path) == [
        "dataset",
        "other",
    ]


# What the stopped build was of decides whether the next one goes on with it.


@pytest.fixture
def stopped(films: Shop, tmp_path: Path) -> Path:
    """Films of one's own beside a build of them, `dataset`, that stopped when all of its units were done."""
    shop = Path(shutil.copytree(films.recipe.parent, tmp_path / "shop"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.finishing.dataset_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(shop / "recipe.yaml", tmp_path / "dataset", quiet=True)
    assert listing(tmp_path) == [".dataset.building", "shop"]
    return shop


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def other_recipe(shop: Path, patch: pytest.MonkeyPatch) -> None:
    settings = yaml.safe_load((shop / "recipe.yaml").read_text())
    (shop / "recipe.yaml").write_text(yaml.safe_dump(settings | {"negatives": 4}))


def other_input(shop: Path, patch: pytest.MonkeyPatch) -> None:
    path = shop / "movielens/ratings.csv"
    size, lines = path.stat().st_size, path.read_text().splitlines()
    lines = [line.replace(",5.0,", ",1.0,") for line in lines]
    path.write_text("\n".join([*lines, ""]))
    assert path.stat().st_size == size  # its time alone says that it is another


def other_key(shop: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("RECFOUND_USER_KEY", "another secret")


def no_key(shop: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("RECFOUND_USER_KEY")


def another_file(shop: Path, patch: pytest.MonkeyPatch) -> None:
    (shop / "movielens/ratings.csv").rename(shop / "movielens/choices.csv")
    lines = (shop / "movielens/choices.csv").read_text().splitlines()
    (shop / "movielens/choices.csv").write_text("\n".join([*lines[:-20], ""]))
    recipe = (shop / "recipe.yaml").read_text()
    (shop / "recipe.yaml").write_text(recipe.replace("ratings.csv", "choices.csv"))


@pytest.mark.parametrize("change", [other_recipe, other_input, other_key, no_key, another_file])
def test_the_work_of_a_stopped_build_of_something_else_is_not_used(
    stopped: Path, change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    change(stopped, monkeypatch)
    build(stopped / "recipe.yaml", tmp_path / "dataset")
    assert "going on" not in capsys.readouterr().err
    build(stopped / "recipe.yaml", tmp_path / "fresh", quiet=True)
    assert digests(tmp_path / "dataset") == digests(tmp_path / "fresh")
    assert listing(tmp_path) == ["dataset", "fresh", "shop"]


def test_the_work_of_a_stopped_build_is_used_by_the_same_one_alone(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("it is done already")

    for name in ("read_part", "write_first", "write_events", "write_plan", "write_file", "write_items"):
        monkeypatch.setattr(BUILD, name, fail)
    build(stopped / "recipe.yaml", tmp_path / "dataset")
    assert "going on with the build that was stopped" in capsys.readouterr().err
    assert check(tmp_path / "dataset").findings == () and listing(tmp_path) == ["dataset", "shop"]


# How the work is cut shows in no file.


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files of a shop in all formats, for all tasks; not to be changed."""
    folder = tmp_path_factory.mktemp("everything") / "shop"
    generate(folder, reviews=300, seed=3, formats=["all"])
    return folder


def test_shards_runs_and_bands_of_any_size_give_the_same_bytes(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(everything / "recipe.yaml", tmp_path / "whole", quiet=True)
    cut_small(monkeypatch, rows=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.finishing.dataset_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(everything / "recipe.yaml", tmp_path / "cut", quiet=True)
    work = tmp_path / ".cut.building"
    assert len(list((work / "events/shop").iterdir())) == 3
    assert len(list((work / "read/shop/0000").glob("interactions-*.parquet"))) > 1
    build(everything / "recipe.yaml", tmp_path / "cut", quiet=True)
    whole, cut = digests(tmp_path / "whole"), digests(tmp_path / "cut")
    assert set(whole) == set(cut)
    # A profile of an item stands where the item's shard of the catalogue does: its place is all that differs.
    other = {name for name, digest in cut.items() if whole[name] != digest}
    assert {name for name in other if "/item_profile/" not in name} <= {"README.md", "recfound.json"}
    for name in other - {"README.md", "recfound.json"}:
        rows = [pl.read_parquet(tmp_path / out / name).sort("id") for out in ("whole", "cut")]
        assert rows[0].equals(rows[1])
    assert check(tmp_path / "cut").findings == ()
