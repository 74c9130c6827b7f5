# ruff: noqa: E501
"""A valid input of every reader in every form that it takes, small: what fuzzing starts from."""

import gzip
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from test_books import BOOKS, DUMP_BOOKS, DUMP_RATINGS, DUMP_USERS, TABBED_BOOKS, book
from test_corpora import COLON_MOVIES, COLON_RATINGS, MOVIES_CSV, RATINGS_CSV
from test_recbole import INTER, ITEM, USER

from recfound_data.shop import generate

_ROWS = 12


@dataclass(frozen=True)
class Seed:
    """An entry of a recipe, its paths relative, and the files that they name."""

    name: str
    entry: dict[str, Any]
    files: dict[str, bytes]


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def literals(*rows: Any) -> bytes:
    return b"".join(repr(row).encode() + b"\n" for row in rows)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(rows).write_parquet(file)
    return file.getvalue()


def seeds(folder: Path) -> list[Seed]:
    """Return all seeds; `folder` is empty and written in."""
    generate(folder / "shop", reviews=200, seed=3, formats=["all"])
    return [*_shop(folder / "shop"), *_others(), *_tables()]


def _shop(shop: Path) -> Iterable[Seed]:
    def first(path: str) -> bytes:
        data = (shop / path).read_bytes()
        if path.endswith(".parquet"):
            return parquet(pl.read_parquet(io.BytesIO(data)).head(_ROWS).to_dicts())
        if path.endswith(".gz"):
            return gzip.compress(b"".join(io.BytesIO(gzip.decompress(data)).readlines()[:_ROWS]), mtime=0)
        if path.endswith(".json"):
            whole = json.loads(data)
            return json.dumps({**whole, "dialogs": dict(list(whole["dialogs"].items())[:6])}).encode()
        return b"".join(io.BytesIO(data).readlines()[:_ROWS])

    def seed(corpus: str, **paths: str) -> Seed:
        names = {field: path.rsplit("/", 1)[-1] for field, path in paths.items()}
        files = {names[field]: first(f"{corpus}/{path}") for field, path in paths.items()}
        return Seed(corpus, {"corpus": corpus, **names}, files)

    yield seed("amazon_reviews_2018", reviews="Shop_5.json.gz", metadata="meta_Shop.json.gz")
    yield seed("amazon_reviews_2023", reviews="Shop.jsonl.gz", metadata="meta_Shop.jsonl.gz")
    yield seed("movielens", ratings="ratings.csv", movies="movies.csv", users="u.user")
    queries = "shopping_queries_dataset_{}.parquet"
    yield seed("shopping_queries", examples=queries.format("examples"), products=queries.format("products"))
    yield seed("mudoco_qr", dialogues="mudoco_shopping.json")
    yield seed("mave", positives="mave_positives.jsonl", negatives="mave_negatives.jsonl")
    yield seed("amazonqa", questions="train-qar.jsonl")
    yield seed("amazon_google", train="amz_goog_train.csv", test="amz_goog_test.csv")


def _seed(corpus: str, form: str, files: dict[str, tuple[str, bytes]], **more: Any) -> Seed:
    paths = {field: name for field, (name, _) in files.items()}
    return Seed(f"{corpus}, {form}", {"corpus": corpus, **paths, **more}, dict(files.values()))


