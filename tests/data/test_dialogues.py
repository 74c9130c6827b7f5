"""MuDoCo-QR and Alexa CQR, and the query_rewriting samples made of them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recfound_data.corpora.alexa_cqr import AlexaCqr
from recfound_data.corpora.mudoco_qr import MudocoQr
from recfound_data.errors import RecfoundError
from recfound_data.identity import stable_id
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe
from recfound_data.samples import Built, Corpus
from recfound_data.tables import GROUPS, TABLES, Batch, Source
from recfound_data.tasks import query_rewriting

PEOPLE = UserKey("a key of the tests", secret=True)
RECIPE = DataRecipe(corpora=[{"corpus": "any"}], tasks=["item2item"])


def read(reader: Source) -> tuple[pl.DataFrame, list[Batch]]:
    batches = list(reader.batches(PEOPLE))
    return pl.concat([batch.frame.select(list(TABLES["dialogues"])) for batch in batches]), batches


def built(dialogues: pl.DataFrame) -> Built:
    frame = dialogues.with_columns(group=stable_id(GROUPS["dialogues"]()))
    official = {"dialogues": frozenset(frame["split"].drop_nulls())}
    return query_rewriting.build(Corpus("talk", RECIPE, {"dialogues": frame}, official))


def dialogue(*turns: tuple[str, str, str | None], name: str = "d", split: str | None = "train") -> dict[str, Any]:
    said = [{"speaker": speaker, "text": text, "rewrite": rewrite} for speaker, text, rewrite in turns]
    return {"dialogue_id": name, "turns": said, "split": split, "domain": "Garden"}


def table(*dialogues: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(dialogues), schema=TABLES["dialogues"])


def shown(built: Built, row: int = 0) -> tuple[list[str], list[str]]:
    """The lines of the dialogue in a sample's prompt and in its label."""
    sample = built.samples.row(row, named=True)
    return sample["prompt"][0]["content"].split("Dialogue:\n")[1].split("\n"), sample["label"].split("\n")


def mudoco_turn(number: int, text: str, rewrite: str | None = None, graded: bool = True) -> dict[str, Any]:
    turn: dict[str, Any] = {"number": number, "utterance": text, "named_entities": {}, "references": {}, "links": []}
    if graded:
        turn |= {"rewritten_utterance": rewrite or text, "rewrite_required": rewrite is not None}
    return turn | {"graded": graded}


def mudoco(folder: Path, **dialogues: Any) -> MudocoQr:
    (folder / "mudoco_garden.json").write_text(json.dumps({"domain": "garden", "dialogs": dialogues}))
    return MudocoQr(dialogues=str(folder / "mudoco_*.json"))


PLAIN = [mudoco_turn(1, "Is the pond frozen ?"), mudoco_turn(2, "It is .", "The pond is frozen .")]


def test_mudoco_turns_after_a_gap_are_left_out_and_counted(tmp_path: Path) -> None:
    gap = [*PLAIN, mudoco_turn(4, "Yes .", graded=False), mudoco_turn(5, "And the lawn ?", graded=False)]
    frame, (batch,) = read(mudoco(tmp_path, gap={"split": "train", "turns": gap}))
    assert [turn["text"] for turn in frame["turns"][0]] == ["Is the pond frozen ?", "It is ."]
    assert batch.drops["turn after one that is missing"] == 2


def test_mudoco_dialogue_without_its_first_turn_is_dropped(tmp_path: Path) -> None:
    frame, (batch,) = read(
        mudoco(tmp_path, late={"split": "train", "turns": PLAIN[1:]}, good={"split": "test", "turns": PLAIN})
    )
    assert frame["dialogue_id"].to_list() == ["good"]
    assert batch.drops["dialogue without its first turn"] == 1


