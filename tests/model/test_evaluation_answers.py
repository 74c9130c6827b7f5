"""Answers and likelihoods of options, against stock generation and whole conversations through the whole model."""

from pathlib import Path

import pytest
import torch

from recfound_data.errors import RecfoundError
from recfound_data.layout import read_split
from recfound_data.samples import LETTERS
from recfound_data.tasks import TASKS
from recfound_model import TmoleConfig, load_tmole, task_context
from recfound_model.bases import load_base
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.answering import asked
from recfound_model.evaluation.bertscore import BertScorer
from recfound_model.evaluation.generation import answered, longest_answer, question, telling_prefixes
from recfound_model.evaluation.models import open_model
from recfound_model.evaluation.texts import chosen_option
from recfound_model.templates import completion_ids, render_prompt
from recfound_model.tmole import add_tmole

CHOICE = "sequential_recommendation"
OPTIONS = ["very negative", "negative", "neutral", "positive", "very positive"]


@pytest.fixture(scope="module")
def adapter(run):
    return str(run / "adapter")


def prompts_of(dataset, count=5):
    prompts = read_split(Path(dataset), CHOICE, "test")["prompt"].to_list()
    # Short ones: the tiny base has room for 128 tokens. Of several lengths, so that batches are padded.
    return [
        [{"role": "user", "content": prompt[0]["content"][: 60 + 30 * at]}] for at, prompt in enumerate(prompts[:count])
    ]


def all_answers(model, task, prompts, options, most_new):
    questions = [question(model, prompt, options, most_new) for prompt in prompts]
    found = dict(pair for batch in answered(model, task, questions, most_new) for pair in batch)
    return [found[at] for at in range(len(prompts))]


@pytest.mark.parametrize("options", [list(LETTERS), OPTIONS, ["yes", "no"]], ids=["letters", "words", "yes"])
def test_likelihoods_are_those_of_the_tokens_that_tell_an_answer_apart(adapter, base, dataset, options):
    """Slow: the whole conversation through the whole model, one option at a time."""
    model, _ = open_model(adapter)
    fresh, tokenizer = load_base(base)
    reference = load_tmole(fresh, adapter)
    prompts = prompts_of(dataset)
    found = all_answers(model, CHOICE, prompts, options, 3)
    for prompt, answer in zip(prompts, found, strict=True):
        rendered = [completion_ids(tokenizer, prompt, [{"role": "assistant", "content": one}]) for one in options]
        for at, (begun, tokens) in enumerate(rendered):
            others = [other for place, (_, other) in enumerate(rendered) if place != at]
            length = next(n for n in range(1, 99) if all(other[:n] != tokens[:n] for other in others))
            with torch.no_grad(), task_context(reference, CHOICE):
                logits = reference(torch.tensor([[*begun, *tokens]])).logits[0].log_softmax(-1)
            expected = sum(logits[len(begun) + n - 1, tokens[n]].item() for n in range(length))
            assert answer.chances[at] == pytest.approx(expected, abs=1e-4)
        assert len({round(one, 5) for one in answer.chances}) > 1


def test_answers_are_those_of_stock_generation(adapter, base, dataset):
    model, _ = open_model(adapter)
    fresh, tokenizer = load_base(base)
    reference = load_tmole(fresh, adapter)
    prompts = prompts_of(dataset)
    found = all_answers(model, CHOICE, prompts, [], 12)
    assert len({answer.text for answer in found}) > 1
    for prompt, answer in zip(prompts, found, strict=True):
        ids = tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False, return_tensors="pt").input_ids
        with task_context(reference, CHOICE):
            whole = reference.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
            )
        expected = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert answer.text == expected and answer.chances == []


def test_an_answer_ends_where_the_base_ends_a_turn(base, dataset):
    model, _ = open_model(base)
    prompts = prompts_of(dataset, 2)
    first, _ = all_answers(model, CHOICE, prompts, [], 12)
    ids = model.tokenizer(first.text, add_special_tokens=False)["input_ids"]
    model.model.generation_config.eos_token_id = [ids[-1], 1]
    cut = all_answers(model, CHOICE, prompts, [], 12)[0].text
    assert first.text.startswith(cut) and len(cut) < len(first.text)


def test_each_task_answers_with_its_own_gates(base, dataset, tmp_path):
    fresh, _ = load_base(base)
    tasks = ["sentiment_analysis", CHOICE]
    adapted = add_tmole(fresh, TmoleConfig(tasks=tasks, r=4, task_dim=8, base_model_name_or_path=base))
    with torch.no_grad():
        for key, tensor in adapted.adapter_tensors().items():
            if ".B." in key:
                tensor.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path / "adapter")
    model, _ = open_model(str(tmp_path / "adapter"))
    one, other = (all_answers(model, task, prompts_of(dataset), ["yes", "no"], 3) for task in tasks)
    assert all(abs(a.chances[0] - b.chances[0]) > 1e-4 for a, b in zip(one, other, strict=True))


