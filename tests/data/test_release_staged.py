"""Releases too large for one commit: gathered on a branch, visible on `main` at once."""

import re
from pathlib import Path

import pytest
from hub import LoopbackHub
from hub.clients import use_here
from release_folders import REPO, at, calls, dataset_files, titles, write

from recfound_data.errors import RecfoundError
from recfound_data.release import Limits, describe, release_folder

ROWS = {f"task_{number}": {"train": 10 + number, "test": 3} for number in range(4)}


@pytest.fixture(autouse=True)
def waits(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    return use_here(hub, monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "new", dataset_files(ROWS))


def release(folder: Path, version: str = "1.0.0", **options):
    return release_folder(folder, REPO, repo_type="dataset", version=version, **options)


def local(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commits(hub: LoopbackHub) -> list[str]:
    """The branch of each commit that was asked for, in order."""
    return [re.sub(".*/commit/", "", path).replace("%2F", "/") for path in calls(hub, "POST") if "/commit/" in path]


def test_main_gets_everything_through_one_commit_and_the_branch_goes(hub, folder):
    release(write(folder.parent / "first", {"README.md": b"# Shop\n", "old.parquet": b"PAR1", "kept.txt": b"kept"}))
    (folder / "kept.txt").write_bytes(b"kept")
    hub.log.clear()
    made = release(folder, "2.0.0", limits=Limits(files=5, batch=4))
    assert made.staged and made.deleted == ("old.parquet",) and len(made.uploaded) == 10
    assert commits(hub) == ["release/v2.0.0"] * 3 + ["main"]
    assert at(hub, "main") == at(hub, "v2.0.0") == local(folder)
    assert titles(hub) == ["Release v2.0.0", "Release v1.0.0", "initial commit"]
    assert set(hub.repository("dataset", REPO).branches) == {"main"}
    assert len(calls(hub, "PUT")) == 8
    posts = calls(hub, "POST")
    last = posts.index(f"/api/datasets/{REPO}/commit/main")
    assert any("/paths-info/" in path for path in posts[:last])  # the client looks up what it copies
    assert len([path for path in posts if "/objects/batch" in path]) == 3  # once for each commit on the branch
    assert hub.repository("dataset", REPO).find("main").files["data/task_0/train-00000-of-00001.parquet"].large


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        (Limits(files=10), []),
        (Limits(files=9), [10]),
        (Limits(files=9, batch=3), [3, 3, 3, 1]),
        (Limits(bytes=60, batch=100), None),
    ],
)
def test_the_limits_decide_what_is_gathered_and_how(hub, folder, limits, parts):
    made = release(folder, limits=limits)
    repository = hub.repository("dataset", REPO)
    staged = [commit for commit in repository.commits.values() if "part" in commit.title]
    sizes = [
        [
            len(blob.data)
            for path, blob in commit.files.items()
            if commit.parent.files.get(path) != blob and path[0] != "."
        ]
        for commit in staged
    ]
    assert made.staged == bool(staged) and at(hub, "v1.0.0") == local(folder)
    if parts is None:
        assert all(sum(part) <= 60 or len(part) == 1 for part in sizes) and len(sizes) > 3
    else:
        assert list(map(len, sizes)) == parts


def test_a_branch_left_behind_is_used_and_what_else_it_holds_stays_away(hub, folder):
    hub.fail("POST", "/commit/main", 500, 1)
    with pytest.raises(RecfoundError, match="HTTP 500"):
        release(folder, limits=Limits(files=2, batch=3))
    repository = hub.repository("dataset", REPO)
    assert at(hub, "main") == {} and at(hub, "release/v1.0.0") == local(folder)
    stale = repository.find("release/v1.0.0").files
    repository.commit("release/v1.0.0", {**stale, "junk.parquet": stale["README.md"]}, "junk")
    (folder / "data/task_0/train-00000-of-00001.parquet").write_bytes(b"PAR1 other PAR1")  # built again meanwhile
    hub.log.clear()
    release(folder, limits=Limits(files=2, batch=3))
    assert len([path for path in calls(hub, "POST") if "/preupload/release" in path]) == 1
    assert len(calls(hub, "PUT")) == 1 and commits(hub) == ["release/v1.0.0", "main"]
    assert at(hub, "main") == at(hub, "v1.0.0") == local(folder)
    assert set(repository.branches) == {"main"}


def test_branches_of_versions_that_can_no_longer_be_released_go_and_others_stay(hub, folder):
    release(folder)
    repository = hub.repository("dataset", REPO)
    for name in ("release/v0.9.0", "release/v1.1.0", "release/v1.2.0", "release/notes", "work"):
        repository.branches[name] = repository.branches["main"]
    (folder / "README.md").write_text("# Shop, again\n")
    release(folder, "1.1.0")
    assert set(repository.branches) == {"main", "release/v1.2.0", "release/notes", "work"}


def test_more_than_one_commit_can_hold_is_refused_before_anything_is_sent(hub, folder):
    with pytest.raises(RecfoundError, match=r"10 files change, and the Hub takes 9 in one commit.*larger files"):
        release(folder, limits=Limits(files=2, most=9))
    assert hub.repositories == {}


def test_a_dry_run_says_that_a_branch_is_used(hub, folder):
    planned = release(folder, limits=Limits(files=2), dry_run=True)
    assert planned.staged and "on a branch of their own first" in describe(planned)
    assert "on a branch" not in describe(release(folder, dry_run=True))
    assert not calls(hub, "POST", "PUT", "DELETE")
