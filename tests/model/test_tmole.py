import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import adapted_model, base_model, batch, config, randomize
from torch import nn

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks.catalogue import TASKS
from recfound_model import TmoleConfig, add_tmole, load_tmole, task_context
from recfound_model.folders import write_folder
from recfound_model.routing import UnknownTaskError, gate_mask, gates, live_groups, spread
from recfound_model.tmole import TmoleLinear, dropout_noise

EMBEDDING, OTHER_EMBEDDING, GENERATIVE = "user2item", "query2item", "sentiment_analysis"


def slow_update(layer: TmoleLinear, settings: TmoleConfig, task: str, x: torch.Tensor) -> torch.Tensor:
    """The method's equation as it is written: one expert after the other."""
    kind, experts, r = settings.kind_of(task), layer.experts, settings.r
    z = layer.routing.embeddings[task]
    logits, parts = [], []
    for group in ("embedding", "shared", "generative"):
        if group not in (kind, "shared"):
            continue
        for e in range(settings.experts[group]):
            A = experts.A[group][e * r : (e + 1) * r]
            B = experts.B[group][:, e * r : (e + 1) * r]
            logits.append(torch.dot(experts.R[group][e], z) + experts.b[group][e])
            parts.append(x @ A.T @ B.T)
    weights = torch.softmax(torch.stack(logits), dim=0)
    return settings.alpha / r * sum(g * part for g, part in zip(weights, parts, strict=True))


# --- the mathematics


@pytest.mark.parametrize("task", [EMBEDDING, OTHER_EMBEDDING, GENERATIVE])
@pytest.mark.parametrize("experts", [(2, 2, 2), (1, 3, 2), (2, 0, 1)])
def test_stacked_product_equals_loop_over_experts(task, experts):
    model = adapted_model(experts=dict(zip(("embedding", "shared", "generative"), experts, strict=True)))
    x = torch.randn(3, 5, 32)
    for _, layer in model.adapted_layers()[:2]:
        with task_context(model, task):
            fast = layer(x) - layer.base_layer(x)
        slow = slow_update(layer, model.tmole_config, task, x)
        assert slow.abs().max() > 0.1
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_gates_of_a_mask_equal_gates_of_the_live_experts():
    experts = {"embedding": 2, "shared": 1, "generative": 3}
    R, b, z = torch.randn(6, 8), torch.randn(6), torch.randn(2, 8)
    all_groups = live_groups(["embedding", "generative"], experts)
    masked = gates(R, b, z, gate_mask(["embedding", "generative"], all_groups, experts))
    assert torch.equal(masked[0, 3:], torch.zeros(3)) and torch.equal(masked[1, :2], torch.zeros(2))
    torch.testing.assert_close(masked[0, :3], gates(R[:3], b[:3], z[:1])[0])
    torch.testing.assert_close(masked[1, 2:], gates(R[2:], b[2:], z[1:])[0])
    torch.testing.assert_close(masked.sum(-1), torch.ones(2))
    assert spread(torch.tensor([0.1, 0.9]), 2).tolist() == pytest.approx([0.1, 0.1, 0.9, 0.9])


def test_rows_of_a_mixed_batch_equal_batches_of_one():
    model, tokens = adapted_model(), batch(4)
    tasks = [EMBEDDING, GENERATIVE, OTHER_EMBEDDING, GENERATIVE]
    with torch.no_grad():
        with task_context(model, tasks):
            together = model(tokens).logits
        for row, task in enumerate(tasks):
            with task_context(model, task):
                alone = model(tokens[row : row + 1]).logits
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    assert (together[1] - together[3]).abs().max() > 1e-2