def test_mudoco_names_speakers_splits_and_domain(tmp_path: Path) -> None:
    frame, _ = read(
        mudoco(tmp_path, **{split: {"split": split, "turns": PLAIN} for split in ("train", "eval", "test")})
    )
    assert dict(zip(frame["dialogue_id"], frame["split"], strict=True)) == {
        "train": "train",
        "eval": "validation",
        "test": "test",
    }
    assert [turn["speaker"] for turn in frame["turns"][0]] == ["user", "assistant"]
    assert frame["turns"][0][1]["rewrite"] == "The pond is frozen ."
    assert frame["domain"].unique().to_list() == ["Garden"]


def test_mudoco_ungraded_turn_has_no_rewrite(tmp_path: Path) -> None:
    turns = [PLAIN[0], mudoco_turn(2, "It is .", graded=False)]
    frame, _ = read(mudoco(tmp_path, one={"split": "train", "turns": turns}))
    assert [turn["rewrite"] for turn in frame["turns"][0]] == ["Is the pond frozen ?", None]


@pytest.mark.parametrize("broken", [None, [], {"split": "train"}, {"split": "train", "turns": [{"number": 1}]}])
def test_mudoco_broken_dialogue_is_reported_and_the_rest_read(tmp_path: Path, broken: Any) -> None:
    frame, (batch,) = read(mudoco(tmp_path, broken=broken, good={"split": "train", "turns": PLAIN}))
    assert frame["dialogue_id"].to_list() == ["good"]
    assert batch.drops["record unparsable"] == 1
    assert "dialogue broken" in batch.unparsable[0].why


def test_mudoco_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(RecfoundError, match=r"other\.json: has no mapping 'dialogs'"):
        read(MudocoQr(dialogues=str(tmp_path / "other.json")))


def cqr_turn(speaker: str, text: str, base: int | None = None, rewrite: str | None = None) -> dict[str, Any]:
    turn: dict[str, Any] = {"turn": speaker, "data": {"end_dialogue": False, "utterance": text}}
    if base is not None:
        turn["reformulation"] = {"base_utt_idx": base, "reformulated_utt": rewrite, "slots": {}}
    return turn


def cqr_dialogue(*turns: dict[str, Any], name: str = "d") -> dict[str, Any]:
    scenario = {"kb": {"items": None, "kb_title": "calendar"}, "task": {"intent": "schedule"}, "uuid": name}
    return {"dialogue": list(turns), "scenario": scenario}


def cqr(folder: Path, *dialogues: Any, name: str = "cqr_kvret_dev_public.json") -> AlexaCqr:
    (folder / name).write_text(json.dumps(list(dialogues)))
    return AlexaCqr(dialogues=str(folder / name))


def rewrites(frame: pl.DataFrame) -> list[str | None]:
    return [turn["rewrite"] for turn in frame["turns"][0]]


def test_cqr_rewrite_replaces_the_turn_it_names(tmp_path: Path) -> None:
    frame, _ = read(
        cqr(
            tmp_path,
            cqr_dialogue(
                cqr_turn("driver", "Find a ferry."),
                cqr_turn("assistant", "The Linnet leaves at nine."),
                cqr_turn("driver", "Book it."),
                cqr_turn("assistant", "Booked.", 2, "Book the ferry Linnet at nine."),
                cqr_turn("driver", "Thanks."),
                cqr_turn("assistant", "Welcome.", 4, None),
            ),
        )
    )
    assert rewrites(frame) == [None, None, "Book the ferry Linnet at nine.", None, None, None]
    assert frame["turns"][0][0]["speaker"] == "user"
    assert frame.row(0, named=True)["domain"] == "Calendar"


def test_cqr_question_completed_by_the_answer_rewrites_the_answer(tmp_path: Path) -> None:
    frame, _ = read(
        cqr(
            tmp_path,
            cqr_dialogue(
                cqr_turn("driver", "when does the ferry leave"),
                cqr_turn("assistant", "From which quay?"),
                cqr_turn("driver", "Heron Quay, please."),
                cqr_turn("assistant", "At nine.", 0, "when does the ferry leave from Heron Quay"),
            ),
        )
    )
    assert rewrites(frame) == [None, None, "when does the ferry leave from Heron Quay", None]


