"""The shop in the formats beyond the default ones: their published form, and the structure that is planted."""

import csv
import gzip
import json
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml

from recfound_data.cli import main
from recfound_data.corpora import CORPORA
from recfound_data.errors import UsageError
from recfound_data.shop import DEFAULT, FORMATS, REVIEWER_NAMES, ShopSummary, generate
from recfound_data.shop.attribute_prose import ORIGINS
from recfound_data.shop.question_prose import BESIDE_THE_POINT, TOPICS
from recfound_data.shop.taxonomy import ATTRIBUTES, COLOURS, KINDS
from recfound_data.tasks.catalogue import TASKS

REVIEW_2023 = [
    "rating", "title", "text", "images", "asin", "parent_asin", "user_id", "timestamp", "helpful_vote",
    "verified_purchase",
]  # fmt: skip
ITEM_2023 = [
    "main_category", "title", "average_rating", "rating_number", "features", "description", "price", "images", "videos",
    "store", "categories", "details", "parent_asin", "bought_together",
]  # fmt: skip


class Whole:
    """A shop in all formats, read without the project's own readers."""

    def __init__(self, folder: Path, summary: ShopSummary) -> None:
        self.folder, self.summary = folder, summary
        self.reviews = self.lines("amazon_reviews_2023/Shop.jsonl.gz")
        self.items = {item["parent_asin"]: item for item in self.lines("amazon_reviews_2023/meta_Shop.jsonl.gz")}
        self.questions = {split: self.lines(f"amazonqa/{split}-qar.jsonl") for split in ("train", "val", "test")}
        self.positives = self.lines("mave/mave_positives.jsonl")
        self.negatives = self.lines("mave/mave_negatives.jsonl")
        self.pairs = {split: self.table(f"amz_goog_{split}.csv") for split in ("train", "validation", "test")}
        document = json.loads((folder / "mudoco_qr/mudoco_shopping.json").read_text(encoding="utf-8"))
        assert document["domain"] == "shopping"
        self.dialogues = list(document["dialogs"].values())

    def lines(self, path: str) -> list[dict]:
        data = (self.folder / path).read_bytes()
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("ascii")
        return [json.loads(line) for line in text.splitlines()]

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.folder / "amazon_google" / name).open(newline="", encoding="ascii") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    return Whole(folder, generate(folder, reviews=6_000, seed=5, formats=["all"]))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_format_does_not_depend_on_the_others(whole: Whole, tmp_path: Path) -> None:
    everything = files(whole.folder)
    assert {path.split("/")[0] for path in everything} == {*FORMATS, "README.md", "recipe.yaml"}
    for name in FORMATS:
        summary = generate(tmp_path / name, 6_000, 5, [name])
        alone = files(tmp_path / name)
        assert {path.split("/")[0] for path in alone} == {name, "README.md", "recipe.yaml"}
        assert summary.formats == (name,)
        assert all(data == everything[path] for path, data in alone.items() if path.startswith(name))
        assert f"--seed 5 --formats {name}`" in (tmp_path / name / "README.md").read_text(encoding="utf-8")


def test_readme_and_recipe_speak_of_what_is_there(whole: Whole, tmp_path: Path) -> None:
    for folder, formats in ((whole.folder, tuple(FORMATS)), (tmp_path / "two", ("movielens", "mave"))):
        if not folder.exists():
            generate(folder, 400, 0, formats)
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert "{" not in readme
        assert [corpus["corpus"] for corpus in recipe["corpora"]] == list(formats)
        assert {name for name in FORMATS if f"| `{name}/" in readme} == set(formats)
        named = set()
        for corpus in recipe["corpora"]:
            reader = CORPORA[corpus["corpus"]].model_validate(corpus)
            for key in set(reader.path_fields) & set(corpus):
                found = list(folder.glob(corpus[key]))
                assert found, corpus[key]
                named |= set(found)
        assert named == {path for path in folder.rglob("*") if path.is_file() and path.parent != folder}
        assert set(recipe["tasks"]) == (
            set(TASKS)
            if formats == tuple(FORMATS)
            else {"user2item", "item2item", "sequential_recommendation", "attribute_value_extraction"}
        )


