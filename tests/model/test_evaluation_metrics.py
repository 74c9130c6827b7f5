"""Metrics against independent implementations, on random and on tied scores; intervals and p values."""

import itertools
import json
import math

import ir_measures
import numpy as np
import polars as pl
import pytest
import torch
from ir_measures import RR, R, nDCG
from sklearn.metrics import f1_score
from tiny_models import TEXTS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.evaluation.bertscore import BertScorer
from recfound_model.evaluation.intervals import (
    SWAPS,
    bootstrap,
    interval,
    mean,
    mean_terms,
    paired_difference,
    randomisation_p,
)
from recfound_model.evaluation.metrics import f1, macro_f1, metrics_of
from recfound_model.evaluation.ranking import (
    GAINS,
    METRICS,
    CatalogueRanking,
    draw_candidates,
    narrowed,
    rank_by_scores,
    rank_candidates,
)
from recfound_model.evaluation.results import TaskResult
from recfound_model.evaluation.texts import attribute_values, chosen_option, overlaps

# --- rankings


def catalogue(items: int, seed: int) -> CatalogueRanking:
    """Thirty queries, some of them items themselves, with 1 to 25 right answers and up to 40 known ones, graded."""
    draw = np.random.default_rng(seed)
    names = [f"shop/{number:04d}" for number in range(items)]
    queries = [*(f"user{number:02d}" for number in range(20)), *names[:10]]
    relevant, known, graded = {}, {}, {}
    for query in queries:
        others = [name for name in names if name != query]
        drawn = [str(name) for name in draw.choice(others, draw.integers(26, 66) if items > 66 else 4, replace=False)]
        right = int(draw.integers(1, 26 if items > 66 else 3))
        relevant[query], known[query] = set(drawn[:right]), set(drawn[right // 2 : -2])
        less = {name: GAINS[int(draw.integers(1, 3))] for name in drawn[-2:]}
        graded[query] = dict.fromkeys(relevant[query], GAINS[3]) | {
            name: gain for name, gain in less.items() if name not in relevant[query]
        }
    domains = ["left" if at % 2 else "right" for at in range(items)]
    texts = [f"item {at // 3}" for at in range(items)]  # three in a row read the same
    return CatalogueRanking(
        "t", "c", queries, queries, names, texts, relevant, known, [0] * items, texts, domains, graded
    )


def scores_of(ranking: CatalogueRanking, levels: int | None, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(ranking.queries), len(ranking.item_ids), generator=draw)
    return (scores * levels).floor() if levels else scores


def by_ir_measures(ranking: CatalogueRanking, scores: torch.Tensor) -> dict[str, dict[str, float]]:
    """Of each query, by trec_eval: it puts the last id first among equal scores, so ids are turned round."""
    turned = {item: f"{len(ranking.item_ids) - at:05d}" for at, item in enumerate(ranking.item_ids)}
    run, binary, graded = {}, {}, {}
    for query, row in zip(ranking.query_ids, scores.tolist(), strict=True):
        out = (ranking.known.get(query, set()) - ranking.relevant[query]) | {query}
        pairs = zip(ranking.item_ids, row, strict=True)
        run[query] = {turned[item]: score for item, score in pairs if item not in out}
        binary[query] = {turned[item]: 1 for item in ranking.relevant[query]}
        graded[query] = {turned[item]: round(100 * gain) for item, gain in ranking.graded[query].items()}
    found: dict[str, dict[str, float]] = {query: {} for query in ranking.query_ids}
    for qrels, measures in (
        (binary, {RR: "mrr@20", nDCG @ 20: "ndcg@20", R @ 100: "recall@100"}),
        (graded, {nDCG @ 20: "ndcg_graded@20"}),
    ):
        for one in ir_measures.iter_calc(list(measures), qrels, run):
            deep = one.measure == RR and one.value < 1 / 20  # of RR@20, another provider orders ties otherwise
            found[one.query_id][measures[one.measure]] = 0.0 if deep else one.value
    return found


@pytest.mark.parametrize("levels", [None, 50, 4, 1], ids=["no ties", "some ties", "many ties", "all equal"])
@pytest.mark.parametrize("items", [300, 101, 100, 7])
def test_metrics_are_those_of_trec_eval_also_on_ties(items, levels):
    ranking = catalogue(items, seed=items)
    scores = scores_of(ranking, levels, seed=items)
    before = scores.clone()
    found = rank_by_scores(ranking, scores)
    assert torch.equal(scores, before)
    assert found["query_id"].to_list() == ranking.query_ids and set(found["corpus"]) == {"c"}
    expected = by_ir_measures(ranking, scores)
    for at, query in enumerate(ranking.query_ids):
        for name in (*METRICS, "ndcg_graded@20"):
            assert found[name][at] == pytest.approx(expected[query].get(name, 0.0), abs=1e-9), (query, name)
    if items == 300:
        assert found["mrr@20"].n_unique() > 1
        assert (found["ndcg@20"] - found["ndcg_graded@20"]).abs().max() > 1e-3


def test_a_part_of_the_queries_is_scored_as_in_the_whole():
    ranking = catalogue(300, seed=1)
    scores = scores_of(ranking, None, seed=2)
    whole = rank_by_scores(ranking, scores)
    parts = [rank_by_scores(ranking, scores[at : at + 11], at) for at in range(0, 30, 11)]
    assert pl.concat(parts).equals(whole)


def test_known_items_and_the_anchor_are_never_ranked():
    ranking = catalogue(300, seed=3)
    low = scores_of(ranking, None, seed=4)
    high = low.clone()
    for at, query in enumerate(ranking.query_ids):
        for item in ranking.known[query] | {query}:
            if item in ranking.item_ids and item not in ranking.relevant[query]:
                high[at, ranking.item_ids.index(item)] += 10
    assert (high != low).any(dim=1).all()
    assert rank_by_scores(ranking, high).equals(rank_by_scores(ranking, low))


# --- one positive among 19 negatives


def test_negatives_are_nineteen_true_ones_and_depend_on_query_and_seed_alone():
    ranking = catalogue(300, seed=5)
    drawn = draw_candidates(ranking, seed=0)
    place = {item: at for at, item in enumerate(ranking.item_ids)}
    for query, one in zip(ranking.query_ids, drawn, strict=True):
        assert sorted(one.positives) == sorted(place[item] for item in ranking.relevant[query])
        assert len(set(one.negatives.tolist())) == 19
        known = ranking.relevant[query] | ranking.known[query] | set(ranking.graded[query]) | {query}
        alike = {ranking.items[place[item]] for item in known if item in place}
        domains = {ranking.domains[at] for at in one.positives}
        for at in one.negatives:
            assert ranking.items[at] not in alike and ranking.domains[at] in domains
    single = next(at for at, one in enumerate(drawn) if len({ranking.domains[p] for p in one.positives}) == 1)
    assert len({ranking.domains[at] for at in drawn[single].negatives}) == 1
    fewer = CatalogueRanking(
        **{**vars(ranking), "query_ids": ranking.query_ids[::-3], "queries": ranking.queries[::-3]}
    )
    for one, whole in zip(draw_candidates(fewer, seed=0), drawn[::-3], strict=True):
        assert np.array_equal(one.negatives, whole.negatives)
    other = draw_candidates(ranking, seed=1)
    assert sum(set(a.negatives) == set(b.negatives) for a, b in zip(drawn, other, strict=True)) == 0


def test_all_items_are_drawn_about_as_often():
    ranking = catalogue(300, seed=5)
    counts = np.zeros(300)
    for seed in range(60):
        for one in draw_candidates(ranking, seed):
            counts[one.negatives] += 1
    # Items that are known to some queries, or read like one that is, are drawn less often.
    assert counts.min() > 0 and counts.max() < 2 * counts.mean()
    thirds = [part.mean() for part in np.split(counts[60:], 3)]
    assert max(thirds) < 1.15 * min(thirds)


def test_small_catalogues_give_all_negatives_that_there_are():
    drawn = draw_candidates(catalogue(7, seed=1), seed=0)
    assert all(len(one.negatives) < 7 for one in drawn)


@pytest.mark.parametrize("levels", [None, 3])
def test_candidates_are_ranked_as_by_counting(levels):
    ranking = catalogue(300, seed=6)
    candidates = draw_candidates(ranking, seed=0)
    scores = scores_of(ranking, levels, seed=7)
    found = rank_candidates(ranking, candidates, scores, 0, seed=0)
    for at, one in enumerate(candidates):
        best, worst = [], []
        for positive in one.positives:
            ahead = sum(bool(scores[at, other] > scores[at, positive]) for other in one.negatives)
            equal = sum(bool(scores[at, other] == scores[at, positive]) for other in one.negatives)
            best.append(1 / (ahead + 1))
            worst.append(1 / (ahead + equal + 1))
        assert np.mean(worst) - 1e-12 <= found["mrr@20"][at] <= np.mean(best) + 1e-12
        if levels is None:
            assert found["mrr@20"][at] == pytest.approx(np.mean(best), abs=1e-9)
            ndcg = [1 / math.log2(1 / one + 1) for one in best]
            assert found["ndcg@20"][at] == pytest.approx(np.mean(ndcg), abs=1e-9)
            assert found["recall@1"][at] == pytest.approx(np.mean(np.array(best) == 1))
    assert set(found["negatives"]) == {19}


def test_a_narrowed_ranking_gives_the_same_metrics():
    ranking = catalogue(300, seed=8)
    candidates = draw_candidates(ranking, seed=0)
    scores = scores_of(ranking, 5, seed=9)
    smaller, moved = narrowed(ranking, candidates)
    kept = [ranking.item_ids.index(item) for item in smaller.item_ids]
    assert 0 < len(kept) < 300
    whole = rank_candidates(ranking, candidates, scores, 0, seed=0)
    assert rank_candidates(smaller, moved, scores[:, kept], 0, seed=0).equals(whole)
    parts = [rank_candidates(ranking, candidates, scores[at : at + 7], at, seed=0) for at in range(0, 30, 7)]
    assert pl.concat(parts).equals(whole)


def test_a_model_without_an_opinion_is_at_the_middle():
    ranking = catalogue(300, seed=10)
    ranks = []
    for seed in range(40):
        candidates = draw_candidates(ranking, seed)
        found = rank_candidates(ranking, candidates, torch.zeros(30, 300), 0, seed)
        ranks += found["mrr@20"].to_list()
    expected = sum(1 / rank for rank in range(1, 21)) / 20
    assert abs(np.mean(ranks) - expected) < 4 * np.std(ranks) / len(ranks) ** 0.5


# --- F1


def labelled(size: int, classes: list[str], seed: int) -> tuple[list[str], list[str]]:
    draw = np.random.default_rng(seed)
    right = draw.choice(classes, size)
    said = np.where(draw.random(size) < 0.4, right, draw.choice([*classes, ""], size))
    return right.tolist(), said.tolist()


def label_scores(task: str, right: list[str], said: list[str]) -> pl.DataFrame:
    size = len(right)
    keys = {"query_id": [str(at) for at in range(size)], "corpus": ["c"] * size, "domain": ["d"] * size}
    hits = [float(a == b) for a, b in zip(right, said, strict=True)]
    return pl.DataFrame({**keys, "label": right, "answer": said, "accuracy": hits})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("task", "classes"),
    [
        ("sentiment_analysis", ["very negative", "negative", "neutral", "positive", "very positive"]),
        ("product_relation_prediction", ["bought together", "viewed together", "similar"]),
        ("product_matching", ["yes", "no"]),
        ("answerability_prediction", ["yes", "no"]),
    ],
)
def test_f1_is_that_of_scikit_learn(task, classes, seed):
    right, said = labelled(40 if seed else 4, classes, seed)
    found = TaskResult(task, label_scores(task, right, said)).summary
    if "f1_yes" in found:
        expected = f1_score(right, said, labels=["yes"], average="macro", zero_division=0)
        assert found["f1_yes"].value == pytest.approx(expected, abs=1e-9)
    else:
        expected = f1_score(right, said, labels=sorted(set(right)), average="macro", zero_division=0)
        assert found["macro_f1"].value == pytest.approx(expected, abs=1e-9)
    assert list(found)[1] == "accuracy"


def test_f1_is_resampled_with_the_samples():
    """Slow: the metric computed anew on each resample, by scikit-learn."""
    right, said = labelled(30, ["yes", "no"], seed=3)
    terms = metrics_of("product_matching", label_scores("product_matching", right, said))[0].terms
    found = interval(terms(label_scores("product_matching", right, said)), f1)
    draw, values = np.random.default_rng(0), []
    for _ in range(2000):
        rows = draw.integers(0, 30, 30)
        held = [right[at] for at in rows], [said[at] for at in rows]
        hits = sum(a == b == "yes" for a, b in zip(*held, strict=True))
        values.append(2 * hits / max(held[0].count("yes") + held[1].count("yes"), 1))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9)


