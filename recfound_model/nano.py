"""A nano base model, made offline from a dataset's own text: a byte-level BPE tokenizer and a small Llama decoder.

It lets the demo and the tests run the whole way without a download. It knows nothing but the dataset.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recfound_data.layout import replacing
from recfound_data.progress import Progress
from recfound_model.templates import CHAT_TEMPLATE, DOCUMENT_PROMPT, query_prompt
from recfound_model.training.streams import load_samples, load_split, task_kinds

SPECIAL = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>")


@dataclass(frozen=True)
class NanoSize:
    """The shape of the decoder and how long it is pretrained; the defaults give 2.6 million parameters in a minute."""

    vocabulary: int = 4096
    hidden: int = 192
    layers: int = 4
    heads: int = 4
    intermediate: int = 512
    context: int = 512
    steps: int = 300
    batch: int = 16
    tokens: int = 128
    learning_rate: float = 3e-3


def nano_base(data: str, seed: int = 0, size: NanoSize | None = None, revision: str | None = None) -> Path:
    """Return the folder of a nano base for a dataset, made now or found in the cache.

    The cache is `$XDG_CACHE_HOME/recfound/nano`, by default under `~/.cache`, by text, seed and size.
    """
    size = size or NanoSize()
    texts = list(training_texts(data, revision))
    key = hashlib.sha256(json.dumps([seed, asdict(size), texts]).encode()).hexdigest()[:24]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "recfound" / "nano" / key
    if not (folder / "config.json").is_file():
        with replacing(folder, marker="config.json") as fresh:
            make_nano_base(texts, fresh, seed, size)
    return folder


def training_texts(data: str, revision: str | None = None) -> Iterator[str]:
    """Yield the catalogue's texts and the embedding samples of training, as they will be rendered.

    Prompts with options are left out: they are long, and of little use to a base that reads for a minute.
    """
    for row in load_split(data, "items", "train", revision):
        yield DOCUMENT_PROMPT + row["text"]
    for task in (name for name, kind in task_kinds(data, revision).items() if kind == "embedding"):
        for row in load_samples(data, task, "embedding", "train", revision):
            title = row["positive"].split("\n", 1)[0]
            yield f"{query_prompt(row['instruction'])}{row['anchor']}\n{DOCUMENT_PROMPT}{title}"


def make_nano_base(texts: list[str], out: Path, seed: int, size: NanoSize) -> None:
    """Train a tokenizer and a decoder on texts and save both as a plain checkpoint in `out`."""
    tokenizer = _tokenizer(texts, size)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=size.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    _pretrain(model, _packed(texts, tokenizer, size), seed, size)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)


def _tokenizer(texts: list[str], size: NanoSize) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|endoftext|>",  # noqa: S106  (a token of the vocabulary, no secret)
        pad_token="<|pad|>",  # noqa: S106
        padding_side="right",
        model_max_length=size.context,
        chat_template=CHAT_TEMPLATE,
    )


def _packed(texts: list[str], tokenizer: PreTrainedTokenizerFast, size: NanoSize) -> Tensor:
    """Return [sequences, tokens]: all texts one after the other, an end token between two, cut into rows."""
    flat: list[int] = []
    for ids in tokenizer(texts)["input_ids"]:
        flat += [*ids, tokenizer.eos_token_id]
    rows = max(1, len(flat) // size.tokens)
    flat += [tokenizer.eos_token_id] * (rows * size.tokens - len(flat))
    return torch.tensor(flat[: rows * size.tokens]).view(rows, size.tokens)


def _pretrain(model: LlamaForCausalLM, packed: Tensor, seed: int, size: NanoSize) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, weight_decay=0.1, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, size.learning_rate, total_steps=size.steps, pct_start=0.1)
    model.train()
    with Progress("nano base", size.steps) as progress:
        for _ in range(size.steps):
            rows = packed[torch.randint(len(packed), (size.batch,), generator=generator)]
            logits = model(input_ids=rows).logits[:, :-1]
            loss = functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(facts={"loss": f"{loss.item():.2f}"})