def test_rows_of_one_kind_need_no_mask():
    model, tokens = adapted_model(), batch(2)
    with torch.no_grad(), task_context(model, [EMBEDDING, OTHER_EMBEDDING]):
        assert model.routing.current().mask is None
        assert model.routing.current().groups == ("embedding", "shared")
        together = model(tokens).logits
    with torch.no_grad(), task_context(model, OTHER_EMBEDDING):
        torch.testing.assert_close(together[1:], model(tokens[1:]).logits, rtol=1e-4, atol=1e-4)


def test_fresh_adapter_is_the_base():
    tokens = batch()
    model = add_tmole(base_model(), config())
    with torch.no_grad(), task_context(model, EMBEDDING):
        torch.testing.assert_close(model(tokens).logits, base_model()(tokens).logits)


def test_initial_distributions():
    model = add_tmole(base_model(hidden_size=256, num_hidden_layers=1), config(task_dim=256, r=16))
    tensors = model.adapter_tensors()
    for key, tensor in tensors.items():
        if ".A." in key:  # Kaiming uniform with a = sqrt 5 and 256 inputs: U(-1/16, 1/16)
            assert 0.95 / 16 < tensor.abs().max() <= 1 / 16 and abs(tensor.mean()) < 0.002
        elif ".R." in key:
            assert 0.85 < tensor.std() < 1.15
        elif key.startswith("tmole.z."):  # Xavier normal of the table of 3 tasks
            assert tensor.std().item() == pytest.approx((2 / (3 + 256)) ** 0.5, rel=0.2)
        else:
            assert not tensor.any(), key


# --- packed batches: one task a token


def packed(*lengths):
    """A row of sequences one behind the other: which sequence, and which position in it, each token is."""
    numbers = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    positions = torch.cat([torch.arange(n) for n in lengths])
    return numbers[None], positions[None]


def test_packed_tokens_equal_sequences_alone():
    model, tokens = adapted_model(), batch(1, length=12)
    tasks, (numbers, positions) = [GENERATIVE, EMBEDDING, OTHER_EMBEDDING, GENERATIVE], packed(3, 4, 2, 3)
    with torch.no_grad():
        with task_context(model, tasks, numbers):
            # Transformers sees from the positions where a sequence begins, and lets none look into another.
            together = model(tokens, position_ids=positions, use_cache=False).logits
        for number, task in enumerate(tasks):
            own = numbers[0] == number
            with task_context(model, task):
                alone = model(tokens[:, own]).logits
            torch.testing.assert_close(together[:, own], alone, rtol=1e-4, atol=1e-4)