def test_long_prompts_lose_their_beginning(base, dataset):
    model, _ = open_model(base)
    limit = model.model.config.max_position_embeddings
    prompt = read_split(Path(dataset), CHOICE, "test")["prompt"].to_list()[0]
    whole = model.tokenizer(render_prompt(model.tokenizer, prompt), add_special_tokens=False)["input_ids"]
    found = question(model, prompt, ["yes", "no"], 10)
    assert len(whole) > limit and found.ids == whole[-(limit - 10) :] and found.cut == len(whole) - len(found.ids)
    short = question(model, prompts_of(dataset)[0], [], 10)
    assert short.cut == 0


def test_telling_prefixes_are_as_short_as_can_be():
    answers = [(1, 2, 3), (1, 2, 4), (5,), (1, 6, 7)]
    assert telling_prefixes(answers) == ((1, 2, 3), (1, 2, 4), (5,), (1, 6))
    assert telling_prefixes([]) == () and telling_prefixes([(3, 4)]) == ((3,),)
    for answers in ([(1, 2), (1, 2)], [(1,), (1, 2)]):
        with pytest.raises(RecfoundError, match="cannot be told apart"):
            telling_prefixes(answers)


def test_answers_may_be_as_long_as_the_longest_reference(base):
    model, _ = open_model(base)
    prompts = [[{"role": "user", "content": "?"}]] * 3
    references = ["a red kettle of two litres", "mug", "x"]
    expected = len(completion_ids(model.tokenizer, prompts[0], [{"role": "assistant", "content": references[0]}])[1])
    assert longest_answer(model, prompts, references, options=False) == expected
    assert longest_answer(model, prompts, references, options=True) == expected + 2


def test_answers_are_taken_from_each_corpus_in_turn(thirteen):
    whole = asked(str(thirteen), "item_profile", "test", None, None, None)
    few = asked(str(thirteen), "item_profile", "test", None, None, 5)
    corpora = whole.samples["corpus"].value_counts()
    assert len(corpora) > 1 and len(few.samples) == 5 and few.whole.equals(whole.whole)
    counts = few.samples["corpus"].value_counts()["count"]
    assert counts.max() - counts.min() <= 1 and len(counts) == min(5, len(corpora))
    assert set(few.samples["id"]) <= set(whole.samples["id"])
    one = asked(str(thirteen), "item_profile", "test", None, 1, None)
    assert len(one.samples) == len(corpora)


@pytest.fixture(scope="module")
def zero_shot(base, thirteen, tmp_path_factory):
    """A plain language model on all thirteen tasks."""
    out = tmp_path_factory.mktemp("zero") / "out"
    scoring = tmp_path_factory.mktemp("scoring")
    model, tokenizer = load_base(base)
    model.model.save_pretrained(scoring)
    tokenizer.save_pretrained(scoring)
    return evaluate(base, str(thirteen), out, most=2, bertscore_model=str(scoring)), out, str(scoring)


def test_all_thirteen_tasks_are_scored_by_their_own_metric(zero_shot, thirteen):
    evaluation, _, _ = zero_shot
    assert list(evaluation.results) == list(TASKS)
    report = evaluation.to_json()
    for task, result in evaluation.results.items():
        assert result.metrics[0] == TASKS[task].metric, task
        assert 0 <= result.summary[TASKS[task].metric].value <= 1
        if TASKS[task].kind == "generative":
            samples = {row["id"]: row for row in read_split(thirteen, task, "test").iter_rows(named=True)}
            for row in result.scores.iter_rows(named=True):
                assert row["label"] == samples[row["query_id"]]["label"]
            assert report["tasks"][task]["answer_tokens"] > 1
            assert sum(report["tasks"][task]["label_sources"].values()) == len(result.scores)


def test_invalid_answers_are_wrong_and_counted(zero_shot):
    evaluation, _, _ = zero_shot
    told = 0
    for task in ("sentiment_analysis", "product_matching", "product_relation_prediction", CHOICE):
        scores = evaluation.results[task].scores
        right = "recall@1" if task == CHOICE else "accuracy"
        options = list(LETTERS) if task == CHOICE else sorted(set(scores["label"]) | set(scores["likeliest"]))
        for row in scores.iter_rows(named=True):
            assert row["invalid"] == (row["answer"] == "")
            assert row[right] == (row["answer"] == row["label"])
            assert row[f"{right}_likelihood"] == (row["likeliest"] == row["label"])
            if row["answer"]:
                assert chosen_option(row["written"], [*options, row["answer"]]) == row["answer"]
            told += row["invalid"] == 1
        assert evaluation.results[task].summary["invalid"].value == scores["invalid"].mean()
    assert told > 0  # an untrained model chooses nothing that is asked for


def test_bertscore_is_that_of_answers_and_labels(zero_shot):
    evaluation, _, scoring = zero_shot
    scores = evaluation.results["answer_generation"].scores
    expected = BertScorer(scoring).f1(scores["answer"].to_list(), scores["label"].to_list())
    assert scores["bertscore_f1"].to_list() == pytest.approx(expected, abs=1e-6)
    assert evaluation.to_json()["bertscore"] == {"model": scoring, "layer": 2}


def test_without_a_scoring_model_there_is_no_bertscore(base, thirteen):
    found = evaluate(base, str(thirteen), tasks=["answer_generation"], most=1).results["answer_generation"]
    assert found.metrics == ["rougeL_f1", "chrf"]