def test_cqr_question_rewritten_from_its_own_words_stays_where_it_is(tmp_path: Path) -> None:
    frame, _ = read(
        cqr(
            tmp_path,
            cqr_dialogue(
                cqr_turn("driver", "When is the regatta and who rows?"),
                cqr_turn("assistant", "On Monday; Tilda rows."),
                cqr_turn("driver", "Lovely, thanks."),
                cqr_turn("assistant", "Welcome.", 0, "When is the regatta and who rows at the regatta?"),
            ),
        )
    )
    assert rewrites(frame) == ["When is the regatta and who rows at the regatta?", None, None, None]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("cqr_kvret_train_public.json", "train"),
        ("cqr_kvret_dev_public.json", "validation"),
        ("cqr_kvret_test_public.json", "test"),
        ("dialogues.json", None),
    ],
)
def test_cqr_file_name_says_the_split(tmp_path: Path, name: str, split: str | None) -> None:
    folder = tmp_path / "test"  # a folder's name says nothing
    folder.mkdir()
    frame, _ = read(cqr(folder, cqr_dialogue(cqr_turn("driver", "Hello.")), name=name))
    assert frame["split"].to_list() == [split]


def test_cqr_json_lines_read_as_the_list_does(tmp_path: Path) -> None:
    dialogues = [cqr_dialogue(cqr_turn("driver", f"Hello {number}."), name=str(number)) for number in range(3)]
    listed, _ = read(cqr(tmp_path, *dialogues))
    (tmp_path / "cqr_kvret_dev_lines.json").write_text("\n".join(map(json.dumps, dialogues)))
    lines, _ = read(AlexaCqr(dialogues=str(tmp_path / "cqr_kvret_dev_lines.json")))
    assert lines.equals(listed)


@pytest.mark.parametrize(
    "broken",
    [
        7,
        {"dialogue": []},
        {"dialogue": "none", "scenario": {}},
        cqr_dialogue(cqr_turn("pilot", "Hello.")),
        cqr_dialogue({"turn": "driver", "data": {}}),
        cqr_dialogue(cqr_turn("driver", "Hello."), cqr_turn("assistant", "Hello.", 9, "Hello there.")),
    ],
)
def test_cqr_broken_dialogue_is_reported_and_the_rest_read(tmp_path: Path, broken: Any) -> None:
    frame, (batch,) = read(cqr(tmp_path, broken, cqr_dialogue(cqr_turn("driver", "Hello."), name="good")))
    assert frame["dialogue_id"].to_list() == ["good"]
    assert batch.unparsable[0].why.startswith("dialogue 1: ")


def test_cqr_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('[{"dialogue": [')
    with pytest.raises(RecfoundError, match=r"cut\.json: is no valid JSON"):
        read(AlexaCqr(dialogues=str(tmp_path / "cut.json")))


ROSES = (
    ("user", "How are the roses ?", "How are the roses ?"),
    ("assistant", "They 've grown .", "They , the roses , have grown"),
    ("user", "Water THEM .", "Water them"),
)


def test_label_has_the_prompts_lines_and_speakers_and_changes_only_what_was_rewritten() -> None:
    before, after = shown(built(table(dialogue(*ROSES))))
    assert before == ["User: How are the roses?", "Assistant: They've grown.", "User: Water THEM."]
    assert after == ["User: How are the roses?", "Assistant: They, the roses, have grown.", "User: Water THEM."]


def test_rewrite_that_starts_elsewhere_gets_no_full_stop() -> None:
    turns = (("user", "will it hail", None), ("assistant", "Where?", None), ("user", "Bonn.", "will it hail in Bonn"))
    assert shown(built(table(dialogue(*turns))))[1][2] == "User: will it hail in Bonn"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("Is it Ann 's , or Bob 's ?", "Is it Ann's, or Bob's?"),
        ("I do n't ( yet ) pay $ 5 .", "I don't (yet) pay $5."),
        ("The girls ' 50 % or 1 / 4 !", "The girls' 50% or 1/4!"),
        ("Plain text, as it is: 3.5 (m).", "Plain text, as it is: 3.5 (m)."),
    ],
)
def test_tokenised_spacing_is_closed(tokens: str, text: str) -> None:
    turns = (("user", tokens, None), ("user", "Again .", "Do that again ."))
    assert shown(built(table(dialogue(*turns))))[0][0] == f"User: {text}"