def test_f1_without_any_positive_is_zero_and_macro_f1_leaves_absent_classes_out():
    assert f1(np.array([0.0, 0.0, 0.0])) == 0
    sums = np.array([[5.0, 0, 0, 0, 3, 0], [5, 0, 5, 1, 0, 0]])
    assert macro_f1(sums) == pytest.approx([1.0, (10 / 15 + 1) / 2])


def test_attribute_values_count_pairs_over_all_samples():
    scores = pl.DataFrame(
        {
            "query_id": ["a", "b"], "corpus": "c", "domain": "d",
            "hits": [2, 0], "false_alarms": [0, 1], "misses": [1, 3], "sample_f1": [0.8, 0.0], "invalid": [0.0, 1.0],
        }
    )  # fmt: skip
    found = TaskResult("attribute_value_extraction", scores).summary
    assert found["micro_f1"].value == pytest.approx(4 / 9)
    assert found["invalid"].value == 0.5 and "hits" not in found


# --- texts


@pytest.mark.parametrize(
    ("answer", "pairs"),
    [
        ('[{"attribute":"Color","value":"White","source":"title"}]', {("color", "white")}),
        (
            'Here it is:\n```json\n[{"attribute": " Color ", "value": "off  WHITE"}]\n``` Done.',
            {("color", "off white")},
        ),
        ('[{"attribute":"Base","value":null,"source":null},{"attribute":"Base","value":""}]', set()),
        ('[{"attribute":"Size","value":42}]', {("size", "42")}),
        ("[]", set()),
        ('[{"attribute":"Color","value":"White"', None),
        ('{"attribute":"Color","value":"White"}', None),
        ('["Color", "White"]', None),
        ("no list", None),
        ("]" + "[" * 5, None),
        ("", None),
        ("[" * 100_000 + "]" * 100_000, None),
    ],
)
def test_attribute_values_are_read_from_json(answer, pairs):
    assert attribute_values(answer) == pairs