def test_tokens_of_rows_equal_rows_in_outputs_and_gradients():
    tasks, numbers = [EMBEDDING, GENERATIVE, OTHER_EMBEDDING], torch.tensor([[1], [0], [2]], dtype=torch.int32)
    found = []
    for arguments in (([GENERATIVE, EMBEDDING, OTHER_EMBEDDING],), (tasks, numbers.expand(3, 7))):
        model = adapted_model().train()
        with task_context(model, *arguments):
            logits = model(batch()).logits
            logits.square().mean().backward()
        found.append((logits, {key: t.grad for key, t in model.adapter_tensors().items()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert all(gradient.abs().max() > 0 for gradient in found[0][1].values())


@pytest.mark.parametrize(
    ("tasks", "numbers"),
    [
        ([EMBEDDING] * 3, None),
        ([EMBEDDING, EMBEDDING], torch.arange(21).view(3, 7) % 2),
        ([GENERATIVE, EMBEDDING], torch.ones(3, 7, dtype=torch.long)),
    ],
)
def test_a_batch_of_one_task_is_recognised(tasks, numbers):
    model = adapted_model()
    with torch.no_grad():
        with task_context(model, EMBEDDING):
            expected = model(batch()).logits
        with task_context(model, tasks, numbers):
            route = model.routing.current()
            assert (route.tasks, route.index, route.mask) == ((EMBEDDING,), None, None)
            assert torch.equal(model(batch()).logits, expected)


def test_tasks_that_no_token_has_are_not_touched():
    model = adapted_model().train()
    numbers = torch.tensor([[0, 2, 2, 0, 0, 0, 2]]).expand(3, 7)
    with task_context(model, [EMBEDDING, GENERATIVE, OTHER_EMBEDDING], numbers):
        assert model.routing.current().mask is None
        model(batch()).logits.square().mean().backward()
    for key, tensor in model.adapter_tensors().items():
        assert (tensor.grad is None) == key.endswith(("generative", GENERATIVE)), key


def test_wrong_token_tasks_are_named():
    model, tasks, right = adapted_model(), [EMBEDDING, GENERATIVE], torch.arange(21).view(3, 7) % 2
    for numbers, message in (
        (right.float(), "whole numbers of shape"),
        (right.bool(), "not torch.bool"),
        (right[0], r"not torch.int64 of \(7,\)"),
        (right[:, :0], "holds no token"),
        (right + 1, "holds 2, but 2 tasks"),
        (right - 1, "holds -1, but 2 tasks"),
    ):
        with pytest.raises(UsageError, match=message), task_context(model, tasks, numbers):
            pass
    with pytest.raises(UsageError, match="counts a list of tasks"), task_context(model, EMBEDDING, right):
        pass
    for wrong in (batch(3, length=6), batch(2)):
        with (
            pytest.raises(
                UsageError, match=r"3 rows of 7 tokens, but this layer's input has the shape \([23], [67], 32"
            ),
            task_context(model, tasks, right),
        ):
            model(wrong)


# --- tasks of a pass


def test_forward_without_a_task_raises():
    model = adapted_model()
    with pytest.raises(RecfoundError, match="without a task"):
        model(batch())
    with pytest.raises(RecfoundError, match="without a task"):
        model.model(batch())


def test_contexts_nest_and_close():
    model, tokens = adapted_model(), batch()
    with torch.no_grad(), task_context(model, EMBEDDING):
        before = model(tokens).logits
        with task_context(model.model, GENERATIVE):
            inner = model(tokens).logits
        with pytest.raises(ZeroDivisionError), task_context(nn.ModuleList([model]), GENERATIVE):
            _ = 1 / 0
        assert torch.equal(model(tokens).logits, before)
    assert not torch.allclose(before, inner)
    assert model.routing.route is None


def test_wrong_tasks_are_named():
    model = adapted_model()
    with pytest.raises(UnknownTaskError, match=r"did you mean 'query2item'"), task_context(model, "query2itme"):
        pass
    with pytest.raises(UsageError, match=r"names 2 tasks.*\(3, 7, 32\)"), task_context(model, [EMBEDDING, GENERATIVE]):
        model(batch(3))
    with pytest.raises(UsageError, match="empty list"), task_context(model, []):
        pass
    with pytest.raises(UsageError, match="has no TMoLE"), task_context(base_model(), EMBEDDING):
        pass


def test_a_copy_has_tasks_of_its_own():
    model = adapted_model()
    with task_context(model, [EMBEDDING, GENERATIVE, EMBEDDING]):
        twin = copy.deepcopy(model)
        with pytest.raises(RecfoundError, match="without a task"):
            twin(batch())
    with task_context(twin, EMBEDDING):
        twin(batch())
        with pytest.raises(RecfoundError, match="without a task"):
            model(batch())
    with torch.no_grad():
        twin.task_embeddings[EMBEDDING].zero_()
    assert model.task_embeddings[EMBEDDING].abs().max() > 0


# --- training


def test_only_what_a_batch_uses_gets_a_gradient():
    model = adapted_model(experts={"embedding": 1, "shared": 1, "generative": 1}).train()
    with task_context(model, EMBEDDING):
        model(batch()).logits.square().mean().backward()
    for key, tensor in model.adapter_tensors().items():
        used = not key.endswith(("generative", OTHER_EMBEDDING, GENERATIVE))
        assert (tensor.grad is not None) == used, key
        if used:
            assert tensor.grad.abs().max() > 0, key
    assert all(not p.requires_grad and p.grad is None for n, p in model.named_parameters() if "base_layer" in n)


OPTIMIZERS = {
    "adamw": lambda tensors: torch.optim.AdamW(tensors, lr=0.01, weight_decay=0.5),
    "sgd": lambda tensors: torch.optim.SGD(tensors, lr=0.1, momentum=0.9, weight_decay=0.5),
}
GATING = {
    "batch": lambda task: (task,),
    "rows": lambda task: ([task, ANOTHER[task], task],),
    "tokens": lambda task: ([EMBEDDING, task, ANOTHER[task]], torch.arange(21).view(3, 7) % 2 + 1),
}
ANOTHER = {EMBEDDING: OTHER_EMBEDDING, GENERATIVE: "item_profile"}


@pytest.mark.parametrize("gating", list(GATING))
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_optimizer_does_not_move_what_a_batch_does_not_use(optimizer, gating):
    model = adapted_model(tasks=[EMBEDDING, OTHER_EMBEDDING, *ANOTHER.values(), GENERATIVE]).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in model.adapter_tensors().values()}
    steps = OPTIMIZERS[optimizer](trained)
    moved = set()
    for step in range(6):
        # The second kind of step comes when the first has given its experts momentum.
        task = (EMBEDDING, GENERATIVE)[step % 2]
        used = {"shared", "embedding" if task == EMBEDDING else "generative", task}
        used |= {ANOTHER[task]} if gating != "batch" else set()
        before = {key: tensor.detach().clone() for key, tensor in model.adapter_tensors().items()}
        steps.zero_grad()
        with task_context(model, *GATING[gating](task)):
            model(batch(seed=step)).logits.square().mean().backward()
        steps.step()
        for key, tensor in model.adapter_tensors().items():
            assert torch.equal(before[key], tensor) == (key.rsplit(".", 1)[1] not in used), (step, key)
            moved |= {key} if key.rsplit(".", 1)[1] in used else set()
    idle = set(ANOTHER.values()) if gating == "batch" else set()
    assert moved == {key for key in model.adapter_tensors() if key.rsplit(".", 1)[1] not in idle}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(p):
    torch.manual_seed(0)
    noise = dropout_noise((3, 7, 100_001), p, torch.float32)
    assert noise.shape == (3, 7, 100_001)
    values = noise.unique()
    assert values[0] == 0 and values[1].item() == pytest.approx(1 / (1 - p), rel=1e-4) and len(values) == 2
    dropped = (noise == 0).double()
    error = (p * (1 - p) / dropped.numel()) ** 0.5  # of the mean, and about that of a correlation
    assert abs(dropped.mean() - p) < 4 * error
    for apart in (1, 2, 3, 4):  # elements that come from one draw of the generator are independent, too
        row = dropped.flatten() - p
        assert abs((row[apart:] * row[:-apart]).mean()) < 5 * p * (1 - p) / len(row) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(dropout_noise((3, 7, 100_001), p, torch.float32), noise)


def test_dropout_is_that_of_the_input_and_off_in_evaluation():
    model = adapted_model(dropout=0.5)
    layer, x = model.adapted_layers()[0][1], torch.randn(2, 3, 32)
    with torch.no_grad(), task_context(model, EMBEDDING):
        assert torch.equal(layer(x), layer(x))
        torch.manual_seed(1)
        found = layer.train()(x)
        torch.manual_seed(1)
        noise = dropout_noise(x.shape, 0.5, x.dtype)
        layer.eval()
        torch.testing.assert_close(found - layer.base_layer(x), layer(x * noise) - layer.base_layer(x * noise))


# --- a task that comes later


def test_an_added_task_leaves_the_others_as_they_were(tmp_path):
    model, tokens = adapted_model(), batch()
    mixed = [EMBEDDING, GENERATIVE, OTHER_EMBEDDING]

    def outputs(model, *names):
        found = []
        for tasks in names:
            with torch.no_grad(), task_context(model, tasks):
                found.append(model(tokens).logits)
        return found

    first = model.tmole_config.initialization
    before = outputs(model, EMBEDDING, GENERATIVE, mixed)
    model.add_task("item2item")
    model.add_task("rerank", "generative")
    model.add_task("summary", like=GENERATIVE)
    for old, new in zip(before, outputs(model, EMBEDDING, GENERATIVE, mixed), strict=True):
        assert torch.equal(old, new)
    assert model.tmole_config.kinds["item2item"] == "embedding" and model.tmole_config.kinds["summary"] == "generative"
    added = outputs(model, "item2item", "rerank", "summary")
    assert (added[0] - before[0]).abs().max() > 1e-3 and (added[1] - before[1]).abs().max() > 1e-3
    assert torch.equal(added[2], before[1])
    assert model.tmole_config.initialization != first
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_tmole(base_model(), tmp_path / "adapter")
    assert loaded.tmole_config.initialization == model.tmole_config.initialization
    for old, new in zip(added, outputs(loaded, "item2item", "rerank", "summary"), strict=True):
        assert torch.equal(old, new)


def test_an_added_task_is_trained_like_any_other():
    model = adapted_model().train()
    model.add_task("summary", like=GENERATIVE)
    with task_context(model, ["summary", "summary", GENERATIVE]):
        model(batch()).logits.square().mean().backward()
    tensors = model.adapter_tensors()
    assert tensors["tmole.z.summary"].grad.abs().max() > 0
    assert tensors["tmole.z.summary"].data_ptr() != tensors[f"tmole.z.{GENERATIVE}"].data_ptr()
    assert any(tensors["tmole.z.summary"] is parameter for parameter in model.parameters())


def test_added_embeddings_are_drawn_as_the_first_ones():
    model = adapted_model()
    torch.manual_seed(7)
    model.add_task("item2item")
    torch.manual_seed(7)
    assert torch.equal(model.task_embeddings["item2item"], nn.init.xavier_normal_(torch.empty(4, 16))[-1])


def test_initialization_names_the_draws_of_added_tasks_and_their_order():
    def drawn(seed, *names, base_seed=0):
        model = adapted_model(base_seed) if base_seed == 0 else add_tmole(base_model(base_seed), config())
        for name in names:
            torch.manual_seed(seed)
            model.add_task(name, "embedding")
        return model.tmole_config.initialization

    assert drawn(7, "item2item", "mine") == drawn(7, "item2item", "mine")
    others = [("item2item",), ("mine",), ("mine", "item2item"), ("item2item", "mine")]
    assert (
        len({*(drawn(7, *names) for names in others), drawn(7), drawn(8, "mine"), drawn(7, "mine", base_seed=1)}) == 7
    )


def test_tasks_that_cannot_be_added_are_refused_and_nothing_changes():
    model = adapted_model(experts={"embedding": 2, "shared": 0, "generative": 0}, tasks=[EMBEDDING])
    before = copy.deepcopy(model.tmole_config), set(model.adapter_tensors())
    for arguments, error, message in (
        ({"name": EMBEDDING}, ValueError, "there is 'user2item' already"),
        ({"name": "query2itm"}, UnknownTaskError, "did you mean 'query2item'"),
        ({"name": "query2item", "kind": "generative"}, ValueError, "known embedding task"),
        ({"name": "mine", "kind": "ranking"}, ValueError, "kind of 'mine'"),
        ({"name": "my.own", "kind": "embedding"}, ValueError, "letters, digits"),
        ({"name": GENERATIVE}, ValueError, "would see no expert"),
        ({"name": "mine", "like": "user2itme"}, UnknownTaskError, "did you mean 'user2item'"),
        ({"name": "mine", "kind": "embedding", "like": "nothing"}, UnknownTaskError, "unknown task 'nothing'"),
    ):
        with pytest.raises(error, match=message):
            model.add_task(**arguments)
    both = adapted_model()
    with pytest.raises(UsageError, match="'mine' is generative and cannot start from 'user2item'"):
        both.add_task("mine", "generative", like=EMBEDDING)
    assert (model.tmole_config, set(model.adapter_tensors())) == before and "mine" not in both.tmole_config.kinds


def test_adapter_is_float32_on_a_bfloat16_base():
    model = randomize(add_tmole(base_model().to(torch.bfloat16), config())).train()
    assert {tensor.dtype for tensor in model.adapter_tensors().values()} == {torch.float32}
    with task_context(model, [EMBEDDING, GENERATIVE, GENERATIVE]):
        logits = model(batch()).logits
        logits.float().square().mean().backward()
    assert logits.dtype == torch.bfloat16
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in model.adapter_tensors().values())


def test_autocast_agrees_with_float32():
    model, tokens = adapted_model(), batch()
    with task_context(model, EMBEDDING):
        with torch.no_grad():
            exact = model(tokens).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(tokens).logits
            rough.float().square().mean().backward()
    assert nn.functional.cosine_similarity(exact.flatten(), rough.float().flatten(), dim=0) > 0.999
    assert model.adapter_tensors()[f"tmole.z.{EMBEDDING}"].grad.abs().max() > 0


# --- targets


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4, bias=False)

    def forward(self, ids):
        return self.second(torch.relu(self.first(self.embed(ids))))


