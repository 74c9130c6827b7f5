"""Evaluations beside each other: paired by query, ranked by task."""

import json

import polars as pl
import pytest

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks import TASKS
from recfound_model.evaluation import Evaluation, compare, evaluate
from recfound_model.evaluation.comparing import average_ranks, differences, ranked_by
from recfound_model.evaluation.results import TaskResult, read_evaluation


def result(task, values, metric="mrr@20", **more):
    ids = [f"q{at}" for at in range(len(values))]
    return TaskResult(task, pl.DataFrame({"query_id": ids, "corpus": "c", "domain": "d", metric: values, **more}))


def evaluation(name, **means):
    results = {task: result(task, [mean] * 3, TASKS[task].metric) for task, mean in means.items()}
    return Evaluation(name, "data", "test", results)


def test_differences_are_paired_by_query_whatever_the_order():
    ours = result("user2item", [1.0, 0.5, 0.0, 0.25])
    turned = result("user2item", [0.9, 0.4, 0.1, 0.2]).scores.reverse()
    found = differences(ours, TaskResult("user2item", turned))["mrr@20"]
    assert found.value == pytest.approx(0.0375) and (found.wins, found.ties, found.losses) == (3, 0, 1)
    with pytest.raises(RecfoundError, match="other queries of user2item"):
        differences(ours, TaskResult("user2item", turned.head(3)))


def test_f1_is_compared_by_its_own_value_and_won_by_answers():
    def labelled(answers):
        right = ["yes", "yes", "no", "no", "no"]
        hits = [float(a == b) for a, b in zip(answers, right, strict=True)]
        return result("product_matching", hits, "accuracy", label=right, answer=answers)

    found = differences(labelled(["yes", "yes", "no", "yes", "no"]), labelled(["yes", "no", "no", "no", "no"]))
    assert found["f1_yes"].value == pytest.approx(4 / 5 - 2 / 3)
    assert (found["f1_yes"].wins, found["f1_yes"].ties, found["f1_yes"].losses) == (1, 3, 1)


def test_ranks_are_averaged_over_the_tasks_that_all_have():
    found = average_ranks(
        {
            "a": evaluation("a", user2item=0.5, query2item=0.9, item2item=0.3, sequential_recommendation=0.2),
            "b": evaluation("b", user2item=0.6, query2item=0.8, item2item=0.3, sequential_recommendation=0.1),
            "c": evaluation("c", user2item=0.1, query2item=0.7, sequential_recommendation=0.2),
        }
    )
    assert found["embedding"] == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert found["generative"] == {"a": 1.5, "b": 3.0, "c": 1.5}
    assert found["all"] == pytest.approx({"a": 1.5, "b": 2.0, "c": 2.5})


def test_free_text_is_ranked_by_rouge_where_not_all_have_bertscore():
    both = result("answer_generation", [0.5], "rougeL_f1", bertscore_f1=[0.5])
    assert ranked_by([both, both]) == "bertscore_f1"
    assert ranked_by([both, result("answer_generation", [0.5], "rougeL_f1")]) == "rougeL_f1"


@pytest.fixture(scope="module")
def folders(dataset, tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    for name in ("random", "popularity", "cooccurrence"):
        evaluate(name, dataset, root / name)
    return root


def test_the_command_compares_many_folders(folders, capsys):
    names = ["popularity", "random", "cooccurrence"]
    assert main(["model", "compare", *(str(folders / name) for name in names)]) == 0
    said = capsys.readouterr().out
    assert "| task | metric | queries | popularity | random | cooccurrence |" in said
    assert "| embedding |" in said and "popularity less each other" in said
    assert main(["model", "compare", "--json", *(str(folders / name) for name in names)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["first"] == "popularity" and set(report["differences"]) == {"random", "cooccurrence"}
    ours, theirs = (read_evaluation(folders / name).results["user2item"].scores["mrr@20"] for name in names[:2])
    found = report["differences"]["random"]["user2item"]["mrr@20"]
    assert found["value"] == pytest.approx(ours.mean() - theirs.mean())
    assert found["wins"] == (ours > theirs).sum() and found["losses"] == (ours < theirs).sum()
    assert set(report["differences"]["cooccurrence"]) == {"user2item", "item2item", "sequential_recommendation"}
    assert report["average_ranks"]["all"]["cooccurrence"] < report["average_ranks"]["all"]["random"]


def test_what_is_read_back_is_what_was_written(folders):
    found = read_evaluation(folders / "popularity")
    report = json.loads((folders / "popularity" / "results.json").read_text())
    assert {task: one.summary for task, one in found.results.items()}.keys() == report["tasks"].keys()
    for task, one in found.results.items():
        assert one.summary["mrr@20" if "2item" in task else "recall@1"].value == pytest.approx(
            report["tasks"][task]["metrics"]["mrr@20" if "2item" in task else "recall@1"]["value"]
        )


def test_what_cannot_be_compared_is_refused(folders, dataset, tmp_path):
    with pytest.raises(UsageError, match="two evaluations or more"):
        compare([folders / "random"])
    with pytest.raises(UsageError, match="named twice"):
        compare([folders / "random", folders / "random"])
    with pytest.raises(RecfoundError, match="is no evaluation with a readable"):
        compare([folders / "random", tmp_path])
    evaluate("random", dataset, tmp_path / "sampled", tasks=["user2item"], protocol="sampled")
    with pytest.raises(RecfoundError, match="was evaluated on protocol sampled, and this is full"):
        compare([folders / "random", tmp_path / "sampled"])
    evaluate("random", dataset, tmp_path / "seeded", tasks=["user2item"], protocol="sampled", seed=1)
    with pytest.raises(RecfoundError, match="was evaluated on seed 1, and this is 0"):
        compare([tmp_path / "sampled", tmp_path / "seeded"])
    evaluate("random", dataset, tmp_path / "fewer", tasks=["user2item"], most=2)
    with pytest.raises(RecfoundError, match="fewer: was evaluated on other queries of user2item"):
        compare([folders / "random", tmp_path / "fewer"])
