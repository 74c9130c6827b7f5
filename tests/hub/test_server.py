"""The hub against the real clients: what they push they get back, and its refusals are the exceptions they know."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from huggingface_hub.utils.sha import git_hash

from hub import LoopbackHub

REPO = "acme/shop"


@pytest.fixture
def api(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def commit(api: HfApi) -> str:
    """A repository with a small file, one in a folder, and a large one; returns the commit."""
    api.create_repo(REPO, repo_type="dataset")
    files = {"README.md": b"---\nlicense: mit\n---\n", "data/a.json": b"[1]", "data/b/rows.bin": bytes(range(200))}
    return push(api, files)


def push(api: HfApi, files: dict[str, bytes], delete: tuple[str, ...] = (), **options) -> str:
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()]
    operations += [CommitOperationDelete(path_in_repo=path) for path in delete]
    return api.create_commit(REPO, operations, commit_message="push", repo_type="dataset", **options).oid


def run(hub: LoopbackHub, home: Path, script: str) -> None:
    """Run a client in a process of its own, since clients read their settings when they are imported."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=hub.environment(home), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def status_of(caught: pytest.ExceptionInfo) -> int:
    return caught.value.response.status_code


def test_snapshot_download_returns_what_was_pushed(hub, api, commit, tmp_path):
    api.create_tag(REPO, tag="v1.0.0", revision=commit, repo_type="dataset")
    push(api, {"data/a.json": b"[2]"}, delete=("data/b/",))
    source = {"repo_type": "dataset", "endpoint": hub.url, "token": hub.token, "cache_dir": tmp_path}
    first = Path(snapshot_download(REPO, revision="v1.0.0", **source))
    assert first.name == commit
    assert (first / "data/a.json").read_bytes() == b"[1]"
    assert (first / "data/b/rows.bin").read_bytes() == bytes(range(200))
    second = Path(snapshot_download(REPO, **source))
    assert (second / "data/a.json").read_bytes() == b"[2]"
    assert not (second / "data/b").exists()


def test_commits_are_snapshots_with_a_parent(hub, api, commit):
    second = push(api, {"data/c.json": b"[3]"}, parent_commit=commit)
    assert [known.commit_id for known in api.list_repo_commits(REPO, repo_type="dataset")][:2] == [second, commit]
    assert "data/c.json" not in api.list_repo_files(REPO, revision=commit, repo_type="dataset")
    assert api.dataset_info(REPO).sha == second
    assert api.dataset_info(REPO, revision=commit[:8]).sha == commit
    with pytest.raises(HfHubHTTPError) as caught:
        push(api, {"data/d.json": b"[4]"}, parent_commit=commit)
    assert status_of(caught) == 412 and api.dataset_info(REPO).sha == second


def test_the_tree_names_folders_sizes_and_hashes(hub, api, commit):
    hub.page_size = 2
    tree = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True, expand=True, repo_type="dataset")}
    assert sorted(tree) == [".gitattributes", "README.md", "data", "data/a.json", "data/b", "data/b/rows.bin"]
    assert tree["data/a.json"].size == 3 and tree["data/a.json"].last_commit.oid == commit
    assert tree["data/a.json"].blob_id == git_hash(b"[1]")
    assert tree["data/b/rows.bin"].lfs.sha256 == hashlib.sha256(bytes(range(200))).hexdigest()
    assert tree["data/b/rows.bin"].size == tree["data/b/rows.bin"].lfs.size == 200
    assert tree[".gitattributes"].last_commit.title == "initial commit"
    flat = [entry.path for entry in api.list_repo_tree(REPO, "data", repo_type="dataset")]
    assert flat == ["data/a.json", "data/b"]
    found = api.get_paths_info(REPO, ["data/b", "data/a.json", "none"], repo_type="dataset")
    assert [entry.path for entry in found] == ["data/b", "data/a.json"]
    siblings = {file.rfilename: file for file in api.dataset_info(REPO, files_metadata=True).siblings}
    assert siblings["data/b/rows.bin"].lfs.sha256 == tree["data/b/rows.bin"].lfs.sha256


