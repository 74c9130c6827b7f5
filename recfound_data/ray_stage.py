"""Units of work on a Ray cluster: one unit a task, few in flight, and a lost one is done again elsewhere.

What travels is small: a unit's arguments are paths and settings, its result is what it counted. Rows travel through the
files that units write, so all nodes must see the same folders. The user key does not travel: each node has it in its
environment, and a node with another one is refused.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
import os
import pickle
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.files import facts, said
from recfound_data.people import KEY_VARIABLE, UserKey
from recfound_data.units import Result, StoppedError, Unit, WorkerDiedError, clear_attempts, do, finished, largest_first

_ATTEMPTS = 4
"""How often a unit is begun before its loss is the build's. Ray's own retries have no bound after want of memory."""
_STORE_BYTES = 100 << 20
"""Of a local cluster's object store: it holds arguments and results."""
_CANCEL_SECONDS = 20.0


class NodeError(StoppedError):
    """A node of the cluster lacks what a unit needs; what is finished is kept."""


@dataclass(frozen=True)
class Shared:
    """What every node must see.

    Attributes:
        mark: a file in the folder of units, which lies on a file system that all nodes share.
        text: what that file holds.
        recfound: the package's version.
        user_key: the fingerprint of the user key.
        inputs: the corpora's files and their sizes.
    """

    mark: Path
    text: str
    recfound: str
    user_key: str
    inputs: tuple[tuple[str, str], ...]


