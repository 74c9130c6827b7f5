"""What a dataset must not hold, verified from the raw files in plain Python, apart from the project's own check."""

import csv
import gzip
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from raw_shop import Event, catalogue, histories, liked, metadata, pseudonym, ratings, reviews, rows, words

from recfound_data import build, check
from recfound_data.shop import REVIEWER_NAMES

SPLITS = ("train", "validation", "test")
TASKS = ("item2item", "query2item", "sequential_recommendation", "user2item")
INTERACTIONS = ("shop", "shop_films")
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def items(dataset: Path) -> dict[str, dict]:
    return catalogue(dataset)


@pytest.fixture(scope="module")
def raw(shop_folder: Path) -> dict[str, list[Event]]:
    """Every user's whole history, of both corpora, liked or not."""
    return {user: events for users in histories(shop_folder).values() for user, events in users.items()}


@pytest.fixture(scope="module")
def held_out(raw: dict[str, list[Event]], items: dict[str, dict]) -> dict[str, dict[str, str]]:
    """The test and the validation target of each user who chose four items or more."""
    chosen = {user: liked(events, items) for user, events in raw.items()}
    return {
        user: {"test": events[-1].item, "validation": events[-2].item}
        for user, events in chosen.items()
        if len(events) >= 4
    }


def letter(row: dict) -> str:
    """The option that the label of a sample names."""
    return row["options"]["ABCDEFGHIJKLMNOPQRST".index(row["label"])]


def shown_history(row: dict) -> list[str]:
    """The titles that the prompt of a sequential sample shows as chosen."""
    content = row["prompt"][0]["content"]
    before_options = content.split("\n\nOptions:\n")[0].split("\n\nChosen so far, latest first:\n")[1]
    return [line.removeprefix("- ") for line in before_options.split("\n")]


def expected_targets(
    dataset: Path, raw: dict[str, list[Event]], items: dict[str, dict]
) -> dict[str, dict[tuple[str, str], list[str]]]:
    """By split: user and target, and the titles chosen before it, latest first."""
    most = json.loads((dataset / "recfound.json").read_text())["recipe"]["history"]["train_targets_per_user"]
    expected: dict[str, dict[tuple[str, str], list[str]]] = {split: {} for split in SPLITS}
    for user, events in raw.items():
        chosen = liked(events, items)
        titles = [items[event.item]["title"] for event in chosen]
        held_from = len(chosen) - 2
        for place in range(3, len(chosen)):
            split = "train" if place < held_from else ("validation", "test")[place - held_from]
            if place >= held_from - most:
                expected[split][user, chosen[place].item] = titles[:place][::-1][:20]
    return expected


def test_user2item_targets_are_the_last_choices_and_histories_end_before_them(
    dataset: Path, raw: dict[str, list[Event]], items: dict[str, dict]
) -> None:
    for split, expected in expected_targets(dataset, raw, items).items():
        samples = rows(dataset, "user2item", split)
        assert {row["corpus"] for row in samples} == set(INTERACTIONS)
        found = {(row["anchor_id"], row["positive_id"]): row["anchor"].split("\n") for row in samples}
        assert found.items() <= expected.items()
        # Two users of one history and one next item are one sample, and a small domain can run out of negatives.
        assert 0.98 * len(expected) <= len(found) == len(samples)
        assert all(row["positive"] == items[row["positive_id"]]["text"] for row in samples)


@pytest.mark.parametrize("task", ["user2item", "sequential_recommendation"])
def test_no_training_sample_shows_its_users_held_out_targets(
    dataset: Path, held_out: dict, items: dict[str, dict], task: str
) -> None:
    samples = rows(dataset, task, "train")
    told = 0
    for row in samples:
        user = row["id"].split("-")[0]
        secret = {items[item]["title"] for item in held_out.get(user, {}).values()}
        told += len(secret)
        if task == "user2item":
            assert items[row["positive_id"]]["title"] not in secret
            assert not secret & set(row["anchor"].split("\n"))
        else:
            assert letter(row) not in secret
            assert not secret & set(shown_history(row))
    assert told > len(samples)