def test_any_module_with_linear_layers():
    model = randomize(add_tmole(Toy(), config(target_modules="all-linear")))
    assert [name for name, _ in model.adapted_layers()] == ["first", "second"]
    assert model.tmole_config.base_model_name_or_path is None
    ids = torch.randint(0, 10, (4, 3))
    with task_context(model, [EMBEDDING, GENERATIVE, EMBEDDING, GENERATIVE]):
        assert model(ids).shape == (4, 3, 4)
        assert model(ids[:, 0]).shape == (4, 4)


def test_compiled_model_follows_the_task():
    model = randomize(add_tmole(Toy(), config(target_modules="all-linear")))
    compiled, ids = torch.compile(model, backend="eager", fullgraph=True), torch.randint(0, 10, (2, 3))
    found = []
    for tasks in (EMBEDDING, GENERATIVE, [GENERATIVE, EMBEDDING], EMBEDDING):
        with task_context(model, tasks):
            found.append(compiled(ids))
            torch.testing.assert_close(found[-1], model(ids))
    assert torch.equal(found[0], found[3]) and not torch.allclose(found[0], found[1])


def test_refused_targets_leave_the_base_alone():
    for target, message in ((["first", "embed"], "matches embed, a Embedding"), (["thrid"], "thrid.*not found")):
        toy = Toy()
        with pytest.raises((UsageError, ValueError), match=message):
            add_tmole(toy, config(target_modules=target))
        assert isinstance(toy.first, nn.Linear)
    with pytest.raises(UsageError, match="already has an adapter"):
        add_tmole(adapted_model().model, config())


