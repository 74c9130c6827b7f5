"""Adapter files that are corrupt, truncated or mislabelled: every command says so in one line, and writes nothing."""

import json
import re
import shutil
import struct

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import adapted_model, base_model, config, save_base
from transformers import AutoModelForCausalLM

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
from recfound_model import add_tmole, load_tmole
from recfound_model.adapter_files import open_adapter, save_tensors

TASK = "sentiment_analysis"
TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODULE = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "whole"
    adapted_model(base_model_name_or_path=str(base)).save_pretrained(folder)
    return folder


def edit_bytes(name, change):
    def edit(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edit


def cut(length):
    return edit_bytes(TENSORS, lambda data: data[:length] if length >= 0 else data[: len(data) + length])


def header_size(change):
    return edit_bytes(TENSORS, lambda data: struct.pack("<Q", change(struct.unpack("<Q", data[:8])[0])) + data[8:])


def header_text(old, new):
    assert len(old) == len(new)
    return edit_bytes(TENSORS, lambda data: data.replace(old, new, 1))


def settings(**changes):
    def edit(folder):
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(values | changes))

    return edit


def tensors(change):
    """Rewrites the tensors with one change, and leaves the file sound and its metadata as it was."""

    def edit(folder):
        held = load_file(folder / TENSORS)
        change(held)
        metadata = ("initialization", json.loads((folder / CONFIG).read_text())["initialization"])
        save_tensors(held, folder / TENSORS, metadata)

    return edit


def value(number):
    return tensors(lambda held: held[f"{MODULE}.tmole.B.generative"].view(-1)[5:6].fill_(number))


def resized(key, *size):
    return tensors(lambda held: held.update({key: torch.ones(size)}))


def moved(held):
    for key in [key for key in held if key.startswith(MODULE)]:
        held[key.replace("self_attn.q_proj", "mlp.up_proj")] = held.pop(key)


def without_experts(held):
    for key in [key for key in held if key.startswith("model.")]:
        del held[key]


