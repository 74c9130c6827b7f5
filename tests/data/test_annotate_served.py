"""Annotation through a real server: `transformers serve` with a small model on loopback."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from profiles_shop import ask, build_profiles
from raw_shop import digests, rows

from recfound_data import check
from recfound_data.layout import read_manifest

NEEDED = ("torch", "transformers", "fastapi", "uvicorn", "openai")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"needs transformers[serving]; not here: {', '.join(missing)}"),
    pytest.mark.usefixtures("no_plots"),
]

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"


def save_model(folder: Path) -> Path:
    """A random Llama of two layers with a byte-level tokenizer and a chat template: what it says means nothing."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(
        ["The user likes films and rates them well. The item is a thing of the shop."] * 9, trainer
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server's API."""
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    command = [shutil.which("transformers", path=Path(sys.executable).parent) or "transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    try:
        end = time.monotonic() + 240
        while not _healthy(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3_000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def test_a_real_server(served: str, model: Path, tmp_path: Path) -> None:
    profiles = build_profiles(tmp_path)
    asked = {"model": str(model), "limit": 6, "answer_tokens": 40, "temperature": 0.0, "concurrency": 2}
    done = ask(profiles, served, tmp_path / "out", **asked)
    # The server counts tokens; each prompt has some, and no answer more than were asked for.
    assert done.tokens_in > 6 * 100 and 0 < done.tokens_out <= 6 * 40
    assert done.tokens_in + done.tokens_out <= done.estimate.most_tokens
    # A random model says nothing that may be a label.
    kept = {reason for counts in done.kept.values() for reason in counts}
    assert done.labelled == {} and kept and not kept & {"no answer", "the endpoint refuses the prompt"}
    assert check(tmp_path / "out").passed
    assert read_manifest(tmp_path / "out")["annotations"][0]["kept_composed"] == done.kept
    before = rows(profiles, "user_profile"), rows(profiles, "item_profile")
    assert (rows(tmp_path / "out", "user_profile"), rows(tmp_path / "out", "item_profile")) == before
    again = ask(profiles, "http://127.0.0.1:9/v1", tmp_path / "again", answers=tmp_path / "out.answers.jsonl", **asked)
    assert again.estimate.answered == 6  # nobody is asked, and the result is the same
    assert digests(tmp_path / "again") == digests(tmp_path / "out")