def test_command_line_takes_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "generate", "--reviews", "200", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "two"), "--formats", "mave", "movielens"]) == 0
    assert json.loads(capsys.readouterr().out)["formats"] == ["movielens", "mave"]
    assert main([*arguments, "--out", str(tmp_path / "default")]) == 0
    assert json.loads(capsys.readouterr().out)["formats"] == list(DEFAULT)


@pytest.mark.parametrize(("formats", "message"), [(["mavee"], "did you mean 'mave'"), ([], "names none")])
def test_unknown_formats_are_refused(tmp_path: Path, formats: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(tmp_path / "out", 200, 0, formats)
    assert not list(tmp_path.iterdir())


def test_reviews_have_the_form_of_2023(whole: Whole) -> None:
    assert len(whole.reviews) == whole.summary.reviews == 6_000
    for review in whole.reviews:
        assert list(review) == REVIEW_2023
        assert type(review["rating"]) is float
        assert review["rating"] in (1, 2, 3, 4, 5)
        assert type(review["helpful_vote"]) is int
        assert re.fullmatch(r"B0[0-9A-Z]{8}", review["asin"])
        assert re.fullmatch(r"AE[A-Z2-7]{26}", review["user_id"])
        assert 1_230_000_000_000 < review["timestamp"] < 1_696_000_000_000
    distinct = {json.dumps(review) for review in whole.reviews}
    assert len(whole.reviews) - len(distinct) == whole.summary.duplicate_reviews
    assert len({review["user_id"] for review in whole.reviews}) == whole.summary.users
    variants = [review["asin"] != review["parent_asin"] for review in whole.reviews]
    assert 0.25 < np.mean(variants) < 0.35
    assert not {review["asin"] for review in whole.reviews if review["asin"] != review["parent_asin"]} & set(
        whole.items
    )
    assert any("<br />" in review["text"] for review in whole.reviews)
    assert any(review["images"] for review in whole.reviews)
    long = [review["text"] for review in whole.reviews if len(review["text"].split()) > 25]
    assert len(set(long)) > 0.95 * len(long)


def test_2023_metadata_agrees_with_the_reviews(whole: Whole) -> None:
    stars = defaultdict(list)
    for review in {json.dumps(review): review for review in whole.reviews}.values():
        stars[review["parent_asin"]].append(review["rating"])
    assert len(whole.items) == whole.summary.products
    assert any(parent not in whole.items for parent in stars)
    for parent, item in whole.items.items():
        assert list(item) == ITEM_2023
        assert item["rating_number"] == len(stars[parent])
        expected = round(float(np.mean(stars[parent])), 1) if stars[parent] else None
        assert item["average_rating"] == pytest.approx(expected, abs=0.051)
        assert item["price"] is None or re.fullmatch(r"(from )?\d+\.\d+", str(item["price"]))
        assert item["main_category"] == item["categories"][0]


def test_bought_together_are_complements(whole: Whole) -> None:
    listed = [item for item in whole.items.values() if item["bought_together"] is not None]
    assert 0.4 < len(listed) / len(whole.items) < 0.6
    other_kind = []
    for item in listed:
        assert item["bought_together"]
        assert item["parent_asin"] not in item["bought_together"]
        for parent in item["bought_together"]:
            if parent in whole.items:
                other = whole.items[parent]["categories"]
                other_kind.append(other[:2] == item["categories"][:2] and other[2] != item["categories"][2])
    assert np.mean(other_kind) == 1


def test_the_two_amazon_corpora_share_nobody_and_nothing(whole: Whole) -> None:
    earlier = whole.lines("amazon_reviews_2018/Shop_5.json.gz")
    assert not {row["reviewerID"] for row in earlier} & {row["user_id"] for row in whole.reviews}
    assert not {row["asin"] for row in earlier} & {row["parent_asin"] for row in whole.reviews}
    titles = {item["title"] for item in whole.lines("amazon_reviews_2018/meta_Shop.json.gz")}
    assert not titles & {item["title"] for item in whole.items.values()}


def said(template: str) -> re.Pattern[str]:
    """What a template with its slots filled looks like; a slot that stands twice says the same twice."""
    pattern, seen = "", set()
    for part in re.split(r"(\{\w+\})", template):
        name = part.strip("{}")
        if part.startswith("{"):
            pattern += f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)" if name == "n" else f"(?P<{name}>.+)"
            seen.add(name)
        else:
            pattern += re.escape(part)
    return re.compile(pattern)