def test_sequential_samples_have_the_targets_and_histories_of_user2item(
    dataset: Path, raw: dict[str, list[Event]], items: dict[str, dict]
) -> None:
    for split, expected in expected_targets(dataset, raw, items).items():
        wanted = {(user, items[item]["title"]): history for (user, item), history in expected.items()}
        samples = rows(dataset, "sequential_recommendation", split)
        found = {(row["id"].split("-")[0], letter(row)): shown_history(row) for row in samples}
        assert found.items() <= wanted.items()
        assert 0.95 * len(wanted) <= len(found) == len(samples)


def test_no_negative_and_no_wrong_option_is_in_its_users_raw_history(
    dataset: Path, raw: dict[str, list[Event]], items: dict[str, dict]
) -> None:
    for row in rows(dataset, "user2item"):
        touched = {event.item for event in raw[row["anchor_id"]]}
        same = {words(items[item]["title"]) for item in touched if item in items}
        assert len(row["negative_ids"]) == 5
        assert not touched & set(row["negative_ids"])
        assert not same & {words(items[item]["title"]) for item in row["negative_ids"]}
    for row in rows(dataset, "sequential_recommendation"):
        touched = {words(items[event.item]["title"]) for event in raw[row["id"].split("-")[0]] if event.item in items}
        wrong = [words(option) for option in row["options"] if option != letter(row)]
        assert len(wrong) == len(set(wrong)) == 19
        assert not touched & set(wrong)
        assert words(letter(row)) in touched


def test_negatives_are_of_the_positives_corpus_and_domain(dataset: Path, items: dict[str, dict]) -> None:
    domains = set()
    for task in ("user2item", "item2item", "query2item"):
        for row in rows(dataset, task):
            positive = items[row["positive_id"]]
            assert (row["corpus"], row["domain"]) == (positive["corpus"], positive["domain"])
            texts = [row["negative"], *row["more_negatives"]]
            for item, text in zip(row["negative_ids"], texts, strict=True):
                assert items[item]["text"] == text
                assert (items[item]["corpus"], items[item]["domain"]) == (positive["corpus"], positive["domain"])
                assert words(items[item]["title"]) != words(positive["title"])
            domains.add(row["domain"])
    assert len(domains) == 3
    titles = defaultdict(set)
    for item in items.values():
        titles[item["corpus"], item["domain"]].add(item["title"])
    for row in rows(dataset, "sequential_recommendation"):
        assert set(row["options"]) <= titles[row["corpus"], row["domain"]]


def test_item2item_never_pairs_an_item_with_itself_or_an_equal_title(dataset: Path, items: dict[str, dict]) -> None:
    split_of: dict[frozenset[str], str] = {}
    for split in SPLITS:
        for row in rows(dataset, "item2item", split):
            first, second = row["anchor_id"], row["positive_id"]
            assert words(items[first]["title"]) != words(items[second]["title"])
            assert (items[first]["text"], items[second]["text"]) == (row["anchor"], row["positive"])
            assert split_of.setdefault(frozenset((first, second)), split) == split
            assert not {first, second} & set(row["negative_ids"])


def test_item2item_negatives_are_no_stated_relations(dataset: Path, shop_folder: Path) -> None:
    related = defaultdict(set)
    for item in metadata(shop_folder):
        for other in item["also_buy"] + item["also_view"]:
            related[f"shop/{item['asin']}"].add(f"shop/{other}")
            related[f"shop/{other}"].add(f"shop/{item['asin']}")
    samples = [row for row in rows(dataset, "item2item") if row["corpus"] == "shop"]
    assert sum(row["positive_id"] in related[row["anchor_id"]] for row in samples) > 0.5 * len(samples)
    assert not [row["id"] for row in samples if related[row["anchor_id"]] & set(row["negative_ids"])]