DAMAGED, ELSEWHERE = "is damaged or incomplete", "are of different adapters"
NOT_FINITE = f"{MODULE}.tmole.B.generative holds NaN or infinite values"
FAULTS = {
    "no file of tensors": (lambda folder: (folder / TENSORS).unlink(), f"holds no {TENSORS}"),
    "a folder for tensors": (lambda f: ((f / TENSORS).unlink(), (f / TENSORS).mkdir()), f"holds no {TENSORS}"),
    "empty": (cut(0), DAMAGED),
    "four bytes": (cut(4), DAMAGED),
    "the header's size alone": (cut(8), DAMAGED),
    "half a header": (cut(300), DAMAGED),
    "cut by one byte": (cut(-1), DAMAGED),
    "cut in the middle": (cut(-3000), DAMAGED),
    "bytes at the end": (edit_bytes(TENSORS, lambda data: data + b"\0" * 64), DAMAGED),
    "header larger than the file": (header_size(lambda size: 2**40), DAMAGED),
    "header of a negative size": (header_size(lambda size: 2**64 - 1), DAMAGED),
    "header said to be longer": (header_size(lambda size: size + 8), DAMAGED),
    "header said to be shorter": (header_size(lambda size: size - 8), DAMAGED),
    "header of another format": (edit_bytes(TENSORS, lambda data: b"PK\x03\x04" + data[4:]), DAMAGED),
    "dtype that the sizes deny": (header_text(b'"F32"', b'"F64"'), DAMAGED),
    "shape that the sizes deny": (header_text(b'"shape":[2]', b'"shape":[9]'), DAMAGED),
    "integers": (
        tensors(lambda held: held.update({f"tmole.z.{TASK}": torch.ones(16, dtype=torch.int64)})),
        f"not of floating-point numbers: tmole.z.{TASK} I64",
    ),
    "NaN": (value(float("nan")), NOT_FINITE),
    "infinity": (value(float("inf")), NOT_FINITE),
    "minus infinity": (value(float("-inf")), NOT_FINITE),
    "a tensor missing": (tensors(lambda held: held.pop(f"{MODULE}.tmole.R.shared")), "1 missing: .*tmole.R.shared"),
    "a task without embedding": (tensors(lambda held: held.pop(f"tmole.z.{TASK}")), f"1 missing: tmole.z.{TASK}"),
    "no expert": (tensors(without_experts), "holds no TMoLE tensors"),
    "a tensor too many": (resized("stray", 2), "1 unexpected: stray"),
    "another task's embedding": (resized("tmole.z.item2item", 16), "1 unexpected: tmole.z.item2item"),
    "a rank that is not the configuration's": (resized(f"{MODULE}.tmole.A.shared", 6, 32), "1 of another shape"),
    "groups of different inputs": (
        resized(f"{MODULE}.tmole.A.shared", 8, 33),
        r"shared \(8, 33\) instead of \(8, 32\)",
    ),
    "groups of different outputs": (resized(f"{MODULE}.tmole.B.shared", 31, 8), "1 of another shape"),
    "no inputs": (tensors(lambda h: [h.update({k: h[k][:, :0]}) for k in h if ".A." in k]), "of another shape"),
    "a vector for a matrix": (resized(f"{MODULE}.tmole.A.embedding", 8), "of another shape"),
    "tensors of another layer": (tensors(moved), rf"adapts model.layers.0.mlp.up_proj, which .*{ELSEWHERE}"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), f"holds no {CONFIG}|it has no {CONFIG}"),
    "an empty configuration": (edit_bytes(CONFIG, lambda data: b""), "not valid JSON"),
    "half a configuration": (edit_bytes(CONFIG, lambda data: data[:200]), "not valid JSON"),
    "bytes that are no text": (edit_bytes(CONFIG, lambda data: b"\xff\xfe" + data), "not valid JSON"),
    "a list": (edit_bytes(CONFIG, lambda data: b"[1, 2]"), "peft_type is None"),
    "null": (edit_bytes(CONFIG, lambda data: b"null"), "peft_type is None"),
    "a LoRA": (settings(peft_type="LORA"), "peft_type is 'LORA', not 'TMOLE'"),
    "a newer format": (settings(depth=3), "unknown keys depth: .*upgrade"),
    "no tasks": (settings(tasks=None), "tasks must be a list of names or a dict"),
    "a task of no kind": (settings(tasks={"query2item": "embeddings"}), "kind of 'query2item' must be one of"),
    "a task that leads elsewhere": (settings(tasks={"../../x": "embedding"}), "may hold letters, digits"),
    "a rank in words": (settings(r="four"), "r must be a positive whole number"),
    "experts in a list": (settings(experts=[2, 2, 2]), "experts"),
    "a number for targets": (settings(target_modules=5), "target_modules must be names"),
    "a number for a prompt": (settings(prompts={"query2item": {"query": 5}}), "a prompt is a text"),
    "another adapter's configuration": (settings(task_dim=8), "of another shape"),
}


