"""Readers of product question answering: every published form, its dirt, and what must not tell the label."""

import gzip
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from recfound_data.corpora.amazonqa import AmazonQA, helpfulness, published_split
from recfound_data.corpora.contextual_pqa import ContextualPQA
from recfound_data.corpora.mcauley_qa import McAuleyQA
from recfound_data.corpora.subjqa import SubjQA
from recfound_data.people import UserKey
from recfound_data.tables import TABLES


def read(source):
    """Return the tables of a source, its drops and its unparsable lines."""
    frames, drops, bad = {}, Counter(), []
    for batch in source.batches(UserKey("key", secret=True)):
        assert set(batch.frame.columns) <= set(TABLES[batch.table])
        assert all(batch.frame.schema[name] == TABLES[batch.table][name] for name in batch.frame.columns)
        frames.setdefault(batch.table, []).append(batch.frame)
        drops.update(batch.drops)
        bad += batch.unparsable
    return {name: pl.concat(parts) for name, parts in frames.items()}, +drops, bad


def lines(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(number, **columns):
    row = {
        "qid": number,
        "asin": f"P{number}",
        "category": "Home_and_Kitchen",
        "questionText": f"Does lamp {number} dim?",
        "questionType": "yesno",
        "review_snippets": ["It dims well."],
        "answers": [{"answerText": f"Lamp {number} does.", "answerType": "Y", "helpful": [0, 0]}],
        "is_answerable": 1,
        "top_review_wilson": "Nice.",
        "random_sentence": ["ignored"],
    }
    return row | columns


def test_amazonqa_reads_its_published_form_with_its_dirt(tmp_path):
    votes = [("liked a little", [1, 1]), ("disliked", [0, 4]), ("liked a lot", [9, 10]), ("new", [0, 0]), ("odd", [])]
    rows = [
        asked(1, answers=[{"answerText": text, "answerType": "?", "helpful": given} for text, given in votes]),
        asked(2, is_answerable=False, answers=None),
        asked(3, is_answerable=None),
        asked(4, asin=""),
        asked(5, questionText="  "),
        asked(6, questionText="DOES lamp 3 dim", answers=[{"answerText": "lamp 3 does", "helpful": [3, 3]}]),
        {"asin": "P7", "questionText": "How tall?", "gold_answer": "Two feet.", "is_answerable": True},
        "[1, 2]\n",
    ]
    tables, drops, bad = read(AmazonQA(questions=lines(tmp_path / "val-qar.jsonl", rows)))
    questions = tables["questions"]
    assert questions["item_id"].to_list() == ["P1", "P2", "P3", "P7"]
    assert questions["answers"][0].to_list() == ["liked a lot", "liked a little", "new", "odd", "disliked"]
    assert questions["answerable"].to_list() == [True, False, None, True]
    assert questions["answers"][3].to_list() == ["Two feet."]
    assert questions["domain"][0] == "Home and Kitchen" and set(questions["split"]) == {"validation"}
    assert questions["question_id"].n_unique() == 4
    assert drops == {
        "question unparsable": 1,
        "question without product": 1,
        "question without text": 1,
        "question repeated with the same answers": 1,
    }
    assert [(fault.line, Path(fault.path).name) for fault in bad] == [(8, "val-qar.jsonl")]


def test_amazonqa_keeps_one_of_a_repeated_question_over_files_the_held_out_one(tmp_path):
    for name in ("train-qar.jsonl", "test-qar_all.jsonl"):
        lines(tmp_path / name, [asked(1, asin=name[:4]), asked(2 if "test" in name else 3)])
    tables, drops, _ = read(AmazonQA(questions=str(tmp_path / "*.jsonl")))
    assert sorted(tables["questions"].select("item_id", "split").rows()) == [
        ("P2", "test"), ("P3", "train"), ("test", "test")
    ]  # fmt: skip
    assert drops["question repeated with the same answers"] == 1


def test_amazonqa_takes_peoples_answers_of_the_span_form_and_never_its_spans(tmp_path):
    spans = {
        "id": 0,
        "is_impossible": False,
        "question": "Is it loud?",
        "answers": [{"answer_start": 3, "text": "the"}],
    }
    human = {"id": 7, "is_impossible": False, "question": "Is it heavy?", "human_answers": ["It weighs a pound."]}
    old = {"title": "Shop", "paragraphs": [{"context": "The fan hums.", "qas": [spans, human]}]}
    (tmp_path / "squad.json").write_text(json.dumps(old, indent=1))
    tables, drops, _ = read(AmazonQA(squad=str(tmp_path / "squad.json")))
    assert tables["questions"]["answers"].to_list() == [["It weighs a pound."]]
    assert tables["questions"]["answerable"].to_list() == [None]
    assert drops == {"question with answer spans cut out by machine only": 1}
    path = lines(tmp_path / "test-qar_squad.jsonl", [{"context": "It is light.", "qas": [human]}, {"qas": [human]}])
    tables, _, bad = read(AmazonQA(squad=path))
    assert tables["questions"].select("evidence", "split").rows() == [(["It is light."], "test")]
    assert [fault.line for fault in bad] == [2]


def test_a_source_that_names_no_file_is_refused():
    for reader in (AmazonQA, ContextualPQA):
        with pytest.raises(ValueError, match="names no file"):
            reader()


def test_helpfulness_puts_unvoted_answers_between_liked_and_disliked():
    order = [(9, 10), (3, 3), (1, 1), (0, 0), (1, 3), (0, 1), (0, 3)]
    assert sorted(order, key=lambda votes: -helpfulness(*votes)) == order


@pytest.mark.parametrize(
    ("path", "split"),
    [("s3://a/train-qar.jsonl", "train"), ("x/test/val-qar.jsonl.gz", "validation"), ("dev.csv", "validation"),
     ("test-qar_all.jsonl", "test"), ("device.csv", None), ("latest.csv", None), ("zip://test.csv::train.zip", "test")],
)  # fmt: skip
def test_the_split_is_read_from_the_files_own_name(path, split):
    assert published_split(path) == split


def test_mcauley_reads_both_forms_without_people(tmp_path):
    single = {"asin": "P1", "questionType": "yes/no", "answerType": "Y", "unixTime": 1, "answerTime": "May 1, 2014"}
    multiple = {
        "asin": "P2",
        "questions": [
            {
                "questionType": "open-ended",
                "askerID": "ASKER1",
                "questionText": "How wide is it?",
                "questionTime": "May 1, 2014",
                "answers": [
                    {"answerText": "No clue.", "answererID": "GIVER1", "helpful": [0, 2], "answerType": "NA"},
                    {"answerText": "A foot wide.", "answererID": "GIVER2", "helpful": [2, 2], "answerScore": "0.9"},
                ],
            },
            {"questionText": "Any colour?", "askerID": "ASKER2", "answers": []},
            {"questionText": None, "answers": [{"answerText": "Yes."}]},
        ],
    }
    rows = [
        single | {"question": "Isn't it loud?", "answer": "It isn't."},
        single | {"question": "Isn't it loud? ", "answer": "It isn't.", "asin": "P9"},
        single | {"asin": None, "question": "Loud?", "answer": "No."},
        multiple,
        {"asin": "P3", "questions": "none"},
    ]
    path = tmp_path / "QA_Office_Products.json.gz"
    path.write_bytes(gzip.compress(("".join(f"{row!r}\n" for row in rows) + "{'asin': \n").encode()))
    metadata = [{"asin": "P2", "title": "Tray", "brand": "Oakly", "price": 3.5}, {"asin": "P8", "title": "Cup"}]
    titles = tmp_path / "meta_Office_Products.json"
    titles.write_text("".join(f"{row!r}\n" for row in [*metadata, {"asin": "P1"}]))
    tables, drops, bad = read(McAuleyQA(questions=str(path), metadata=str(titles)))
    assert tables["questions"].select("item_id", "answers", "domain").rows() == [
        ("P1", ["It isn't."], "Office Products"),
        ("P2", ["A foot wide.", "No clue."], "Office Products"),
    ]
    assert tables["items"].select("item_id", "title", "brand").rows() == [("P2", "Tray", "Oakly")]
    assert drops == {
        "question repeated with the same answers": 1,
        "question without product": 1,
        "question without an answer": 1,
        "question without text": 1,
        "record unparsable": 2,
        "item that no question is about": 1,
        "item without title": 1,
    }
    assert [fault.line for fault in bad] == [5, 6]
    written = "".join(frame.write_csv() for frame in (table.select(pl.exclude(pl.List)) for table in tables.values()))
    assert "ASKER" not in written and "GIVER" not in written
    as_json = lines(tmp_path / "qa_Baby.json", [single | {"question": "Soft?", "answer": "Very."}])
    assert read(McAuleyQA(questions=as_json))[0]["questions"]["domain"].to_list() == ["Baby"]


def candidates(qid, labels, asin="P1"):
    for place, label in enumerate(labels):
        answer = f"Answer {place}, in full." if label == "2" else "I'm not sure but." if label == "1" else ""
        yield f'{qid},"is it {qid}, or ""not""?",{asin},"passage {place}\nof {qid}",review,{place},'
        yield f'Lamp,{label},"{answer}"\n'


def test_epqa_shows_five_passages_in_an_order_that_tells_nothing(tmp_path):
    header = "qid,question,ASIN,candidate,source,qa_pair_id,title,label,answer\n"
    rows = [row for number in range(60) for row in candidates(number, "20000" + "00000", f"P{number}")]
    rows += [*candidates("late", "010002"), *candidates("odd", "x2"), "1,too,short\n"]
    (tmp_path / "test.csv").write_text(header + "".join(rows))
    tables, drops, bad = read(ContextualPQA(questions=str(tmp_path / "test.csv")))
    questions = tables["questions"]
    answering = questions.head(60)
    assert questions["evidence"].list.len().to_list() == [5] * 61 + [1]
    assert answering["answers"].to_list() == [["Answer 0, in full."]] * 60 and answering["answerable"].all()
    places = [next(i for i, text in enumerate(shown) if "passage 0" in text) for shown in answering["evidence"]]
    assert min(Counter(places).values()) >= 4 and set(places) == set(range(5)), "the answering passage lies anywhere"
    late = questions.row(60, named=True)
    assert late["answerable"] is False and not any("passage 5" in text for text in late["evidence"])
    assert set(questions["split"]) == {"test"} and set(questions["title"]) == {"Lamp"}
    assert drops == {"candidate without a known label": 1, "candidate unparsable": 1}
    assert len(bad) == 1


def test_hetpqa_joins_answers_with_the_candidates_of_the_ranking(tmp_path):
    (tmp_path / "a.csv").write_text(
        "ASIN\tquestion\tcandidate\tanswer\tsource\n"
        'P1\tis it wood?\t"made of ""solid"" oak"\tit is oak.\treview\n'
        'P1\tis it wood?\t"boards of 8\\"" and 9\\\\"""\tit is oak.\treview\n'
        "P1\tis it wood?\toak legs\tthe legs are oak.\tDesc\n"
    )
    (tmp_path / "r.csv").write_text(
        "qid\tASIN\tqa_pair_id\tquestion\tcandidate\tlabel\tsource\tconfidence\n"
        "1\tP1\t1\tIs it wood?\tred paint\t0\tbullet\thigh\n"
        "1\tP1\t2\tIs it wood?\toak legs\t1\tDesc\thigh\n"
        "2\tP2\t3\tis it big?\t\t0\tDesc\tmid\n"
    )
    tables, drops, _ = read(ContextualPQA(answers=str(tmp_path / "a.csv"), ranking=str(tmp_path / "r.csv")))
    row = tables["questions"].row(0, named=True)
    assert len(tables["questions"]) == 1
    inches = 'boards of 8" and 9"'  # which the publisher escapes with a backslash and by doubling
    assert sorted(row["evidence"]) == [inches, 'made of "solid" oak', "oak legs", "red paint"]
    assert row["answers"] == ["it is oak.", "it is oak.", "the legs are oak."]
    assert row["answerable"] is None and row["split"] is None
    assert drops == {"candidate without text": 1}


def test_subjqa_cuts_its_marker_off_and_keeps_what_annotators_agree_on(tmp_path):
    header = "item_id,domain,question,review_id,review,human_ans_spans\n"
    found, missing = (
        '"Bright, and ""warm"". ANSWERNOTFOUND",Bright',
        '"Bright, and ""warm"". ANSWERNOTFOUND",ANSWERNOTFOUND',
    )
    (tmp_path / "train.csv").write_text(
        header
        + f"P1,grocery,Is it bright?,r,{found}\n"
        + f"P1,grocery,Is it cheap?,r,{missing}\n"
        + f"P1,grocery,Is it warm?,r,{found}\n"
        + f"P2,tripadvisor,Is it calm?,r,{missing}\n"
        + "P3,grocery,Is it new?,r,New ANSWERNOTFOUND and old ANSWERNOTFOUND,New\n"
        + "P3,grocery,Is it new?,r,New ANSWERNOTFOUND,\n"
    )
    (tmp_path / "dev.csv").write_text(
        header
        + f"P1,grocery,is it bright?,r,{found}\n"
        + f"P1,grocery,Is it cheap?,r,{missing}\n"
        + f"P1,grocery,Is it warm?,r,{missing}\n"
    )
    tables, drops, _ = read(SubjQA(questions=str(tmp_path / "*.csv")))
    questions = tables["questions"]
    assert sorted(questions.select(pl.col("question").str.to_lowercase(), "answerable", "domain").rows()) == [
        ("is it bright?", True, "Grocery"), ("is it calm?", False, "Hotels"), ("is it cheap?", False, "Grocery")
    ]  # fmt: skip
    assert set(questions["evidence"].explode()) == {'Bright, and "warm".'}
    assert questions["split"].null_count() == 3
    assert drops == {
        "annotation of a question read before": 3,
        "question whose annotators disagree": 1,
        "annotation with a broken review": 1,
        "annotation without answer span": 1,
    }


@pytest.mark.corpora
def test_the_real_slices_are_read_whole(corpora):
    folder = corpora / "product_qa"
    sources = {
        "amazonqa": AmazonQA(questions=str(folder / "amazonqa_official/*.jsonl")),
        "mcauley": McAuleyQA(questions=str(folder / "mcauley/*.gz")),
        "epqa": ContextualPQA(questions=str(folder / "contextual_pqa/ePQA/*.csv")),
        "hetpqa": ContextualPQA(
            answers=str(folder / "contextual_pqa/hetPQA/answer_generation/*.csv"),
            ranking=str(folder / "contextual_pqa/hetPQA/evidence_ranking/*.csv"),
        ),
        "subjqa": SubjQA(questions=str(folder / "subjqa/*/*.csv")),
    }
    made = {name: read(source) for name, source in sources.items()}
    assert not any(bad for _, _, bad in made.values())
    counts = {name: len(tables["questions"]) for name, (tables, _, _) in made.items()}
    assert counts == {"amazonqa": 8, "mcauley": 8866, "epqa": 977, "hetpqa": 5382, "subjqa": 2174}
    assert set(made["epqa"][0]["questions"]["evidence"].list.len()) == {5}
    assert not made["subjqa"][0]["questions"]["evidence"].explode().str.contains("ANSWERNOTFOUND").any()