def test_questions_are_answerable_if_a_snippet_says_it(whole: Whole) -> None:
    asked_of = [(said(text), topic) for topic in TOPICS for text in topic.questions]
    snippets = [(said(text), topic, value) for topic in TOPICS for value in topic.values for text in value.snippets]
    beside = [said(text) for text in BESIDE_THE_POINT]
    stands: dict[tuple[str, str], set] = defaultdict(set)
    questions = list(chain(*whole.questions.values()))
    for question in questions:
        topic = next(topic for pattern, topic in asked_of if pattern.fullmatch(question["questionText"]))
        on_topic = False
        for snippet in question["review_snippets"]:
            found = [(match, of, value) for pattern, of, value in snippets if (match := pattern.fullmatch(snippet))]
            assert found or any(pattern.fullmatch(snippet) for pattern in beside), snippet
            for match, of, value in found:
                on_topic |= of is topic
                stands[question["asin"], of.questions[0]].add((value.answers, match.groupdict().get("n")))
        assert question["is_answerable"] == int(on_topic)
        assert question["questionType"] == topic.question_type
        best = max(question["answers"], key=lambda answer: answer["helpful"][0])
        values = [v for v in topic.values if any(said(text).fullmatch(best["answerText"]) for text in v.answers)]
        assert {value.answer_type for value in values} == {best["answerType"]}
    for values in stands.values():
        assert len({answers for answers, _ in values}) == 1
        assert len({n for _, n in values if n is not None}) <= 1
    assert [question["qid"] for question in sorted(questions, key=lambda row: row["qid"])] == list(
        range(len(questions))
    )
    assert len(questions) == whole.summary.questions
    assert 0.55 < np.mean([question["is_answerable"] for question in questions]) < 0.75
    asins = [{question["asin"] for question in split} for split in whole.questions.values()]
    assert all(asins)
    assert not asins[0] & asins[1] | asins[0] & asins[2] | asins[1] & asins[2]


def test_attributes_stand_where_they_are_marked_and_nowhere_else(whole: Whole) -> None:
    signs = {
        "Color": re.compile("|".join(COLOURS)),
        "Pack Size": re.compile("pack of"),
        "Item Weight": re.compile("pounds"),
        "Country of Origin": re.compile("|".join(ORIGINS)),
        "Material": re.compile("made of|Material|100%|throughout|left bare|We chose|Work in"),
    }
    assert len(whole.positives) == whole.summary.labelled_products
    marked = {}
    for product in whole.positives:
        for attribute in product["attributes"]:
            assert attribute["evidences"]
            for evidence in attribute["evidences"]:
                text = product["paragraphs"][evidence["pid"]]["text"]
                assert text[evidence["begin"] : evidence["end"]] == evidence["value"]
        marked[product["id"]] = {attribute["key"] for attribute in product["attributes"]}
        assert product["category"] in {kind.titles[0] for kind in KINDS}
    for product in whole.negatives:
        text = "\n".join(paragraph["text"] for paragraph in product["paragraphs"])
        for attribute in product["attributes"]:
            assert attribute["evidences"] == []
            assert attribute["key"] not in marked[product["id"]]
            assert not signs[attribute["key"]].search(text), (attribute["key"], text)
    assert len(whole.negatives) > 0.5 * len(whole.positives)


