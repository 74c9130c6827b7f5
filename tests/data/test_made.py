"""Finished samples of another project: the reader of RecFound's release, and what is passed on of it."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue
from recfound_data.corpora.recfound_release import RELEASED_NAMES, RecFoundRelease
from recfound_data.errors import RecfoundError
from recfound_data.identity import stable_id
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe
from recfound_data.samples import EMBEDDING, GENERATIVE, LETTERS, Built, Corpus
from recfound_data.tables import GROUPS, TABLES
from recfound_data.tasks import TASKS
from recfound_data.tasks import made as finished
from recfound_data.tasks.user2item import PHRASINGS

NAME = "recfound_release"
RECIPE = DataRecipe.model_construct(seed=4, validation_share=0.2, test_share=0.2, negatives=2, item_text_chars=600)
FILLER = " and a good deal more is said of it, line after line, so that the title is a long one for sure"
Record = dict[str, object]


def embedding(task: str, query: str, pos: list[str], neg: list[str]) -> Record:
    return {
        "task": task, "query": ["Find it:", query], "pos": [["", text] for text in pos],
        "neg": [["", text] for text in neg], "id": "A1RAWUSERID", "source": "A1RAWUSERID",
    }  # fmt: skip


def generative(task: str, prompt: str, answer: str) -> Record:
    return {"task": task, "text": [prompt, answer], "id": 7, "source": "Books"}


def release(folder: Path, **files: Iterable[object]) -> RecFoundRelease:
    folder.mkdir(exist_ok=True)
    for name, records in files.items():
        text = "".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in records)
        (folder / f"{name}.jsonl").write_text(text)
    return RecFoundRelease(samples=str(folder / "*.jsonl"))


class Read:
    """What the reader gives: frames by table, drops, unparsable lines."""

    def __init__(self, reader: RecFoundRelease) -> None:
        frames: dict[str, list[pl.DataFrame]] = {"items": [], "made": []}
        self.drops: Counter[str] = Counter()
        self.bad = []
        for batch in reader.batches(UserKey("key", secret=True)):
            schema = TABLES[batch.table]
            columns = [
                (pl.col(n) if n in batch.frame.columns else pl.lit(None)).cast(t).alias(n) for n, t in schema.items()
            ]
            frames[batch.table].append(batch.frame.select(columns))
            self.drops.update({reason: count for reason, count in batch.drops.items() if count})
            self.bad += batch.unparsable
        self.items, self.made = (pl.concat(frames[table]) for table in ("items", "made"))

    def built(self, task: str) -> Built:
        catalogue, drops = make_catalogue([self.items], NAME, RECIPE)
        assert not any(drops.values())
        rows = self.made.with_columns(group=stable_id(GROUPS["made"]()))
        splits = {"made": frozenset(rows["split"].drop_nulls())}
        return finished.build(Corpus(NAME, RECIPE, {"made": rows, "catalogue": catalogue}, splits), task)


def one(folder: Path, *records: object, task: str) -> Built:
    return Read(release(folder, train=records)).built(task)


# The reader


def test_every_task_is_known_by_the_names_of_the_release_the_paper_and_this_dataset() -> None:
    for name, spec in TASKS.items():
        spoken = "".join(character for character in spec.abbreviation.lower() if character.isalnum())
        assert RELEASED_NAMES[spoken] == RELEASED_NAMES[name.replace("_", "")] == name
    for emb, name in {"embuser": "user2item", "embquery": "query2item", "embitem": "item2item"}.items():
        assert RELEASED_NAMES[emb] == name
    assert set(RELEASED_NAMES.values()) == set(TASKS)


def test_rows_of_any_shape_are_read_and_others_are_counted(tmp_path: Path) -> None:
    found = Read(
        release(
            tmp_path,
            train=[
                embedding("Emb_query", "red cup", ["Cup A", "Cup B"], ["Hat"]),
                {"task": "Q2I", "query": "blue cup", "pos": ["", "Cup C"], "neg": ["Hat", "Shoe", "Bag"]},
                generative("Answer_Generation", "Is it red?", "Yes, it is."),
                generative("Query_Product_Ranking", "Rank", "A"),
                {"task": "Answer_Generation", "text": ["Q", "A", "Q", "A"]},
                {"task": "Answer_Generation", "text": ["Q", " "]},
                {"task": "Emb_item", "text": ["Q", "A"]},
                "{broken\n",
                "[1]\n",
            ],
        )
    )
    rows = found.made.to_dicts()
    assert [(row["task"], row["anchor"] or row["prompt"]) for row in rows] == [
        ("query2item", "red cup"), ("query2item", "red cup"), ("query2item", "blue cup"),
        ("answer_generation", "Is it red?"),
    ]  # fmt: skip
    texts = dict(found.items.select("item_id", "title").iter_rows())
    assert [texts.get(row["positive"]) for row in rows] == ["Cup A", "Cup B", "Cup C", None]
    assert [texts[item] for item in rows[2]["negatives"]] == ["Hat", "Shoe", "Bag"]
    assert rows[0]["instruction"] == "Find it"
    assert found.items["item_id"].is_unique().all()
    assert found.drops == {
        "sample of unknown task 'Query_Product_Ranking'": 1,
        "generative sample of several turns": 1,
        "generative sample without a prompt and an answer": 1,
        "embedding sample without an anchor, a positive or a negative": 1,
        "record unparsable": 2,
    }
    assert [bad.line for bad in found.bad] == [8, 9]


def test_ids_and_sources_of_the_release_are_not_passed_on(tmp_path: Path) -> None:
    found = Read(release(tmp_path, train=[embedding("Emb_user", "Cup, Hat", ["Shoe"], ["Bag"])]))
    assert found.made["sample_id"].str.contains(r"^[0-9a-f]{16}$").all()
    assert "A1RAWUSERID" not in str(found.made.to_dicts()) + str(found.items.to_dicts())
    assert "A1RAWUSERID" not in str(found.built("user2item").samples.to_dicts())


def test_a_list_of_records_is_read_and_the_name_gives_the_split(tmp_path: Path) -> None:
    rows = [embedding("Emb_item", f"Cup {name}", ["Pot"], ["Hat"]) for name in ("A", "B")]
    path = tmp_path / "item_embedding_test.json"
    path.write_text(json.dumps([*rows, 3]))
    found = Read(RecFoundRelease(samples=str(path)))
    assert found.made["split"].to_list() == ["test", "test"]
    assert [(bad.line, bad.why) for bad in found.bad] == [(3, "expected an object, found int")]
    assert set(Read(RecFoundRelease(samples=str(path), split="train")).made["split"]) == {"train"}
    unnamed = path.rename(tmp_path / "samples.json")
    with pytest.raises(RecfoundError, match=r"samples.json: its name tells no split .* set `split`"):
        Read(RecFoundRelease(samples=str(unnamed)))


def test_held_out_splits_stay_and_training_gives_way(tmp_path: Path) -> None:
    found = Read(
        release(
            tmp_path,
            Embedding_dataset_train=[
                embedding("Emb_query", "RED cup!", ["Cup B"], ["Hat"]),
                embedding("Emb_query", "green cup", ["Cup B"], ["Hat"]),
                embedding("Emb_item", "Cup B", ["Cup A"], ["Hat"]),
                embedding("Emb_item", "Cup B", ["Cup C"], ["Hat"]),
            ],
            Embedding_dataset_eval=[embedding("Emb_query", "red cup", ["Cup A"], ["Hat"])],
            Embedding_dataset_test=[embedding("Emb_item", "Cup A", ["Cup B"], ["Hat"])],
            Generative_dataset_train=[generative("Answer_Generation", "Red?", "No"), generative("UP", "Red?", "No")],
            Generative_dataset_test=[
                generative("Answer_Generation", "Red?", "Yes"),
                generative("Answer_Generation", "Red?", "Maybe"),
            ],
        )
    )
    kept = found.made.select("split", "task", pl.coalesce("anchor", "prompt"), "answer")
    assert sorted(kept.rows(), key=str) == sorted(
        [
            ("train", "query2item", "green cup", None),
            ("validation", "query2item", "red cup", None),
            ("test", "item2item", "Cup A", None),
            ("train", "item2item", "Cup B", None),
            ("test", "answer_generation", "Red?", "Yes"),
            ("train", "user_profile", "Red?", "No"),
        ],
        key=str,
    )
    assert found.drops == {"sample that a split held out from it asks too": 3, "prompt repeated": 1}


def test_an_items_title_is_its_first_line_and_its_text_is_not_said_twice(tmp_path: Path) -> None:
    long = "Cup " + "with words " * 40
    found = Read(release(tmp_path, train=[embedding("Q2I", "cup", ["Cup <b>A</b>\nIt is red.", long], ["Hat"])]))
    texts = {row["title"][:5]: (row["title"], row["description"]) for row in found.items.to_dicts()}
    assert texts["Cup A"] == ("Cup A", "It is red.")
    assert texts["Hat"] == ("Hat", "")
    title, rest = texts["Cup w"]
    assert len(title) <= 200
    assert f"{title} {rest}" == long.strip()


# What is passed on


def test_embedding_samples_hold_the_texts_of_their_items(tmp_path: Path) -> None:
    records = [
        embedding("Emb_query", f"cup {n}", [f"Cup {n}\nred"], [f"Hat {n}", f"Bag {n}", f"Shoe {n}"]) for n in range(9)
    ]
    found = Read(release(tmp_path, train=records[:5], eval=records[5:7], test=records[7:]))
    built = found.built("query2item")
    catalogue, _ = make_catalogue([found.items], NAME, RECIPE)
    texts = dict(catalogue.select("item_id", "text").iter_rows())
    assert built.samples.columns == [*EMBEDDING, "split"]
    assert Counter(built.samples["split"]) == {"train": 5, "validation": 2, "test": 2}
    for row in built.samples.iter_rows(named=True):
        assert row["positive"] == texts[row["positive_id"]]
        assert [row["negative"], *row["more_negatives"]] == [texts[item] for item in row["negative_ids"]]
        assert len(row["negative_ids"]) == RECIPE.negatives
        assert row["anchor_id"] != row["id"].split("-")[0]
    assert built.qrels is not None
    judged = built.samples.join(
        built.qrels, left_on=["split", "anchor_id", "positive_id"], right_on=["split", "query_id", "item_id"]
    )
    assert len(judged) == len(built.samples) == len(built.qrels)
    assert set(built.qrels["grade"]) == {3}


def test_the_item_itself_and_its_duplicates_leave_an_item_pair(tmp_path: Path) -> None:
    cup, twin = f"Red cup, large{FILLER}\n1", f"Red CUP - large{FILLER}\n2"
    built = one(
        tmp_path,
        embedding("I2I", cup, ["Saucer", twin, cup], ["Hat", cup, "hat!", twin, "Spoon", "Bag"]),
        embedding("I2I", cup, ["Spoon"], ["Saucer", "Hat"]),
        embedding("I2I", "Fork", ["Knife"], ["Fork", "knife"]),
        task="item2item",
    )
    rows = {row["positive"]: row for row in built.samples.iter_rows(named=True)}
    assert set(rows) == {"Saucer", "Spoon"}
    # Spoon is a positive of the same anchor elsewhere, so it is no negative here; nor is Saucer there.
    assert [rows["Saucer"]["negative"], *rows["Saucer"]["more_negatives"]] == ["Hat", "Bag"]
    assert rows["Spoon"]["negative"] == "Hat"
    assert {row["anchor"] for row in rows.values()} == {cup}
    assert rows["Spoon"]["anchor_id"] == rows["Saucer"]["anchor_id"] == f"{NAME}/{stable_id_of(cup)}"
    assert built.drops["sample whose positive is the anchor or its duplicate"] == 2
    assert built.drops["sample without a negative left"] == 1
    assert built.drops["negative that is the anchor or its duplicate"] == 3
    assert built.drops["negative that is a positive or its duplicate"] == 3
    assert built.drops["negative stated again"] == 1


def stable_id_of(text: str) -> str:
    return str(pl.DataFrame({"text": [text]}).select(stable_id(pl.col("text"))).item())


def test_an_instruction_is_the_releases_own_or_one_of_the_tasks(tmp_path: Path) -> None:
    own = embedding("U2I", "Cup, Hat", ["Shoe"], ["Bag"])
    bare = embedding("U2I", "", ["Shoe"], ["Bag"]) | {"query": ["", "Cup, Pot"]}
    rows = dict(one(tmp_path, own, bare, task="user2item").samples.select("anchor", "instruction").iter_rows())
    assert rows["Cup, Hat"] == "Find it"
    assert rows["Cup, Pot"] in PHRASINGS


def test_prose_keeps_its_lines_and_says_who_wrote_it(tmp_path: Path) -> None:
    reader = Read(
        release(
            tmp_path,
            train=[
                generative("item_profile", "Describe.\n\nTitle: A &amp; B  <i>cup</i>", "A cup.\nMail joe@example.org"),
                generative("Answer_Generation", "Describe.\n\nTitle: cup", "A cup."),
                generative("Answer_Generation", "x" * 20_000, "A cup."),
            ],
        )
    )
    profile = reader.built("item_profile").samples.row(0, named=True)
    assert profile["prompt"] == [{"role": "user", "content": "Describe.\nTitle: A & B cup"}]
    assert profile["completion"] == [{"role": "assistant", "content": "A cup.\nMail [email]"}]
    assert profile["label_source"] == NAME
    answers = reader.built("answer_generation")
    assert answers.samples["label_source"].to_list() == ["corpus"]
    assert answers.drops["prompt over 16,000 characters or answer over 4,000"] == 1
    assert answers.samples.columns == [*GENERATIVE, "split"]


@pytest.mark.parametrize("style", ["lines", "list", "list on the line of a word"])
def test_a_recommendation_has_the_twenty_options_of_its_prompt(tmp_path: Path, style: str) -> None:
    titles = [f"Title {letter}: the (second), part" for letter in LETTERS]
    given = [f"{letter}: {title}" for letter, title in zip(LETTERS, titles, strict=True)]
    shown = "\n".join(given) if style == "lines" else json.dumps(given)
    prompt = f"Pick one.\nVitamin A: a pill\nOptions:\n{shown}\nAnswer:"
    if "word" in style:
        prompt = prompt.replace("Options:\n", "Options: ").replace("\nAnswer", " Answer")
    built = one(
        tmp_path,
        generative("SR", prompt, " C: " + titles[2]),
        generative("SR", prompt.replace("Title D", "Title C").replace("Pick", "Take"), "C"),
        generative("SR", prompt.replace("Pick", "Name"), "None of them"),
        generative("SR", "Pick one.\nA: this\nB: that", "A"),
        task="sequential_recommendation",
    )
    row = built.samples.row(0, named=True)
    assert row["options"] == titles
    assert row["label"] == "C"
    assert (
        row["prompt"][0]["content"]
        == "Pick one.\nVitamin A: a pill\nOptions:\n"
        + "\n".join(f"{letter}. {title}" for letter, title in zip(LETTERS, titles, strict=True))
        + "\nAnswer:"
    )
    # An option is there twice, no letter is given, options are too few.
    assert built.drops["sample whose answer does not fit its prompt"] == 3
    assert len(built.samples) == 1


def test_a_choice_is_labelled_by_its_letter(tmp_path: Path) -> None:
    prompt = "How does the review sound?\nA: very positive\nB: positive\nC: neutral\nReview: {}"
    built = one(
        tmp_path,
        generative("Sentiment_Analysis", prompt.format("good"), "B: positive"),
        generative("Sentiment_Analysis", prompt.format("bad"), "E"),
        generative("Sentiment_Analysis", prompt.format("so so"), "Cannot say"),
        task="sentiment_analysis",
    )
    assert built.samples.select("label", "options").rows() == [("B", ["A", "B", "C"])]


def test_answers_have_the_form_of_their_task(tmp_path: Path) -> None:
    good = [{"attribute": "Color", "value": "R&amp;D red", "source": "title"}]
    reader = Read(
        release(
            tmp_path,
            train=[
                generative("AVE", "Extract color: R&amp;D red cup", json.dumps(good)),
                generative("AVE", "Extract color: blue cup", json.dumps(good)),
                generative("AVE", "Extract color: a cup", "no color"),
                generative("AVE", "Extract color: the cup", '{"attribute": "Color"}'),
                generative("PM", "Same?\nCup\ncup", "Yes"),
                generative("PM", "Same?\nCup\nhat", "I think not"),
                generative("QR", "Rewrite:\nand tomorrow?", "What is the weather tomorrow?"),
                generative("QR", "Rewrite:\nwhat is it?", "what is it?"),
            ],
        )
    )
    assert json.loads(reader.built("attribute_value_extraction").samples["label"].item()) == good
    assert reader.built("product_matching").samples["label"].to_list() == ["yes"]
    assert reader.built("query_rewriting").samples["label"].to_list() == ["What is the weather tomorrow?"]
