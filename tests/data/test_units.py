"""Units of work: whole or not at all, done once, in any number of processes."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from recfound_data.errors import RecfoundError
from recfound_data.units import DONE, Processes, Result, Stage, Unit, WorkerDiedError, clear_attempts, finished, total


def write(folder: Path, name: str, log: Path) -> Result:
    """Write a file, and a line in a log that all units share."""
    with log.open("a") as file:
        file.write(f"{name}\n")
    (folder / "file").write_text(name)
    return {"rows": len(name), "process": multiprocessing.current_process().name}


def refuse(folder: Path) -> Result:
    (folder / "half").write_text("half")
    raise RecfoundError("no")


def overtaken(folder: Path, final: Path, whole: bool) -> Result:
    """Work during which another process puts its result, or something else, where this one's goes."""
    final.mkdir()
    (final / (DONE if whole else "something")).write_text('{"rows": 1}')
    return {"rows": 1}


def die(folder: Path, after: Path) -> Result:
    while not after.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


def interrupted(folder: Path) -> Result:
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("gone")


def units_of(folder: Path, count: int) -> list[Unit]:
    return [Unit(folder / "u" / f"{at}", write, ("x" * (at + 1), folder / "log"), count - at) for at in range(count)]


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_units(tmp_path: Path, workers: int) -> None:
    units = units_of(tmp_path, 5)
    with Stage(Processes(workers), quiet=True) as stage:
        results = stage.run("work", units)
    assert [result["rows"] for result in results] == [1, 2, 3, 4, 5]
    assert [(unit.folder / "file").read_text() for unit in units] == ["x" * (at + 1) for at in range(5)]
    assert sorted(lines(tmp_path)) == ["x" * (at + 1) for at in range(5)]
    assert [finished(unit.folder) for unit in units] == results
    here = {result["process"] == multiprocessing.current_process().name for result in results}
    assert here == {workers == 1}
    assert sorted(path.name for path in (tmp_path / "u").iterdir()) == ["0", "1", "2", "3", "4"]


def test_a_finished_unit_is_never_done_again_and_gives_its_result(tmp_path: Path) -> None:
    units = units_of(tmp_path, 4)
    with Stage(Processes(1), quiet=True) as stage:
        first = stage.run("work", units[1:3])
        again = stage.run("work", units)
    assert again[1:3] == first and [result["rows"] for result in again] == [1, 2, 3, 4]
    assert lines(tmp_path) == ["xx", "xxx", "x", "xxxx"]


def test_what_a_killed_unit_left_is_no_result(tmp_path: Path) -> None:
    (unit,) = units_of(tmp_path, 1)
    partial = unit.folder.with_name(f".0.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    (partial / "file").write_text("half")
    (partial / "more").write_text("half")
    assert finished(unit.folder) is None
    with Stage(Processes(1), quiet=True) as stage:
        stage.run("work", [unit])
    assert sorted(path.name for path in unit.folder.iterdir()) == sorted([DONE, "file"])
    assert (unit.folder / "file").read_text() == "x"


def test_a_unit_that_fails_is_not_done_and_the_error_is_its_own(tmp_path: Path) -> None:
    bad = Unit(tmp_path / "bad", refuse, ())
    with pytest.raises(RecfoundError, match=r"^no$"), Stage(Processes(1), quiet=True) as stage:
        stage.run("work", [bad])
    assert finished(bad.folder) is None and not bad.folder.exists()


def test_a_worker_that_dies_is_named_and_what_others_finished_is_kept(tmp_path: Path) -> None:
    (good,) = units_of(tmp_path, 1)
    with pytest.raises(WorkerDiedError, match="fewer --workers: it goes on"), Stage(Processes(2), quiet=True) as stage:
        stage.run("work", [good, Unit(tmp_path / "dead", die, (good.folder / DONE,))])
    assert finished(good.folder) is not None and finished(tmp_path / "dead") is None


def test_a_worker_that_is_interrupted_ends_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(BaseException) as raised, Stage(Processes(2), quiet=True) as stage:
        stage.run("work", [Unit(tmp_path / "unit", interrupted, ())])
    assert raised.type is WorkerDiedError and capfd.readouterr() == ("", "")


def test_a_worker_that_was_overtaken_leaves_the_result_that_is_there(tmp_path: Path) -> None:
    unit = Unit(tmp_path / "unit", overtaken, (tmp_path / "unit", True))
    with Stage(Processes(1), quiet=True) as stage:
        stage.run("work", [unit])
    assert [path.name for path in tmp_path.iterdir()] == ["unit"] and finished(unit.folder) == {"rows": 1}


def test_a_folder_that_is_no_result_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"), Stage(Processes(1), quiet=True) as stage:
        stage.run("work", [Unit(tmp_path / "unit", overtaken, (tmp_path / "unit", False))])


def test_what_lost_attempts_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    (unit,) = units_of(tmp_path, 1)
    with Stage(Processes(1), quiet=True) as stage:
        stage.run("work", [unit])
    for name in (".0.partial-a", ".0.partial-b", ".1.partial-a"):
        (unit.folder.parent / name).mkdir()
        (unit.folder.parent / name / "file").write_text("half")
    clear_attempts(unit)
    assert sorted(path.name for path in unit.folder.parent.iterdir()) == [".1.partial-a", "0"]


def test_totals_leave_out_what_is_nothing() -> None:
    assert total([{"a": 1, "b": 0}, {"a": 2, "c": 5}, {}]) == {"a": 3, "c": 5}
    assert total([]) == {}
