"""A client that is killed at each request of a push, before and after the hub has done what was asked."""

import copy
from pathlib import Path

import pytest
from hub import LoopbackHub
from hub.clients import Client, use_here
from huggingface_hub import close_session
from release_folders import REPO, at, calls, dataset_files, titles, write

from recfound_data.release import Limits, release_folder
from recfound_data.release.dataset import DatasetSubject

FIRST = {"user2item": {"train": 10, "test": 3}, "old": {"train": 5}}
SECOND = {"user2item": {"train": 12, "test": 3}, "item2item": {"train": 7, "validation": 1, "test": 2}}
STAGED = Limits(files=2, batch=2)
SCENARIOS = ["first", "second", "staged", pytest.param("staged first", marks=pytest.mark.slow)]


class Push:
    """A push that can be made in a process that gets killed, or in this one, always from the same state of the hub."""

    def __init__(self, hub: LoopbackHub, client: Client, folder: Path, scenario: str) -> None:
        self.hub, self.client = hub, client
        self.options = {"repo_type": "dataset", "version": "1.0.0", "endpoint": hub.url, "token": hub.token}
        self.options |= {"subject": DatasetSubject(), "limits": STAGED if "staged" in scenario else Limits()}
        if "first" not in scenario:
            self.here(write(folder / "first", dataset_files(FIRST)))
            self.options["version"] = "2.0.0"
        self.tag = f"v{self.options['version']}"
        self.folder = write(folder / "new", dataset_files(SECOND))
        self.state = copy.deepcopy(hub.repositories)
        self.before = at(hub, "main") if self.state else {}
        self.here()
        self.after = at(hub, self.tag)
        hub.log.clear()
        self.reset()
        self.here()
        self.requests = len(hub.log)

    def reset(self) -> None:
        self.hub.repositories = copy.deepcopy(self.state)
        self.hub.uploads.clear()
        self.hub.log.clear()

    def here(self, folder: Path | None = None):
        return release_folder(folder or self.folder, REPO, **self.options)

    def killed(self, request: int, after: bool) -> None:
        self.hub.interrupt(request, self.client.kill, after=after)
        assert self.client.run(release_folder, self.folder, REPO, **self.options) == -9
        close_session()  # this process's own connections
        self.hub.settle()

    @property
    def stored(self) -> set[str]:
        """Large files that the hub has."""
        repository = self.hub.repositories.get(("datasets", REPO))
        return set(repository.large_files) if repository else set()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whenever_a_push_is_killed_main_is_whole_and_the_next_run_finishes_it(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, after: bool
) -> None:
    use_here(hub, monkeypatch, tmp_path)
    with Client(hub, tmp_path / "home", ("recfound_data.release.dataset",)) as client:
        kill_everywhere(hub, Push(hub, client, tmp_path, scenario), scenario, after)


def kill_everywhere(hub: LoopbackHub, push: Push, scenario: str, after: bool) -> None:
    assert push.requests > (10 if scenario == "first" else 20)
    for request in range(1, push.requests + 1):
        push.reset()
        push.killed(request, after)
        where = f"{scenario}, request {request} of {push.requests}: {hub.log[-1] if hub.log else 'nothing'}"

        repository = hub.repositories.get(("datasets", REPO))
        if repository is not None:
            assert at(hub, "main") in (push.before, push.after, {}), where
            if push.tag in repository.tags:
                assert at(hub, push.tag) == at(hub, "main") == push.after, where
            assert at(hub, "main") != {} or not push.before, where
        stored = push.stored

        hub.log.clear()
        made = push.here()
        assert made.version == push.tag and made.commit == hub.repository("dataset", REPO).tags[push.tag], where
        assert at(hub, "main") == at(hub, push.tag) == push.after, where
        assert len(calls(hub, "PUT")) == len(push.stored - stored), f"sent again: {where}"
        assert set(hub.repository("dataset", REPO).branches) == {"main"}, where
        expected = ["Release v2.0.0", "Release v1.0.0"] if push.before else ["Release v1.0.0"]
        assert titles(hub) == [*expected, "initial commit"], where