def test_offers_match_if_they_agree_in_all_that_they_say(whole: Whole) -> None:
    words = {
        "colour": [colour.lower() for colour in COLOURS],
        "attribute": [attribute.title.lower() for attribute in ATTRIBUTES],
    }
    nouns = {title.lower(): kind for kind in KINDS for title in kind.titles}

    def facts(title: str) -> tuple:
        padded = f" {title} "
        noun = max((noun for noun in nouns if f" {noun} " in padded), key=len)
        about = [next(word for word in pool if f" {word} " in padded) for pool in words.values()]
        rest = set(re.findall(r"[a-z]+", title)) - set(noun.split()) - set(about)
        return nouns[noun], *about, rest

    brands, offers = [], defaultdict(set)
    for split, rows in whole.pairs.items():
        assert rows, split
        brands.append(set())
        for row in rows:
            left, right = facts(row["left_title"]), facts(row["right_title"])
            # Besides brand and line a rival may say `new`, a department, or put a stock number in front.
            same = left[:3] == right[:3] and left[3] - {"by"} <= right[3]
            assert row["label"] == str(int(same)), (row["left_title"], row["right_title"])
            brands[-1] |= {row["left_manufacturer"], row["right_manufacturer"]} - {""}
            for side in ("left", "right"):
                offers[side, row[f"{side}_id"]].add((row[f"{side}_title"], row[f"{side}_price"]))
    assert not brands[0] & brands[1] | brands[0] & brands[2] | brands[1] & brands[2]
    assert {len(said) for said in offers.values()} == {1}
    labels = [row["label"] == "1" for rows in whole.pairs.values() for row in rows]
    assert len(labels) == whole.summary.offer_pairs
    assert 0.2 < np.mean(labels) < 0.4


def test_rewritten_turns_name_what_they_refer_to(whole: Whole) -> None:
    assert len(whole.dialogues) == whole.summary.dialogues
    nouns = [kind.titles[0].lower() for kind in KINDS]
    rewritten = 0
    for dialogue in whole.dialogues:
        assert dialogue["split"] in ("train", "eval", "test")
        assert len(dialogue["turns"]) >= 4
        for number, turn in enumerate(dialogue["turns"], 1):
            assert turn["number"] == number
            for spans in chain(turn["named_entities"].values(), turn["references"].values()):
                for span in spans:
                    place = span["span"]
                    assert turn["utterance"][place["start"] : place["end"]] == span["text"]
            if not turn["graded"]:
                assert "rewritten_utterance" not in turn
                continue
            rewrite = turn["rewritten_utterance"]
            assert turn["rewrite_required"] == (rewrite != turn["utterance"])
            if turn["rewrite_required"]:
                rewritten += 1
                alone = re.search("What else does|is known for|Sundays", rewrite)
                assert alone or any(noun in rewrite for noun in nouns), rewrite
    assert rewritten > len(whole.dialogues)
    told = ["\n".join(turn["utterance"] for turn in dialogue["turns"]) for dialogue in whole.dialogues]
    assert len(set(told)) == len(told)


def test_film_users_have_ages_and_no_places(whole: Whole) -> None:
    lines = (whole.folder / "movielens/u.user").read_text(encoding="ascii").splitlines()
    assert len(lines) == whole.summary.film_users
    for number, line in enumerate(lines, 1):
        user, age, gender, occupation, code = line.split("|")
        assert int(user) == number
        assert 13 < int(age) < 80
        assert gender in "MF"
        assert occupation.isalpha()
        assert code == "00000"


def test_names_stand_in_no_other_format(whole: Whole) -> None:
    everything = "\n".join(
        path.read_text(encoding="utf-8")
        for name in ("amazonqa", "mave", "amazon_google", "mudoco_qr")
        for path in (whole.folder / name).iterdir()
    )
    everything += json.dumps(whole.reviews) + json.dumps(list(whole.items.values()))
    words = {word for name in REVIEWER_NAMES for word in name.lower().split()}
    assert not words & set(re.findall(r"[a-z-]+", everything.lower()))