def test_targets_as_peft_matches_them():
    all_linear = add_tmole(base_model(), config(target_modules="all-linear"))
    assert len(all_linear.adapted_layers()) == 2 * 7 and "lm_head" not in dict(all_linear.adapted_layers())
    expression = add_tmole(base_model(), config(target_modules=r".*layers\.1\..*v_proj"))
    assert [name for name, _ in expression.adapted_layers()] == ["model.layers.1.self_attn.v_proj"]


# --- configuration


def test_configuration_refuses_what_cannot_be_meant():
    for wrong, message in (
        ({"tasks": ["user2itme"]}, "'user2itme': did you mean 'user2item'"),
        ({"tasks": []}, "tasks must be"),
        ({"tasks": {"mine": "ranking"}}, "kind of 'mine'"),
        ({"tasks": {"user2item": "generative"}}, "known embedding task"),
        ({"tasks": {"a.b": "generative"}}, "letters, digits"),
        ({"r": 0}, "r must be"),
        ({"dropout": 1.0}, "dropout"),
        ({"max_length": 0}, "max_length"),
        ({"experts": {"shared": 2}}, "experts must give"),
        ({"experts": {"embedding": 2, "shared": 0, "generative": 0}}, "'sentiment_analysis' would see no expert"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"prompts": {"sentiment_analysis": {"query": ""}}}, "not an embedding task"),
        ({"prompts": {"user2item": {"passage": ""}}}, "sides are"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**wrong)