def test_queries_of_the_official_test_split_are_tested_and_no_answer_is_a_negative(
    dataset: Path, shop_folder: Path, items: dict[str, dict]
) -> None:
    judged: dict[str, dict[str, str]] = defaultdict(dict)
    official = {}
    for row in pq.read_table(shop_folder / "shopping_queries/shopping_queries_dataset_examples.parquet").to_pylist():
        query = words(row["query"])
        judged[query][f"shop_queries/{row['product_locale']}-{row['product_id']}"] = row["esci_label"]
        official[query] = "test" if "test" in (official.get(query), row["split"]) else row["split"]
    seen = set()
    for split in SPLITS:
        for row in rows(dataset, "query2item", split):
            query = words(row["anchor"])
            assert (split == "test") == (official[query] == "test")
            assert judged[query][row["positive_id"]] == "E"
            assert not {"E", "S"} & {judged[query].get(item) for item in row["negative_ids"]}
            wrong = [item for item, label in judged[query].items() if label in "IC"]
            assert len(set(wrong) & set(row["negative_ids"])) == min(len(wrong), 5)
            seen.add(query)
    assert {query for query in seen if official[query] == "test"} == {q for q in official if official[q] == "test"}


def test_a_query_of_both_official_splits_is_tested_alone(shop_copy: Path, tmp_path: Path) -> None:
    path = shop_copy / "shopping_queries/shopping_queries_dataset_examples.parquet"
    examples = pq.read_table(path)
    tested = [row for row in examples.to_pylist() if row["split"] == "test"]
    again = [
        row | {"query": f"{row['query'].upper()} !", "query_id": row["query_id"] + 10**6, "split": "train"}
        for row in tested
    ]
    pq.write_table(pa.concat_tables([pa.Table.from_pylist(again, schema=examples.schema), examples]), path)
    build(shop_copy / "recipe.yaml", tmp_path / "dataset", quiet=True)
    wanted = {words(row["query"]) for row in tested}
    found = {
        split: {words(row["anchor"]) for row in rows(tmp_path / "dataset", "query2item", split)} for split in SPLITS
    }
    assert found["test"] == wanted and not wanted & (found["train"] | found["validation"])


