"""Releases to a hub on loopback: what arrives, what is refused, and what is left behind when something fails."""

import dataclasses
import socket
from pathlib import Path

import pytest
from hub import LoopbackHub
from hub.clients import use_here
from huggingface_hub import HfApi

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.release import Release, release_folder

REPO = "acme/shop"
CARD = "---\nlicense: mit\n---\n# Shop\n"


@pytest.fixture(autouse=True)
def waits(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    return use_here(hub, monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small release: a card, two large files of the same content, a file in git, and what must not be sent."""
    files = {
        "README.md": CARD.encode(),
        "recfound.json": b"{}",
        "empty.txt": b"",
        "data/q/train-00000-of-00001.parquet": b"PAR1 rows PAR1",
        "data/q/test-00000-of-00001.parquet": b"PAR1 rows PAR1",
        ".work/partial.parquet": b"unfinished",
        "data/.cache/token": b"secret",
        ".gitattributes": b"* -text\n",
    }
    for path, content in files.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(content)
    return tmp_path / "out"


def release(folder: Path, version: str = "1.0.0", **options) -> Release:
    return release_folder(folder, REPO, repo_type="dataset", version=version, **options)


def visible(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {path: content for path, content in files.items() if not path.startswith(".") and "/." not in path}


def at(hub: LoopbackHub, revision: str, repo_type: str = "dataset") -> dict[str, bytes]:
    commit = hub.repository(repo_type, REPO).find(revision)
    assert commit is not None
    return {path: blob.data for path, blob in commit.files.items() if path != ".gitattributes"}


def calls(hub: LoopbackHub, *methods: str) -> list[str]:
    return [entry.path for entry in hub.log if entry.method in methods]


def test_first_release_holds_the_folder_in_one_commit(hub, folder):
    made = release(folder, private=True)
    repository = hub.repository("dataset", REPO)
    assert at(hub, "v1.0.0") == at(hub, "main") == visible(folder)
    assert repository.private
    assert repository.tags == {"v1.0.0": made.commit} and repository.branches == {"main": made.commit}
    assert [commit.title for commit in repository.commits.values()] == ["initial commit", "Release v1.0.0"]
    assert repository.commits[made.commit].files["data/q/train-00000-of-00001.parquet"].large
    assert b"*.parquet filter=lfs" in repository.commits[made.commit].files[".gitattributes"].data
    assert made == Release(
        repo_id=REPO,
        repo_type="dataset",
        version="v1.0.0",
        commit=made.commit,
        url=f"{hub.url}/datasets/acme/shop/tree/v1.0.0",
        uploaded={path: len(content) for path, content in visible(folder).items()},
        deleted=(),
        uploaded_bytes=sum(map(len, visible(folder).values())),
        dry_run=False,
        repo_exists=False,
        tag_exists=False,
    )


@pytest.mark.filterwarnings("error::UserWarning")
def test_second_release_sends_changes_deletes_leftovers_and_keeps_the_first(hub, folder):
    first, before = release(folder), visible(folder)
    (folder / "data/q/train-00000-of-00001.parquet").write_bytes(b"PAR1 more PAR1")  # same size, other content
    (folder / "data/q/test-00000-of-00001.parquet").unlink()
    (folder / "recfound.json").unlink()
    (folder / "recfound.json").mkdir()  # a file's path becomes a folder
    (folder / "recfound.json/part.json").write_text("{}")
    second = release(folder, "v1.1.0")
    assert second.uploaded == {"data/q/train-00000-of-00001.parquet": 14, "recfound.json/part.json": 2}
    assert second.deleted == ("data/q/test-00000-of-00001.parquet", "recfound.json")
    assert second.uploaded_bytes == 16 and second.repo_exists
    assert at(hub, "v1.1.0") == visible(folder) and at(hub, "v1.0.0") == before
    commit = hub.repository("dataset", REPO).commits[second.commit]
    assert commit.parent.id == first.commit


def test_an_unchanged_folder_is_tagged_without_a_commit(hub, folder):
    first = release(folder)
    hub.log.clear()
    second = release(folder, "1.0.1")
    assert second.commit == first.commit and second.uploaded == {} and second.deleted == ()
    assert calls(hub, "POST", "PUT") == [f"/api/datasets/{REPO}/tag/{first.commit}"]
    assert hub.repository("dataset", REPO).tags == {"v1.0.0": first.commit, "v1.0.1": first.commit}


def test_a_model_repository(hub, folder):
    made = release_folder(folder, REPO, repo_type="model", version="0.1.0")
    assert made.url == f"{hub.url}/acme/shop/tree/v0.1.0"
    assert at(hub, "v0.1.0", "model") == visible(folder)
    assert ("datasets", REPO) not in hub.repositories


def test_pages_of_the_tree_are_all_read(hub, folder):
    hub.page_size = 2
    release(folder)
    (folder / "recfound.json").unlink()
    assert release(folder, "1.0.1").deleted == ("recfound.json",)


def test_an_existing_tag_is_refused_and_stays(hub, folder):
    first = release(folder)
    (folder / "README.md").write_text(CARD + "changed")
    with pytest.raises(RecfoundError, match=r"v1\.0\.0 is set already.*choose a higher one") as caught:
        release(folder)
    assert caught.value.exit_code == 1
    repository = hub.repository("dataset", REPO)
    assert repository.tags == {"v1.0.0": first.commit} and repository.branches == {"main": first.commit}


def test_a_commit_in_between_is_not_overwritten(hub, folder, monkeypatch):
    release(folder)
    (folder / "recfound.json").write_text('{"rows": 1}')
    preupload, others = HfApi.preupload_lfs_files, []

    def push_meanwhile(api, *arguments, **options):
        if not others:
            repository = hub.repository("dataset", REPO)
            files = repository.find("main").files
            others.append(repository.commit("main", {**files, "NEWS": files["README.md"]}, "someone else").id)
        return preupload(api, *arguments, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", push_meanwhile)
    with pytest.raises(RecfoundError, match=r"HTTP 412.*the branch has moved.*run the same command again"):
        release(folder, "1.1.0")
    repository = hub.repository("dataset", REPO)
    assert repository.branches == {"main": others[0]} and "v1.1.0" not in repository.tags
    assert release(folder, "1.1.0").deleted == ("NEWS",)
    assert at(hub, "v1.1.0") == visible(folder)


ALWAYS = 100
FAULTS = [
    ("GET", rf"/api/datasets/{REPO}$", 401, "HF_TOKEN"),
    ("GET", "/refs$", 500, "hub is in trouble"),
    ("GET", "/tree/[0-9a-f]{40}$", 503, "hub is in trouble"),
    ("POST", "/api/repos/create", 403, "may write to acme"),
    ("POST", "/preupload/", 500, "hub is in trouble"),
    ("POST", "/objects/batch", 403, "may write to acme"),
    ("PUT", "/large-files/", 500, "hub is in trouble"),
    ("POST", "/verify$", 404, "does not exist"),
    ("POST", "/validate-yaml", 500, "hub is in trouble"),
    ("POST", "/commit/", 401, "hf auth login"),
    ("POST", "/commit/", 413, "refused"),
    ("POST", "/commit/", 429, "wait 7 seconds"),
    ("POST", "/commit/", 502, "files that have arrived are not sent twice"),
    ("POST", "/tag/", 409, "exists already"),
    ("POST", "/tag/", 500, "hub is in trouble"),
]


@pytest.mark.parametrize(("method", "path", "status", "advice"), FAULTS)
def test_a_fault_anywhere_leaves_no_tag_and_the_next_run_finishes(hub, folder, method, path, status, advice):
    hub.fail(method, path, status, ALWAYS, headers={"Retry-After": "7"}, message=f"no:\n{hub.token}")
    with pytest.raises(RecfoundError) as caught:
        release(folder)
    message = str(caught.value)
    assert f"dataset {REPO} at {hub.url}" in message and f"HTTP {status}" in message and advice in message
    assert "\n" not in message and hub.token not in message
    repository = hub.repositories.get(("datasets", REPO))
    assert repository is None or not repository.tags

    hub.heal()
    release(folder)
    assert at(hub, "v1.0.0") == visible(folder)


def test_large_files_are_not_sent_again_after_a_fault(hub, folder):
    hub.fail("POST", "/commit/", 500)
    with pytest.raises(RecfoundError):
        release(folder)
    assert calls(hub, "PUT")
    hub.log.clear()
    release(folder)
    assert not calls(hub, "PUT")


def test_a_commit_whose_answer_was_lost_is_tagged_by_the_next_run(hub, folder):
    hub.fail("POST", "/commit/", 502, after=True)
    with pytest.raises(RecfoundError, match="HTTP 502"):
        release(folder)
    repository = hub.repository("dataset", REPO)
    assert at(hub, "main") == visible(folder) and not repository.tags
    assert release(folder).uploaded == {}
    assert len(repository.commits) == 2 and repository.tags == repository.tags | {"v1.0.0": repository.branches["main"]}


def test_a_card_that_the_hub_rejects(hub, folder):
    hub.fail("POST", "/validate-yaml", 400)
    with pytest.raises(RecfoundError, match=r"Invalid metadata in README\.md"):
        release(folder)
    assert not hub.repository("dataset", REPO).tags and at(hub, "main") == {}


def test_a_commit_that_reads_back_differently_is_not_tagged(hub, folder, monkeypatch):
    create_commit = HfApi.create_commit

    def corrupt(api, *arguments, **options):
        info = create_commit(api, *arguments, **options)
        commits = hub.repository("dataset", REPO).commits
        files = {path: blob for path, blob in commits[info.oid].files.items() if path != "empty.txt"}
        files["README.md"] = files["data/q/test-00000-of-00001.parquet"]
        commits[info.oid] = dataclasses.replace(commits[info.oid], files={**files, "extra": files["README.md"]})
        return info

    monkeypatch.setattr(HfApi, "create_commit", corrupt)
    with pytest.raises(RecfoundError, match=r"README\.md differs, empty\.txt is missing, extra is in excess"):
        release(folder)
    assert not hub.repository("dataset", REPO).tags


def test_a_fault_after_the_tag_says_that_the_tag_is_set(hub, folder):
    hub.fail("GET", r"/tree/v1\.0\.0$", 403)
    with pytest.raises(RecfoundError, match=r"HTTP 403.*v1\.0\.0 is already set") as caught:
        release(folder)
    assert "run the same command" not in str(caught.value)
    assert at(hub, "v1.0.0") == visible(folder)


def test_dry_run_changes_nothing_and_says_what_would_happen(hub, folder):
    planned = release(folder, dry_run=True)
    assert hub.repositories == {} and not calls(hub, "POST", "PUT", "DELETE")
    assert planned.dry_run and planned.commit is None and not planned.repo_exists and not planned.tag_exists
    assert set(planned.uploaded) == set(visible(folder))
    made = release(folder)
    assert dataclasses.replace(made, commit=None, dry_run=True) == planned

    hub.log.clear()
    (folder / "recfound.json").unlink()
    (folder / "README.md").write_text(CARD + "changed")
    planned = release(folder, dry_run=True)
    assert planned.repo_exists and planned.tag_exists
    assert (set(planned.uploaded), planned.deleted) == ({"README.md"}, ("recfound.json",))
    assert planned.uploaded_bytes == len(CARD + "changed")
    assert not calls(hub, "POST", "PUT", "DELETE")


def test_private_data_does_not_go_to_a_public_repository(hub, folder):
    made = release(folder)
    with pytest.raises(RecfoundError, match="exists and is public"):
        release(folder, "1.1.0", private=True)
    assert hub.repository("dataset", REPO).tags == {"v1.0.0": made.commit}


@pytest.mark.parametrize("token", ["hf_wrong", "hf_two\nlines", "hf_two words", "hf_ünicode"])
def test_a_bad_token_is_named_but_never_shown(hub, folder, token):
    with pytest.raises(RecfoundError, match="HF_TOKEN") as caught:
        release(folder, token=token)
    assert "hf_" not in str(caught.value) and "two" not in str(caught.value)
    assert hub.repositories == {}


def test_the_token_comes_from_the_argument_then_the_environment(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    release(folder, token=f"{hub.token}\n")
    monkeypatch.delenv("HF_TOKEN")
    hub.log.clear()
    for dry_run in (True, False):
        with pytest.raises(RecfoundError, match=r"no access token.*HF_TOKEN.*hf auth login"):
            release(folder, "1.1.0", dry_run=dry_run)
    assert hub.log == []


def test_a_token_that_is_not_accepted_does_not_mean_a_missing_repository(hub, folder):
    hub.fail("GET", f"/api/datasets/{REPO}$", 401, headers={"X-Error-Code": "RepoNotFound"})  # as the Hub has it
    with pytest.raises(RecfoundError, match=r"could not read .*HTTP 401"):
        release(folder)
    assert hub.repositories == {}


def test_a_foreign_namespace_is_refused(hub, folder):
    with pytest.raises(RecfoundError, match=r"could not create dataset stranger/shop.*HTTP 403.*may write to stranger"):
        release_folder(folder, "stranger/shop", repo_type="dataset", version="1.0.0")


def test_no_connection(folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            RecfoundError, match=r"no answer \(ConnectError\).*check the network and HF_ENDPOINT"
        ) as caught:
            release(folder, endpoint=endpoint)
    assert endpoint in str(caught.value)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "http://127.0.0.1:port", "https://"])
def test_a_malformed_endpoint(folder, endpoint):
    with pytest.raises(RecfoundError, match=r"HF_ENDPOINT is .* not an address"):
        release(folder, endpoint=endpoint)


@pytest.mark.parametrize("version", ["1.0", "1.0.0.0", "1.0.0-rc1", "vv1.0.0", "01.0.0", "latest", "", "1.0.0\n"])
def test_a_malformed_version_is_a_usage_error(hub, folder, version):
    with pytest.raises(UsageError, match=r"X\.Y\.Z"):
        release(folder, version)
    assert hub.log == []


@pytest.mark.parametrize("repo_id", ["shop", "acme/shop/extra", "acme/../shop", "acme/"])
def test_a_malformed_repository_is_a_usage_error(hub, folder, repo_id):
    with pytest.raises(UsageError, match="repository"):
        release_folder(folder, repo_id, repo_type="dataset", version="1.0.0")
    assert hub.log == []


def test_an_empty_folder_is_refused(hub, tmp_path):
    (tmp_path / "out/.work").mkdir(parents=True)
    (tmp_path / "out/.work/hidden").write_text("hidden")
    with pytest.raises(RecfoundError, match="no files"):
        release(tmp_path / "out")
    with pytest.raises(RecfoundError, match="not a folder"):
        release(tmp_path / "missing")
    assert hub.log == []
