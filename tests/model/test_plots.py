"""Plots of a run show what its files say, for any tasks and steps; their mathematics against slow loops."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from tiny_models import adapted_model

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks.catalogue import TASKS
from recfound_model.adapter_files import embedding_key, open_adapter
from recfound_model.plots import (
    PLOTS,
    gate_similarity,
    plot_run,
    plot_style,
    running_median,
    spread_labels,
    windowed_shares,
)
from recfound_model.routing import GROUPS, gates, live_groups
from recfound_model.run_history import RunHistory, adapter_gates, read_history, read_metrics

PNG = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB\x60\x82"
OWN = {"a_task": "generative", "another_task_of_my_own_with_a_long_name": "generative", "third": "generative"}
PAIRS = {"pairs_of_my_own": "embedding"}
KNOWN = {task: spec.kind for task, spec in TASKS.items()}
ALL = dict(sorted((KNOWN | PAIRS | OWN).items(), key=lambda item: item[1]))


def records(tasks: list[str], steps: int, every: int = 5) -> list[dict]:
    """Metrics in which losses fall noisily and each task misses some steps; validation `every` few steps."""
    rng = np.random.default_rng(0)
    found = []
    for step in range(1, steps + 1):
        there = [task for place, task in enumerate(tasks) if step == 1 or (step + place) % 3]
        losses = {task: float(5 * math.exp(-step / steps) + rng.normal(0, 0.2)) for task in there}
        found.append({"step": step, "losses": losses, "samples": dict.fromkeys(there, 1)})
        found[-1]["samples"] |= dict.fromkeys(there[-1:], 90)  # the others crowd
        if step % every == 0:
            found[-1]["validation"] = dict.fromkeys(tasks, 4.0 - step / steps)
    return found


def write(run: Path, lines: list[dict], **scheduler: object) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if scheduler:
        keys = {"base": "b", "data": "d", "out": "o", "steps": len(lines), "scheduler": scheduler}
        (run / "recipe.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    return run


def drawn(name: str, history: RunHistory) -> Figure:
    with plot_style():
        figure = PLOTS[name](history)
        FigureCanvasAgg(figure).draw()
        return figure


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all tasks and one of somebody's own, with groups of three sizes."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    adapted_model(tasks=dict(reversed(ALL.items())), experts=dict(zip(GROUPS, (3, 1, 2), strict=True))).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def run(tmp_path: Path, adapter: Path) -> Path:
    run = write(tmp_path / "run", records(list(ALL), 30), kind="s2sched", warmup=0.33)
    (run / "adapter").symlink_to(adapter)
    return run


def test_similarity_is_the_mean_cosine_of_a_slow_loop() -> None:
    g = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(0))
    g[:, 0, 3:], g[:, 1, :3] = 0, 0
    found = gate_similarity(g)
    for one in range(4):
        for two in range(4):
            cosines = []
            for layer in range(5):
                a, b = g[layer, one].tolist(), g[layer, two].tolist()
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                cosines.append(dot / math.hypot(*a) / math.hypot(*b))
            assert float(found[one, two]) == pytest.approx(sum(cosines) / 5, abs=1e-6)
    assert found[0, 1] == 0


def test_gates_of_an_adapter_are_those_of_each_layer_and_task(adapter: Path) -> None:
    with open_adapter(adapter) as reader:
        tasks = list(ALL)
        values = adapter_gates(reader, tasks)
        assert values.shape == (len(reader.modules), len(tasks), 6)
        for layer, module in enumerate(reader.modules):
            for place, task in enumerate(tasks):
                live = reader.factors(module, live_groups([ALL[task]], reader.config.experts))
                own = gates(live.R, live.b, reader.tensor(embedding_key(task))[None])[0]
                at = slice(0, 4) if ALL[task] == "embedding" else slice(3, 6)
                torch.testing.assert_close(values[layer, place, at], own)
                assert values[layer, place].count_nonzero() == len(own)


def test_running_median_and_windowed_shares_are_those_of_slow_loops() -> None:
    rng = np.random.default_rng(1)
    values, counts = rng.normal(size=17), rng.integers(0, 5, size=(17, 3)).astype(float)
    medians, shares = running_median(values, 5), windowed_shares(counts, 5)
    for at in range(17):
        near = [other for other in range(17) if abs(other - at) <= 2]
        ranked = sorted(values[near])
        middle = (ranked[(len(near) - 1) // 2] + ranked[len(near) // 2]) / 2
        assert medians[at] == pytest.approx(middle)
        total = sum(counts[other, task] for other in near for task in range(3))
        for task in range(3):
            assert shares[at, task] == pytest.approx(sum(counts[other, task] for other in near) / total)


def test_shares_without_a_sample_are_nan_without_a_warning() -> None:
    with np.errstate(all="raise"):
        shares = windowed_shares(np.array([[1.0, 3], [0, 0], [0, 0], [0, 0], [2, 2]]), 3)
    assert np.isnan(shares).all(1).tolist() == [False, False, True, False, False]
    assert shares[0].tolist() == [0.25, 0.75]


def test_labels_that_have_room_stay_and_others_are_moved_apart() -> None:
    assert spread_labels(np.array([0.1, 0.5, 0.9]), 0.2).tolist() == [0.1, 0.5, 0.9]
    crowded = np.array([0.0, 0.01, 0.5, 0.97, 0.98, 0.99])
    found = spread_labels(crowded, 0.1)
    assert (np.diff(found) >= 0.1 - 1e-9).all() and found.min() >= 0 and found.max() <= 1
    assert found[2] == 0.5


def test_all_three_are_written_and_are_the_same_bytes_whatever_a_user_set(run: Path) -> None:
    paths = plot_run(run)
    assert paths == [run / "plots" / f"{name}.png" for name in ("losses", "shares", "gates")]
    first = [path.read_bytes() for path in paths]
    assert all(data.startswith(PNG) and data.endswith(END) for data in first)
    assert not any(b"matplotlib" in data.lower() or b"tIME" in data for data in first)
    with rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 300}):
        assert [path.read_bytes() for path in plot_run(run)] == first
        assert matplotlib.rcParams["font.size"] == 30
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["gates.png", "losses.png", "shares.png"]


def test_every_task_has_a_panel_with_its_own_losses(run: Path) -> None:
    history = read_history(run)
    assert list(history.kinds.items()) == list(ALL.items())
    figure = drawn("losses", history)
    panels = {axes.get_title(loc="left").strip(): axes for axes in figure.axes if axes.get_visible()}
    assert [title.rstrip("…") for title in panels] == [task[: 27 - (len(task) > 27)] for task in ALL]
    for task, axes in zip(ALL, panels.values(), strict=True):
        measured = [(line["step"], line["losses"][task]) for line in records(list(ALL), 30) if task in line["losses"]]
        raw, smooth, validation, probe = axes.lines
        np.testing.assert_allclose(np.transpose(raw.get_data()), measured)
        assert smooth.get_ydata()[0] == pytest.approx(np.median([loss for _, loss in measured[:3]]))
        assert validation.get_xdata().tolist() == [5, 10, 15, 20, 25, 30]
        assert len(probe.get_xdata()) == 0
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["training, each step", "running median, first → last", "validation"]


def test_shares_are_inside_their_kind_and_stop_at_the_end_of_the_warm_up(tmp_path: Path) -> None:
    def samples(step: int) -> dict[str, int]:
        moved = step > 4
        return {"user2item": 1 if moved else 3, "item2item": 3 if moved else 1, "user_profile": 7}

    lines = [{"step": s, "losses": dict.fromkeys(samples(s), 1.0), "samples": samples(s)} for s in range(1, 13)]
    run = write(tmp_path / "run", lines, kind="s2sched", warmup=0.3)
    embedding, generative = drawn("shares", read_history(run)).axes
    said = [text.get_text() for text in embedding.texts]
    # Smoothing across the end of the warm-up would show steps 5 and 6 between both: bands meet at 2 heights alone.
    assert said == ["item2item  25 → 75 %", "user2item  75 → 25 %"]
    heights = {round(float(y), 3) for band in embedding.collections for x, y in band.get_paths()[0].vertices}
    assert heights == {0, 25, 75, 100}
    assert embedding.lines[0].get_xdata()[0] == 4.5
    assert [text.get_text() for text in generative.texts] == ["user_profile  100 → 100 %"]
    write(run, lines, kind="uniform")
    assert not drawn("shares", read_history(run)).axes[0].lines


def test_gates_are_ordered_by_kind_and_mask_is_blank(run: Path) -> None:
    history = read_history(run)
    left, right = drawn("gates", history).axes
    names = [label.get_text().split(" · ")[0] for label in left.get_yticklabels()]
    assert [name.rstrip("…") for name in names] == [task[:31] for task in ALL]
    assert [label.get_text() for label in right.get_xticklabels()] == [
        "embedding 1", "embedding 2", "embedding 3", "shared 1", "generative 1", "generative 2",
    ]  # fmt: skip
    short = [label.get_text() for label in left.get_xticklabels()]
    assert short[:5] == ["U2I", "Q2I", "I2I", "pairs_of_my_…", "QR"] and short[-1] == "third"
    upright = [[line.get_xdata()[0] for line in axes.lines if line.get_ydata()[0] == 0] for axes in (left, right)]
    assert upright == [[3.5], [2.5, 3.5]]
    cells = {text.get_position(): text.get_text() for text in right.texts}
    for row, kind in enumerate(ALL.values()):
        blank = [column for column in range(6) if cells[column, row] == "–"]
        assert blank == ([4, 5] if kind == "embedding" else [0, 1, 2])
    similar = {text.get_position(): text.get_text() for text in left.texts}
    assert all(similar[at, at] == "1.00" for at in range(len(ALL)))
    assert similar[0, 5] == f"{float(gate_similarity(history.gates.values)[5, 0]):.2f}"


@pytest.mark.parametrize("name", ["losses", "shares", "gates"])
def test_no_text_lies_over_another_or_outside_of_the_picture(run: Path, name: str) -> None:
    figure = drawn(name, read_history(run))
    ticks = {
        label: low <= label.get_position()[side] <= high
        for axes in figure.axes
        for side, labels, (low, high) in (
            (0, axes.get_xticklabels(), sorted(axes.get_xlim())),
            (1, axes.get_yticklabels(), sorted(axes.get_ylim())),
        )
        for label in labels
    }
    boxes = []
    for text in figure.findobj(Text):
        there = text.get_visible() and ticks.get(text, True) and (text.axes is None or text.axes.get_visible())
        if there and text.get_text().strip():
            box = Text.get_window_extent(text)  # of an annotation without its arrow
            if text.get_text().startswith("\n"):
                box = Bbox.from_extents(box.x0, box.y0, box.x1, (box.y0 + box.y1) / 2)
            boxes.append((text.get_text(), box))
    assert len(boxes) > 14
    whole = figure.bbox
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1, text
    for (one, a), (two, b) in combinations(boxes, 2):
        assert not a.shrunk(0.9, 0.8).overlaps(b.shrunk(0.9, 0.8)), (one, two)


@pytest.mark.parametrize(
    "tasks", [["item_profile"], ["query2item"], [t for t, k in ALL.items() if k == "embedding"], ["mine"]]
)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_few_tasks_and_few_steps_are_drawn(tmp_path: Path, tasks: list[str], steps: int) -> None:
    run = write(tmp_path / "run", records(tasks, steps))
    with np.errstate(all="raise"):
        assert [path.name for path in plot_run(run)] == ["losses.png", "shares.png"]


def test_a_task_that_is_only_validated_and_a_probe_are_shown(tmp_path: Path) -> None:
    lines = [{"step": 1, "losses": {"user2item": 1.0}, "samples": {"user2item": 1}, "probe": {"item2item": 2.0}}]
    figure = drawn("losses", read_history(write(tmp_path / "run", lines)))
    panels = {axes.get_title(loc="left").strip(): axes for axes in figure.axes if axes.get_visible()}
    assert panels["item2item"].lines[-1].get_ydata().tolist() == [2.0]
    assert figure.legends[0].get_texts()[-1].get_text() == "probe"


def test_spans_of_items_are_drawn_with_the_embedding_tasks_whose_batch_they_share(tmp_path: Path) -> None:
    run = write(tmp_path / "run", records(["item_spans", "item_profile", "query2item"], 9))
    history = read_history(run)
    assert history.of_kind("embedding") == ["query2item", "item_spans"]
    assert len(drawn("shares", history).axes) == 2


def test_steps_without_a_sample_of_a_kind_leave_a_gap(tmp_path: Path) -> None:
    lines = records(["user2item", "item_profile"], 40)
    for line in lines[10:30]:
        line["samples"].pop("user2item", None)
    figure = drawn("shares", read_history(write(tmp_path / "run", lines)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["user2item  100 → 100 %"]
    assert len(figure.axes[0].collections[0].get_paths()) == 2


def test_without_an_adapter_gates_are_left_out_and_an_old_picture_goes(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    plot_run(run)
    (run / "plots" / "mine.png").write_bytes(PNG)
    capsys.readouterr()
    (run / "adapter").unlink()
    assert [path.name for path in plot_run(run)] == ["losses.png", "shares.png"]
    assert "gates.png is left out" in capsys.readouterr().err
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["losses.png", "mine.png", "shares.png"]


def test_gates_of_a_run_in_progress_are_those_of_its_last_checkpoint(run: Path, adapter: Path) -> None:
    (run / "adapter").unlink()
    (run / "checkpoints").mkdir()
    for name in ("step-000020", "step-1000000", "step-999999", ".step-2000000.partial-1"):
        (run / "checkpoints" / name).symlink_to(adapter)
    (run / "checkpoints" / "step-3000000").mkdir()
    assert read_history(run).gates.source == "step-1000000"
    (run / "adapter").symlink_to(adapter)
    assert read_history(run).gates.source == "adapter"


def test_half_a_line_at_the_end_is_no_step_yet(tmp_path: Path) -> None:
    run = write(tmp_path / "run", records(["user2item"], 4))
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 5, "los')
    assert [record.step for record in read_metrics(path)] == [1, 2, 3, 4]


GOOD = '{"step": 1, "losses": {"user2item": 1.0}, "samples": {"user2item": 2}}'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, '{"step": 2, "los'], r"line 2: Invalid JSON"),
        ([GOOD, ""], r"line 2: Invalid JSON"),
        (['{"step": 1, "losses": {}}'], r"line 1: samples: Field required"),
        ([GOOD, GOOD.replace('"step": 1', '"step": 2').replace("1.0", "NaN")], r"line 2: losses\.user2item: .*finite"),
        ([GOOD, GOOD.replace('"step": 1', '"step": 2').replace("2}", "-2}")], r"line 2: samples\.user2item: .*0"),
        ([GOOD, GOOD], r"line 2: step 1 comes after step 1"),
        (["[]"], r"line 1: Input should be an object"),
        ([], r"no step is finished yet"),
        (['{"step": 1, "losses": {}, "samples": {}}'], r"no step is finished yet"),
    ],
)
def test_broken_metrics_are_one_clear_line(tmp_path: Path, lines: list[str], said: str) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with pytest.raises(RecfoundError, match=said) as caught:
        plot_run(tmp_path)
    assert "\n" not in str(caught.value) and "metrics.jsonl" in str(caught.value)
    assert not (tmp_path / "plots").exists()


def test_what_is_no_run_or_has_a_damaged_adapter_or_recipe_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecfoundError, match=r"nowhere: is no training run: it has no metrics\.jsonl"):
        plot_run(tmp_path / "nowhere")
    (run / "recipe.yaml").write_text("steps: [", encoding="utf-8")
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        plot_run(run)
    (run / "recipe.yaml").unlink()
    (run / "adapter").unlink()
    (run / "adapter").mkdir()
    with pytest.raises(RecfoundError, match="adapter holds no adapter_config"):
        plot_run(run)
    assert not (run / "plots").exists()


def test_a_picture_that_cannot_be_written_leaves_the_one_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in plot_run(run)}
    whole = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        whole(self, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RecfoundError, match="plots: cannot be written: No space left on device"):
        plot_run(run)
    assert {path: path.read_bytes() for path in (run / "plots").iterdir()} == before
