"""Evaluation: rankings of a dataset, models on one footing, what is written and what is refused."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_split
from recfound_model import collapse
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.evaluate import TaskResult
from recfound_model.evaluation.models import LanguageModel, StockEmbedder, open_model
from recfound_model.evaluation.ranking import load_rankings

EMBEDDING = ("user2item", "query2item", "item2item")
GENERATIVE = "sequential_recommendation"


# --- rankings of a dataset


def known_and_right(dataset: str, task: str, split: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """From the files: the right answers of each query in a split, and its positives in the other splits."""
    queries = set(read_split(Path(dataset), "queries", split).filter(pl.col("task") == task)["query_id"])
    right: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        for query, item, grade in read_split(Path(dataset), "qrels", name).iter_rows():
            if query not in queries or grade == 0:
                continue
            if name != split:
                known.setdefault(query, set()).add(item)
            elif task != "query2item" or grade == 3:
                right.setdefault(query, set()).add(item)
    return known, right


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("task", EMBEDDING)
def test_rankings_hold_the_queries_answers_and_items_of_the_files(dataset, task, split):
    rankings = load_rankings(dataset, task, split)
    known, right = known_and_right(dataset, task, split)
    items = read_split(Path(dataset), "items")
    assert sorted(q for ranking in rankings for q in ranking.query_ids) == sorted(right) != []
    samples = read_split(Path(dataset), task, split)
    for ranking in rankings:
        own = items.filter(pl.col("corpus") == ranking.corpus).sort("item_id")
        assert ranking.item_ids == own["item_id"].to_list() and ranking.items == own["text"].to_list()
        for query, text in zip(ranking.query_ids, ranking.queries, strict=True):
            assert ranking.relevant[query] == right[query]
            assert ranking.known.get(query, set()) == known.get(query, set())
            of_query = samples.filter(pl.col("anchor_id") == query)
            assert text in of_query["anchor"].to_list()
            assert set(of_query["positive_id"]) <= ranking.relevant[query]
    if task == "user2item":
        assert all(known[query] for query in right)  # a history is known


def test_known_items_are_ranked_where_that_is_asked_for(dataset):
    filtered, kept = (
        evaluate("popularity", dataset, tasks=["user2item"], keep_known=keep).results["user2item"].scores
        for keep in (False, True)
    )
    assert filtered["recall@100"].mean() > kept["recall@100"].mean()
    rankings = load_rankings(dataset, "user2item", "test", keep_known=True)
    assert not any(ranking.known for ranking in rankings) and rankings
    with pytest.raises(UsageError, match="goes with the full protocol"):
        evaluate("random", dataset, keep_known=True, protocol="sampled")


def test_gains_are_those_of_the_grades(dataset):
    (ranking,) = load_rankings(dataset, "query2item", "test")
    judged = read_split(Path(dataset), "qrels", "test").filter(pl.col("query_id").is_in(ranking.query_ids))
    rows = {(query, item): grade for query, item, grade in judged.iter_rows() if grade > 0}
    found = {(query, item): gain for query, gains in ranking.graded.items() for item, gain in gains.items()}
    assert found == {key: {3: 1.0, 2: 0.1, 1: 0.01}[grade] for key, grade in rows.items()}
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("task", EMBEDDING)
def test_popularity_counts_training_samples_only(dataset, task):
    train = read_split(Path(dataset), task, "train")["positive_id"].to_list()
    for split in ("validation", "test"):
        counted = 0
        for ranking in load_rankings(dataset, task, split):
            assert ranking.popularity == [train.count(item) for item in ranking.item_ids]
            counted += sum(ranking.popularity)
        assert counted > 0


def test_most_takes_the_first_queries_of_each_corpus(dataset, base):
    for task in ("user2item", "item2item", GENERATIVE):
        whole = evaluate("random", dataset, tasks=[task]).results[task].scores
        part = evaluate("random", dataset, tasks=[task], most=3).results[task].scores
        sizes = {corpus: min(3, len(rows)) for (corpus,), rows in whole.group_by("corpus")}
        assert len(sizes) > 1
        assert {corpus: len(rows) for (corpus,), rows in part.group_by("corpus")} == sizes
        assert set(part["query_id"]) <= set(whole["query_id"])


def test_judgements_that_cannot_be_read_are_not_left_out(dataset, tmp_path):
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    for file in (copy / "data" / "qrels").glob("validation-*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecfoundError, match=r"qrels, \w+: cannot be loaded"):
        load_rankings(str(copy), "item2item", "test")


# --- models


@pytest.fixture(scope="module")
def adapter(run):
    return str(run / "adapter")


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    """The folder with an export a task."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in ("embedder", "generator"):
        assert main(["model", "export", adapter, "--to", kind, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def native(adapter, dataset, tmp_path_factory):
    """The evaluation of the adapter, and its folder."""
    out = tmp_path_factory.mktemp("evaluated") / "native"
    return evaluate(adapter, dataset, out), out


@pytest.mark.parametrize("task", [*EMBEDDING, GENERATIVE])
def test_exported_scores_equal_native_scores(native, exported, dataset, task):
    found = evaluate(str(exported / task), dataset)
    assert list(found.results) == [task]
    ours, theirs = native[0].results[task].scores, found.results[task].scores
    assert ours["query_id"].equals(theirs["query_id"]) and ours["corpus"].equals(theirs["corpus"])
    for name in native[0].results[task].metrics:
        assert (ours[name] - theirs[name]).abs().max() <= 1e-4, name


@pytest.mark.parametrize("task", EMBEDDING)
def test_sampled_negatives_make_a_task_easier_and_exports_equal_the_adapter(native, adapter, exported, dataset, task):
    found = evaluate(adapter, dataset, tasks=[task], protocol="sampled").results[task]
    full = native[0].results[task].scores
    assert found.scores["query_id"].equals(full["query_id"])
    assert found.summary["mrr@20"].value > full["mrr@20"].mean()
    assert found.to_json()["queries_with_fewer_negatives"] == (found.scores["negatives"] < 19).sum()
    other = evaluate(str(exported / task), dataset, tasks=[task], protocol="sampled").results[task]
    for name in found.metrics:
        assert (found.scores[name] - other.scores[name]).abs().max() <= 1e-4


def test_an_untrained_base_is_evaluated_and_a_trained_adapter_differs(native, base, dataset):
    found = evaluate(base, dataset)
    assert set(found.results) == {*EMBEDDING, GENERATIVE} == set(native[0].results)
    for task, result in found.results.items():
        assert len(result.scores) == len(native[0].results[task].scores)
        assert not result.scores.equals(native[0].results[task].scores)


def test_texts_of_a_batch_do_not_see_each_other(adapter, dataset):
    model, tasks = open_model(adapter)
    assert isinstance(model, LanguageModel) and set(tasks) == {*EMBEDDING, GENERATIVE}
    texts = read_split(Path(dataset), "items")["text"].to_list()[:9]
    together = model.encode("user2item", "document", texts)
    alone = torch.cat([model.encode("user2item", "document", [text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(9))
    query, other = model.encode("user2item", "query", texts), model.encode("item2item", "document", texts)
    assert (query - together).abs().max() > 1e-2 and (other - together).abs().max() > 1e-3


def test_texts_are_cut_at_max_length(exported, base, dataset):
    long = "Vintage kettle of two litres with a long spout"
    texts = [long + " red" * 200, long + " blue" * 200]

    def same(model):
        return torch.equal(*model.encode("item2item", "document", texts))

    for source in (str(exported / "item2item"), base):
        for length, cut in ((14, True), (200, False)):
            model, _ = open_model(source, max_length=length)
            assert same(model) == cut, (source, length)
    assert isinstance(open_model(str(exported / "item2item"))[0], StockEmbedder)
    for source in (str(exported / "item2item"), base):
        with pytest.raises(RecfoundError, match="nothing"):
            evaluate(source, dataset, tasks=["item2item"], max_length=3)
    wide, narrow = (evaluate(base, dataset, tasks=["query2item"], max_length=n).results for n in (64, 40))
    assert not wide["query2item"].scores.equals(narrow["query2item"].scores)


# --- what is written


def test_an_evaluation_writes_results_table_and_scores(native):
    evaluation, out = native
    visible = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert visible == ["examples.json", "report.html", "results.json", "results.md", "scores", "work"]
    report = json.loads((out / "results.json").read_text())
    assert report == evaluation.to_json() and report["split"] == "test"
    table = (out / "results.md").read_text()
    for task, result in evaluation.results.items():
        assert pl.read_parquet(out / "scores" / f"{task}.parquet").equals(result.scores)
        written = report["tasks"][task]
        assert (
            written["queries"] == len(result.scores) == sum(len(rows) for _, rows in result.scores.group_by("corpus"))
        )
        assert set(written["corpora"]) == set(result.scores["corpus"])
        for name in result.metrics:
            mean = result.scores[name].mean()
            assert written["metrics"][name]["value"] == pytest.approx(mean)
            assert set(written["domains"]) == set(result.scores["domain"])
            assert f"| {task} | {name} | {len(result.scores)} | {mean:.3f} [" in table
            for corpus, found in written["corpora"].items():
                rows = result.scores.filter(pl.col("corpus") == corpus)
                assert found[name]["value"] == pytest.approx(rows[name].mean())
                assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_the_command_prints_the_table_or_json(dataset, capsys, tmp_path):
    arguments = ["model", "evaluate", "random", "--data", dataset, "--task", "query2item", GENERATIVE, "--most", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("| task | metric | queries | random |")
    assert main([*arguments, "--json", "--out", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(printed["tasks"]) == {"query2item", GENERATIVE}


def test_a_model_does_not_differ_from_itself(native, adapter, dataset, tmp_path):
    evaluate(adapter, dataset, tmp_path / "again", compare=native[1])
    report = json.loads((tmp_path / "again" / "results.json").read_text())
    assert report["compared_with"] == adapter
    for task in report["tasks"].values():
        assert set(task["difference"]) == set(task["metrics"])
        for interval in task["difference"].values():
            assert (interval["value"], interval["low"], interval["high"], interval["p"]) == (0, 0, 0, 1)
            assert interval["wins"] == interval["losses"] == 0


def test_differences_are_paired_by_query(native, dataset, tmp_path):
    evaluation = evaluate("random", dataset, tmp_path / "random", tasks=["user2item"], compare=native[1])
    report = json.loads((tmp_path / "random" / "results.json").read_text())
    found = report["tasks"]["user2item"]["difference"]["mrr@20"]
    ours = evaluation.results["user2item"].scores["mrr@20"].mean()
    theirs = native[0].results["user2item"].scores["mrr@20"].mean()
    assert found["value"] == pytest.approx(ours - theirs) and found["low"] < found["value"] < found["high"]


def test_comparisons_with_other_queries_are_refused(native, dataset, tmp_path, capsys):
    out = tmp_path / "out"

    def refused(words, compare=native[1], **options):
        with pytest.raises(RecfoundError, match=words) as caught:
            evaluate("random", dataset, out, tasks=["user2item"], compare=compare, **options)
        assert not out.exists() and "\n" not in str(caught.value)
        return caught.value

    refused("was evaluated on other queries of user2item", most=5)
    refused("was evaluated on split test, and this is validation", split="validation")
    refused("was evaluated on protocol full, and this is sampled", protocol="sampled")
    refused("is no evaluation with a readable results.json", compare=tmp_path / "nowhere")
    evaluate("random", dataset, tmp_path / "other", tasks=["item2item"], most=2)
    refused("holds no scores of user2item", compare=tmp_path / "other")
    with pytest.raises(UsageError, match="name a folder for them"):
        evaluate("random", dataset, compare=native[1])
    assert main(["model", "evaluate", "random", "--data", dataset, "--compare", str(native[1])]) == 2
    assert capsys.readouterr().err.startswith("recfound: differences to ")


def test_a_folder_that_holds_something_else_is_left_alone_before_any_work(dataset, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    for model in ("random", str(tmp_path / "no such model")):
        with pytest.raises(UsageError, match="holds something else"):
            evaluate(model, dataset, tmp_path, tasks=["query2item"], most=1)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_an_evaluation_replaces_an_earlier_one(dataset, tmp_path):
    evaluate("random", dataset, tmp_path / "out", tasks=["query2item", "item2item"], most=1)
    evaluate("popularity", dataset, tmp_path / "out", tasks=["query2item"], most=1)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["model"] == "popularity"
    assert [path.name for path in (tmp_path / "out" / "scores").iterdir()] == ["query2item.parquet"]


# --- refusals


def test_what_is_no_model_is_refused_in_one_line(adapter, exported, dataset, tmp_path, capsys):
    empty, lora = tmp_path / "empty", tmp_path / "lora"
    empty.mkdir()
    collapse(adapter, "user2item", lora)
    damaged = shutil.copytree(exported / "query2item", tmp_path / "damaged")
    weights = next(damaged.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    for source, words in (
        (str(tmp_path / "nowhere"), "is no adapter, sentence-transformers model or causal language model"),
        (str(empty), "is no adapter, sentence-transformers model or causal language model"),
        (str(lora), "is opened with peft.PeftModel.from_pretrained"),
        (str(damaged), "cannot be loaded"),
    ):
        assert main(["model", "evaluate", source, "--data", dataset]) == 1
        said = capsys.readouterr()
        lines = said.err.strip().splitlines()
        assert said.out == "" and len(lines) == 1 and words in lines[0] and source in lines[0], said.err


def test_a_task_that_model_or_data_lack_is_refused(adapter, exported, dataset, capsys):
    for source, task, words in (
        ("bm25", "query_rewriting", "task 'query_rewriting' is not in"),
        (adapter, "query_rewriting", "task 'query_rewriting' is not in"),
        (str(exported / "user2item"), GENERATIVE, "an embedder cannot do sequential_recommendation"),
    ):
        assert main(["model", "evaluate", source, "--data", dataset, "--task", task]) == 2
        assert words in capsys.readouterr().err


def test_scores_that_are_not_finite_are_refused(base, dataset, tmp_path):
    broken = shutil.copytree(base, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    key = next(name for name in tensors if "layers.0" in name)
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, broken / "model.safetensors")
    for task in ("query2item", GENERATIVE):
        with pytest.raises(RecfoundError, match="its scores are not finite") as caught:
            evaluate(str(broken), dataset, tasks=[task], most=1)
        assert str(broken) in str(caught.value)


@pytest.mark.parametrize("layout", ["router", "adapters"])
def test_every_layout_of_an_export_gives_the_adapter_its_table(native, adapter, dataset, tmp_path, layout):
    for kind in ("embedder", "generator") if layout == "adapters" else ("embedder",):
        out = str(tmp_path / kind)
        assert main(["model", "export", adapter, "--to", kind, "--layout", layout, "--out", out]) == 0
        found = evaluate(out, dataset).results
        assert set(found) == (set(EMBEDDING) if kind == "embedder" else {GENERATIVE})
        for task, result in found.items():
            for name in result.metrics:
                assert (native[0].results[task].scores[name] - result.scores[name]).abs().max() <= 1e-4, (task, name)


def test_results_of_a_corpus_are_those_of_its_queries():
    scores = pl.DataFrame({"query_id": ["a", "b", "c"], "corpus": ["x", "x", "y"], "mrr@20": [1.0, 0.0, 0.25]})
    result = TaskResult("user2item", scores.with_columns(domain=pl.col("corpus")))
    assert result.metrics == ["mrr@20"]
    for only in ("corpus", "domain"):
        assert result.intervals(**{only: "x"})["mrr@20"].value == 0.5
        assert result.intervals(**{only: "y"})["mrr@20"].value == 0.25