def test_own_tasks_and_catalogue_kinds():
    own = TmoleConfig(tasks={"rerank": "generative", "look_alike": "embedding"})
    assert own.kinds == {"rerank": "generative", "look_alike": "embedding"}
    assert TmoleConfig(tasks=list(TASKS)).kinds == {name: spec.kind for name, spec in TASKS.items()}


def test_configuration_round_trip_is_deterministic(tmp_path):
    settings = {"prompts": {"user2item": {"query": "Kunde: ✓\n"}}, "max_length": 64, "revision": "v1"}
    one = config(target_modules={"v_proj", "q_proj", "k_proj"}, **settings)
    two = config(target_modules=["k_proj", "q_proj", "v_proj"], **settings)
    one.save_pretrained(tmp_path / "one")
    two.save_pretrained(tmp_path / "two")
    text = (tmp_path / "one" / "adapter_config.json").read_bytes()
    assert text == (tmp_path / "two" / "adapter_config.json").read_bytes()
    values = json.loads(text)
    assert values["peft_type"] == "TMOLE" and values["tasks"]["user2item"] == "embedding"
    assert TmoleConfig.from_pretrained(tmp_path / "one") == two


# --- files


def test_save_and_load_round_trip_is_exact_and_deterministic(tmp_path):
    model = adapted_model(target_modules="all-linear")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "one")  # replaces what it wrote
    loaded = load_tmole(base_model(), tmp_path / "one")
    assert not loaded.training
    loaded.save_pretrained(tmp_path / "two")
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    with torch.no_grad(), task_context(model, EMBEDDING), task_context(loaded, EMBEDDING):
        assert torch.equal(model(batch()).logits, loaded(batch()).logits)


