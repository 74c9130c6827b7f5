"""A tiny dataset, a tiny random base and one short training run, made once for all tests of the model side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tiny_models import base_model, byte_level

from recfound_data import build
from recfound_data.cli import main
from recfound_data.layout import read_split
from recfound_data.shop import generate
from recfound_data.tasks import BUILDERS
from recfound_model.templates import DOCUMENT_PROMPT, query_prompt


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Bytes are compared between processes, and sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of a dataset of 600 reviews: four tasks, three corpora; what `datasets` caches of it is not kept."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        generate(folder / "raw", reviews=600)
        build(folder / "raw" / "recipe.yaml", folder / "dataset", quiet=True)
        yield str(folder / "dataset")


@pytest.fixture(scope="session")
def thirteen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a dataset of all thirteen tasks, from a shop in every format."""
    folder = tmp_path_factory.mktemp("thirteen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        generate(folder / "raw", reviews=1_500, formats=["all"])
        build(folder / "raw" / "recipe.yaml", folder / "dataset", quiet=True)
        yield folder / "dataset"


@pytest.fixture(scope="session")
def base(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random Llama of two layers, with a tokenizer that knows the words of the dataset."""
    texts = read_split(Path(dataset), "items")["text"].to_list()
    instructions = [query_prompt(text) for task in BUILDERS.values() for text in task.phrasings] * 50
    tokens = byte_level([*texts, *instructions, DOCUMENT_PROMPT], vocabulary=1200)
    folder = tmp_path_factory.mktemp("base")
    base_model(vocab_size=len(tokens)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def settings(dataset: str, base: str) -> Callable[..., dict]:
    """The keys of a recipe of a few seconds, apart from `out`; keywords replace some of them."""

    def keys(**changes: object) -> dict:
        return {
            "base": base,
            "data": dataset,
            "adapter": {"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.1},
            "steps": 4,
            "embedding_batch": 12,
            "generative_batch": 3,
            "proportions": {"user2item": 1, "query2item": 1, "item2item": 1},
            "tokens_per_forward": 256,
            "learning_rate": 1e-2,
            "temperature": 0.1,
            "query_tokens": 64,
            "document_tokens": 32,
            "generative_tokens": 96,
            "checkpoint_every": 2,
            "plots": False,
        } | changes

    return keys


@pytest.fixture
def recipe(settings: Callable[..., dict], tmp_path: Path) -> Callable[..., str]:
    """Writes a recipe file for a run in `tmp_path / "run"` and returns its path; keywords replace keys."""

    def write(**changes: object) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings(out=str(tmp_path / "run")) | changes), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def run(settings: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of thirty steps on all four tasks."""
    folder = tmp_path_factory.mktemp("trained")
    keys = settings(out=str(folder / "run"), steps=30, embedding_batch=24, checkpoint_every=10, plots=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    assert main(["model", "train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"
