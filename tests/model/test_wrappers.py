"""TMoLE inside of what people put around a model: torch.compile, DDP, FSDP2, a base in four bits."""

import shutil

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist
from tiny_models import adapted_model, base_model, batch, config, randomize
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import TASKS
from recfound_model import add_tmole, load_tmole, task_context

EMBEDDING = [name for name, spec in TASKS.items() if spec.kind == "embedding"]
GENERATIVE = [name for name, spec in TASKS.items() if spec.kind == "generative"]


def step(module, model, tasks, tokens, token_tasks=None, **arguments):
    """Output and gradients of one pass through `module`, which is `model` or a wrapper of it."""
    model.zero_grad()
    with task_context(module, tasks, token_tasks):
        logits = module(tokens, **arguments).logits
        logits.float().square().mean().backward()
    return logits.detach(), gradients(model)


def gradients(model):
    found = {key: t.grad for key, t in model.adapter_tensors().items() if t.grad is not None}
    return {key: (g.full_tensor() if isinstance(g, DTensor) else g).clone() for key, g in found.items()}


def assert_same(found, expected, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=atol)
    assert found[1].keys() == expected[1].keys()
    for key, gradient in expected[1].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=rtol, atol=atol, msg=lambda m, key=key: f"{key}: {m}")


# --- torch.compile


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_and_counted(model, backend):
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    return torch.compile(model, backend=counter, fullgraph=True), counter


