"""The report's page: what it shows is what was measured, it needs nothing else, and no text gets out of its place."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
from recfound_data.layout import read_split
from recfound_data.tasks import TASKS
from recfound_model.evaluation import Evaluation, compare, evaluate, write_comparison
from recfound_model.evaluation.comparing import Comparison
from recfound_model.evaluation.examples import Answer, Example, Examples, extremes
from recfound_model.evaluation.report import comparison_page, evaluation_page
from recfound_model.evaluation.results import TaskResult, read_evaluation

HOSTILE = '<script>alert(1)</script><img src="http://elsewhere.example/x"> & "quoted" \'\'</td></table>'
VOID = {"meta", "img", "br"}


class Parsed(HTMLParser):
    """Tags, their attributes, text, and the rows of tables; tags must close in the order in which they opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def assert_stands_alone(page: Parsed) -> None:
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "form"} & set(names)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        if "href" in attributes:
            assert attributes["href"][0] == "#" and attributes["href"][1:] in anchors
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    style = "".join(page.text[page.text.index(next(text for text in page.text if "box-sizing" in text))])
    assert "url(" not in style and "@import" not in style


def result(task: str, examples: Examples | None = None, **columns: list) -> TaskResult:
    rows = len(next(iter(columns.values())))
    keys = {"query_id": [f"q{at}" for at in range(rows)], "corpus": "c", "domain": "d"}
    return TaskResult(task, pl.DataFrame(keys | columns), examples=examples)


@pytest.fixture(scope="module")
def written(thirteen: Path, tmp_path_factory) -> Path:
    """Evaluations of two baselines on all tasks that they do, the second compared with the first."""
    out = tmp_path_factory.mktemp("reports")
    evaluate("popularity", str(thirteen), out / "popularity")
    evaluate("random", str(thirteen), out / "random", compare=out / "popularity")
    return out


