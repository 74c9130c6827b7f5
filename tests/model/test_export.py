"""What users load: in a process that cannot import this project, stock libraries give the native model's outputs."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import PROMPTS, TEXTS, base_model, batch, config, randomize, save_base, tokenizer

from recfound_data.errors import RecfoundError, UsageError
from recfound_model import add_tmole, collapse, export_embedder, export_generator, load_tmole, task_context
from recfound_model.routing import UnknownTaskError

EMBEDDINGS, GENERATIVES = ["user2item", "query2item"], ["sentiment_analysis", "answer_generation"]
MAX_LENGTH = 36  # shorter than the longest prompt and text together: truncation is part of what must agree

STOCK = """
import json, sys
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None  # from here on, importing either fails
for name in ("recfound_data", "recfound_model"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " could be imported")

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

plan, outputs = json.loads(sys.argv[1]), {}
tokens = load_file(plan["tokens"])["tokens"]
for name, folder in plan["embedders"].items():
    model = SentenceTransformer(folder, device="cpu")
    outputs[name + ".query"] = model.encode_query(plan["texts"], convert_to_tensor=True)
    outputs[name + ".document"] = model.encode_document(plan["texts"], convert_to_tensor=True)
    assert model.similarity_fn_name == "cosine" and model.max_seq_length == plan["max_length"], model.max_seq_length
with torch.no_grad():
    for name, folder in plan["generators"].items():
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        outputs[name + ".merged"] = model(tokens).logits
        outputs[name + ".written"] = model.generate(tokens, max_new_tokens=4, do_sample=False)
        message = {"role": "user", "content": "hi"}
        chat = AutoTokenizer.from_pretrained(folder).apply_chat_template([message], tokenize=False)
        assert chat == plan["chat"], chat
    for name, folder in plan["loras"].items():
        base = AutoModelForCausalLM.from_pretrained(plan["base"])
        lora = PeftModel.from_pretrained(base, folder)
        outputs[name + ".logits"] = lora(tokens, is_causal=name in plan["generators"]).logits