def commands(bad, good, dataset, out):
    """Command -> the arguments with which it reads the adapter `bad`."""
    return {
        "merge": ["merge", str(bad), str(good), "--out", str(out)],
        "merge, as the second": ["merge", str(good), str(bad), "--out", str(out)],
        "collapse": ["collapse", str(bad), "--out", str(out), "--task", TASK],
        "export": ["export", str(bad), "--to", "generator", "--task", TASK, "--out", str(out)],
        "evaluate": ["evaluate", str(bad), "--data", dataset, "--out", str(out)],
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_says_in_one_line_what_is_wrong(fault, adapter, dataset, capsys, tmp_path):
    damage, message = FAULTS[fault]
    bad, out = tmp_path / "bad", tmp_path / "out"
    shutil.copytree(adapter, bad)
    damage(bad)
    with pytest.raises(RecfoundError) as caught:
        load_tmole(base_model(), bad)
    said = {"load_tmole": str(caught.value)}
    for name, arguments in commands(bad, adapter, dataset, out).items():
        capsys.readouterr()
        assert main(["model", *arguments]) == 1, name
        error = capsys.readouterr().err.strip()
        assert error.startswith("recfound: "), error
        said[name] = error.removeprefix("recfound: ")
    for name, line in said.items():
        assert re.search(message, line) and "\n" not in line, (name, line)
        assert str(bad) in line, (name, line)
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_files_of_two_adapters_do_not_make_one(adapter, base, dataset, capsys, tmp_path):
    other = tmp_path / "other"
    # The seed of the base is that of the adapter's draw, too.
    add_tmole(base_model(seed=7), config(base_model_name_or_path=str(base))).save_pretrained(other)
    for name, config_of, tensors_of in (("one", adapter, other), ("two", other, adapter)):
        mixed = tmp_path / name
        mixed.mkdir()
        shutil.copy(config_of / CONFIG, mixed)
        shutil.copy(tensors_of / TENSORS, mixed)
        for arguments in commands(mixed, config_of, dataset, tmp_path / "out").values():
            assert main(["model", *arguments]) == 1
            assert re.search(f"descends from another initialisation .*{ELSEWHERE}", capsys.readouterr().err)
    # An adapter that was written before its file named the initialisation, or that was drawn by hand, is no fault.
    shutil.copytree(other, tmp_path / "old")
    save_file(load_file(other / TENSORS), tmp_path / "old" / TENSORS)
    load_tmole(base_model(), tmp_path / "old")


def test_a_base_that_does_not_fit(adapter, dataset, capsys, tmp_path):
    wide = save_base(tmp_path / "wide")
    base_model(hidden_size=64).save_pretrained(wide)
    shutil.copytree(adapter, tmp_path / "bad")
    settings(base_model_name_or_path=str(wide))(tmp_path / "bad")
    tried = commands(tmp_path / "bad", adapter, dataset, tmp_path / "out")
    for name, message in (
        ("merge", "the base model differ"),
        ("export", "was not made for|does not fit"),
        ("evaluate", "does not fit"),
    ):
        assert main(["model", *tried[name]]) == 1
        error = capsys.readouterr().err.strip()
        assert re.search(message, error) and error.startswith("recfound: ") and "\n" not in error, error
    assert main(["model", *tried["collapse"]]) == 0  # which does not open the base


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (lambda folder: PeftModel.from_pretrained(base_model(), folder), KeyError),
        (lambda folder: AutoModelForCausalLM.from_pretrained(folder), KeyError),
        (lambda folder: SentenceTransformer(folder, device="cpu"), KeyError),
    ],
    ids=["peft", "transformers", "sentence-transformers"],
)
def test_stock_libraries_do_not_take_a_native_adapter_for_something_else(load, error, adapter):
    with pytest.raises(error, match="TMOLE"):
        load(str(adapter))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_are_read_as_float32(dtype, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "same")
    tensors(lambda held: held.update({key: tensor.to(dtype) for key, tensor in held.items()}))(tmp_path / "same")
    with open_adapter(tmp_path / "same") as found, open_adapter(adapter) as exact:
        for key in exact.keys:
            assert found.tensor(key).dtype == torch.float32
            torch.testing.assert_close(found.tensor(key), exact.tensor(key), rtol=1e-2, atol=1e-2)


def test_shared_memory_is_written_as_copies_are(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    shared = {"b": whole, "a": whole, "part": whole[1], "across": whole.T, "one": torch.ones(1).expand(5)}
    save_tensors(shared, tmp_path / "shared.safetensors")
    save_tensors(
        {key: shared[key].clone() for key in ("part", "one", "b", "across", "a")}, tmp_path / "copied.safetensors"
    )
    assert (tmp_path / "shared.safetensors").read_bytes() == (tmp_path / "copied.safetensors").read_bytes()
    for key, tensor in load_file(tmp_path / "shared.safetensors").items():
        assert torch.equal(tensor, shared[key])
    lone = {key: torch.ones(4) for key in "ab"}
    save_tensors(lone, tmp_path / "lone.safetensors")
    assert lone.keys() == load_file(tmp_path / "lone.safetensors").keys()


def test_what_is_written_is_as_readable_as_any_file(adapter, tmp_path):
    (tmp_path / "plain").write_text("")
    assert {file.stat().st_mode for file in adapter.iterdir()} == {(tmp_path / "plain").stat().st_mode}