@pytest.mark.parametrize(
    ("answer", "options", "chosen"),
    [
        ("N", "ABN", "N"),
        ("n.", "ABN", "N"),
        ("(B) Toy Story", "ABN", "B"),
        ("B: it is", "ABN", "B"),
        ("Batman", "ABN", None),
        ("Z", "ABN", None),
        ("", "ABN", None),
        ("The answer is B", "ABN", None),
        ("yes", ["yes", "no"], "yes"),
        ('"No", they do not.', ["yes", "no"], "no"),
        ("none", ["yes", "no"], None),
        ("not sure", ["yes", "no"], None),
        ("Very positive!", ["very positive", "positive"], "very positive"),
        ("positive", ["very positive", "positive"], "positive"),
        ("very", ["very positive", "positive"], None),
        ("similar items", ["similar", "similar items"], "similar items"),
        ("", ["yes", "no"], None),
    ],
)
def test_the_chosen_option_is_what_an_answer_begins_with(answer, options, chosen):
    assert chosen_option(answer, list(options)) == chosen


def rouge_l(said: list[str], right: list[str]) -> float:
    """The definition: the longest common subsequence, by trying all subsequences of the shorter text."""
    short, long = sorted([said, right], key=len)
    best = 0
    for size in range(len(short), 0, -1):
        for part in itertools.combinations(short, size):
            words = iter(long)
            if all(word in words for word in part):
                best = size
                break
        if best:
            break
    return 2 * best / (len(said) + len(right))