save_file({key: value.contiguous() for key, value in outputs.items()}, plan["outputs"])
"""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """(folder of the adapter, folder of its base)"""
    folder = tmp_path_factory.mktemp("export")
    base = save_base(folder / "base")
    prompts = {task: {side: f"{task}: {text}" for side, text in PROMPTS.items()} for task in EMBEDDINGS}
    settings = config(
        tasks=EMBEDDINGS + GENERATIVES, prompts=prompts, max_length=MAX_LENGTH, base_model_name_or_path=str(base)
    )
    randomize(add_tmole(base_model(), settings)).save_pretrained(folder / "adapter")
    return folder / "adapter", base


def native_embedding(model, task, side, is_causal=False):
    """Mean over the tokens after the prompt, bidirectional attention, L2-normalised; one text at a time."""
    prompt = model.tmole_config.prompts[task][side]
    skip = len(tokenizer()(prompt).input_ids)
    rows = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer()(prompt + text, truncation=True, max_length=MAX_LENGTH).input_ids])
        with torch.no_grad(), task_context(model, task):
            hidden = model.get_decoder()(input_ids=ids, is_causal=is_causal).last_hidden_state
        rows.append(torch.nn.functional.normalize(hidden[0, skip:].mean(0), dim=0))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def stock_outputs(adapter, tmp_path_factory):
    folder, base = adapter
    out = tmp_path_factory.mktemp("stock")
    chat = tokenizer().apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    save_file({"tokens": batch()}, out / "tokens.safetensors")
    plan = {
        "base": str(base),
        "texts": TEXTS,
        "tokens": str(out / "tokens.safetensors"),
        "chat": chat,
        "max_length": MAX_LENGTH,
        "outputs": str(out / "outputs.safetensors"),
        "embedders": {},
        "generators": {},
        "loras": {},
    }
    for task in EMBEDDINGS:
        export_embedder(folder, out / f"embedder-{task}", task)
        plan["embedders"][task] = str(out / f"embedder-{task}")
    for task in GENERATIVES:
        export_generator(folder, out / f"generator-{task}", task)
        plan["generators"][task] = str(out / f"generator-{task}")
    for task in EMBEDDINGS + GENERATIVES:
        collapse(folder, task, out / f"lora-{task}")
        plan["loras"][task] = str(out / f"lora-{task}")
    run = subprocess.run([sys.executable, "-c", STOCK, json.dumps(plan)], capture_output=True, text=True, cwd=out)
    assert run.returncode == 0, run.stderr
    assert "unsupported" not in run.stderr.lower()
    return out, load_file(out / "outputs.safetensors")


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("task", EMBEDDINGS)
def test_exported_embedder_equals_native(adapter, stock_outputs, task, side):
    native = load_tmole(base_model(), adapter[0])
    expected, found = native_embedding(native, task, side), stock_outputs[1][f"{task}.{side}"]
    assert (expected * found).sum(-1).min() >= 0.9999
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    # The bound would notice another task, another prompt and causal attention.
    other_task, other_side = EMBEDDINGS[task == EMBEDDINGS[0]], {"query": "document", "document": "query"}[side]
    for wrong in (
        native_embedding(native, other_task, side),
        native_embedding(native, task, other_side),
        native_embedding(native, task, side, is_causal=True),
    ):
        assert (wrong * found).sum(-1).min() < 0.999


@pytest.mark.parametrize("task", GENERATIVES)
def test_exported_generator_equals_native(adapter, stock_outputs, task):
    native, (_, outputs) = load_tmole(base_model(), adapter[0]), stock_outputs
    with torch.no_grad(), task_context(native, task):
        expected = native(batch()).logits
        written = native.generate(batch(), max_new_tokens=4, do_sample=False)
    assert (outputs[f"{task}.merged"] - expected).abs().max() <= 1e-5
    assert (expected - base_model()(batch()).logits).abs().max() > 0.1
    assert torch.equal(outputs[f"{task}.written"], written)


@pytest.mark.parametrize("task", EMBEDDINGS + GENERATIVES)
def test_collapsed_lora_equals_native(adapter, stock_outputs, task):
    native = load_tmole(base_model(), adapter[0])
    with torch.no_grad(), task_context(native, task):
        expected = native(batch(), is_causal=task in GENERATIVES).logits
    assert (stock_outputs[1][f"{task}.logits"] - expected).abs().max() <= 1e-5


def test_exported_folders_are_plain(stock_outputs):
    out, _ = stock_outputs
    for folder in (p for p in out.iterdir() if p.is_dir()):
        for file in folder.rglob("*"):
            assert file.suffix in {".json", ".safetensors", ".jinja", ""}, file
            if file.suffix == ".json":
                assert "recfound" not in file.read_text() or file.name == "adapter_config.json", file
                assert "auto_map" not in json.loads(file.read_text()), file
    embedder = json.loads((out / "embedder-query2item" / "config.json").read_text())
    assert embedder["architectures"] == ["LlamaModel"] and embedder["is_causal"] is False
    generator = json.loads((out / "generator-sentiment_analysis" / "config.json").read_text())
    assert generator["architectures"] == ["LlamaForCausalLM"] and "is_causal" not in generator
    assert "lm_head.weight" not in load_file(out / "generator-sentiment_analysis" / "model.safetensors")
    assert (out / "generator-sentiment_analysis" / "generation_config.json").is_file()
    assert sorted(p.name for p in out.iterdir() if p.name.startswith(".")) == []


def test_report_says_what_an_export_was_made_of(adapter, stock_outputs):
    report = json.loads((stock_outputs[0] / "embedder-query2item" / "export_report.json").read_text())
    assert (report["task"], report["kind"], report["dtype"]) == ("query2item", "embedding", "float32")
    assert report["base_model"] == str(adapter[1]) and report["base_revision"] is None
    adapter_bytes = (adapter[0] / "adapter_model.safetensors").read_bytes()
    assert report["adapter_sha256"] == hashlib.sha256(adapter_bytes).hexdigest()
    assert report["minimum_transformers"] == "5.2.0"
    assert report["versions"]["torch"] == torch.__version__


def dtypes(folder):
    return {weight.dtype for weight in load_file(folder / "model.safetensors").values()}


def test_dtype_of_the_written_weights(adapter, tmp_path):
    folder, base = adapter
    export_generator(folder, tmp_path / "generator", "sentiment_analysis", base_model=base, dtype="bfloat16")
    export_embedder(folder, tmp_path / "embedder", "query2item", dtype=torch.bfloat16)
    for name in ("generator", "embedder"):
        assert dtypes(tmp_path / name) == {torch.bfloat16}
        assert json.loads((tmp_path / name / "export_report.json").read_text())["dtype"] == "bfloat16"
    # Without a wish, the base's own.
    export_generator(folder, tmp_path / "same", "sentiment_analysis", base_model=tmp_path / "generator")
    assert dtypes(tmp_path / "same") == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")
def test_refusals(adapter, tmp_path):
    folder, _ = adapter
    with pytest.raises(UsageError, match=r"generative, not embedding: use export_generator"):
        export_embedder(folder, tmp_path / "out", "sentiment_analysis")
    with pytest.raises(UsageError, match=r"embedding, not generative: use export_embedder"):
        export_generator(folder, tmp_path / "out", "query2item")
    with pytest.raises(UnknownTaskError, match="did you mean 'query2item'"):
        export_embedder(folder, tmp_path / "out", "query2itm")
    with pytest.raises(UsageError, match="not a floating-point dtype"):
        export_generator(folder, tmp_path / "out", "sentiment_analysis", dtype="int8")
    with pytest.raises(RecfoundError, match="cannot be loaded"):
        export_generator(folder, tmp_path / "out", "sentiment_analysis", base_model=tmp_path / "nowhere")
    base_model(hidden_size=64).save_pretrained(tmp_path / "wide")
    tokenizer().save_pretrained(tmp_path / "wide")
    with pytest.raises(RecfoundError, match="was not made for"):
        export_generator(folder, tmp_path / "out", "sentiment_analysis", base_model=tmp_path / "wide")
    randomize(add_tmole(base_model(), config())).save_pretrained(tmp_path / "no-base")
    with pytest.raises(UsageError, match="does not say which base"):
        export_generator(tmp_path / "no-base", tmp_path / "out", "sentiment_analysis")
    randomize(add_tmole(base_model(), config(target_modules=["lm_head"]))).save_pretrained(tmp_path / "head")
    with pytest.raises(RecfoundError, match="shares its weights"):
        export_generator(tmp_path / "head", tmp_path / "out", "sentiment_analysis", base_model=adapter[1])
    assert not (tmp_path / "out").exists()
