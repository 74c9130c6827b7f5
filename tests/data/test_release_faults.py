"""What a push does when the hub or the network fails: waits where that helps, and leaves nothing half made."""

from pathlib import Path

import pytest
from hub import LoopbackHub
from hub.clients import use_here
from release_folders import REPO, at, calls, dataset_files, titles, write

from recfound_data.errors import RecfoundError
from recfound_data.release import Limits, release_folder
from recfound_data.release.dataset import DatasetSubject
from recfound_data.release.hub import MOST_WAIT

FIRST = {"user2item": {"train": 10, "test": 3}, "old": {"train": 5}}
SECOND = {"user2item": {"train": 12, "test": 3}, "item2item": {"train": 7, "validation": 1, "test": 2}}
STAGED = Limits(files=2, batch=2)
ALWAYS = 1000


@pytest.fixture(autouse=True)
def waits(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    return use_here(hub, monkeypatch, tmp_path)


@pytest.fixture
def folder(hub: LoopbackHub, tmp_path: Path) -> Path:
    """What becomes v2.0.0 of a repository that has v1.0.0."""
    release(write(tmp_path / "first", dataset_files(FIRST)), version="1.0.0")
    hub.log.clear()
    return write(tmp_path / "second", dataset_files(SECOND))


def release(folder: Path, version: str = "2.0.0", **options):
    return release_folder(
        folder, REPO, repo_type="dataset", version=version, **{"subject": DatasetSubject(), **options}
    )


def bytes_sent_once(hub: LoopbackHub) -> bool:
    """Whether no large file was taken twice since the log was cleared."""
    sent = [entry for entry in hub.log if entry.method == "PUT" and entry.status == 200]
    return len(sent) == len(hub.repository("dataset", REPO).large_files) - 3  # those of the first release


STEPS = [
    ("GET", f"/api/datasets/{REPO}$"),
    ("GET", "/refs$"),
    ("GET", "/tree/"),
    ("HEAD", "/resolve/.*/recfound.json"),
    ("POST", "/preupload/"),
    ("POST", "/objects/batch"),
    ("PUT", "/large-files/"),
    ("POST", "/verify$"),
    ("POST", "/validate-yaml"),
    ("POST", "/commit/main"),
    ("POST", "/tag/"),
]
STAGED_STEPS = [
    ("POST", "/branch/release%2F"),
    ("POST", "/preupload/release%2F"),
    ("POST", "/commit/release%2F"),
    ("POST", "/paths-info/"),
    ("POST", "/commit/main"),
    ("POST", "/tag/"),
    ("DELETE", "/branch/release%2F"),
]
STATUSES = (401, 403, 404, 409, 412, 429, 500, 503)
ADVICE = {
    401: "hf auth login",
    403: "may write to acme",
    404: "does not exist",
    409: "another change",
    412: "has moved",
}
ADVICE |= {429: "too many requests, wait 1000 seconds", 500: "in trouble", 503: "in trouble"}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("staged", [False, True], ids=["one commit", "staged"])
def test_an_answer_of_any_kind_at_any_step_leaves_main_whole_and_the_next_run_finishes(
    hub: LoopbackHub, folder: Path, staged: bool, status: int
) -> None:
    before = at(hub, "main")
    options = {"limits": STAGED} if staged else {}
    for method, path in STAGED_STEPS if staged else STEPS:
        where = f"{method} {path}"
        hub.fail(method, path, status, ALWAYS, headers={"Retry-After": "1000"}, message=f"no:\n{hub.token}")
        if (status, path) in ((404, "/branch/release%2F"), (409, "/branch/release%2F")) and method != "DELETE":
            hub.heal()  # exists already, or is gone already: that is what was wanted
            continue
        if (status, method) == (404, "DELETE"):
            release(folder, **options)
            hub.heal()
            continue
        if (status, method) == (404, "GET") and path.endswith(f"{REPO}$"):
            hub.heal()  # a repository that is not there is created
            continue
        with pytest.raises(RecfoundError) as caught:
            release(folder, **options)
        hub.heal()
        message = str(caught.value)
        assert f"HTTP {status}" in message and ADVICE[status] in message, where
        assert hub.token not in message and "\n" not in message, where
        repository = hub.repository("dataset", REPO)
        if set(repository.tags) != {"v1.0.0"}:
            assert at(hub, "v2.0.0") == at(hub, "main") and method == "DELETE", where
        assert at(hub, "main") == before or method in ("DELETE",) or path == "/tag/", where
    release(folder, **options)
    repository = hub.repository("dataset", REPO)
    assert at(hub, "v2.0.0") == at(hub, "main") != before
    assert titles(hub) == ["Release v2.0.0", "Release v1.0.0", "initial commit"]
    assert set(repository.branches) == {"main"} or status == 404
    assert bytes_sent_once(hub)


def test_a_wait_that_the_hub_asks_for_is_waited_and_the_push_goes_on(hub, folder, waits):
    for path in (f"/api/datasets/{REPO}$", "/refs$"):
        hub.fail("GET", path, 429, headers={"Retry-After": "7"})
    hub.fail("POST", "/commit/", 429, times=3, headers={"Retry-After": "20"})
    hub.fail("POST", "/tag/", 429, headers={"RateLimit": '"api";r=0;t=55'})
    release(folder)
    assert waits == [8, 8, 21, 21, 21, 56]
    assert at(hub, "v2.0.0") == at(hub, "main") and bytes_sent_once(hub)


@pytest.mark.parametrize(("asked", "expected"), [("100", [101, 101]), (str(MOST_WAIT), []), ("soon", []), ("", [])])
def test_a_wait_has_an_end(hub, folder, waits, asked, expected):
    hub.fail("POST", "/tag/", 429, ALWAYS, headers={"Retry-After": asked} if asked else {})
    with pytest.raises(RecfoundError, match=r"too many requests, wait (some minutes|[0-9]+ seconds)"):
        release(folder)
    assert waits == expected and sum(waits) <= MOST_WAIT


@pytest.mark.parametrize("received", [0, 10])
@pytest.mark.parametrize(
    ("method", "path", "repeated"),
    [("PUT", "/large-files/", True), ("POST", "/preupload/", True), ("POST", "/commit/main", False)],
)
def test_a_connection_cut_in_the_middle_of_a_body(hub, folder, waits, method, path, repeated, received):
    before = at(hub, "main")
    hub.cut(method, path, received)
    if not repeated:
        with pytest.raises(RecfoundError, match=r"no answer \(\w+\).*check the network"):
            release(folder)
        assert at(hub, "main") == before and set(hub.repository("dataset", REPO).tags) == {"v1.0.0"}
    release(folder)
    assert at(hub, "v2.0.0") == at(hub, "main") and bytes_sent_once(hub)
    assert waits == ([1] if repeated else [])

    hub.log.clear()
    other = write(folder.parent / "third", dataset_files({**SECOND, "user2item": {"train": 20, "test": 3}}))
    hub.cut(method, path, received, ALWAYS)
    with pytest.raises(RecfoundError, match=r"no answer \(\w+\).*check the network"):
        release(other, version="2.1.0")
    hub.heal()
    assert at(hub, "main") == at(hub, "v2.0.0") and "v2.1.0" not in hub.repository("dataset", REPO).tags
    release(other, version="2.1.0")
    assert at(hub, "v2.1.0") == at(hub, "main")


@pytest.mark.parametrize("staged", [False, True], ids=["one commit", "staged"])
def test_somebody_elses_push_meanwhile_is_not_overwritten(hub, folder, staged):
    repository = hub.repository("dataset", REPO)

    def push() -> None:
        files = repository.find("main").files
        repository.commit("main", {**files, "NEWS": files["README.md"]}, "someone else")

    options = {"limits": STAGED} if staged else {}
    release(folder, dry_run=True, **options)
    looked = len(hub.log)
    hub.interrupt(looked + 3, push, answered=True)  # while files are sent
    with pytest.raises(RecfoundError, match=r"HTTP 412.*has moved.*look at what is new"):
        release(folder, **options)
    assert "NEWS" in at(hub, "main") and set(repository.tags) == {"v1.0.0"} and titles(hub)[0] == "someone else"
    release(folder, **options)
    assert "NEWS" not in at(hub, "main") and at(hub, "v2.0.0") == at(hub, "main")
    assert titles(hub)[:2] == ["Release v2.0.0", "someone else"] and bytes_sent_once(hub)


def test_two_pushes_of_one_version_at_a_time_give_one_tag(hub, folder):
    release(folder, dry_run=True)
    steps = len(hub.log)
    release(folder.parent / "first", version="1.0.0")  # nothing to do: it is released
    assert not calls(hub, "POST", "PUT", "DELETE")
    repository = hub.repository("dataset", REPO)

    def tag() -> None:
        repository.tags["v2.0.0"] = repository.tags["v1.0.0"]

    hub.interrupt(steps + 3, tag, answered=True)
    with pytest.raises(RecfoundError, match=r"set the tag v2\.0\.0.*HTTP 409.*exists already"):
        release(folder)
    with pytest.raises(RecfoundError, match=r"v2\.0\.0 is set already.*with other files"):
        release(folder)
    assert repository.tags["v2.0.0"] == repository.tags["v1.0.0"]