_REVIEW_2014 = {
    "reviewerID": "A1", "asin": "B0LAMP0001", "reviewerName": "Wil", "helpful": [1, 2], "reviewText": "A fine lamp.",
    "overall": 5.0, "summary": "Five", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009",
}  # fmt: skip
_ITEM_2014 = {
    "asin": "B0LAMP0001", "title": "Lamp", "description": "A lamp's lamp.", "price": 3.17, "imUrl": "http://a",
    "related": {"also_bought": ["B0LAMP0002"], "also_viewed": ["B0LAMP0003"], "bought_together": ["B0LAMP0002"]},
    "salesRank": {"Lamps": 211836}, "brand": "Lumo", "categories": [["Home", "Lamps"]],
}  # fmt: skip
_POT = {
    "id": "B000000001", "category": "Planters",
    "attributes": [
        {"key": "Material", "evidences": [{"value": "Terracotta", "pid": 0, "begin": 4, "end": 14}]},
        {"key": "Capacity", "evidences": []},
    ],
}  # fmt: skip
_TURNS = [
    {"turn": "driver", "data": {"end_dialogue": False, "utterance": "will it rain"}},
    {"turn": "assistant", "data": {"end_dialogue": False, "utterance": "where ?", "slots": {}}},
    {"turn": "driver", "data": {"utterance": "in bonn"},
     "reformulation": {"reformulated_utt": "will it rain in bonn", "base_utt_idx": 0}},
    {"turn": "assistant", "data": {"utterance": "it will ."}},
]  # fmt: skip
_SPOKEN = {"dialogue": _TURNS, "scenario": {"uuid": "d1", "task": {"intent": "weather"}, "kb": {"items": None}}}
_SUBJQA = (
    "item_id,domain,nn_mod,nn_asp,query_mod,query_asp,q_review_id,q_reviews_id,question,question_subj_level,"
    "ques_subj_score,is_ques_subjective,review_id,review,human_ans_spans,human_ans_indices,answer_subj_level,"
    "ans_subj_score,is_ans_subjective\n"
    'I1,electronics,a,b,c,d,e,f,How is it?,1,0.0,False,r1,"It is ""fine"", and\nlight. ANSWERNOTFOUND",It is,"(0, 5)",'
    "1,0.0,False\n"
    'I2,grocery,a,b,c,d,e,f,And now?,1,0.0,False,r2,"Good. ANSWERNOTFOUND",ANSWERNOTFOUND,"(6, 20)",1,0.0,False\n'
)
_GRADED = (
    "qid,question,ASIN,candidate,source,qa_pair_id,title,label,answer\n"
    '18,"does it ""fit""?",B005,it fits. ,cqa,140,Pan,2,it does\n18,"does it ""fit""?",B005,it is red,review,141,Pan,0,\n'
)
_WRITTEN = "ASIN\tquestion\tcandidate\tanswer\tsource\nB00G\twhat is it?\ta thing\tit is a thing.\tDesc\n"
_RANKED = (
    "qid\tASIN\tqa_pair_id\tquestion\tcandidate\tlabel\tsource\tconfidence\n"
    '2\tB00G\t8\twhat is it?\t"size:  { value:""x"" }"\t0\tattribute\thigh\n2\tB00G\t9\twhat is it?\tthing\t1\tcqa\tlow\n'
)
_OFFER = {
    "id": 7, "cluster_id": 12.0, "category": "Tools", "input_title": "Drill X7 Bosch", "input_description": "Drill, 18V",
    "target_scores": {"Brand": {"Bosch": {"pid": [0], "score": 1}}, "Volt": {"18V": {"pid": [1], "score": 1}},
                      "Colour": {"n/a": {"pid": [], "score": 1}}},
}  # fmt: skip
_APART = {
    "id": "9", "category": "Tools", "paragraphs": [{"text": "Drill X7 Bosch \n Drill, 18V", "source": "title"}],
    "attributes": [{"key": "Brand", "evidences": [{"value": "Bosch", "pid": 0, "begin": 9, "end": 14}]}],
}  # fmt: skip