def test_offers_of_one_product_are_no_pair_and_on_one_side_of_every_split(shop_copy: Path, tmp_path: Path) -> None:
    offers = metadata(shop_copy)
    for item in list(offers):  # every item is offered a second time, bought with the first and what that is bought with
        twin = {"asin": f"T{item['asin'][1:]}", "title": f"{item['title'].upper()} ", "description": ["Second offer"]}
        offers.append(item | twin | {"also_buy": [item["asin"], *item["also_buy"]]})
    with gzip.open(shop_copy / "amazon_reviews_2018/meta_Shop.json.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in offers)
    bought = reviews(shop_copy)
    bought += [row | {"asin": f"T{row['asin'][1:]}", "unixReviewTime": row["unixReviewTime"] + 60} for row in bought]
    with gzip.open(shop_copy / "amazon_reviews_2018/Shop_5.json.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in bought)
    build(shop_copy / "recipe.yaml", tmp_path / "dataset", quiet=True)
    items = catalogue(tmp_path / "dataset")
    split_of: dict[frozenset[str], str] = {}
    for split in SPLITS:
        for row in rows(tmp_path / "dataset", "item2item", split):
            ends = [words(items[row[name]]["title"]) for name in ("anchor_id", "positive_id")]
            assert ends[0] != ends[1] and split_of.setdefault(frozenset(ends), split) == split
            assert not set(ends) & {words(items[item]["title"]) for item in row["negative_ids"]}
    for row in rows(tmp_path / "dataset", "user2item"):
        titles = [words(title) for title in row["anchor"].split("\n")]
        assert len({*titles, words(items[row["positive_id"]]["title"])}) == len(titles) + 1
    assert check(tmp_path / "dataset").findings == ()


# What is derived from interactions is derived from training alone: other held-out interactions change none of it.


def other_items(users: dict[str, list[Event]], last: dict[str, int], pool: list[str]) -> dict[tuple[str, str], str]:
    """For each user's events from place `last` on, other items of the pool, untouched by that user."""
    swapped = {}
    for user, events in sorted(users.items()):
        touched = {event.item for event in events}
        draw = random.Random(user)
        fresh = draw.sample(sorted(set(pool) - touched), len(events) - last[user])
        changed = zip(events[last[user] :], fresh, strict=True)
        swapped |= {(user, event.item): item for event, item in changed if event.item in pool}
    return swapped


def held_out_from(users: dict[str, list[Event]], items: dict[str, dict], split: str) -> dict[str, int]:
    """The place in each user's history at which what is held out begins."""
    known = {user: [event for event in events if event.item in items] for user, events in users.items()}
    times = sorted(event.time for events in known.values() for event in events)
    cut = times[int(0.8 * (len(times) - 1))]
    last = {}
    for user, events in users.items():
        chosen = liked(events, items)
        if split == "global_time":
            last[user] = next((place for place, event in enumerate(events) if event.time >= cut), len(events))
        else:
            last[user] = events.index(chosen[-2]) if len(chosen) >= 4 else len(events)
    return last


def write_without_relations(shop: Path) -> None:
    kept = [{**item, "also_buy": [], "also_view": []} for item in metadata(shop)]
    with gzip.open(shop / "amazon_reviews_2018/meta_Shop.json.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in kept)


def swap_held_out(shop: Path, items: dict[str, dict], split: str) -> int:
    """Give everybody other held-out items, at the same times and ratings; return how many changed."""
    changed = 0
    for corpus, users in histories(shop).items():
        pool = [item for item in items if item.startswith(f"{corpus}/")]
        swapped = other_items(users, held_out_from(users, items, split), pool)
        changed += len(swapped)

        def swap(user: str, item: str, corpus: str = corpus, swapped: dict[tuple[str, str], str] = swapped) -> str:
            return swapped.get((pseudonym(corpus, user), f"{corpus}/{item}"), item).removeprefix(f"{corpus}/")

        if corpus == "shop":
            lines = [{**row, "asin": swap(row["reviewerID"], row["asin"])} for row in reviews(shop)]
            with gzip.open(shop / "amazon_reviews_2018/Shop_5.json.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        else:
            table = [{**row, "movieId": swap(row["userId"], row["movieId"])} for row in ratings(shop)]
            with (shop / "movielens/ratings.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(table[0]))
                writer.writeheader()
                writer.writerows(table)
    return changed


@pytest.mark.parametrize("split", ["leave_last", "global_time"])
def test_other_held_out_interactions_change_no_training_sample_no_pair_and_no_popularity(
    shop_copy: Path, tmp_path: Path, split: str
) -> None:
    write_without_relations(shop_copy)
    settings = yaml.safe_load((shop_copy / "recipe.yaml").read_text())
    settings |= {"split": split, "tasks": ["user2item", "item2item"], "history": {"train_targets_per_user": 3}}
    del settings["corpora"][2]
    (shop_copy / "recipe.yaml").write_text(yaml.safe_dump(settings))
    build(shop_copy / "recipe.yaml", tmp_path / "before", quiet=True)
    items = catalogue(tmp_path / "before")
    assert swap_held_out(shop_copy, items, split) > 250
    build(shop_copy / "recipe.yaml", tmp_path / "after", quiet=True)

    def pairs(out: Path, config: str, split: str = "*") -> list[tuple[Any, ...]]:
        return sorted((row["id"], row["anchor"], row["positive_id"]) for row in rows(out, config, split))

    held = [pairs(tmp_path / out, "user2item", "test") for out in ("before", "after")]
    assert len(set(held[0]) & set(held[1])) < 0.1 * len(held[0])
    # Of two samples that read the same the one held out stays: a new test sample can replace a training one.
    before, after = (set(pairs(tmp_path / out, "user2item", "train")) for out in ("before", "after"))
    assert len(before) > 200 and len(before ^ after) <= 0.01 * len(before)
    # Pairs, and their popularity-matched negatives, which depend on no user's choice but through popularity.
    assert {row["corpus"] for row in rows(tmp_path / "before", "item2item")} == set(INTERACTIONS)
    assert rows(tmp_path / "before", "item2item") == rows(tmp_path / "after", "item2item")


# People stay out of every file.


def strings(value: Any) -> list[str]:
    """Every string in nested lists and mappings, keys included."""
    if isinstance(value, dict):
        return [text for key, entry in value.items() for text in (str(key), *strings(entry))]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in strings(entry)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope="module")
def everything(dataset: Path) -> str:
    """All text of all files, and the raw bytes of those that are text."""
    parts = [text for path in sorted(dataset.rglob("*.parquet")) for text in strings(pq.read_table(path).to_pylist())]
    files = [path for path in dataset.rglob("*") if path.is_file() and path.suffix not in (".parquet", ".png")]
    assert {path.name for path in files} == {"README.md", "recfound.json"}
    return "\n".join([*parts, *(path.read_text(encoding="utf-8") for path in files)])


def test_no_reviewer_is_named(everything: str, shop_folder: Path) -> None:
    assert {row["reviewerName"] for row in reviews(shop_folder)} <= set(REVIEWER_NAMES)
    found = set(re.findall(r"\w+", everything.lower()))
    assert not found & {word for name in REVIEWER_NAMES for word in re.findall(r"\w+", name.lower())}


def test_no_raw_user_id_is_in_any_file(everything: str, shop_folder: Path) -> None:
    reviewers = {row["reviewerID"] for row in reviews(shop_folder)}
    assert len(reviewers) == 150 and all(re.fullmatch("A[A-Z2-7]{13}", user) for user in reviewers)
    assert not reviewers & set(re.findall(r"[A-Z0-9]{14}", everything))


def test_users_stand_under_their_pseudonyms_alone(dataset: Path, raw: dict[str, list[Event]]) -> None:
    assert {row["anchor_id"] for row in rows(dataset, "user2item")} <= set(raw)
    for task in ("user2item", "sequential_recommendation"):
        assert all(re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", row["id"]) for row in rows(dataset, task))
        assert {row["id"].split("-")[0] for row in rows(dataset, task)} <= set(raw)
    of_users = [row["query_id"] for row in rows(dataset, "queries") if row["task"] == "user2item"]
    assert of_users and set(of_users) <= set(raw)


EMAIL = r"[\w.+-]+@[\w-]+\.\w+"
PHONE = r"\(\d{3}\) ?\d{3}-\d{4}|\b\d{3}[-.]\d{3}[-.]\d{4}\b|\b555-01\d\d\b|\+\d{2} \d{2,4} \d{3,4} \d{3,4}"
CONTACTS = ("jane.doe+shop@mail.example.com", "(212) 555-0143", "212-555-0143", "+44 20 7946 0123", "555-0199")


def test_no_address_and_no_number_of_a_person_is_in_any_file(everything: str) -> None:
    assert not re.findall(EMAIL, everything)
    assert not re.findall(PHONE, everything)


def test_contacts_in_any_raw_field_are_taken_out(shop_copy: Path, tmp_path: Path) -> None:
    people = [f"call {contact} now" for contact in CONTACTS]
    assert all(re.search(f"{EMAIL}|{PHONE}", text) for text in people)
    changed = []
    for place, item in enumerate(metadata(shop_copy)):
        field = ("title", "description", "feature", "brand", "category")[place % 5]
        text = f"{people[place // 5 % 5]} or later {place}"
        changed.append({**item, field: text if isinstance(item[field], str) else [*item[field], text]})
    with gzip.open(shop_copy / "amazon_reviews_2018/meta_Shop.json.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in changed)
    films = shop_copy / "movielens/movies.csv"
    films.write_text(films.read_text().replace(" (19", f" {people[0]} (19").replace(" (20", f" {people[1]} (20"))
    for name, column in (("examples", "query"), ("products", "product_bullet_point")):
        path = shop_copy / f"shopping_queries/shopping_queries_dataset_{name}.parquet"
        table = pq.read_table(path)
        texts = [f"{text} {people[len(text or '') % 5]}" for text in table[column].to_pylist()]
        pq.write_table(table.set_column(table.column_names.index(column), column, [texts]), path)
    build(shop_copy / "recipe.yaml", tmp_path / "dataset", quiet=True)
    found = "\n".join(text for path in (tmp_path / "dataset").rglob("*.parquet")
                      for text in strings(pq.read_table(path).to_pylist()))  # fmt: skip
    assert found.count("[email]") > 100 and found.count("[phone]") > 100
    assert not re.findall(EMAIL, found) and not re.findall(PHONE, found)
    assert check(tmp_path / "dataset").passed
