"""Small models of the real architecture, so that what the tests state holds of the code that users run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recfound_model import TmoleConfig, add_tmole
from recfound_model.tmole import TmoleModel

TEXTS = ["mug", "a red kettle of two litres", "running shoes, size 42, wide", "is it waterproof?"]
CHAT_TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}<|assistant|>\n"
PROMPTS = {"query": "Find the product that is searched for:\n", "document": "A product:\n"}


def byte_level(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that puts <s> first, as Llama's do, and has no padding token, as many bases have none."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of `base_model`."""
    return byte_level([*PROMPTS.values(), "a running kettle of size"] * 4, vocabulary=320)


def base_model(seed: int = 0, **settings) -> LlamaForCausalLM:
    """Two layers, grouped-query attention, tied embeddings; weights large enough for attention to matter."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **{"vocab_size": len(tokenizer()), "max_position_embeddings": 128, **sizes, **settings},
        num_key_value_heads=2,
        initializer_range=0.15,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def config(**settings) -> TmoleConfig:
    sizes = {"r": 4, "alpha": 16, "task_dim": 16, "dropout": 0.0}
    return TmoleConfig(**{"tasks": ["user2item", "query2item", "sentiment_analysis"], **sizes, **settings})


@torch.no_grad()
def randomize(model: TmoleModel, seed: int = 1) -> TmoleModel:
    """As if trained: B and b, which start at zero, get values."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.adapter_tensors().items():
        if ".B." in key or ".b." in key:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model


def adapted_model(seed: int = 0, **settings) -> TmoleModel:
    return randomize(add_tmole(base_model(), config(**settings)), seed + 1)


def batch(rows: int = 3, length: int = 7, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, len(tokenizer()), (rows, length), generator=generator)


def save_base(folder: Path) -> Path:
    base_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ARCHITECTURES = {
    "llama": ({"num_key_value_heads": 2}, ATTENTION),
    "qwen3": ({"num_key_value_heads": 2, "head_dim": 8}, ATTENTION),
    "mistral": ({"num_key_value_heads": 2, "sliding_window": 4}, ["q_proj", "v_proj"]),
    "gemma": ({"num_key_value_heads": 1, "head_dim": 8}, ATTENTION),
    "gemma2": ({"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}, ATTENTION),
    "gemma3_text": ({"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}, ATTENTION),
    "gpt_neox": ({"rotary_pct": 0.5}, ["query_key_value", "dense"]),
}
"""Type of model -> what its configuration has beside the sizes, and the linear layers of its attention."""


def architecture(name: str) -> torch.nn.Module:
    """A random decoder of two layers, of one of `ARCHITECTURES`; the same at each call."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    own, _ = ARCHITECTURES[name]
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = AutoConfig.for_model(
        name, vocab_size=len(tokenizer()), max_position_embeddings=64, initializer_range=0.15, **sizes, **own, **special
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()
