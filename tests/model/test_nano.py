"""The nano base: the same text gives the same bytes, once; nothing that is held out is in it."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recfound_data.cli import main
from recfound_data.layout import read_split
from recfound_model import nano
from recfound_model.nano import NanoSize, nano_base, training_texts
from recfound_model.templates import DOCUMENT_PROMPT, query_prompt, with_defaults

SIZE = NanoSize(
    vocabulary=600, hidden=32, layers=2, heads=2, intermediate=32, context=256, steps=30, batch=4, tokens=32
)
EMBEDDING = ("user2item", "query2item", "item2item")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return nano_base(dataset, seed=1, size=SIZE)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_text_seed_and_size_give_the_same_bytes(dataset, made, cache):
    again = nano_base(dataset, seed=1, size=SIZE)
    assert again != made and again.is_relative_to(cache / "recfound" / "nano")
    assert contents(again) == contents(made) and "model.safetensors" in contents(made)
    assert [path.name for path in again.parent.iterdir()] == [again.name] == [made.name]


def test_another_seed_or_size_is_another_base(dataset, made, cache):
    quick = NanoSize(**{**vars(SIZE), "steps": 1})
    seeded, shorter = nano_base(dataset, seed=2, size=quick), nano_base(dataset, seed=1, size=quick)
    assert len({made.name, seeded.name, shorter.name}) == 3
    weights = {contents(folder)["model.safetensors"] for folder in (made, seeded, shorter)}
    tokenizers = {contents(folder)["tokenizer.json"] for folder in (made, seeded, shorter)}
    assert len(weights) == 3 and len(tokenizers) == 1


def test_a_base_is_made_once(dataset, made, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.parents[2]))
    monkeypatch.setattr(nano, "make_nano_base", lambda *_: pytest.fail("trained again"))
    assert nano_base(dataset, seed=1, size=SIZE) == made


def test_an_interrupted_base_leaves_nothing(dataset, cache, monkeypatch):
    def stop(texts, out, seed, size):
        (out / "tokenizer.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nano, "make_nano_base", stop)
        with pytest.raises(KeyboardInterrupt):
            nano_base(dataset, size=SIZE)
    assert list((cache / "recfound" / "nano").iterdir()) == []


def test_no_text_is_held_out(dataset, monkeypatch):
    asked, load, load_samples = [], nano.load_split, nano.load_samples
    monkeypatch.setattr(nano, "load_split", lambda *args: asked.append(args[1:3]) or load(*args))
    monkeypatch.setattr(nano, "load_samples", lambda *args: asked.append(args[1:4:2]) or load_samples(*args))
    texts = list(training_texts(dataset))
    assert asked == [(config, "train") for config in ("items", *EMBEDDING)]
    items = read_split(Path(dataset), "items")["text"].to_list()
    assert {DOCUMENT_PROMPT + text for text in items} <= set(texts)
    pairs = [text for text in texts if not text.startswith(DOCUMENT_PROMPT)]
    train = [row for task in EMBEDDING for row in read_split(Path(dataset), task, "train").iter_rows(named=True)]
    assert len(pairs) == len(train) == len(texts) - len(items)
    prompts = {query_prompt(row["instruction"]) + row["anchor"] for row in train}
    assert all(any(text.startswith(prompt) for prompt in prompts) for text in pairs)
    held_out = 0
    for task in EMBEDDING:
        for split in ("validation", "test"):
            for row in read_split(Path(dataset), task, split).iter_rows(named=True):
                pair = f"{row['anchor']}\n{DOCUMENT_PROMPT}{row['positive'].splitlines()[0]}"
                assert not any(text.endswith(pair) for text in pairs)
                held_out += 1
    assert held_out > 200


def test_stock_transformers_load_it_and_it_has_learned(dataset, made):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    assert len(tokenizer) == model.config.vocab_size == SIZE.vocabulary
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id == model.config.eos_token_id
    template = tokenizer.chat_template
    assert with_defaults(tokenizer).chat_template == template and tokenizer.padding_side == "right"
    texts = [next(training_texts(dataset)), "été 漢字 🫖\n  two spaces", "<|user|>\nhi<|endoftext|>\n"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer(texts[2])["input_ids"][0] == tokenizer.convert_tokens_to_ids("<|user|>")
    ids = torch.tensor([tokenizer(texts[0])["input_ids"]])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    assert loss < 0.95 * math.log(SIZE.vocabulary)


def test_a_recipe_can_name_it(recipe, cache, monkeypatch, dataset, tmp_path):
    monkeypatch.setattr("recfound_model.training.loop.nano_base", partial(nano_base, size=SIZE))
    path = recipe(base="nano", steps=1, query_tokens=96)
    assert main(["model", "train", path]) == 0
    adapter = str(tmp_path / "run" / "adapter")
    assert main(["model", "evaluate", adapter, "--data", dataset, "--task", "query2item", "--most", "1"]) == 0
    assert len(list((cache / "recfound" / "nano").iterdir())) == 1
