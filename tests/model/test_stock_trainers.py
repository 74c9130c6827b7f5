"""The dataset as it stands, in trainers that know nothing of this project: sentence-transformers' and TRL's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_models import base_model, tokenizer
from trl import SFTConfig, SFTTrainer

from recfound_data import TASKS

EMBEDDING = [name for name, spec in TASKS.items() if spec.kind == "embedding"]
GENERATIVE = [name for name, spec in TASKS.items() if spec.kind == "generative"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random Llama of two layers."""
    folder = tmp_path_factory.mktemp("tiny")
    tokens = tokenizer()
    tokens.pad_token = tokens.eos_token
    base_model(max_position_embeddings=4096).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads_with_its_splits(thirteen: Path, task: str) -> None:
    loaded = load_dataset(str(thirteen), task)
    assert "train" in loaded and all(len(split) for split in loaded.values())
    row = loaded["train"][0]
    assert row["task"] == task and row["id"]


@pytest.mark.parametrize("config", ["items", "queries", "qrels"])
def test_what_stands_beside_the_tasks_loads(thirteen: Path, config: str) -> None:
    assert len(load_dataset(str(thirteen), config, split="train")) > 10


@pytest.mark.parametrize("task", EMBEDDING)
def test_sentence_transformers_trains_two_steps_on_it(thirteen: Path, tiny: str, tmp_path: Path, task: str) -> None:
    rows = load_dataset(str(thirteen), task, split="train").select(range(8))
    words = Transformer(tiny, max_seq_length=64)
    model = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension(), pooling_mode="lasttoken")])
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True
        ),
        train_dataset=rows.select_columns(["anchor", "positive", "negative"]),
        loss=MultipleNegativesRankingLoss(model),
    )
    loss = trainer.train().training_loss
    assert loss == loss and loss > 0
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("task", GENERATIVE)
def test_trl_trains_two_steps_on_it(thirteen: Path, tiny: str, tmp_path: Path, task: str) -> None:
    rows: Dataset = load_dataset(str(thirteen), task, split="train").select(range(4))
    trainer = SFTTrainer(
        model=tiny,
        args=SFTConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            max_length=4096,
            report_to="none",
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=rows,
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    loss = trainer.train().training_loss
    assert loss == loss and loss > 0
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