def test_loading_leaves_the_random_state_alone(tmp_path):
    adapted_model().save_pretrained(tmp_path / "adapter")
    base = base_model()
    before = torch.get_rng_state()
    load_tmole(base, tmp_path / "adapter")
    assert torch.equal(before, torch.get_rng_state())


def test_keys_hold_no_adapter_name(tmp_path):
    adapted_model().save_pretrained(tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert "tmole.z.user2item" in tensors
    assert tensors["model.layers.0.self_attn.q_proj.tmole.A.embedding"].shape == (8, 32)
    assert not any("default" in key or "base_layer" in key for key in tensors)


def test_initialization_names_the_draw():
    def drawn(seed, **settings):
        base = base_model()
        torch.manual_seed(seed)
        return add_tmole(base, config(**settings)).tmole_config.initialization

    assert drawn(3) == drawn(3) == drawn(3, tasks=["sentiment_analysis", "query2item", "user2item"])
    assert drawn(3) != drawn(4)


def damaged(folder: Path, tmp_path: Path, **edits) -> Path:
    copied = tmp_path / f"damaged-{len(list(tmp_path.iterdir()))}"
    copied.mkdir()
    for file in folder.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    for name, edit in edits.items():
        file = next(copied.glob(f"*{name}*"))
        content = edit(file.read_bytes())
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
    return copied


def test_damaged_adapters_are_refused_with_the_reason(tmp_path):
    adapter = tmp_path / "adapter"
    adapted_model().save_pretrained(adapter)
    for edits, message in (
        ({"config": lambda _: None}, "holds no adapter_config.json"),
        ({"safetensors": lambda _: None}, "holds no adapter_model.safetensors"),
        ({"config": lambda b: b[:40]}, "not valid JSON"),
        ({"config": lambda b: b.replace(b"TMOLE", b"LORA")}, "peft_type is 'LORA'"),
        ({"config": lambda b: b.replace(b'"r":', b'"rank":')}, "unknown keys rank"),
        ({"config": lambda b: b.replace(b'"embedding": 2', b'"embedding": 3')}, "of another shape"),
        ({"config": lambda b: b.replace(b'"query2item"', b'"item2item"')}, "1 missing: tmole.z.item2item"),
        ({"safetensors": lambda b: b[: len(b) // 2]}, "damaged or incomplete"),
        ({"safetensors": lambda b: b"not a tensor in it"}, "damaged or incomplete"),
    ):
        with pytest.raises(RecfoundError, match=message):
            load_tmole(base_model(), damaged(adapter, tmp_path, **edits))
    extra = damaged(adapter, tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({**tensors, "stray": torch.zeros(2)}, extra / "adapter_model.safetensors")
    with pytest.raises(RecfoundError, match="1 unexpected: stray"):
        load_tmole(base_model(), extra)
    with pytest.raises(RecfoundError, match="of another shape"):
        load_tmole(base_model(hidden_size=64), adapter)
    with pytest.raises(RecfoundError, match="missing"):
        load_tmole(base_model().model, adapter)
    with pytest.raises(RecfoundError, match="not fit Toy"):
        load_tmole(Toy(), adapter)
    with pytest.raises(RecfoundError, match="neither a folder on disk nor the id"):
        load_tmole(base_model(), tmp_path / "nothing" / "here")


def test_adapter_from_a_repository(tmp_path, monkeypatch):
    adapted_model().save_pretrained(tmp_path / "adapter")
    asked = []

    def download(repository, filename, revision=None):
        asked.append((repository, filename, revision))
        return str(tmp_path / "adapter" / filename)

    monkeypatch.setattr("recfound_model.folders.hf_hub_download", download)
    load_tmole(base_model(), "acme/adapter", revision="v1.2.0")
    assert asked == [
        ("acme/adapter", "adapter_config.json", "v1.2.0"),
        ("acme/adapter", "adapter_model.safetensors", "v1.2.0"),
    ]


def test_folders_are_written_whole_or_not_at_all(tmp_path):
    model = adapted_model()
    model.save_pretrained(tmp_path / "adapter")
    before = (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    with pytest.raises(ZeroDivisionError), write_folder(tmp_path / "adapter") as folder:
        (folder / "adapter_config.json").write_text("half")
        _ = 1 / 0
    assert (tmp_path / "adapter" / "adapter_config.json").read_bytes() == before
    (tmp_path / "adapter" / "optimizer.pt").write_bytes(b"hours of work")
    with pytest.raises(RecfoundError, match=r"would be replaced.*optimizer\.pt"):
        model.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "optimizer.pt").read_bytes() == b"hours of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(RecfoundError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "file"]


def test_stock_peft_refuses_a_native_adapter(tmp_path):
    adapted_model().save_pretrained(tmp_path / "adapter")
    with pytest.raises(KeyError, match="TMOLE"):
        PeftModel.from_pretrained(base_model(), str(tmp_path / "adapter"))
    readme = (tmp_path / "adapter" / "README.md").read_text()
    assert "recfound model collapse" in readme and "recfound model export" in readme and "query2item" in readme


def test_import_is_quick_and_names_are_not_hidden_by_modules():
    code = (
        "import sys, recfound_model; assert 'torch' not in sys.modules and 'peft' not in sys.modules\n"
        "import types, recfound_model.collapsing\n"
        "for name in recfound_model.__all__:\n"
        "    assert not isinstance(getattr(recfound_model, name), types.ModuleType), name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
