"""An exported generator behind `transformers serve`, asked over HTTP, answers as the folder does."""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_models import adapted_model, base_model, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from recfound_data.cli import parser
from recfound_model import export_generator, load_tmole, task_context

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "serving.md").read_text(encoding="utf-8")
TASK = "sentiment_analysis"
QUESTIONS = ["is it waterproof?", "a red kettle of two litres, and it leaks", "mug"]
ROOM = {"max_position_embeddings": 1024}
TOKENS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of an adapter and of its exported generator."""
    folder = tmp_path_factory.mktemp("serving")
    base_model(**ROOM).save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    native = adapted_model(base_model_name_or_path=str(folder / "base"))
    native.save_pretrained(folder / "adapter")
    export_generator(folder / "adapter", folder / "generator", TASK, base_model=folder / "base")
    return folder / "adapter", folder / "generator"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commands(page, program):
    """The commands of a page that start a program, as lists of words."""
    joined = page.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"^ {{4}}{program} .*$", joined, flags=re.MULTILINE)]


@contextmanager
def served(folder, tmp_path):
    """The address of a server that has loaded the folder; it runs without access to the network."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    (command,) = commands(PAGE, "transformers")
    put = {"GENERATOR": str(folder), "8000": str(port), "auto": "cpu"}
    arguments = [put.get(word, word) for word in command[1:]]
    assert arguments[:2] == ["serve", str(folder)] and {"--port", str(port), "cpu"} <= {*arguments}
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", *arguments],
            env={"PATH": "", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 120
            while not healthy(address):
                log.seek(0)
                assert server.poll() is None, log.read()
                assert time.monotonic() < deadline, log.read()
                time.sleep(0.5)
            yield address
        finally:
            server.kill()
            server.wait()


def healthy(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(address, model, content):
    """The answer to one message; greedy."""
    message = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(message).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def inputs_of(tokens, content):
    chat = [{"role": "user", "content": content}]
    return tokens.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")


@torch.no_grad()
def answer_of(model, tokens, content):
    """What a folder, or the native adapter, answers; the number of tokens of question and answer."""
    inputs = inputs_of(tokens, content)
    written = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return tokens.decode(written, skip_special_tokens=True), inputs["input_ids"].shape[1], len(written)


@pytest.mark.slow
def test_transformers_serve_answers_as_the_folder_and_the_adapter_do(folders, tmp_path):
    adapter, generator = folders
    model, tokens = AutoModelForCausalLM.from_pretrained(generator), AutoTokenizer.from_pretrained(generator)
    native, base = load_tmole(base_model(**ROOM), adapter), base_model(**ROOM)
    answers = []
    with served(generator, tmp_path) as address:
        for question in QUESTIONS:
            told = ask(address, str(generator), question)
            expected, asked, written = answer_of(model, tokens, question)
            assert told["choices"][0]["message"] == {"role": "assistant", "content": expected}
            assert (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]) == (asked, written)
            with task_context(native, TASK):
                assert answer_of(native, tokens, question)[0] == expected
            assert answer_of(base, tokens, question)[0] != expected  # the base alone says something else
            answers.append(expected)
    assert len(set(answers)) == len(QUESTIONS)


@pytest.mark.parametrize("name", ["serving.md", "using.md"])
def test_the_commands_of_the_pages_are_commands(name):
    page = (DOCS / name).read_text(encoding="utf-8")
    for command in commands(page, "recfound"):
        parser().parse_args(command[1:])
    assert name != "serving.md" or len(commands(page, "recfound")) == 3