def test_dialogues_that_teach_nothing_are_dropped_and_counted() -> None:
    same = (("user", "It's  L. A. !", "its l.a."), ("assistant", "Yes.", None))
    frame = table(
        dialogue(*ROSES, name="good"),
        dialogue(ROSES[1], name="short"),
        dialogue(*same, name="same"),
        dialogue(("user", "word " * 200, None), *ROSES, name="long"),
    )
    made = built(frame)
    assert len(made.samples) == 1
    assert made.drops == {
        "dialogue of fewer than two turns": 1,
        "dialogue without a rewritten turn": 1,
        "dialogue with a turn that is too long": 1,
    }


def test_of_a_long_dialogue_the_first_turns_are_kept() -> None:
    filler = [("assistant", f"Bed {number} is dug.", None) for number in range(20)]
    before, after = shown(built(table(dialogue(*ROSES, *filler))))
    assert len(before) == len(after) == query_rewriting.MAX_TURNS
    assert before[0] == "User: How are the roses?"
    late = built(table(dialogue(*filler, *ROSES)))
    assert late.drops["dialogue without a rewritten turn"] == 1


def test_instruction_says_whose_turns_are_rewritten() -> None:
    frame = table(
        *(dialogue(*ROSES, name=f"both {number}") for number in range(8)),
        *(dialogue(("assistant", "Which?", None), ROSES[0], name=f"user {number}") for number in range(1)),
        *(dialogue(("assistant", "Roses?", None), ("user", "Yes", "Roses, yes"), name=f"u{n}") for n in range(8)),
    )
    for sample in built(frame).samples.iter_rows(named=True):
        instruction = sample["prompt"][0]["content"].split("\n\n")[0]
        both = "Assistant: They've" in sample["prompt"][0]["content"]
        assert instruction in (query_rewriting.EVERY_TURN if both else query_rewriting.USER_TURNS)


def test_official_splits_are_kept_and_ids_are_by_dialogue() -> None:
    splits = ("train", "validation", "test")
    frame = table(*(dialogue(*ROSES, name=split, split=split) for split in splits))
    made = built(frame).samples
    assert sorted(made["split"]) == sorted(splits)
    assert made["id"].n_unique() == 3
    groups = frame.select(group=stable_id(GROUPS["dialogues"]()))["group"].to_list()
    assert sorted(made["id"].str.slice(0, 16)) == sorted(groups)


def test_people_in_dialogues_are_scrubbed() -> None:
    turns = (("user", "Mail ann@example.org .", None), ("user", "Now .", "Mail ann@example.org now ."))
    assert "ann@" not in str(built(table(dialogue(*turns))).samples.to_dicts())


@pytest.mark.corpora
def test_real_slices_give_samples_that_differ_where_they_say_so(corpora: Path) -> None:
    folder = corpora / "query_rewriting"
    for reader in (
        MudocoQr(dialogues=str(folder / "mudoco_qr" / "mudoco_*.json")),
        AlexaCqr(dialogues=str(folder / "alexa_cqr" / "cqr_kvret_*_public.json")),
    ):
        frame, batches = read(reader)
        assert not [bad for batch in batches for bad in batch.unparsable]
        made = built(frame)
        assert len(made.samples) > 50
        assert set(made.samples["split"]) == set(frame["split"])
        for row in range(len(made.samples)):
            before, after = shown(made, row)
            assert len(before) == len(after) > 1
            assert before != after
            assert [line.split(":")[0] for line in before] == [line.split(":")[0] for line in after]