def _others() -> Iterable[Seed]:
    second = {**_REVIEW_2014, "reviewerID": "A2", "reviewText": 'It\'s "ok"\n', "overall": 2.0}
    for form, write in (("JSON", jsonl), ("Python", literals)):
        files = {
            "reviews": ("Lamps_5.json.gz", gzip.compress(write(_REVIEW_2014, second), mtime=0)),
            "metadata": ("meta_Lamps.json.gz", gzip.compress(write(_ITEM_2014, {**_ITEM_2014, "asin": "B2"}), mtime=0)),
        }
        yield _seed("amazon_reviews_2014", form, files)
    ratings = b"A1,B0LAMP0001,5.0,1252800000\nA2,B0LAMP0001,1.0,1252800001\n"
    yield _seed("amazon_reviews_2014", "CSV", {"reviews": ("ratings.csv", ratings),
                                               "metadata": ("meta.json", jsonl(_ITEM_2014))})  # fmt: skip
    yield _seed("movielens", "csv", {"ratings": ("ratings.csv", RATINGS_CSV.encode()),
                                     "movies": ("movies.csv", MOVIES_CSV.encode()),
                                     "tags": ("tags.csv", b"userId,movieId,tag,timestamp\n1,1,fun,964982703\n"),
                                     })  # fmt: skip
    yield _seed("movielens", "dat", {"ratings": ("ratings.dat", COLON_RATINGS.encode("latin-1")),
                                     "movies": ("movies.dat", COLON_MOVIES.encode("latin-1")),
                                     "users": ("users.dat", b"1::F::1::10::48067\n2::M::56::16::70072\n"),
                                     })  # fmt: skip
    flags = "|".join(["0", "1", *["0"] * 17])
    yield _seed("movielens", "100K", {"ratings": ("u.data", b"196\t1\t3\t881250949\n1\t2\t5\t881250950\n"),
                                      "movies": ("u.item", f"1|Toy (1995)|01-Jan-1995||http://a|{flags}\n".encode()),
                                      "users": ("u.user", b"1|24|M|technician|85711\n196|53|F|other|94043\n"),
                                      })  # fmt: skip
    yield _seed("goodbooks", "csv", {
        "ratings": ("ratings.csv", b"user_id,book_id,rating\n1,1,5\n2,2,4\n1,2,0\n"),
        "books": ("books.csv", (BOOKS + book(1, 100, "Ann", "1997.0", 'The "Best"', "eng")
                                + book(2, 200, "Homer", "-720.0", "Way", "en-GB")).encode()),
        "book_tags": ("book_tags.csv", b"goodreads_book_id,tag_id,count\n100,0,40\n200,1,9\n"),
        "tags": ("tags.csv", b"tag_id,tag_name\n0,fantasy\n1,sci-fi\n"),
        "to_read": ("to_read.csv", b"user_id,book_id\n1,2\n9,1\n"),
    })  # fmt: skip
    yield _seed("book_crossing", "dump", {"ratings": ("BX-Book-Ratings.csv", DUMP_RATINGS.encode("latin-1")),
                                          "books": ("BX-Books.csv", DUMP_BOOKS.encode("latin-1")),
                                          "users": ("BX-Users.csv", DUMP_USERS.encode("latin-1"))})  # fmt: skip
    yield _seed("book_crossing", "dat", {
        "ratings": ("book_ratings.dat", b"user\titem\trating\n1\t3\t7.000000\n1\t2\t10.000000\n"),
        "books": ("items_info.dat", TABBED_BOOKS.encode()),
        "users": ("users_info.dat", b"User-ID\tLocation\tAge\n1\tking of prussia, ,\t36\t\n2\tna, , uk\t\t\n"),
        "history": ("book_history.dat", b"user\titem\taccessed\n1\t3\t1\n2\t2\t1\n"),
    })  # fmt: skip
    told = {"questionType": "yes/no", "asin": "B1", "answerTime": "Jun 27, 2014", "unixTime": 1403852400,
            "question": "Will it's \"fit\"?", "answerType": "?", "answer": "It does."}  # fmt: skip
    nested = {"asin": "B2", "questions": [{"questionType": "open-ended", "questionText": "How tall?", "answers": [
        {"answerText": "Two feet.", "helpful": [1, 2], "answererID": "A1"}]}]}  # fmt: skip
    yield _seed("mcauley_qa", "single", {"questions": ("qa.json.gz", gzip.compress(literals(told, told), mtime=0)),
                                         "metadata": ("meta.json", literals(_ITEM_2014))})  # fmt: skip
    yield _seed("mcauley_qa", "multiple", {"questions": ("QA.json", literals(nested, nested))})
    yield _seed("contextual_pqa", "ePQA", {"questions": ("train.csv", _GRADED.encode())})
    yield _seed("contextual_pqa", "hetPQA", {"answers": ("test.csv", _WRITTEN.encode()),
                                             "ranking": ("dev.csv", _RANKED.encode())})  # fmt: skip
    yield _seed("subjqa", "csv", {"questions": ("train.csv", _SUBJQA.encode())})
    human = {"id": 7, "is_impossible": False, "question": "Is it heavy?", "human_answers": ["It weighs a pound."]}
    squad = {"title": "Shop", "paragraphs": [{"context": "It hums.", "qas": [human]}]}
    yield _seed("amazonqa", "squad", {"squad": ("squad.json", json.dumps(squad, indent=1).encode())})
    yield _seed("amazonqa", "squad lines", {"squad": ("test.jsonl", jsonl({"context": "It hums.", "qas": [human]}))})
    yield _seed("alexa_cqr", "list", {"dialogues": ("cqr_dev.json", json.dumps([_SPOKEN, _SPOKEN]).encode())})
    yield _seed("alexa_cqr", "lines", {"dialogues": ("cqr_test.json", jsonl(_SPOKEN, _SPOKEN))})
    places = [{"text": "Big Terracotta Pot", "source": "title"}, {"text": "Deep.", "source": "description"}]
    yield _seed("mave", "whole", {"positives": ("p.jsonl", jsonl({**_POT, "paragraphs": places}))})
    meta = {"asin": "B000000001", "title": "Big Terracotta &amp; Pot", "description": ["<b>Deep</b>."], "price": "$3"}
    yield _seed("mave", "labels", {"positives": ("p.jsonl", jsonl(_POT)),
                                   "metadata": ("meta.json.gz", gzip.compress(jsonl(meta), mtime=0))})  # fmt: skip
    yield _seed("wdc_pave", "offers", {"train": ("train_large.jsonl", jsonl(_OFFER, _OFFER))})
    yield _seed("wdc_pave", "paragraphs", {"test": ("mave_positives.jsonl", jsonl(_APART))})
    title = {"input": "YTQ Metal Spoon", "category": "Lure", "target_scores": {"Brand": {"YTQ": 1}, "Size": {"n/a": 1}}}
    yield _seed("ae_110k", "JSON", {"train": ("train.jsonl", jsonl(title, title))})
    yield _seed(
        "ae_110k", "triples", {"triples": ("data.txt", b"YTQ Metal Spoon\x01Brand\x01YTQ\nRope\x01Size\x01NULL\n")}
    )
    tables = {"left": b"id,title,description,manufacturer,price\n1,office,suite,ms,129.95\n",
              "right": b"id#name#manufacturer#price\n1#office suite#ms#0\n",
              "matches": b"'idA','idB'\n'1','1'\n"}  # fmt: skip
    yield _seed("amazon_google", "tables", {name: (f"{name}.csv", data) for name, data in tables.items()})
    pairs = b"label,ltable_id,rtable_id\n1,1,1\n0,1,2\n"
    yield _seed("amazon_google", "ids", {"train": ("train.csv", pairs), "left": ("left.csv", tables["left"]),
                                         "right": ("right.csv", tables["right"])})  # fmt: skip
    samples = [
        {"task": "Emb_query", "query": ["Find it:", "red cup"], "pos": [["", "Cup A"]], "neg": [["", "Hat"]], "id": 1},
        {"task": "Answer_Generation", "text": ["Q", "A"], "id": 7, "source": "Books"},
    ]
    yield _seed("recfound_release", "lines", {"samples": ("x_train.jsonl", jsonl(*samples))})
    yield _seed("recfound_release", "list", {"samples": ("x_test.json", json.dumps(samples).encode())})
    yield _seed("recbole", "atomic", {
        "interactions": ("a.inter", (INTER + "1\t10\t4\t881250949\n2\t11\t3.5\t881250950.9\n").encode()),
        "items": ("a.item", (ITEM + '10\tA "Quoted" Film\t1995\tSci-Fi Drama\n11\tUntold\t\t\n').encode()),
        "users": ("a.user", (USER + "1\t24\tM\ttechnician\t85711\n").encode()),
    })  # fmt: skip


