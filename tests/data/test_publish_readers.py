"""A dataset of all thirteen tasks on a hub, read by the libraries that people use, without this project."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub import LoopbackHub
from hub.clients import use_here
from huggingface_hub import DatasetCard, HfApi, snapshot_download
from raw_shop import KEY, rows

import recfound_data
from recfound_data import TASKS, build, check, push_dataset
from recfound_data.layout import read_manifest
from recfound_data.release import Limits, release_folder
from recfound_data.release.dataset import DatasetSubject
from recfound_data.shop import generate

REPO = "acme/everything"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of all tasks, made from a small shop in all formats."""
    folder = tmp_path_factory.mktemp("everything")
    generate(folder / "shop", reviews=400, formats=["all"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFOUND_USER_KEY", KEY)
        build(folder / "shop/recipe.yaml", folder / "dataset", quiet=True)
    return folder / "dataset"


@pytest.fixture(autouse=True)
def client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_here(hub, monkeypatch, tmp_path)


def push(folder: Path, version: str, repo: str = REPO, **options):
    every = tuple(read_manifest(folder)["corpora"])
    return push_dataset(folder, repo, version, allow_corpora=every, **options)


def expected(dataset: Path) -> dict[str, dict[str, list[dict]]]:
    """The local rows by configuration and split."""
    configs = read_manifest(dataset)["configs"]
    return {
        config: {split: rows(dataset, config, "*" if config == "items" else split) for split in entry["splits"]}
        for config, entry in configs.items()
    }


READ = """
import json, sys
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None  # from here on, importing either fails
import fsspec
import polars
from datasets import load_dataset

repo, revision, configs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
at = {"revision": revision}
found = {"plain": {}, "streamed": {}, "polars": {}}
for config in configs:
    found["plain"][config] = {split: rows.to_list() for split, rows in load_dataset(repo, config, **at).items()}
    streamed = load_dataset(repo, config, streaming=True, **at)
    found["streamed"][config] = {split: list(rows) for split, rows in streamed.items()}
    found["polars"][config] = {}
    for split in streamed:
        folder = "items/*" if config == "items" else f"data/{config}/{split}-*"
        files = fsspec.open_files(f"hf://datasets/{repo}@{revision}/{folder}.parquet")
        parts = []
        for file in sorted(files, key=lambda file: file.path):
            with file as stream:
                parts.append(polars.read_parquet(stream))
        found["polars"][config][split] = polars.concat(parts).to_dicts()
print(json.dumps(found))
"""


def read(environment: dict[str, str], repo: str, revision: str, configs: list[str]) -> dict:
    command = [sys.executable, "-W", "error::UserWarning", "-c", READ, repo, revision, json.dumps(configs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_configuration_reads_as_it_was_built(hub: LoopbackHub, everything: Path, tmp_path: Path) -> None:
    made = push(everything, "0.1.0")
    local = expected(everything)
    assert set(local) == {*TASKS, "items", "queries", "qrels"}
    found = read(hub.environment(tmp_path / "home"), REPO, "v0.1.0", list(local))
    for way in ("plain", "streamed", "polars"):
        for config, splits in local.items():
            assert found[way][config] == splits, (way, config)
    assert made.usage == f'load_dataset("{REPO}", "user2item", revision="v0.1.0")'


def test_a_downloaded_release_passes_its_check_and_can_be_published_elsewhere(
    hub: LoopbackHub, everything: Path, tmp_path: Path
) -> None:
    push(everything, "0.1.0")
    snapshot_download(REPO, repo_type="dataset", revision="v0.1.0", local_dir=tmp_path / "copy", endpoint=hub.url)
    assert (tmp_path / "copy/CHANGELOG.md").exists()
    assert check(tmp_path / "copy").findings == ()
    push(tmp_path / "copy", "0.1.0", repo="acme/mirror")
    first, second = (hub.repository("dataset", repo).find("v0.1.0").files for repo in (REPO, "acme/mirror"))
    assert {path for path in first if first[path].data != second[path].data} == {"README.md"}


def test_the_card_is_valid_by_the_hubs_own_validators(hub: LoopbackHub, everything: Path) -> None:
    push(everything, "0.1.0")
    text = hub.repository("dataset", REPO).find("v0.1.0").files["README.md"].data.decode()
    card = DatasetCard(text)
    assert card.data.license == "other" and card.data.language == ["en"] and "recommendation" in card.data.tags
    HfApi(endpoint=hub.url, token=hub.token)._validate_yaml(text, repo_type="dataset")
    assert yaml.safe_load(str(card.data)) == yaml.safe_load(text.split("---\n")[1])


def test_push_dataset_is_exported_and_loading_the_package_loads_neither_the_client_nor_torch(tmp_path: Path) -> None:
    script = """
import sys
import recfound_data
assert "recfound_data.publish" not in sys.modules and "recfound_data.release" not in sys.modules
assert "push_dataset" in dir(recfound_data) or "push_dataset" in recfound_data.__all__
from recfound_data import push_dataset
assert push_dataset.__module__ == "recfound_data.publish" and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'push_data'"):
        _ = recfound_data.push_data


@pytest.fixture
def second_hub():
    """The other hub beside the corpora; tests are skipped where there is none."""
    corpora = Path(os.environ.get("RECFOUND_CORPORA") or Path(__file__).parents[3] / "shared" / "corpora")
    path = corpora.resolve().parent / "hub" / "hub_server.py"
    if not path.is_file():
        pytest.skip(f"no second hub at {path}")
    spec = importlib.util.spec_from_file_location("second_hub", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hub = module.StubHub(log=[])
    hub.start()
    yield hub
    hub.stop()


def test_a_second_hub_agrees(
    hub: LoopbackHub, second_hub, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", second_hub.url)
    options = {"repo_type": "dataset", "subject": DatasetSubject()}
    release_folder(everything, REPO, version="0.1.0", limits=Limits(files=5, batch=40), **options)
    release_folder(everything, REPO, version="0.1.1", **options)
    assert release_folder(everything, REPO, version="0.1.1", **options).tag_exists
    api = HfApi(endpoint=second_hub.url, token=hub.token)
    refs = api.list_repo_refs(REPO, repo_type="dataset")
    assert [ref.name for ref in refs.branches] == ["main"] and {ref.name for ref in refs.tags} == {"v0.1.0", "v0.1.1"}
    titles = [commit.title for commit in api.list_repo_commits(REPO, repo_type="dataset", revision="v0.1.1")]
    assert titles[:2] == ["Release v0.1.1", "Release v0.1.0"]
    local = expected(everything)
    environment = {**hub.environment(tmp_path / "home"), "HF_ENDPOINT": second_hub.url}
    found = read(environment, REPO, "v0.1.0", ["query2item", "items", "answer_generation"])
    for way in ("plain", "streamed", "polars"):
        assert all(found[way][config] == local[config] for config in found[way])