def test_tags_and_branches(api, commit):
    api.create_tag(REPO, tag="v1.0.0", revision=commit, repo_type="dataset")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(REPO, tag="v1.0.0", repo_type="dataset")
    assert status_of(caught) == 409
    api.create_branch(REPO, branch="work/next", revision="v1.0.0", repo_type="dataset")
    later = push(api, {"data/c.json": b"[3]"}, revision="work/next")
    refs = api.list_repo_refs(REPO, repo_type="dataset")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": commit, "work/next": later}
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1.0.0", commit)]
    api.delete_branch(REPO, branch="work/next", repo_type="dataset")
    api.delete_tag(REPO, tag="v1.0.0", repo_type="dataset")
    refs = api.list_repo_refs(REPO, repo_type="dataset")
    assert [ref.name for ref in refs.branches] == ["main"] and refs.tags == []


def test_unknown_things_are_404_by_kind(hub, api, commit, tmp_path):
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("acme/none")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(REPO, revision="v9.9.9")
    source = {"repo_type": "dataset", "endpoint": hub.url, "token": hub.token, "cache_dir": tmp_path}
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none.json", **source)
    with pytest.raises(RemoteEntryNotFoundError):
        push(api, {}, delete=("none.json",))
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(REPO, tag="v1.0.0", revision="none", repo_type="dataset")


def test_who_may_read_and_write(hub, api, commit):
    with pytest.raises(HfHubHTTPError) as caught:
        api.dataset_info(REPO, token="hf_wrong")
    assert status_of(caught) == 401
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("stranger/shop")
    assert status_of(caught) == 403
    with pytest.raises(HfHubHTTPError) as caught:
        push(api, {"x": b"x"}, token=False)
    assert status_of(caught) == 401
    assert api.whoami()["name"] == "tester"
    assert api.dataset_info(REPO, token=False).sha == commit
    api.create_repo("acme/secret", private=True)
    assert api.model_info("acme/secret").private
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/secret", token=False)
    assert api.create_repo("acme/secret", exist_ok=True).repo_id == "acme/secret"
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("acme/secret")
    assert status_of(caught) == 409


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-3", 206, b"\0\1\2\3"),
        ("bytes=198-", 206, b"\xc6\xc7"),
        ("bytes=-1", 206, b"\xc7"),
        ("bytes=190-999", 206, bytes(range(190, 200))),
        ("bytes=200-", 416, None),
    ],
)
def test_ranges(hub, api, commit, asked, status, expected):
    answer = get_session().get(f"{hub.url}/datasets/{REPO}/resolve/main/data/b/rows.bin", headers={"Range": asked})
    assert answer.status_code == status
    assert expected is None or answer.content == expected


def test_faults_and_the_log(hub, api, commit):
    hub.log.clear()
    hub.fail("GET", "/refs$", 418, times=2)
    hub.fail("POST", "/tag/", 409, after=True)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as caught:
            api.list_repo_refs(REPO, repo_type="dataset")
        assert status_of(caught) == 418
    with pytest.raises(HfHubHTTPError):
        api.create_tag(REPO, tag="v1.0.0", repo_type="dataset")
    assert [ref.name for ref in api.list_repo_refs(REPO, repo_type="dataset", token=False).tags] == ["v1.0.0"]
    assert [(entry.method, entry.status, entry.authorised) for entry in hub.log] == [
        ("GET", 418, True),
        ("GET", 418, True),
        ("POST", 409, True),
        ("GET", 200, False),
    ]
    assert hub.log[0].path == f"/api/datasets/{REPO}/refs"


def test_a_stopped_hub_answers_nobody(hub, api, commit):
    hub.stop()  # the client still holds the connection on which it sent the commit
    with pytest.raises(HTTPError) as caught:
        api.dataset_info(REPO)
    assert not isinstance(caught.value, HfHubHTTPError)