def require_ray() -> None:
    """Raise UsageError where Ray is not installed or cannot be used from here."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--executor ray needs Ray; install it with: pip install 'recfound[ray]'")
    if os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        raise UsageError(
            "RAY_ADDRESS: a build cannot go through Ray's client, because it writes files beside the cluster's; run it "
            "on a node of the cluster, with RAY_ADDRESS=auto"
        )


class RayTasks:
    """Runs units as tasks of the cluster that this process is in, that `RAY_ADDRESS` names, or else of a local one."""

    def __init__(self, workers: int | None, work: Path, inputs: Sequence[Sequence[str]]) -> None:
        """Take what the tasks need; the cluster is looked for when there is a unit to do.

        Args:
            workers: most tasks at once; None is as many as the cluster has CPUs.
            work: the folder of units.
            inputs: for each file of a corpus its path, size, and maybe more.
        """
        self._workers, self._work = workers, work
        self._inputs = tuple((path, size) for path, size, *_ in inputs if "://" not in path)
        self._shared: Any = None
        self._running: dict[Any, tuple[int, int]] = {}
        self._leave: list[Any] = []

    def results(self, units: Sequence[Unit]) -> Iterator[tuple[int, Result]]:
        """Do all units and yield the place of each and its result, as they come.

        Raises:
            NodeError: a node does not see the files, or has another version or user key.
            WorkerDiedError: a unit was lost again and again.
        """
        import ray

        if self._shared is None:
            self._join()
        attempt = ray.remote(max_retries=0, num_cpus=1)(_attempt)
        most = self._workers or _cpus()
        todo = [(place, 1) for place in reversed(largest_first(units))]
        while todo or self._running:
            while todo and len(self._running) < most:
                place, times = todo.pop()
                task = attempt.options(name=f"recfound {units[place].work.__name__}")
                self._running[task.remote(_packed(units[place]), self._shared, times > 1)] = (place, times)
            (ready,), _ = ray.wait(list(self._running), num_returns=1)
            place, times = self._running.pop(ready)
            try:
                result = _result(ready)
            except WorkerDiedError:
                if times == _ATTEMPTS:
                    raise
                todo.append((place, times + 1))
            else:
                yield place, result

    def close(self) -> None:
        """Cancel what still runs, leave the cluster, and end it if it is ours."""
        # Leaving a cluster ends what runs for this process. To cancel by force a task that ends at that moment aborts
        # the whole process (Ray 2.60), so it is only asked to stop where the cluster is the caller's.
        if self._running and not self._leave:
            import ray

            for task in self._running:
                ray.cancel(task)
            ray.wait(list(self._running), num_returns=len(self._running), timeout=_CANCEL_SECONDS)
        for step in reversed(self._leave):
            step()

    def _join(self) -> None:
        # Before Ray is loaded, which reads them: no statistics are sent, and `uv run` uploads no folder of the user's.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if not ray.is_initialized():
            self._connect(ray)
        if not _cpus():
            raise NodeError("the Ray cluster has no CPU; start a node with one: ray start --num-cpus 1 ...")
        mark = self._work / f"seen-{uuid.uuid4().hex}"
        mark.write_text(mark.name, encoding="utf-8")
        key = UserKey.from_environment().fingerprint()
        shared = Shared(mark, mark.name, version("recfound"), key, self._inputs)
        self._shared = ray.put(shared)
        self._try_nodes(ray)

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = os.environ.get("RAY_ADDRESS", "")
        if not address:
            folder = tempfile.mkdtemp(prefix="recfound-ray-")
            self._leave.append(functools.partial(shutil.rmtree, folder, ignore_errors=True))
            quiet |= {"num_cpus": self._workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
            quiet["_temp_dir"] = folder
        try:
            ray.init(address=address or "local", **quiet)
        except Exception as error:  # each part of Ray raises what it likes
            what = f"no Ray cluster at RAY_ADDRESS={address}" if address else "no local Ray cluster could be started"
            raise NodeError(f"{what}: {said(error)[:300]}") from None
        self._leave.append(ray.shutdown)

    def _try_nodes(self, ray: Any) -> None:
        """Raise NodeError if a node that can be given tasks cannot do them."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(max_retries=0, num_cpus=0)(_look)
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        seen = [
            look.options(
                name="recfound look", scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(self._shared)
            for node in nodes
        ]
        for node, task in zip(nodes, seen, strict=True):
            try:
                fault = _result(task)
            except WorkerDiedError:
                continue  # it went; the others are there
            except RecfoundError:
                raise
            except Exception as error:
                raise NodeError(
                    f"node {node['NodeManagerAddress']}: recfound {version('recfound')} cannot be loaded there "
                    f"({said(error).rpartition(': ')[2][:200]}); install it with the same Python on every node"
                ) from None
            if fault:
                raise NodeError(f"node {node['NodeManagerAddress']}: {fault}")


def _look(shared: Shared) -> str:
    """Return what the node that this runs on lacks."""
    return _fault(shared)


def _cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def _result(task: Any) -> Any:
    """Return what a task that has ended returned.

    Raises:
        WorkerDiedError: it was lost.
        Exception: what it raised itself.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from (None if isinstance(error.cause, RecfoundError) else error)
    except RayError as error:
        raise WorkerDiedError(
            f"a Ray worker was lost {_ATTEMPTS} times at the same work, most likely for want of memory "
            f"({said(error)[:200]}); run the same command again, with fewer --workers: it goes on where this one "
            "stopped"
        ) from None


def _attempt(packed: bytes, shared: Shared, again: bool) -> Result:
    """Do a unit on this node; `again` if an earlier attempt was lost, which may have finished it or may still run."""
    if fault := _fault(shared):
        raise NodeError(f"node {socket.gethostname()}: {fault}")
    unit = _unpacked(packed)
    if not again:
        return do(unit)
    result = finished(unit.folder) or do(unit)
    clear_attempts(unit)
    return result


@functools.cache
def _fault(shared: Shared) -> str:
    """Return what this node lacks; an empty text where it lacks nothing."""
    if (here := version("recfound")) != shared.recfound:
        return f"has recfound {here} and not {shared.recfound}; install the same version on every node"
    if UserKey.from_environment().fingerprint() != shared.user_key:
        return (
            f"has another {KEY_VARIABLE} than this process, or only one of them has it; run `ray start` on every node "
            "with the same one in its environment"
        )
    unseen = "all nodes must see the same folders at the same paths, on a shared file system"
    try:
        if shared.mark.read_text(encoding="utf-8") != shared.text:
            return f"{shared.mark}: is another file there; {unseen}"
    except OSError:
        return f"does not see {shared.mark.parent}, the folder that the build works in; {unseen}"
    for path, size in shared.inputs:
        try:
            same = facts(path)[0] == size
        except OSError:
            return f"does not see {path}; {unseen}"
        if not same:
            return f"{path}: is of another size there; {unseen}"
    return ""


class _Packer(pickle.Pickler):
    """Leaves the user key out and names which it is."""

    def persistent_id(self, value: Any) -> Any:
        return (value.fingerprint(), value.corpus) if isinstance(value, UserKey) else None


class _Unpacker(pickle.Unpickler):
    """Takes the user key from this node's environment."""

    def persistent_load(self, named: Any) -> UserKey:
        fingerprint, corpus = named
        key = UserKey.from_environment()
        if key.fingerprint() != fingerprint:
            raise NodeError(f"node {socket.gethostname()}: has another {KEY_VARIABLE}")
        return key.within(corpus)


def _packed(unit: Unit) -> bytes:
    file = io.BytesIO()
    _Packer(file).dump(unit)
    return file.getvalue()


def _unpacked(packed: bytes) -> Unit:
    unit = _Unpacker(io.BytesIO(packed)).load()
    assert isinstance(unit, Unit), "what was packed is a unit"
    return unit