def test_the_page_stands_alone_and_shows_every_value(written):
    page = Parsed((written / "random" / "report.html").read_text(encoding="utf-8"))
    assert_stands_alone(page)
    found = read_evaluation(written / "random")
    report = json.loads((written / "random" / "results.json").read_text())
    cells = [[cell.split()[0] if cell else "" for cell in row[1:]] for row in page.rows]
    headings = [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    for task, one in found.results.items():
        assert task in headings
        for part in (report["tasks"][task], *report["tasks"][task]["corpora"].values()):
            metrics = part.get("metrics", part)
            values = [f"{metrics[name]['value']:.3f}" for name in one.metrics]
            assert [str(part["queries"]), *values] in cells
        lowest, highest = one.summary[one.metrics[0]].low, one.summary[one.metrics[0]].high
        assert any(f"{lowest:.3f} to {highest:.3f}" in cell for row in page.rows for cell in row)
        for name, difference in report["tasks"][task]["difference"].items():
            wanted = [name, f"{difference['value']:+.3f}", f"{difference['p']:.4f}"]
            assert any(row[:3] == wanted for row in cells)


def test_the_same_evaluation_gives_the_same_page(written):
    found = read_evaluation(written / "popularity")
    assert evaluation_page(found) == evaluation_page(read_evaluation(written / "popularity"))


def test_pages_of_parts_have_a_plot_each(written):
    found = read_evaluation(written / "popularity")
    page = Parsed(evaluation_page(found))
    several = [
        task for task, one in found.results.items() if max(one.scores[c].n_unique() for c in ("corpus", "domain")) > 1
    ]
    assert sum(tag == "img" for tag, _ in page.tags) == 1 + len(several) and several


@pytest.mark.parametrize("task", ["user2item", "sequential_recommendation", "sentiment_analysis"])
def test_examples_are_the_extremes_with_their_texts(written, thirteen, task):
    scores = pl.read_parquet(written / "popularity" / "scores" / f"{task}.parquet")
    examples = read_evaluation(written / "popularity").results[task].examples
    ordered = sorted(scores[examples.metric], reverse=True)
    assert [one.score for one in examples.best] == [score for score in ordered[:3] if score > 0]
    assert [one.score for one in examples.worst] == [score for score in ordered[::-1][:3] if score < 1]
    for one in (*examples.best, *examples.worst):
        (row,) = scores.filter(query_id=one.query_id, corpus=one.corpus).iter_rows(named=True)
        assert row[examples.metric] == one.score
        if TASKS[task].kind == "embedding":
            titles = dict(read_split(thirteen, "items").select("item_id", "title").iter_rows())
            assert [answer.text for answer in one.given] == [titles[item] for item in row["ranked"]]
            assert row["ranked"][0] == row["top"] and len(row["ranked"]) == 5
            rights = [place for place, answer in enumerate(one.given, start=1) if answer.right]
            assert all(answer.text in one.right for answer in one.given if answer.right)
            assert (1 / rights[0] if rights else 0) == row["mrr@20"] or (not rights and row["mrr@20"] < 1 / 5)
            (text,) = read_split(thirteen, "queries", "test").filter(query_id=one.query_id)["text"].unique()
            assert one.asked == text
        else:
            sample = read_split(thirteen, task, "test").row(by_predicate=pl.col("id") == one.query_id, named=True)
            assert one.asked == "\n\n".join(message["content"] for message in sample["prompt"])
            assert one.right == [sample["label"]] and one.given == [Answer(row["answer"], bool(one.score))]


def test_sampled_rankings_have_examples_too(thirteen):
    found = evaluate("popularity", str(thirteen), tasks=["user2item"], protocol="sampled").results["user2item"]
    for one in (*found.examples.best, *found.examples.worst):
        (row,) = found.scores.filter(query_id=one.query_id, corpus=one.corpus).iter_rows(named=True)
        assert row["ranked"][0] == row["top"] and len(one.given) == 5 == len(set(row["ranked"]))
    assert found.examples.best[0].given[0].right


def test_extremes_never_overlap_and_do_not_depend_on_the_order():
    scores = result("user2item", **{"mrr@20": [0.5, 1.0, 0.0, 0.25]}).scores
    assert extremes("user2item", scores) == ([1, 0, 3], [2])
    same = result("user2item", **{"mrr@20": [0.5] * 9}).scores
    best, worst = extremes("user2item", same)
    assert len(best) == len(worst) == 3 and not set(best) & set(worst)
    turned = same.reverse()
    assert [turned["query_id"][row] for row in extremes("user2item", turned)[0]] == [
        same["query_id"][row] for row in best
    ]
    assert extremes("user2item", result("user2item", **{"mrr@20": [0.0] * 4}).scores)[0] == []
    assert extremes("user2item", result("user2item", **{"mrr@20": [1.0] * 4}).scores)[1] == []


def test_no_text_gets_out_of_its_place():
    example = Example(HOSTILE, HOSTILE, 0.5, HOSTILE * 30, [HOSTILE], [Answer(HOSTILE, True), Answer("", False)])
    scores = {"rougeL_f1": [0.1, 0.2]}
    one = result("answer_generation", Examples(HOSTILE, [example], [example]), **scores)
    one = TaskResult(one.task, one.scores.with_columns(domain=pl.Series([HOSTILE, "d"])), {}, one.examples)
    page = Parsed(evaluation_page(Evaluation(HOSTILE, HOSTILE, HOSTILE, {one.task: one}, {"fingerprint": HOSTILE})))
    assert_stands_alone(page)
    assert sum(HOSTILE in text for text in page.text) >= 12 and "(nothing)" in "".join(page.text)


def test_examples_survive_their_file():
    examples = Examples("mrr@20", [Example("q", "c", 0.5, "a", ["b"], [Answer("b", True), Answer("x")])], [])
    assert Examples.from_json(json.loads(json.dumps(examples.to_json()))) == examples


def test_an_evaluation_without_examples_is_one_too(written, tmp_path):
    shutil.copytree(written / "popularity", tmp_path / "bare")
    (tmp_path / "bare" / "examples.json").unlink()
    found = read_evaluation(tmp_path / "bare")
    assert all(one.examples is None for one in found.results.values())
    assert "Best predictions" not in evaluation_page(found)
    (tmp_path / "bare" / "examples.json").write_text('{"user2item": {"best": 1}}')
    with pytest.raises(RecfoundError, match="is no evaluation"):
        read_evaluation(tmp_path / "bare")


def test_a_comparison_is_written_with_its_page(written, tmp_path, capsys):
    out = tmp_path / "both"
    folders = [str(written / name) for name in ("popularity", "random")]
    assert main(["model", "compare", *folders, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.json", "comparison.md", "report.html"}
    comparison = compare(folders)
    assert (out / "comparison.md").read_text() == f"{comparison}\n" == capsys.readouterr().out
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(comparison.to_json()))
    page = Parsed((out / "report.html").read_text())
    assert_stands_alone(page)
    for group, ranks in comparison.ranks.items():
        assert [group, *(f"{rank:.2f}" for rank in ranks.values())] in page.rows
    for task, found in comparison.differences["random"].items():
        for metric, one in found.items():
            assert any(row[:2] == [task, metric] and row[3] == f"{one.p:.4f}" for row in page.rows)
    (out / "mine").touch()
    with pytest.raises(RecfoundError, match="mine"):
        write_comparison(comparison, out)


def test_models_of_different_tasks_and_metrics_share_a_page(written):
    first = Evaluation("first", "d", "test", {"answer_generation": result("answer_generation", rougeL_f1=[0.25, 0.5])})
    both = result("answer_generation", rougeL_f1=[0.5, 0.5], bertscore_f1=[0.9, 0.9])
    more = result("user2item", **{"mrr@20": [1.0, 1.0]})
    second = Evaluation("second", "d", "test", {"answer_generation": both, "user2item": more})
    page = Parsed(comparison_page(Comparison({"first": first, "second": second}, {}, {"second": {}})))
    glance = [row for row in page.rows if row[0] in ("user2item", "answer_generation")]
    assert [row[:2] for row in glance[:2]] == [["user2item", "mrr@20"], ["answer_generation", "rougeL_f1"]]
    assert glance[0][3] == "–" and glance[1][3].startswith("0.375")