DATASET = """
import os, sys
import datasets, polars
from huggingface_hub import HfApi

home = os.environ["HF_HOME"]
card = "---\\nconfigs:\\n- config_name: q\\n  data_files:\\n"
for split, rows in {"train": [1, 2, 3], "test": [4]}.items():
    os.makedirs(f"{home}/set/data/q", exist_ok=True)
    polars.DataFrame({"a": rows}).write_parquet(f"{home}/set/data/q/{split}-00000-of-00001.parquet")
    card += f"  - split: {split}\\n    path: data/q/{split}-*.parquet\\n"
open(f"{home}/set/README.md", "w").write(card + "---\\n")
api = HfApi()
api.create_repo("acme/set", repo_type="dataset", private=True)
commit = api.upload_folder(repo_id="acme/set", folder_path=f"{home}/set", repo_type="dataset").oid
api.create_tag("acme/set", tag="v1.0.0", revision=commit, repo_type="dataset")
api.delete_file("data/q/train-00000-of-00001.parquet", "acme/set", repo_type="dataset")

loaded = datasets.load_dataset("acme/set", "q", revision="v1.0.0")
assert {name: split["a"][:] for name, split in loaded.items()} == {"train": [1, 2, 3], "test": [4]}, loaded
streamed = datasets.load_dataset("acme/set", "q", split="train", revision="v1.0.0", streaming=True)
assert list(streamed) == [{"a": 1}, {"a": 2}, {"a": 3}]

path = "datasets/acme/set@v1.0.0/data/q/train-00000-of-00001.parquet"
assert polars.read_parquet(f"hf://{path}", use_pyarrow=True)["a"].to_list() == [1, 2, 3]  # through HfFileSystem
"""


def test_datasets_and_polars_read_a_private_tag(hub, tmp_path):
    run(hub, tmp_path, DATASET)
    assert all(entry.authorised for entry in hub.log if not entry.path.startswith("/large-files/"))


POLARS = """
import os, polars
address = os.environ["HF_ENDPOINT"] + "/datasets/acme/shop/resolve/v1.0.0/rows.parquet"
assert polars.scan_parquet(address).select("a").collect()["a"].to_list() == [1, 2]
"""


def test_polars_own_reader_scans_a_file_by_its_address(hub, api, commit, tmp_path):
    """Polars' own hf:// reader always asks https://huggingface.co, so this is as near as it can come."""
    polars = pytest.importorskip("polars")
    polars.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "rows.parquet")
    push(api, {"rows.parquet": (tmp_path / "rows.parquet").read_bytes()})
    api.create_tag(REPO, tag="v1.0.0", repo_type="dataset")
    run(hub, tmp_path / "home", POLARS)


MODELS = """
import os, torch
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

home, api = os.environ["HF_HOME"], HfApi()

def push(name):
    api.create_repo(f"acme/{name}")
    commit = api.upload_folder(repo_id=f"acme/{name}", folder_path=f"{home}/{name}").oid
    api.create_tag(f"acme/{name}", tag="v1.0.0", revision=commit)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=f"acme/{name}")  # main is no model now

words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
size = dict(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)

generator = LlamaForCausalLM(LlamaConfig(**size)).eval()
generator.save_pretrained(f"{home}/generator")
tokenizer.save_pretrained(f"{home}/generator")
push("generator")
ids = AutoTokenizer.from_pretrained("acme/generator", revision="v1.0.0")("a b", return_tensors="pt").input_ids
loaded = AutoModelForCausalLM.from_pretrained("acme/generator", revision="v1.0.0")
assert torch.equal(loaded(ids).logits, generator(ids).logits)

adapted = get_peft_model(generator, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
adapted.save_pretrained(f"{home}/adapter")
push("adapter")
reloaded = PeftModel.from_pretrained(loaded, "acme/adapter", revision="v1.0.0")
assert torch.equal(reloaded(ids).logits, adapted(ids).logits)

BertModel(BertConfig(**size)).save_pretrained(f"{home}/bert")
tokenizer.save_pretrained(f"{home}/bert")
embedder = SentenceTransformer(f"{home}/bert")
embedder.save_pretrained(f"{home}/embedder")
push("embedder")
assert (SentenceTransformer("acme/embedder", revision="v1.0.0").encode("a b") == embedder.encode("a b")).all()
"""


def test_transformers_peft_and_sentence_transformers_load_a_tag(hub, tmp_path):
    pytest.importorskip("sentence_transformers")
    run(hub, tmp_path, MODELS)