_OWN: dict[str, list[dict[str, Any]]] = {
    "interactions": [{"user_id": 7, "item_id": "s1", "rating": 4.5, "timestamp": "2023-01-05T10:00:00Z"},
                     {"user_id": 8, "item_id": "s2", "rating": 1.0, "timestamp": "1672912800"}],
    "items": [{"item_id": "s1", "title": "Cup", "description": "A cup", "categories": '["Home", "Cups"]', "brand": "B"},
              {"item_id": "s2", "title": "Hat", "description": "", "categories": "Home|Hats", "brand": ""}],
    "users": [{"user_id": 7, "age": "24"}, {"user_id": 8, "age": "30"}],
    "relations": [{"item_id": "s1", "other_id": "s2", "relation": "similar"}],
    "judgements": [{"query": "cup", "item_id": "s1", "grade": "E", "split": "train"}],
    "questions": [{"question": "How?", "item_id": "s1", "evidence": '["So."]', "answers": "['So.']", "answerable": "yes"}],
    "offers": [{"offer_id": "o1", "title": "Cup", "price": "3.50"}, {"offer_id": "o2", "title": "A cup", "price": "3"}],
    "matches": [{"left_id": "o1", "right_id": "o2", "match": "true", "split": "test"}],
    "dialogues": [{"dialogue_id": "d", "turns": '[{"speaker": "user", "text": "it?", "rewrite": "cup?"}]'}],
    "attributes": [{"product_id": "p", "texts": '[{"source": "title", "text": "Red cup"}]',
                    "attributes": '[{"attribute": "Colour", "value": "Red", "source": "title"}]'}],
}  # fmt: skip


def _tables() -> Iterable[Seed]:
    def written(rows: list[dict[str, Any]], form: str) -> bytes:
        match form:
            case "jsonl":
                return jsonl(*rows)
            case "parquet":
                return parquet(rows)
        return pl.DataFrame(rows).write_csv(separator="\t" if form == "tsv" else ",").encode()

    for form in ("csv", "tsv", "jsonl", "parquet"):
        for group in (("interactions", "items", "users", "relations"), ("judgements", "questions", "offers", "matches"),
                      ("dialogues", "attributes")):  # fmt: skip
            entry = {table: {"path": f"{table}.{form}"} for table in group}
            if "users" in entry:
                entry["users"]["facts"] = {"Age group": "age"}
            files = {f"{table}.{form}": written(_OWN[table], form) for table in group}
            yield Seed(f"tables, {form}: {group[0]}", {"corpus": "tables", **entry}, files)
