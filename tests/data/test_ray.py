"""Units and builds on Ray: the bytes of a local build, whoever dies; no key on the way; faults said in one line."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from many_shards import BUILD
from raw_shop import KEY, digests

from recfound_data import build
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.people import KEY_VARIABLE, UserKey
from recfound_data.preparation import Reading
from recfound_data.ray_stage import NodeError, RayTasks, _packed, _unpacked, require_ray
from recfound_data.shop import generate
from recfound_data.units import DONE, Result, Stage, Unit, WorkerDiedError, finished

ray = pytest.importorskip("ray", reason="Ray is an extra")
HERE = Path(__file__).parent
STORE = 80 << 20


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cluster's logs; Unix sockets lie in it, whose names must be short."""
    folder = Path(f"/tmp/recfound-test-{os.getpid()}")
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(session: Path, user_key: None) -> Iterator[Any]:
    """Two nodes of one CPU each, to which this process is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", str(HERE))
        patch.setenv("RAY_TMPDIR", str(session))
        from ray.cluster_utils import Cluster

        args = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=args)
        nodes.add_node(num_cpus=1, object_store_memory=STORE)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        nodes.wait_for_nodes()
        yield nodes
        ray.shutdown()
        nodes.shutdown()
        subprocess.run(["rm", "-rf", str(session)], check=True)


# Units


def write(folder: Path, name: str, log: Path) -> Result:
    """Write a file, and when this began and ended."""
    began = time.time()
    time.sleep(0.3)
    (folder / "file").write_text(name)
    node = ray.get_runtime_context().get_node_id()
    with log.open("a") as file:
        file.write(f"{name} {began} {time.time()} {node}\n")
    return {"rows": len(name)}


def die_at_first(folder: Path, marks: Path, times: int, last: bool) -> Result:
    """Die at the first attempts, half done, or, if `last`, when the result is in its place."""
    attempt = len(list(marks.iterdir()))
    (marks / str(attempt)).touch()
    (folder / "file").write_text("half")
    if attempt < times:
        if last:
            (folder / "file").write_text("whole")
            (folder / DONE).write_text('{"rows": 7}')
            folder.rename(marks.parent / "u")
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "file").write_text("whole")
    return {"rows": 7}


def refuse(folder: Path) -> Result:
    raise UsageError("no: with what to do")


def need_key(folder: Path, reading: Reading) -> Result:
    return {"rows": 1, "right": reading.key.key == KEY, "corpus": reading.key.corpus}


def units_of(folder: Path, count: int) -> list[Unit]:
    return [Unit(folder / "u" / f"{at}", write, ("x" * (at + 1), folder / "log"), count - at) for at in range(count)]


def stage(work: Path, workers: int | None = None, inputs: Any = ()) -> Stage:
    work.mkdir(parents=True, exist_ok=True)
    return Stage(RayTasks(workers, work, inputs), quiet=True)


def runs(folder: Path) -> list[list[str]]:
    return sorted((line.split() for line in (folder / "log").read_text().splitlines()), key=lambda run: float(run[1]))


@pytest.mark.parametrize("workers", [1, None])
def test_units_are_done_once_on_all_nodes_and_no_more_at_once_than_asked(
    cluster: Any, tmp_path: Path, workers: int | None
) -> None:
    units = units_of(tmp_path, 6)
    with stage(tmp_path, workers) as some:
        some.run("work", units[2:4])
        results = some.run("work", units)
    assert [result["rows"] for result in results] == [1, 2, 3, 4, 5, 6]
    assert [(unit.folder / "file").read_text() for unit in units] == ["x" * (at + 1) for at in range(6)]
    assert sorted(run[0] for run in runs(tmp_path)) == ["x" * (at + 1) for at in range(6)]
    together = sum(float(b[1]) < float(a[2]) for a, b in zip(runs(tmp_path), runs(tmp_path)[1:], strict=False))
    assert (together == 0) == (workers == 1)
    assert workers or len({run[3] for run in runs(tmp_path)}) == 2


@pytest.mark.parametrize("last", [False, True])
def test_a_unit_whose_worker_is_killed_is_done_again_and_leaves_nothing(
    cluster: Any, tmp_path: Path, last: bool
) -> None:
    (tmp_path / "marks").mkdir()
    unit = Unit(tmp_path / "u", die_at_first, (tmp_path / "marks", 1, last))
    with stage(tmp_path / "work") as some:
        (result,) = some.run("work", [unit])
    assert result == {"rows": 7} == finished(unit.folder)
    assert (unit.folder / "file").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["marks", "u", "work"]
    assert len(list((tmp_path / "marks").iterdir())) == (1 if last else 2)


def test_a_unit_that_is_lost_again_and_again_ends_the_build_and_others_are_kept(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    good = units_of(tmp_path, 1)[0]
    bad = Unit(tmp_path / "bad", die_at_first, (tmp_path / "marks", 99, False))
    with pytest.raises(WorkerDiedError, match=r"lost 4 times.*it goes on") as raised, stage(tmp_path) as some:
        some.run("work", [good, bad])
    assert "\n" not in str(raised.value)
    assert finished(good.folder) is not None and finished(bad.folder) is None
    assert len(list((tmp_path / "marks").iterdir())) == 4


def test_an_error_of_a_unit_is_raised_as_it_is(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no: with what to do$"), stage(tmp_path) as some:
        some.run("work", [Unit(tmp_path / "bad", refuse, ())])
    assert finished(tmp_path / "bad") is None


def test_the_key_is_that_of_the_nodes_and_does_not_travel(cluster: Any, session: Path, tmp_path: Path) -> None:
    reading = Reading(UserKey.from_environment().within("shop"), False, False, True)
    unit = Unit(tmp_path / "u", need_key, (reading,))
    assert KEY.encode() in pickle.dumps(unit) and KEY.encode() not in _packed(unit) and _unpacked(_packed(unit)) == unit
    with stage(tmp_path) as some:
        assert some.run("work", [unit]) == [{"rows": 1, "right": True, "corpus": "shop"}]
    written = [path for path in [*session.rglob("*"), *tmp_path.rglob("*")] if path.is_file()]
    assert len(written) > 20 and not any(KEY.encode() in path.read_bytes() for path in written)


@pytest.mark.parametrize("key", ["another secret", None])
def test_nodes_with_another_key_are_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key) if key else monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(NodeError, match=r"^node \S+: has another RECFOUND_USER_KEY") as raised, stage(tmp_path) as some:
        some.run("work", units_of(tmp_path, 1))
    assert KEY not in str(raised.value) and "another secret" not in str(raised.value)
    assert not (tmp_path / "u").exists()


def test_a_folder_that_nodes_do_not_see_is_no_empty_result(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    here = os.open(tmp_path / "mine", os.O_RDONLY)
    mine = os.dup2(here, 900)
    try:
        work = Path(f"/proc/self/fd/{mine}")  # which is another folder, or none, in every other process
        with (
            pytest.raises(NodeError, match=r"^node \S+: does not see /proc/self/fd/900, .*shared"),
            stage(work) as some,
        ):
            some.run("work", units_of(tmp_path, 1))
    finally:
        os.close(mine)
        os.close(here)
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(("size", "fault"), [("5", "is of another size there"), ("4", ""), (None, "does not see")])
def test_inputs_that_nodes_do_not_see_are_no_empty_result(
    cluster: Any, tmp_path: Path, size: str | None, fault: str
) -> None:
    (tmp_path / "input.csv").write_text("four")
    path = tmp_path / ("input.csv" if size else "gone.csv")
    some = stage(tmp_path / "work", inputs=[[str(path), size or "4", "more"], ["s3://bucket/file", "7"]])
    with some:
        if not fault:
            assert some.run("work", units_of(tmp_path, 1)) == [{"rows": 1}]
            return
        with pytest.raises(NodeError, match=fault) as raised:
            some.run("work", units_of(tmp_path, 1))
    assert str(path) in str(raised.value)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'recfound\[ray\]'"):
        build(tmp_path / "recipe.yaml", tmp_path / "out", executor="ray")


def test_a_client_of_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="RAY_ADDRESS=auto"):
        require_ray()


# Builds


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, user_key: None) -> tuple[Path, dict[str, str]]:
    """The recipe of a small shop with mined negatives, and the files of its dataset, built here."""
    folder = tmp_path_factory.mktemp("shop")
    generate(folder / "shop", reviews=200, seed=5)
    with (folder / "shop/recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("mining: {kind: lexical, depth: 30}\nnear_duplicates: {threshold: 0.9}\n")
    build(folder / "shop/recipe.yaml", folder / "dataset", quiet=True)
    return folder / "shop/recipe.yaml", digests(folder / "dataset")


def done(work: Path) -> int:
    """How many units are done; folders may go meanwhile."""
    return sum("done.json" in files for _, _, files in os.walk(work))


def kill_workers(work: Path, killed: list[int], stop: threading.Event) -> None:
    """Kill a Ray worker at its work whenever ten more units are done, until told to stop."""
    import psutil

    at = 10
    while not stop.wait(0.002):
        if done(work) < at:
            continue
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][0].startswith("ray::recfound"):
                process.kill()
                killed.append(at)
                at += 10
                break


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "workers"), [("local", 4), ("ray", 1), ("ray", 4)])
def test_the_dataset_does_not_depend_on_where_and_with_how_many_it_is_built(
    cluster: Any, shop: tuple[Path, dict[str, str]], tmp_path: Path, executor: Any, workers: int
) -> None:
    recipe, expected = shop
    build(recipe, tmp_path / "dataset", workers=workers, executor=executor, quiet=True)
    assert digests(tmp_path / "dataset") == expected and len(expected) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.slow
def test_workers_and_a_node_that_are_killed_change_nothing(
    cluster: Any, shop: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, expected = shop
    monkeypatch.setattr(BUILD, "_ROWS_PER_SHARD", dict.fromkeys(BUILD._ROWS_PER_SHARD, 40))
    third = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    work, killed, stop = tmp_path / ".dataset.building", list[int](), threading.Event()
    killer = threading.Thread(target=kill_workers, args=(work, killed, stop))

    def unplug() -> None:
        while not stop.wait(0.01):
            if done(work) >= 25:
                cluster.remove_node(third, allow_graceful=False)
                return

    threads = [killer, threading.Thread(target=unplug)]
    for thread in threads:
        thread.start()
    try:
        build(recipe, tmp_path / "dataset", executor="ray", workers=4, quiet=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert killed and sum(node["Alive"] for node in ray.nodes()) == 2
    assert digests(tmp_path / "dataset") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.slow
def test_a_build_stopped_by_a_wrong_node_goes_on(
    cluster: Any, shop: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, expected = shop
    with monkeypatch.context() as patch:
        patch.setattr("recfound_data.finishing.dataset_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(recipe, tmp_path / "dataset", quiet=True)
    one = next((tmp_path / ".dataset.building").glob("files/items/*"))
    subprocess.run(["rm", "-r", str(one)], check=True)
    units = len(list(tmp_path.glob("**/done.json")))
    monkeypatch.setattr("recfound_data.ray_stage.version", lambda name: "0.0.1")
    with pytest.raises(NodeError, match=r"has recfound \S+ and not 0.0.1"):
        build(recipe, tmp_path / "dataset", executor="ray", quiet=True)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("**/done.json"))) == units > 20
    build(recipe, tmp_path / "dataset", executor="ray", quiet=True)
    assert digests(tmp_path / "dataset") == expected


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def started(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """A build in another process, with a cluster of its own."""
    command = [sys.executable, "-m", "recfound_data.cli", "data", "build", str(recipe), "--out", str(out)]
    command += ["--executor", "ray", "--workers", "2"]
    environment = {**os.environ, "TMPDIR": str(out.parent / "t")}
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_local_cluster_ends_with_its_build_however_that_ends(
    shop: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, expected = shop
    here = Path(f"/tmp/rf-{os.getpid()}")
    (here / "t").mkdir(parents=True)
    try:
        broken = here / "broken.yaml"
        broken.write_text(recipe.read_text().replace("movielens/ratings.csv", "bad.csv"))
        for folder in ("amazon_reviews_2018", "movielens", "shopping_queries"):
            (here / folder).symlink_to(recipe.parent / folder)
        (here / "bad.csv").write_bytes(b"\x00\xff\n\x00")
        _, said = (process := started(broken, here / "dataset")).communicate(timeout=120)
        assert process.returncode == 1
        assert said.splitlines()[-1].startswith("recfound: ") and "bad.csv" in said.splitlines()[-1]
        assert "Traceback" not in said and not (here / ".dataset.building").exists()

        process = started(recipe, here / "dataset")
        while done(here / ".dataset.building") < 8:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130 and said.splitlines()[-1].startswith("recfound: interrupted"), said
        assert "Traceback" not in said and list((here / "t").iterdir()) == []

        _, said = (process := started(recipe, here / "dataset")).communicate(timeout=120)
        assert process.returncode == 0 and "going on with the build that was stopped" in said
        assert digests(here / "dataset") == expected and list((here / "t").iterdir()) == []
        processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True)
        assert str(here) not in processes.stdout
    finally:
        subprocess.run(["rm", "-rf", str(here)], check=True)


def test_an_error_that_is_no_ones_names_itself(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), stage(tmp_path) as some:
        some.run("work", [Unit(tmp_path / "bad", divide, ())])
    assert issubclass(NodeError, RecfoundError)


def divide(folder: Path) -> Result:
    return {"rows": 1 // len([*folder.iterdir()])}
