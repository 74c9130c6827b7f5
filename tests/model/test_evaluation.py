"""Evaluation: metrics as they are defined, rankings without what is known, exported = native."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_split
from recfound_data.samples import LETTERS
from recfound_model import collapse, load_tmole, task_context
from recfound_model.bases import load_base
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.evaluate import TaskResult
from recfound_model.evaluation.intervals import bootstrap, paired_difference
from recfound_model.evaluation.models import LanguageModel, StockEmbedder, open_model
from recfound_model.evaluation.ranking import METRICS, CatalogueRanking, load_rankings, rank_by_scores
from recfound_model.templates import completion_ids, render_prompt

EMBEDDING = ("user2item", "query2item", "item2item")
GENERATIVE = "sequential_recommendation"


# --- metrics


def slow_metrics(order: list[str], relevant: set[str]) -> dict[str, float]:
    """The definitions, for a whole ranking, best first."""
    ranks = [rank for rank, item in enumerate(order, start=1) if item in relevant]
    first = min(ranks, default=math.inf)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), 20) + 1))
    return {
        "mrr@20": 1 / first if first <= 20 else 0.0,
        "ndcg@20": sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 20) / ideal,
        "recall@100": sum(rank <= 100 for rank in ranks) / len(relevant),
    }


def slow_ranking(ranking: CatalogueRanking, query: str, scores: list[float]) -> list[str]:
    """All items but those that are left out, by score; of equal scores the first by id."""
    left_out = (ranking.known.get(query, set()) - ranking.relevant[query]) | {query}
    pairs = [(-score, item) for score, item in zip(scores, ranking.item_ids, strict=True) if item not in left_out]
    return [item for _, item in sorted(pairs)]


def catalogue(items: int, seed: int) -> CatalogueRanking:
    """Thirty queries, some of them items themselves, with 1 to 25 right answers and up to 40 known ones."""
    draw = np.random.default_rng(seed)
    names = [f"shop/{number:04d}" for number in range(items)]
    queries = [*(f"user{number:02d}" for number in range(20)), *names[:10]]
    relevant, known = {}, {}
    for query in queries:
        others = [name for name in names if name != query]
        drawn = [str(name) for name in draw.choice(others, draw.integers(26, 66) if items > 66 else 4, replace=False)]
        right = draw.integers(1, 26 if items > 66 else 3)
        relevant[query], known[query] = set(drawn[:right]), set(drawn[right // 2 :])
    return CatalogueRanking("t", "c", queries, queries, names, names, relevant, known, [0] * items)


@pytest.mark.parametrize("levels", [None, 50, 4, 1], ids=["no ties", "some ties", "many ties", "all equal"])
@pytest.mark.parametrize("items", [300, 101, 100, 7])
def test_metrics_equal_their_definitions_also_on_ties(items, levels):
    ranking = catalogue(items, seed=items)
    draw = torch.Generator().manual_seed(items)
    scores = torch.rand(len(ranking.queries), items, generator=draw)
    if levels:
        scores = (scores * levels).floor()
    before = scores.clone()
    found = rank_by_scores(ranking, scores)
    assert torch.equal(scores, before)
    assert found["query_id"].to_list() == ranking.query_ids and set(found["corpus"]) == {"c"}
    for at, query in enumerate(ranking.query_ids):
        order = slow_ranking(ranking, query, scores[at].tolist())
        expected = slow_metrics(order, ranking.relevant[query])
        assert {name: found[name][at] for name in METRICS} == pytest.approx(expected, abs=1e-9), query
    if items == 300:
        assert found["mrr@20"].n_unique() > 1


def test_a_part_of_the_queries_is_scored_as_in_the_whole():
    ranking = catalogue(300, seed=1)
    scores = torch.rand(30, 300, generator=torch.Generator().manual_seed(2))
    whole = rank_by_scores(ranking, scores)
    parts = [rank_by_scores(ranking, scores[at : at + 11], at) for at in range(0, 30, 11)]
    assert pl.concat(parts).equals(whole)


def test_known_items_and_the_anchor_are_never_ranked():
    ranking = catalogue(300, seed=3)
    low = torch.rand(30, 300, generator=torch.Generator().manual_seed(4))
    high = low.clone()
    for at, query in enumerate(ranking.query_ids):
        for item in ranking.known[query] | {query}:
            if item in ranking.item_ids and item not in ranking.relevant[query]:
                high[at, ranking.item_ids.index(item)] += 10
    assert (high != low).any(dim=1).all()
    assert rank_by_scores(ranking, high).equals(rank_by_scores(ranking, low))


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


# --- baselines


def test_random_is_near_its_expectation(dataset):
    tasks = ["item2item", GENERATIVE]
    means = {"mrr@20": [], "recall@100": [], "recall@1": []}
    for seed in range(6):
        results = evaluate("random", dataset, tasks=tasks, seed=seed).results
        for name, values in means.items():
            values += (results[GENERATIVE] if name == "recall@1" else results["item2item"]).scores[name].to_list()
    expected = {"mrr@20": [], "recall@100": []}
    for ranking in load_rankings(dataset, "item2item", "test"):
        for query in ranking.query_ids:
            candidates = slow_ranking(ranking, query, [0.0] * len(ranking.item_ids))
            right = len(ranking.relevant[query])
            expected["recall@100"].append(min(1, 100 / len(candidates)))
            # P(first right answer at rank r) for answers drawn without replacement.
            none, mean = 1.0, 0.0
            for rank in range(1, min(20, len(candidates)) + 1):
                hit = none * right / (len(candidates) - rank + 1)
                none, mean = none - hit, mean + hit / rank
            expected["mrr@20"].append(mean)
    for name in ("mrr@20", "recall@100"):
        spread = np.std(means[name]) / len(means[name]) ** 0.5
        assert abs(np.mean(means[name]) - np.mean(expected[name])) < 4 * spread, name
    assert abs(np.mean(means["recall@1"]) - 1 / 20) < 4 * (1 / 20 * 19 / 20 / len(means["recall@1"])) ** 0.5


def test_popularity_chooses_the_option_that_most_users_liked_in_training(dataset):
    folder = Path(dataset)
    users = set(read_split(folder, "user2item", "train")["anchor_id"]) | set(
        read_split(folder, "queries", "train").filter(pl.col("task") == "user2item")["query_id"]
    )
    titles = {item: (corpus, title) for item, corpus, title in read_split(folder, "items")[:, [0, 1, 3]].iter_rows()}
    likes: dict[tuple[str, str], int] = {}
    for query, item, _ in read_split(folder, "qrels", "train").iter_rows():
        if query in users:
            likes[titles[item]] = likes.get(titles[item], 0) + 1
    result = evaluate("popularity", dataset, tasks=[GENERATIVE]).results[GENERATIVE].scores
    samples = read_split(folder, GENERATIVE, "test")
    assert result["query_id"].to_list() == samples["id"].to_list()
    decided = 0
    for hit, corpus, options, label in zip(
        result["recall@1"], samples["corpus"], samples["options"], samples["label"], strict=True
    ):
        counts = [likes.get((corpus, option), 0) for option in options]
        right, best = counts[LETTERS.index(label)], max(counts)
        decided += best > 0
        if right < best:
            assert hit == 0
        elif counts.count(best) == 1:
            assert hit == 1
    assert decided > len(samples) / 2


def test_baselines_are_seeded(dataset):
    def scores(seed):
        results = evaluate("random", dataset, tasks=["query2item", GENERATIVE], seed=seed).results
        return [result.scores for result in results.values()]

    first, again, other = scores(0), scores(0), scores(1)
    assert all(a.equals(b) for a, b in zip(first, again, strict=True))
    assert not any(a.equals(b) for a, b in zip(first, other, strict=True))


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


def test_letters_are_scored_where_the_answer_was_trained(adapter, base, dataset):
    """Slow: the whole conversation through the whole model, one at a time."""
    model, _ = open_model(adapter)
    fresh, tokenizer = load_base(base)
    reference = load_tmole(fresh, adapter)
    samples = read_split(Path(dataset), GENERATIVE, "test").head(4)
    prompts = samples["prompt"].to_list()
    scores, valid = model.letter_scores(GENERATIVE, prompts, LETTERS)
    for row, prompt in enumerate(prompts):
        rendered = [completion_ids(tokenizer, prompt, [{"role": "assistant", "content": x}]) for x in LETTERS]
        (begun, first), (_, second) = rendered[:2]
        place = next(at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
        for column, (_, answer) in enumerate(rendered):
            with torch.no_grad(), task_context(reference, GENERATIVE):
                logits = reference(torch.tensor([[*begun, *answer]])).logits[0]
            chances = logits[len(begun) + place - 1].log_softmax(-1)
            assert scores[row, column].item() == pytest.approx(chances[answer[place]].item(), abs=1e-4)
        assert valid[row] == (tokenizer.decode(chances.argmax()) in LETTERS)
    assert render_prompt(tokenizer, prompts[0]) != render_prompt(tokenizer, prompts[1])


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
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.md", "scores"]
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
            assert interval == {"value": 0, "low": 0, "high": 0}


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
    refused("was evaluated on test, and this is validation", split="validation")
    refused("is no evaluation with a readable results.json", compare=tmp_path / "nowhere")
    evaluate("random", dataset, tmp_path / "other", tasks=["item2item"], most=2)
    refused("holds no scores of user2item", compare=tmp_path / "other")
    with pytest.raises(UsageError, match="name a folder for them"):
        evaluate("random", dataset, compare=native[1])
    assert main(["model", "evaluate", "random", "--data", dataset, "--compare", str(native[1])]) == 2
    assert capsys.readouterr().err.startswith("recfound: differences to ")


def test_a_folder_that_holds_something_else_is_left_alone(dataset, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        evaluate("random", dataset, tmp_path, tasks=["query2item"], most=1)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("values", ["skewed", "two", "constant"])
def test_intervals_contain_the_mean_and_shrink_with_the_number_of_queries(values):
    draw = np.random.default_rng(0)
    sample = {
        "skewed": lambda n: draw.exponential(size=n) ** 2,
        "two": lambda n: (draw.random(n) < 0.3).astype(float),
        "constant": lambda n: np.full(n, 0.25),
    }[values]
    widths = []
    for size in (10, 160, 2560):
        found = bootstrap(sample(size))
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] or values == "constant"
    assert bootstrap(np.array([0.5])) == bootstrap(np.array([0.5])) and bootstrap(np.array([0.5])).low == 0.5


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        found = bootstrap(draw.normal(3.0, 1.0, size=80))
        covered += found.low <= 3.0 <= found.high
    assert covered >= 50


def test_the_difference_of_a_model_to_itself_is_zero_and_antisymmetric():
    draw = np.random.default_rng(2)
    ours, theirs = draw.random(50), draw.random(50)
    same = paired_difference(ours, ours)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    # Paired: what both models find hard widens neither side.
    hard = draw.random(50) * 100
    paired = paired_difference(ours + hard, theirs + hard)
    assert paired.high - paired.low == pytest.approx(there.high - there.low)


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
        (adapter, "query_rewriting", "task 'query_rewriting' is not in"),
        (str(exported / "user2item"), GENERATIVE, "an embedder cannot do sequential_recommendation"),
    ):
        assert main(["model", "evaluate", source, "--data", dataset, "--task", task]) == 2
        assert words in capsys.readouterr().err


def test_scores_that_are_not_finite_are_refused(adapter, dataset, tmp_path):
    broken = shutil.copytree(adapter, tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    key = next(name for name in tensors if ".B.shared" in name)
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, broken / "adapter_model.safetensors")
    for task in ("query2item", GENERATIVE):
        with pytest.raises(RecfoundError, match="its scores are not finite"):
            evaluate(str(broken), dataset, tasks=[task], most=1)


def test_results_of_a_corpus_are_those_of_its_queries():
    scores = pl.DataFrame({"query_id": ["a", "b", "c"], "corpus": ["x", "x", "y"], "mrr@20": [1.0, 0.0, 0.25]})
    result = TaskResult("user2item", scores)
    assert result.metrics == ["mrr@20"]
    assert result.intervals("x")["mrr@20"].value == 0.5 and result.intervals("y")["mrr@20"].value == 0.25
