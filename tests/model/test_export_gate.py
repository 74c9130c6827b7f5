"""The parity gate lets through what the adapter is, and refuses whatever else is written, in float32 and bfloat16."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import PROMPTS, base_model, config, randomize, tokenizer
from tokenizers import processors
from transformers import AutoTokenizer, LlamaForCausalLM

import recfound_model.exporting.weights as writing
from recfound_data.errors import RecfoundError
from recfound_data.layout import read_split
from recfound_model import TmoleConfig, add_tmole, export_embedder, export_generator
from recfound_model.adapter_files import open_adapter
from recfound_model.collapsing import layer_weights
from recfound_model.exporting import distances, embedder, generator, parity
from recfound_model.exporting.held_out import held_out
from recfound_model.exporting.reference import NativeModel

EMBEDDINGS, GENERATIVES = ["query2item", "user2item"], ["answer_generation", "sentiment_analysis"]
MAX_LENGTH = 40
DTYPES = ["float32", "bfloat16"]


def save_square_base(folder: Path) -> Path:
    """A base whose q_proj and k_proj have one shape."""
    settings = base_model().config
    settings.num_key_value_heads = settings.num_attention_heads
    torch.manual_seed(0)
    LlamaForCausalLM(settings).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    base = save_square_base(folder / "base")
    prompts = {task: {side: f"{task}: {text}" for side, text in PROMPTS.items()} for task in EMBEDDINGS}
    settings = config(
        tasks=EMBEDDINGS + GENERATIVES, prompts=prompts, max_length=MAX_LENGTH, base_model_name_or_path=str(base)
    )
    model = LlamaForCausalLM.from_pretrained(base)
    randomize(add_tmole(model, settings)).save_pretrained(folder / "adapter")
    return folder / "adapter"


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def other_weights(change):
    """The update that is written, changed: of all code on the writing side, the place where it comes from."""
    return lambda adapter, module, task: change(adapter, module, task, *layer_weights(adapter, module, task))


def scaled(adapter, module, task, lora_a, lora_b):
    return lora_a, lora_b * adapter.config.r**0.5


def of_another_task(adapter, module, task, lora_a, lora_b):
    tasks = EMBEDDINGS if task in EMBEDDINGS else GENERATIVES
    return layer_weights(adapter, module, tasks[task == tasks[0]])


def swapped(adapter, module, task, lora_a, lora_b):
    names = {"q_proj": "k_proj", "k_proj": "q_proj"}
    path, name = module.rsplit(".", 1)
    return layer_weights(adapter, f"{path}.{names.get(name, name)}", task)


UPDATES = {"scale off by sqrt r": scaled, "gates of another task": of_another_task, "swapped q and k": swapped}


def other_special_tokens(folder):
    tokens = AutoTokenizer.from_pretrained(folder)
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokens.save_pretrained(folder)


def one_prompt_for_another(folder):
    file = folder / "config_sentence_transformers.json"
    prompts = json.loads(file.read_text())["prompts"]
    edit(file, prompts={"query": prompts["document"], "document": prompts["query"]})


def without_normalisation(folder):
    file = folder / "modules.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:-1]))


EMBEDDER_EDITS = {
    "causal attention": lambda folder: edit(folder / "config.json", is_causal=True),
    "missing prompt": lambda folder: edit(
        folder / "config_sentence_transformers.json", prompts={"query": "", "document": ""}
    ),
    "prompts of the other side": one_prompt_for_another,
    "pooling with the prompt": lambda folder: edit(folder / "1_Pooling" / "config.json", include_prompt=True),
    "no normalisation": without_normalisation,
    "other special tokens": other_special_tokens,
    "shorter maximum length": lambda folder: edit(folder / "tokenizer_config.json", model_max_length=MAX_LENGTH // 2),
}
GENERATOR_EDITS = {
    "padding on the right": lambda folder: edit(folder / "tokenizer_config.json", padding_side="right"),
    "bidirectional attention": lambda folder: edit(folder / "config.json", is_causal=False),
    "another chat template": lambda folder: (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    ),
}


def write_all(adapter_dir, task, write, edits, out):
    """name -> the folder written with that fault, and "right" for none, in both dtypes."""
    exports = {}
    with pytest.MonkeyPatch.context() as patch, open_adapter(adapter_dir) as adapter:
        for dtype in DTYPES:
            base = writing.base_of(adapter, None, dtype)
            for name in ["right", *UPDATES, *edits]:
                change = other_weights(UPDATES[name]) if name in UPDATES else layer_weights
                patch.setattr(writing, "layer_weights", change)
                folder = out / f"{name} {dtype}"
                folder.mkdir()
                exports[name, dtype] = write(adapter, base, folder, task)
                if name in edits:
                    edits[name](folder)
    return exports


def judged(adapter_dir, task, exports):
    """name, dtype -> a function that judges the export, all of them having been loaded in one process."""
    with open_adapter(adapter_dir) as adapter:
        native = NativeModel(adapter_dir, adapter, writing.base_of(adapter, None, None))
        texts = held_out(adapter_dir, adapter.config, [task])
    folders = list(exports.values())
    references = parity.references_of(folders[:1], native, texts)
    outputs = parity.stock_outputs(folders, references, texts)
    return {
        name: (lambda e=export, o=found: parity.judge(e, task, o, references[task], native, texts[task]))
        for (name, export), found in zip(exports.items(), outputs, strict=True)
    }


@pytest.fixture(scope="module")
def embedders(adapter, tmp_path_factory):
    out = tmp_path_factory.mktemp("embedders")

    def write(opened, base, folder, task):
        return embedder._merged(adapter, opened, base, folder, out / "place", [task])

    return judged(adapter, "query2item", write_all(adapter, "query2item", write, EMBEDDER_EDITS, out))


@pytest.fixture(scope="module")
def generators(adapter, tmp_path_factory):
    out = tmp_path_factory.mktemp("generators")

    def write(opened, base, folder, task):
        return generator._merged(opened, base, folder, out / "place", task)

    return judged(adapter, "answer_generation", write_all(adapter, "answer_generation", write, GENERATOR_EDITS, out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_embedder_passes(embedders, dtype):
    found = embedders["right", dtype]()
    assert (found.source, found.texts) == ("built-in texts", 16)
    assert found.figures["float32"]["cosine"] >= 0.9999
    assert set(found.figures) == {"float32", dtype} and found.weights <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", [*UPDATES, *EMBEDDER_EDITS])
def test_a_wrong_embedder_is_refused(embedders, fault, dtype):
    with pytest.raises(RecfoundError, match=r"query2item is not what the adapter is") as error:
        embedders[fault, dtype]()
    print(fault, dtype, error.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_generator_passes(generators, dtype):
    found = generators["right", dtype]()
    assert (found.source, found.texts) == ("built-in texts", 8)
    assert found.figures["float32"]["logits"] <= (1e-3 if dtype == "float32" else 0.2)
    assert set(found.figures) == {"float32", dtype} and found.weights <= 1
    assert dtype != "float32" or found.figures["float32"]["tokens"] == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", [*UPDATES, *GENERATOR_EDITS])
def test_a_wrong_generator_is_refused(generators, fault, dtype):
    with pytest.raises(RecfoundError, match=r"answer_generation is not what the adapter is") as error:
        generators[fault, dtype]()
    print(fault, dtype, error.value)


def weak(adapter_dir, folder):
    """The same adapter with updates so small that outputs hardly show them."""
    model = LlamaForCausalLM.from_pretrained(adapter_dir.parent / "base")
    settings = config(
        tasks=EMBEDDINGS + GENERATIVES,
        prompts=dict.fromkeys(EMBEDDINGS, PROMPTS),
        max_length=MAX_LENGTH,
        base_model_name_or_path=str(adapter_dir.parent / "base"),
    )
    adapted = randomize(add_tmole(model, settings))
    with torch.no_grad():
        for key, tensor in adapted.adapter_tensors().items():
            if ".B." in key:
                tensor.mul_(0.01)
    adapted.save_pretrained(folder)
    return folder


def test_what_outputs_in_bfloat16_cannot_show_the_weights_do(adapter, tmp_path, monkeypatch):
    feeble = weak(adapter, tmp_path / "weak")
    monkeypatch.setattr(writing, "layer_weights", other_weights(scaled))
    place = tmp_path / "out"
    with pytest.raises(RecfoundError, match=r"the weight of \S+ is not what base and adapter add up to") as error:
        export_embedder(feeble, place, "query2item", dtype="bfloat16")
    assert str(place) in str(error.value)
    # Of siblings, none is left when one is wrong, and no folder for them either.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weak"]


def test_in_layouts_of_several_tasks_each_one_is_checked(adapter, tmp_path, monkeypatch):
    def one_is_wrong(opened, module, task, lora_a, lora_b):
        return lora_a, lora_b * (2.0 if task == "user2item" else 1.0)

    monkeypatch.setattr(writing, "layer_weights", other_weights(one_is_wrong))
    with pytest.raises(RecfoundError, match="export of user2item is not"):
        export_embedder(adapter, tmp_path / "new" / "router", layout="router")
    right = generator.collapse

    def collapse_wrongly(adapter_dir, task, out, **settings):
        right(adapter_dir, "answer_generation", out, **settings)

    monkeypatch.setattr(generator, "collapse", collapse_wrongly)
    with pytest.raises(RecfoundError, match="export of sentiment_analysis is not"):
        export_generator(adapter, tmp_path / "new" / "loras", layout="adapters")
    assert not (tmp_path / "new").exists()


def test_what_stock_libraries_cannot_load_is_refused_with_the_reason(adapter, tmp_path, monkeypatch):
    save = embedder._save

    def save_and_damage(*arguments):
        save(*arguments)
        (arguments[-1] / "config.json").write_text('{"model_type": "nothing_of_the_kind"}')

    monkeypatch.setattr(embedder, "_save", save_and_damage)
    with pytest.raises(RecfoundError, match=r"stock libraries cannot use the export.*nothing_of_the_kind"):
        export_embedder(adapter, tmp_path / "out", "query2item")
    assert not (tmp_path / "out").exists()


def test_figures_that_are_not_numbers_do_not_pass():
    vectors = torch.eye(4)
    assert distances.cosines(vectors, vectors).min() == 1
    assert distances.cosines(vectors * torch.nan, vectors).max() == 0
    assert distances.cosines(vectors * 3, vectors).max() == 0
    logits = torch.randn(5, 7)
    assert not distances.logit_difference(logits[[0, -1]] * torch.nan, logits) <= 1e9
    assert distances.deviation(vectors * torch.nan, vectors, torch.float32) == float("inf")
    assert distances.deviation(vectors[:2], vectors, torch.float32) == float("inf")


def test_greedy_answers_may_part_only_where_the_native_choice_is_close():
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 5, 4.9, 0], [0, 0, 5, 0], [0, 0, 0, 5]])
    wanted = [0, 1, 2]
    scale = float(logits[[0, -1]].std())
    assert distances.agreement([0, 1, 2, 3], wanted, logits, 1e-3) == 3
    assert distances.agreement([0, 2, 2], wanted, logits, 0.051 / scale) == 1
    assert distances.agreement([0, 2, 2], wanted, logits, 0.049 / scale) is None
    assert distances.agreement([0, 3, 2], wanted, logits, 0.051 / scale) is None
    assert distances.agreement([0, 1], wanted, logits, 0.5) is None


def test_texts_come_from_the_data_that_is_named_or_the_runs_or_are_built_in(run, dataset, tmp_path):
    settings = TmoleConfig.from_pretrained(run / "adapter")
    task, other = "user2item", "sequential_recommendation"
    named = held_out(tmp_path, settings, [task, other], dataset)
    for found in (named, held_out(run / "adapter", settings, [task, other])):
        assert {texts.source for texts in found.values()} == {"dataset, test split"}
        rows = read_split(Path(dataset), task, "test")
        assert set(found[task].texts["query"]) <= set(rows["anchor"]) and len(found[task].texts["query"]) == 16
        assert len(found[other].prompts) == 8 and found[other].prompts[0][0]["role"] == "user"
    step = next((run / "checkpoints").iterdir())
    assert held_out(step, settings, [task])[task] == named[task]
    shutil.copytree(run / "adapter", tmp_path / "moved")
    found = held_out(tmp_path / "moved", settings, [task, other])
    assert {texts.source for texts in found.values()} == {"built-in texts"}