def test_rouge_l_is_its_definition_and_chrf_a_share():
    draw = np.random.default_rng(0)
    words = ["red", "mug", "kettle", "of", "two", "litres"]
    pairs = [(draw.choice(words, draw.integers(1, 9)), draw.choice(words, draw.integers(1, 9))) for _ in range(30)]
    found = overlaps([" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs])
    expected = [rouge_l(a.tolist(), b.tolist()) for a, b in pairs]
    assert found["rougeL_f1"] == pytest.approx(expected, abs=1e-9)
    assert all(0 <= one <= 1 for one in found["chrf"])
    same = overlaps(["A red mug.", ""], ["A red mug.", "A red mug."])
    assert same == {"rougeL_f1": [1.0, 0.0], "chrf": [pytest.approx(1.0), 0.0]}


# --- BERTScore


@pytest.fixture(scope="module")
def scoring_model(tmp_path_factory):
    """A random BERT of three layers with a tokenizer that knows single characters."""
    folder = tmp_path_factory.mktemp("bert")
    signs = sorted(set("".join(TEXTS)) - {" "})
    vocabulary = {token: at for at, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *signs])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    special = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **names)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def slow_bertscore(scorer: BertScorer, said: str, right: str) -> float:
    """Equation 1 of the paper, a token at a time; special tokens can be matched, and do not count."""

    def vectors(text: str) -> torch.Tensor:
        ids = torch.tensor([scorer.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            return scorer.model(ids, output_hidden_states=True).hidden_states[scorer.layer][0]

    def one_way(one: torch.Tensor, other: torch.Tensor) -> float:
        best = [max(torch.cosine_similarity(a, b, dim=0).item() for b in other) for a in one[1:-1]]
        return sum(best) / len(best)

    precision, recall = one_way(vectors(said), vectors(right)), one_way(vectors(right), vectors(said))
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [None, 1])
def test_bertscore_is_its_definition_whatever_it_is_batched_with(scoring_model, layer):
    scorer = BertScorer(scoring_model, layer)
    assert scorer.layer == (layer or 3)
    pairs = [(a, b) for a in TEXTS for b in TEXTS] + [("mug", "gum"), ("a", "is it waterproof?")]
    found = scorer.f1([a for a, _ in pairs], [b for _, b in pairs])
    assert found == pytest.approx([slow_bertscore(scorer, a, b) for a, b in pairs], abs=1e-5)
    assert len({round(one, 6) for one in found}) > 8


def test_bertscore_of_nothing_is_zero_and_of_the_same_is_one(scoring_model):
    assert BertScorer(scoring_model).f1(["", " ", "mug"], ["mug", "mug", "mug"]) == [0, 0, pytest.approx(1)]


def test_models_that_cannot_score_are_refused(scoring_model, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(RecfoundError, match=r"BERTScore's model .* cannot be loaded") as caught:
        BertScorer(str(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="has layers 1 to 3, and 4"):
        BertScorer(scoring_model, 4)


# --- intervals and p values


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


def difference(ours, theirs):
    return paired_difference(mean_terms(ours), mean_terms(theirs), mean, (ours, theirs))


def test_the_difference_of_a_model_to_itself_is_zero_and_antisymmetric():
    draw = np.random.default_rng(2)
    ours, theirs = draw.random(50), draw.random(50)
    same = difference(ours, ours)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (same.wins, same.ties, same.losses) == (0, 50, 0)
    there, back = difference(ours, theirs), difference(theirs, ours)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert (there.wins, there.losses) == (back.losses, back.wins) and there.ties == 0
    # Paired: what both models find hard widens neither side.
    hard = draw.random(50) * 100
    paired = difference(ours + hard, theirs + hard)
    assert paired.high - paired.low == pytest.approx(there.high - there.low)
    assert paired.p == pytest.approx(there.p, abs=0.02)


def test_p_is_the_share_of_all_swaps_that_differ_as_much():
    draw = np.random.default_rng(3)
    for shift in (0.0, 0.3):
        ours, theirs = draw.random(10) + shift, draw.random(10)
        gap = ours - theirs
        exact = np.mean(
            [abs(np.mean(gap * signs)) >= abs(gap.mean()) - 1e-12 for signs in itertools.product([1, -1], repeat=10)]
        )
        found = randomisation_p(mean_terms(ours), mean_terms(theirs), mean)
        assert abs(found - exact) < 4 * (exact * (1 - exact) / SWAPS) ** 0.5 + 1e-3


def test_p_of_f1_swaps_whole_answers():
    """Exact: all assignments of ten samples' answers to the two models."""
    right, said = labelled(10, ["yes", "no"], seed=1)
    _, other = labelled(10, ["yes", "no"], seed=2)
    one, two = label_scores("product_matching", right, said), label_scores("product_matching", right, other)
    metric = metrics_of("product_matching", one)[0]

    def f1_yes(answers):
        hits = sum(a == b == "yes" for a, b in zip(right, answers, strict=True))
        return 2 * hits / max(right.count("yes") + answers.count("yes"), 1)

    def gap(first, second):
        return abs(f1_yes(first) - f1_yes(second))

    observed, as_large = gap(said, other), 0
    for swaps in itertools.product([False, True], repeat=10):
        first = [b if swap else a for a, b, swap in zip(said, other, swaps, strict=True)]
        second = [a if swap else b for a, b, swap in zip(said, other, swaps, strict=True)]
        as_large += gap(first, second) >= observed - 1e-12
    found = randomisation_p(metric.terms(one), metric.terms(two), metric.statistic)
    assert abs(found - as_large / 2**10) < 0.025


def test_p_is_uniform_without_a_difference_and_small_with_one():
    draw = np.random.default_rng(4)
    found = [randomisation_p(mean_terms(draw.random(30)), mean_terms(draw.random(30)), mean) for _ in range(40)]
    assert 0.3 < np.mean(found) < 0.7 and min(found) < 0.2 and max(found) > 0.8
    hard = draw.random(200)
    assert randomisation_p(mean_terms(hard + 0.1), mean_terms(hard), mean) == 1 / (SWAPS + 1)