def test_thirteen_tasks_share_two_compiled_graphs(fresh_compiler):
    model = adapted_model(tasks=list(TASKS)).train()
    compiled, counter = compiled_and_counted(model, "aot_eager")
    outputs = []
    for task in [*TASKS, *TASKS]:
        found = step(compiled, model, task, batch())
        assert_same(found, step(model, model, task, batch()))
        assert [key for key in found[1] if ".z." in key] == [f"tmole.z.{task}"]
        outputs.append(found[0])
    assert counter.frame_count == 2
    assert torch.equal(outputs[0], outputs[13]) and (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_graphs_are_bounded_by_the_shapes_of_routes(fresh_compiler):
    model, generator = adapted_model(tasks=list(TASKS)).train(), torch.Generator().manual_seed(3)
    compiled, counter = compiled_and_counted(model, "aot_eager")
    for number in (2, 3, 5, 8, 10):  # tasks of a packed batch of one kind: one number compiled as it is, then any
        token_tasks = torch.randint(0, number, (3, 7), generator=generator)
        arguments = (model, GENERATIVE[:number], batch(), token_tasks)
        assert_same(step(compiled, *arguments), step(model, *arguments))
    assert counter.frame_count <= 2
    for tasks in (EMBEDDING[:1] + GENERATIVE[:2], GENERATIVE[2:4] + EMBEDDING[2:], [*GENERATIVE[:2], EMBEDDING[1]]):
        assert_same(step(compiled, model, tasks, batch()), step(model, model, tasks, batch()))
    assert counter.frame_count <= 4


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_inductor_agrees_with_eager(fresh_compiler):
    model = adapted_model(target_modules=["v_proj"]).train()
    layer = model.adapted_layers()[0][1]
    compiled, x = torch.compile(layer, fullgraph=True), torch.randn(3, 7, 32)
    for tasks in ("user2item", "query2item", "sentiment_analysis"):
        with task_context(model, tasks):
            torch.testing.assert_close(compiled(x), layer(x))
            expected = torch.autograd.grad(layer(x).square().sum(), layer.experts.A["shared"])
            found = torch.autograd.grad(compiled(x).square().sum(), layer.experts.A["shared"])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tasks", ["user2item", ["user2item", "query2item", "user2item"]])
def test_compiled_passes_see_optimizer_steps_or_raise(fresh_compiler, tasks):
    model = adapted_model().train()
    compiled, _ = compiled_and_counted(model, "eager")
    optimizer = torch.optim.SGD(model.task_embeddings.parameters(), lr=5.0)
    with task_context(model, tasks):
        before = compiled(batch()).logits
        before.square().mean().backward()
        optimizer.step()
        assert (model(batch()).logits - before).abs().max() > 1e-3  # without the compiler nothing is ever out of date
        if isinstance(tasks, str):
            torch.testing.assert_close(compiled(batch()).logits, model(batch()).logits)
        else:
            with pytest.raises(RecfoundError, match="open task_context anew"):
                compiled(batch()).logits.square().mean().backward()


# --- two processes: each has half of the batch, and gets the gradients of the whole one

# FSDP2 sums the gradients of the parameters that have one, in their order, whatever they are: there, all processes must
# use the same tasks in a pass, or the embedding of one is given the gradient of another.
TASK_EACH = {
    "one task": ["user2item", "user2item"],
    "a task each": ["user2item", "query2item"],
    "a kind each": ["user2item", "sentiment_analysis"],
}
PACKED = ["sentiment_analysis", "user2item", "query2item"]
TOKEN_TASKS = torch.tensor([[0, 0, 1, 1, 2, 2, 2], [1, 1, 1, 0, 0, 2, 2], [0, 1, 2, 0, 1, 2, 0], [2, 2, 2, 2, 2, 0, 1]])


def half(rank, tensor):
    return tensor[2 * rank : 2 * rank + 2]


def run_ddp(rank):
    model = adapted_model().train()
    # Parameters of other tasks and kinds take no part in a pass.
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    return {name: step(wrapped, model, tasks[rank], half(rank, batch(4))) for name, tasks in TASK_EACH.items()}


def model_on(base_dtype):
    return randomize(add_tmole(base_model().to(base_dtype), config())).train()


def run_fsdp(rank, base_dtype):
    model = model_on(base_dtype)
    for layer in model.model.model.layers:
        fully_shard(layer)
    fully_shard(model)  # the task embeddings are parameters of the root
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return {
        "one task": step(model, model, "user2item", half(rank, batch(4))),
        "packed": step(model, model, PACKED, half(rank, batch(4)), half(rank, TOKEN_TASKS)),
    }


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {
        "ddp": run_ddp(rank),
        torch.float32: run_fsdp(rank, torch.float32),
        torch.bfloat16: run_fsdp(rank, torch.bfloat16),
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def assert_halves_of(expected, found, rtol, atol):
    together = torch.cat([output for output, _ in found])
    for _, gradients_of_one in found:
        assert_same((together, gradients_of_one), expected, rtol, atol)


@pytest.mark.parametrize("case", list(TASK_EACH))
def test_ddp_equals_one_process_with_the_doubled_batch(two_processes, case):
    model = adapted_model().train()
    first, second = TASK_EACH[case]
    expected = step(model, model, [first, first, second, second], batch(4))
    # The same names: what no process used has no gradient, what one of them used has one in both.
    assert_halves_of(expected, [results["ddp"][case] for results in two_processes], 1e-4, 1e-6)


@pytest.mark.parametrize("case", ["one task", "packed"])
@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16])
def test_fsdp2_equals_one_process_with_the_doubled_batch(two_processes, base_dtype, case):
    model = model_on(base_dtype)
    arguments = (["user2item"] * 4, batch(4)) if case == "one task" else (PACKED, batch(4), TOKEN_TASKS)
    expected = step(model, model, *arguments)
    assert all(gradient.dtype == torch.float32 for gradient in expected[1].values())
    exact = base_dtype == torch.float32
    assert_halves_of(
        expected, [results[base_dtype][case] for results in two_processes], *((1e-4, 1e-6) if exact else (0.05, 2e-3))
    )


# --- a base in four bits


def test_four_bit_base(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 128}  # whole blocks of 64 in a row
    base_model(**sizes).save_pretrained(tmp_path / "base")

    def quantized():
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        return AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=settings, dtype=torch.float32, device_map="cpu"
        )

    model = randomize(add_tmole(quantized(), config())).train()
    layer = model.adapted_layers()[0][1].base_layer
    assert isinstance(layer, bitsandbytes.nn.Linear4bit) and layer.weight.dtype == torch.uint8
    # The same adapter on a plain base that has the rounded weights.
    rounded, state = base_model(**sizes), {}
    for name, module in quantized().named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = module.weight
            state[f"{name}.weight"] = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    assert state and not rounded.load_state_dict(state, strict=False).unexpected_keys
    plain = randomize(add_tmole(rounded, config())).train()
    plain.load_adapter_tensors(model.adapter_tensors())
    for tasks in ("user2item", ["sentiment_analysis", "query2item", "user2item"]):
        assert_same(step(model, model, tasks, batch()), step(plain, plain, tasks, batch()), 1e-3, 1e-4)
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_tmole(quantized(), tmp_path / "adapter")
    model.eval()  # bitsandbytes computes without gradients otherwise than with them
    with torch.no_grad(), task_context(model, "user2item"), task_context(loaded, "user2item"):
        assert torch.equal(model(batch()).logits, loaded(batch()).logits)
