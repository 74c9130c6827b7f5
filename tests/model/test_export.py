"""What users load: in a process that cannot import this project, stock libraries give the native model's outputs."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_models import PROMPTS, TEXTS, base_model, batch, config, randomize, save_base, tokenizer

from recfound_data.errors import RecfoundError, UsageError
from recfound_model import add_tmole, collapse, export_embedder, export_generator, load_tmole, task_context
from recfound_model.adapter_files import open_adapter
from recfound_model.exporting import MINIMUM_SENTENCE_TRANSFORMERS, MINIMUM_TRANSFORMERS
from recfound_model.exporting.weights import base_of, merged_base
from recfound_model.routing import UnknownTaskError

EMBEDDINGS, GENERATIVES = ["user2item", "query2item"], ["sentiment_analysis", "answer_generation"]
GUIDE = Path(__file__).parents[2] / "docs" / "export.md"
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
tokens, texts = load_file(plan["tokens"])["tokens"], plan["texts"]

def refused(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error as raised:
        return str(raised)
    raise SystemExit(f"{call.__name__}{arguments} was not refused")

def opened(folder):
    model = SentenceTransformer(folder, device="cpu")
    assert model.similarity_fn_name == "cosine" and model.max_seq_length == plan["max_length"], model.max_seq_length
    return model

for task in plan["embeddings"]:
    model = opened(f"embedder/{task}")
    outputs[f"merged.{task}.query"] = model.encode_query(texts, convert_to_tensor=True)
    outputs[f"merged.{task}.document"] = model.encode_document(texts, convert_to_tensor=True)

router = opened("router")
for task in plan["embeddings"]:
    outputs[f"router.{task}.query"] = router.encode(texts, task=task, convert_to_tensor=True)
    outputs[f"router.{task}.document"] = router.encode(
        texts, task=task, prompt_name="document", convert_to_tensor=True
    )
# Never the vectors of no task, or of no prompt, in silence.
assert "user2item" in refused(ValueError, router.encode, texts)
assert "user2item" in refused(ValueError, router.encode_query, texts)
assert "user2item" in refused(ValueError, router.encode_document, texts)
refused(ValueError, router.encode, texts, task="item2item")

lora = opened("adapters")
for task in plan["embeddings"]:
    lora.load_adapter(f"adapters/{task}", adapter_name=task)
for task in plan["embeddings"] * 2:
    lora.set_adapter(task)
    outputs[f"adapters.{task}.query"] = lora.encode(texts, prompt_name=task, convert_to_tensor=True)
    outputs[f"adapters.{task}.document"] = lora.encode(
        texts, prompt_name=plan["document"][task], convert_to_tensor=True
    )
for call in (lora.encode, lora.encode_query, lora.encode_document):
    refused(TypeError, call, texts)

message = {"role": "user", "content": "hi"}
with torch.no_grad():
    for task in plan["generatives"]:
        folder = f"generator/{task}"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        outputs[f"{task}.merged"] = model(tokens).logits
        outputs[f"{task}.written"] = model.generate(tokens, max_new_tokens=4, do_sample=False)
        chat = AutoTokenizer.from_pretrained(folder)
        assert chat.apply_chat_template([message], tokenize=False) == plan["chat"]
        assert chat.padding_side == "left"
    model = AutoModelForCausalLM.from_pretrained("loras")
    for task in plan["generatives"]:
        model.load_adapter("loras", adapter_name=task, adapter_kwargs={"subfolder": task})
    for task in plan["generatives"]:
        model.set_adapter(task)
        outputs[f"{task}.adapters"] = model(tokens).logits
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("loras"), "loras", subfolder=task)
        outputs[f"{task}.peft"] = peft(tokens).logits
    for name, folder in plan["loras"].items():
        base = AutoModelForCausalLM.from_pretrained(plan["base"])
        peft = PeftModel.from_pretrained(base, folder)
        outputs[name + ".logits"] = peft(tokens, is_causal=name in plan["generatives"]).logits
save_file({key: value.contiguous() for key, value in outputs.items()}, plan["outputs"])

# What the cards print, and the guide.
for card, code in plan["cards"].items():
    names = {}
    exec(compile(code, card, "exec"), names)
    assert "answer" in names or names["scores"].shape == (2, 1), card
for code in plan["guide"]:
    names = {}
    exec(compile(code, "docs/export.md", "exec"), names)
    if "merge_and_unload" in code:
        lora.set_adapter("query2item")
        wanted = lora.encode(["a kettle of two litres"], prompt_name="query2item")
        assert abs(names["queries"] - wanted).max() < 1e-5
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


def python_block(card):
    """The first block of Python of a card, for the folder that the card lies in."""
    return re.search(r"```python\n(.*?)```", card.read_text(), re.DOTALL)[1].replace("org/name", str(card.parent))


@pytest.fixture(scope="module")
def stock_outputs(adapter, tmp_path_factory):
    """(the folder of everything that was exported, what stock libraries make of it)"""
    folder, base = adapter
    out = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)  # all places are relative ones
        export_embedder(folder, "embedder")
        export_embedder(folder, "router", layout="router")
        export_embedder(folder, "adapters", layout="adapters")
        export_generator(folder, "generator", GENERATIVES)
        export_generator(folder, "loras", layout="adapters")
    for task in EMBEDDINGS + GENERATIVES:
        collapse(folder, task, out / "lora" / task)
    save_file({"tokens": batch()}, out / "tokens.safetensors")
    plan = {
        "base": str(base),
        "texts": TEXTS,
        "tokens": str(out / "tokens.safetensors"),
        "chat": tokenizer().apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False),
        "max_length": MAX_LENGTH,
        "outputs": str(out / "outputs.safetensors"),
        "embeddings": EMBEDDINGS,
        "generatives": GENERATIVES,
        "document": {task: f"{task}-document" for task in EMBEDDINGS},
        "loras": {task: f"lora/{task}" for task in EMBEDDINGS + GENERATIVES},
        "cards": {str(card): python_block(card) for card in out.rglob("README.md")},
        "guide": re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL),
    }
    assert len(plan["cards"]) == 7 and len(plan["guide"]) == 6
    run = subprocess.run([sys.executable, "-c", STOCK, json.dumps(plan)], capture_output=True, text=True, cwd=out)
    assert run.returncode == 0, run.stderr
    assert "unsupported" not in run.stderr.lower()
    return out, load_file(out / "outputs.safetensors")


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("task", EMBEDDINGS)
@pytest.mark.parametrize("layout", ["merged", "router", "adapters"])
def test_exported_embedder_equals_native(adapter, stock_outputs, layout, task, side):
    native = load_tmole(base_model(), adapter[0])
    expected, found = native_embedding(native, task, side), stock_outputs[1][f"{layout}.{task}.{side}"]
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
    for layout in ("merged", "adapters", "peft"):
        assert (outputs[f"{task}.{layout}"] - expected).abs().max() <= 1e-5, layout
    assert (expected - base_model()(batch()).logits).abs().max() > 0.1
    assert torch.equal(outputs[f"{task}.written"], written)


@pytest.mark.parametrize("task", EMBEDDINGS + GENERATIVES)
def test_collapsed_lora_equals_native(adapter, stock_outputs, task):
    native = load_tmole(base_model(), adapter[0])
    with torch.no_grad(), task_context(native, task):
        expected = native(batch(), is_causal=task in GENERATIVES).logits
    assert (stock_outputs[1][f"{task}.logits"] - expected).abs().max() <= 1e-5


def test_exported_folders_are_plain_and_name_no_place_on_this_machine(adapter, stock_outputs):
    out, _ = stock_outputs
    assert sorted(p.name for p in out.rglob(".*")) == []
    for folder in ("embedder", "router", "adapters", "generator", "loras"):
        for file in (p for p in (out / folder).rglob("*") if p.is_file()):
            assert file.suffix in {".json", ".safetensors", ".jinja", ".md"}, file
            if file.suffix != ".safetensors":
                text = file.read_text()
                assert str(out.parent) not in text and str(adapter[0].parent.parent) not in text, file
            if file.suffix == ".json":
                assert "recfound" not in text, file
                assert "auto_map" not in json.loads(text), file
    for embedder in ("embedder/query2item", "adapters", "router/query2item_0_Transformer"):
        settings = json.loads((out / embedder / "config.json").read_text())
        assert settings["architectures"] == ["LlamaModel"] and settings["is_causal"] is False
    for generator in ("generator/sentiment_analysis", "loras"):
        settings = json.loads((out / generator / "config.json").read_text())
        assert settings["architectures"] == ["LlamaForCausalLM"] and "is_causal" not in settings
        assert "lm_head.weight" not in load_file(out / generator / "model.safetensors")
        assert (out / generator / "generation_config.json").is_file()


def test_report_says_what_an_export_was_made_of_and_how_it_was_checked(adapter, stock_outputs):
    reports = {
        name: json.loads((stock_outputs[0] / name / "export_report.json").read_text())
        for name in ("embedder/query2item", "router", "adapters", "loras")
    }
    for name, report in reports.items():
        assert report["base_model"] == "base" and report["base_revision"] is None
        adapter_bytes = (adapter[0] / "adapter_model.safetensors").read_bytes()
        assert report["adapter_sha256"] == hashlib.sha256(adapter_bytes).hexdigest()
        assert report["versions"]["torch"] == torch.__version__ and report["dtype"] == "float32"
        assert set(report["parity"]) == set(report["tasks"])
        for parity in report["parity"].values():
            assert parity["source"] == "built-in texts" and parity["weights"] <= 1
            if name == "loras":
                assert parity["figures"]["float32"]["tokens"] == 1
                assert parity["figures"]["float32"]["logits"] <= parity["bounds"]["float32"]["logits"] == 1e-3
            else:
                assert parity["figures"]["float32"]["cosine"] >= parity["bounds"]["float32"]["cosine"] == 0.9999
    assert [report["layout"] for report in reports.values()] == ["merged", "router", "adapters", "adapters"]
    assert reports["embedder/query2item"]["tasks"] == ["query2item"]
    assert sorted(reports["router"]["tasks"]) == sorted(EMBEDDINGS)
    assert sorted(reports["loras"]["tasks"]) == sorted(GENERATIVES)
    assert reports["router"]["minimum_transformers"] == MINIMUM_TRANSFORMERS
    assert reports["router"]["minimum_sentence_transformers"] == MINIMUM_SENTENCE_TRANSFORMERS
    assert reports["router"]["max_length"] == MAX_LENGTH and reports["loras"]["max_length"] is None


def test_cards_say_what_matters_and_have_metadata_for_the_hub(stock_outputs):
    for card in stock_outputs[0].rglob("README.md"):
        text = card.read_text()
        metadata = ModelCard(text).data
        embedder = "loras" not in card.parts and "generator" not in card.parts
        assert metadata.library_name == ("sentence-transformers" if embedder else "transformers")
        assert metadata.pipeline_tag == ("sentence-similarity" if embedder else "text-generation")
        assert metadata.base_model is None  # a folder, and no repository of the Hub
        report = json.loads(card.with_name("export_report.json").read_text())
        for task in report["tasks"]:
            assert f"| `{task}` | {16 if embedder else 8}, built-in texts | float32 |" in text
            if embedder:
                assert json.dumps(f"{task}: {PROMPTS['query']}") in text and "| dimension | 32 |" in text


def dtypes(folder):
    return {weight.dtype for weight in load_file(folder / "model.safetensors").values()}


def test_dtype_of_the_written_weights(adapter, tmp_path):
    folder, base = adapter
    found = export_generator(folder, tmp_path / "generator", "sentiment_analysis", base_model=base, dtype="bfloat16")
    assert found.paths == (tmp_path / "generator",)
    assert set(found.parity["sentiment_analysis"].figures) == {"float32", "bfloat16"}
    assert dtypes(tmp_path / "generator") == {torch.bfloat16}
    assert json.loads((tmp_path / "generator" / "export_report.json").read_text())["dtype"] == "bfloat16"
    # Without a wish, the base's own.
    with open_adapter(folder) as opened:
        assert base_of(opened, None, None).dtype is None
        model, _ = merged_base(opened, "query2item", base_of(opened, tmp_path / "generator", None))
    assert model.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")
def test_refusals(adapter, tmp_path):
    folder, _ = adapter
    with pytest.raises(UsageError, match=r"generative, not embedding: use export_generator"):
        export_embedder(folder, tmp_path / "out", "sentiment_analysis")
    with pytest.raises(UsageError, match=r"embedding, not generative: use export_embedder"):
        export_generator(folder, tmp_path / "out", "query2item")
    with pytest.raises(UnknownTaskError, match="did you mean 'query2item'"):
        export_embedder(folder, tmp_path / "out", "query2itm")
    with pytest.raises(UsageError, match="no layout 'router' for a generator: use merged"):
        export_generator(folder, tmp_path / "out", layout="router")
    with pytest.raises(RecfoundError, match="nothing: answer_generation: cannot be read"):
        export_generator(folder, tmp_path / "out", data=str(tmp_path / "nothing"))
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
    own = config(tasks={"document": "embedding", "query2item": "embedding"}, base_model_name_or_path=str(adapter[1]))
    randomize(add_tmole(base_model(), own)).save_pretrained(tmp_path / "taken")
    for layout in ("router", "adapters"):
        with pytest.raises(UsageError, match="'document' can only be exported with the layout merged"):
            export_embedder(tmp_path / "taken", tmp_path / "out", layout=layout)
    with pytest.raises(UsageError, match="has no generative task"):
        export_generator(tmp_path / "taken", tmp_path / "out")
    assert not (tmp_path / "out").exists()
