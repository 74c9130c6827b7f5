"""A dataset on its way to a hub: what may not be published is refused, what arrives is what was built."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub import LoopbackHub
from hub.clients import use_here
from raw_shop import KEY, rows
from tampering import Tampered

from recfound_data import build
from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.publish import push_dataset

REPO = "acme/shop"
ALLOWED = ("shop", "shop_films")


@pytest.fixture(autouse=True)
def client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_here(hub, monkeypatch, tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def at(hub: LoopbackHub, revision: str) -> dict[str, bytes]:
    commit = hub.repository("dataset", REPO).find(revision)
    return {path: blob.data for path, blob in commit.files.items() if path != ".gitattributes"}


def require_release_of(folder: Path, held: dict[str, bytes], version: str) -> None:
    """The folder as it is, but for what the release adds: a changelog, and in the card its changes and its example."""
    local = files(folder)
    card, ours = local.pop("README.md").decode(), held.pop("README.md").decode()
    assert held.pop("CHANGELOG.md").startswith(f"# Changelog\n\n## {version}\n".encode()) and held == local
    example = f'"{REPO}", "user2item", revision="{version}"'
    card = card.replace('"org/name", "user2item", revision="v0.1.0"', example)
    card = card.replace('"org/name", "query2item", revision="v0.1.0"', example.replace("user2item", "query2item"))
    body, changes, said = ours.partition("\n## Changes\n")
    assert changes and body.rstrip("\n") == card.rstrip("\n") and said.startswith(f"\n{version}, ")


def test_a_corpus_whose_terms_forbid_it_is_refused_by_name(hub: LoopbackHub, dataset: Path) -> None:
    with pytest.raises(RecfoundError, match="the terms of shop are not known to allow passing it on") as raised:
        push_dataset(dataset, REPO, "0.1.0")
    assert "no licence text; made available by its authors for research" in str(raised.value)
    assert "https://nijianmo.github.io/amazon/" in str(raised.value) and raised.value.exit_code == 1
    with pytest.raises(RecfoundError, match=r"the terms of shop_films are not known to allow.*GroupLens terms"):
        push_dataset(dataset, REPO, "0.1.0", allow_corpora=("shop",))
    with pytest.raises(
        UsageError, match=r"no corpus 'shop_film', did you mean 'shop_films'\?; it has shop, shop_films"
    ):
        push_dataset(dataset, REPO, "0.1.0", allow_corpora=("shop", "shop_film"))
    assert hub.repositories == {} and hub.log == []


def test_a_corpus_that_may_be_passed_on_needs_no_leave(hub: LoopbackHub, shop_copy: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((shop_copy / "recipe.yaml").read_text())
    settings |= {"corpora": settings["corpora"][2:], "tasks": ["query2item"]}
    (shop_copy / "recipe.yaml").write_text(yaml.safe_dump(settings))
    build(shop_copy / "recipe.yaml", tmp_path / "queries", quiet=True)
    push_dataset(tmp_path / "queries", REPO, "0.1.0")
    require_release_of(tmp_path / "queries", at(hub, "v0.1.0"), "v0.1.0")


LOAD = """
import json, sys
from datasets import load_dataset
plain = load_dataset("acme/shop", "user2item", revision="v0.1.0")
streamed = load_dataset("acme/shop", "user2item", revision="v0.1.0", streaming=True)
items = load_dataset("acme/shop", "items", split="train", revision="v0.1.0")
samples = load_dataset("acme/shop", "sequential_recommendation", split="test", revision="v0.1.0")
print(json.dumps({
    "plain": {split: rows.to_list() for split, rows in plain.items()},
    "streamed": {split: list(rows) for split, rows in streamed.items()},
    "items": items.to_list(),
    "samples": samples.to_list(),
}))
"""


def test_an_allowed_dataset_is_tagged_and_loads_from_the_hub_as_it_was_built(
    hub: LoopbackHub, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    allowed = [option for name in ALLOWED for option in ("--allow-corpus", name)]
    command = ["data", "push", str(dataset), "--repo", REPO, "--version", "0.1.0", *allowed]
    assert main([*command, "--dry-run"]) == 0
    assert hub.repositories == {}
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{hub.url}/datasets/{REPO}/tree/v0.1.0" in said.out
    repository = hub.repository("dataset", REPO)
    assert set(repository.tags) == {"v0.1.0"} and at(hub, "v0.1.0") == at(hub, "main")
    require_release_of(dataset, at(hub, "v0.1.0"), "v0.1.0")
    assert f'load_dataset("{REPO}", "user2item", revision="v0.1.0")' in said.out

    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", LOAD],
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    local = {split: rows(dataset, "user2item", split) for split in ("train", "validation", "test")}
    assert loaded["plain"] == loaded["streamed"] == local
    assert loaded["items"] == rows(dataset, "items")
    assert loaded["samples"] == rows(dataset, "sequential_recommendation", "test")

    for secret in (KEY, hub.token):
        assert secret not in said.out + said.err + done.stderr
        assert not [path for path, content in at(hub, "main").items() if secret.encode() in content]
        assert not [path for path, content in files(dataset).items() if secret.encode() in content]


@pytest.mark.parametrize("key", [None, ""])
def test_a_build_without_a_key_is_refused_whatever_is_allowed(
    hub: LoopbackHub,
    shop_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str | None,
) -> None:
    if key is None:
        monkeypatch.delenv("RECFOUND_USER_KEY")
    else:
        monkeypatch.setenv("RECFOUND_USER_KEY", key)
    build(shop_folder / "recipe.yaml", tmp_path / "dataset")
    assert "RECFOUND_USER_KEY is not set" in capsys.readouterr().err
    monkeypatch.setenv("RECFOUND_USER_KEY", KEY)  # at the time of the push it is too late
    assert "this build cannot be published" in (tmp_path / "dataset/README.md").read_text()
    for options in ({}, {"private": True}, {"dry_run": True}):
        with pytest.raises(RecfoundError, match=r"was built without a user key.*set RECFOUND_USER_KEY to a secret"):
            push_dataset(
                tmp_path / "dataset", REPO, "0.1.0", allow_corpora=("shop", "shop_films", "shop_queries"), **options
            )
    assert hub.repositories == {} and hub.log == []


def test_other_keys_give_other_users_and_nothing_else(
    dataset: Path, shop_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECFOUND_USER_KEY", "another secret")
    build(shop_folder / "recipe.yaml", tmp_path / "dataset", quiet=True)
    users = [{row["anchor_id"] for row in rows(out, "user2item")} for out in (dataset, tmp_path / "dataset")]
    assert len(users[0]) == len(users[1]) > 100 and not users[0] & users[1]
    for config in ("items", "item2item", "query2item"):
        assert rows(tmp_path / "dataset", config) == rows(dataset, config)


def test_a_dataset_that_fails_its_check_is_refused(hub: LoopbackHub, dataset_copy: Path) -> None:
    Tampered(dataset_copy).change("item2item", "test", lambda row: {"positive": "Other words"})
    with pytest.raises(RecfoundError, match="positive is not its item's text: item2item: 1"):
        push_dataset(dataset_copy, REPO, "0.1.0", allow_corpora=ALLOWED)
    shutil.rmtree(dataset_copy / "items")
    with pytest.raises(RecfoundError, match=r"file missing: items/shop-00000-of-00001\.parquet"):
        push_dataset(dataset_copy, REPO, "0.1.0", allow_corpora=ALLOWED)
    with pytest.raises(RecfoundError, match="is no recfound dataset"):
        push_dataset(dataset_copy.parent, REPO, "0.1.0")
    assert hub.repositories == {} and hub.log == []
