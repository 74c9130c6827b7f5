"""Attribute values: readers of MAVE, WDC-PAVE and AE-110K, and the samples made of them."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from recfound_data.corpora.ae_110k import Ae110k
from recfound_data.corpora.mave import Mave
from recfound_data.corpora.wdc_pave import WdcPave
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.identity import stable_id
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe, parse
from recfound_data.samples import Built, Corpus
from recfound_data.sources import Unparsable
from recfound_data.tables import GROUPS, TABLES, Source
from recfound_data.tasks import attribute_value_extraction as task

RECIPE = DataRecipe.model_construct(seed=4, validation_share=0.2, test_share=0.2)


def lines(path: Path, records: Iterable[object]) -> str:
    text = "".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def read(reader: Source) -> tuple[pl.DataFrame, Counter[str], list[Unparsable]]:
    frames, drops, bad = [], Counter[str](), []
    for batch in reader.batches(UserKey("key", secret=True)):
        assert batch.table == "attributes"
        frames.append(batch.frame.select(pl.col(name).cast(dtype) for name, dtype in TABLES["attributes"].items()))
        drops.update({reason: count for reason, count in batch.drops.items() if count})
        bad += batch.unparsable
    return pl.concat(frames), drops, bad


def made(rows: pl.DataFrame, name: str = "corpus") -> Built:
    grouped = rows.with_columns(group=stable_id(GROUPS["attributes"]()))
    splits = frozenset(rows["split"].drop_nulls().unique())
    return task.build(Corpus(name, RECIPE, {"attributes": grouped}, {"attributes": splits}))


def product(title: str, labels: dict[str, list[tuple[str, str]] | None], **texts: str) -> dict[str, object]:
    """A row of `attributes`; labels are (value, source) pairs, None for an attribute that is absent."""
    return {
        "product_id": title,
        "texts": [{"source": source, "text": text} for source, text in {"title": title, **texts}.items()],
        "attributes": [
            {"attribute": name, "value": value, "source": source}
            for name, values in labels.items()
            for value, source in (values or [(None, None)])
        ],
        "domain": "Garden",
    }


def built(*rows: dict[str, object]) -> Built:
    frame = pl.DataFrame(
        [{name: row.get(name) for name in TABLES["attributes"]} for row in rows], schema=TABLES["attributes"]
    )
    return made(frame)


def label(found: Built) -> dict[str, list[tuple[str | None, str | None]]]:
    values: dict[str, list[tuple[str | None, str | None]]] = {}
    for one in json.loads(found.samples["label"].item()):
        values.setdefault(one["attribute"], []).append((one["value"], one["source"]))
    return values


def said(sample: dict[str, list[dict[str, str]]]) -> str:
    return sample["prompt"][0]["content"]


def parts(prompt: str) -> tuple[list[str], dict[str, list[str]]]:
    """The attributes that a prompt asks for, in order, and the texts it shows by source."""
    _, attributes, shown = prompt.split("\n\n")
    texts: dict[str, list[str]] = {}
    for line in shown.removeprefix("Product:\n").split("\n"):
        source, text = re.fullmatch(r"- ([^:]+): (.*)", line).groups()  # type: ignore[union-attr]
        texts.setdefault(source, []).append(text)
    return [line.removeprefix("- ") for line in attributes.removeprefix("Attributes:\n").split("\n")], texts


def assert_sound(samples: pl.DataFrame) -> None:
    assert samples["id"].is_unique().all()
    for sample in samples.iter_rows(named=True):
        asked, texts = parts(said(sample))
        found = json.loads(sample["label"])
        assert sample["label"] == json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        assert list(dict.fromkeys(one["attribute"] for one in found)) == asked
        assert len(asked) <= task.MOST_ATTRIBUTES
        absent = [one["attribute"] for one in found if one["value"] is None]
        assert len(absent) <= min(task.MOST_ABSENT, len(asked) // 2)
        for one in found:
            assert list(one) == ["attribute", "value", "source"]
            if one["value"] is None:
                assert one["source"] is None
                assert [other["attribute"] for other in found].count(one["attribute"]) == 1
            else:
                assert any(one["value"] in text for text in texts[one["source"]])


# The readers


def evidence(value: str, pid: int, begin: int) -> dict[str, object]:
    return {"value": value, "pid": pid, "begin": begin, "end": begin + len(value)}


POT = {
    "id": "B000000001",
    "category": "Planters",
    "attributes": [
        {"key": "Material", "evidences": [evidence("Terracotta", 0, 4), evidence("clay", 2, 7)]},
        {"key": "Shape", "evidences": [evidence("oval", 1, 0)]},
        {"key": "Capacity", "evidences": []},
    ],
}
PARAGRAPHS = [
    {"text": "Big Terracotta Pot & Saucer", "source": "title"},
    {"text": "Round and deep.", "source": "description"},
    {"text": "Baked clay", "source": "feature"},
    {"text": "$12.50", "source": "price"},
]
METADATA = {
    "asin": "B000000001",
    "title": "Big <b>Terracotta</b> Pot &amp;\n Saucer",
    "description": ["", "Round<br>and   deep.", ".pot { width: 4px } " * 30, "<script>var a = 1;</script>"],
    "feature": ["Baked <!-- not this --> clay", "see <i>javascript:open</i>"],
    "price": "$12.50",
    "brand": "",
}


def test_mave_keeps_values_that_stand_where_their_labels_say(tmp_path: Path) -> None:
    rows, drops, bad = read(Mave(positives=lines(tmp_path / "p.jsonl", [POT | {"paragraphs": PARAGRAPHS}, "{no\n"])))
    assert rows["attributes"].to_list() == [[
        {"attribute": "Material", "value": "Terracotta", "source": "title"},
        {"attribute": "Capacity", "value": None, "source": None},
    ]]  # fmt: skip
    # Of Material one value is left; Shape has none, which does not make it absent.
    assert drops == {
        "value that is not where its label says": 2,
        "attribute without a value that is where its label says": 1,
        "product unparsable": 1,
    }
    assert [(one.path, one.line) for one in bad] == [(str(tmp_path / "p.jsonl"), 2)]


def test_mave_joins_labels_with_metadata_as_the_whole_form_has_them(tmp_path: Path) -> None:
    other = {"id": "B000000002", "category": "Hoses", "attributes": [{"key": "Length", "evidences": []}]}
    positives = lines(tmp_path / "labels.jsonl", [POT])
    negatives = lines(tmp_path / "negatives.jsonl", [other, other | {"id": "B0000000ZZ"}])
    metadata = [
        {"asin": "B000000009", "title": "Not labelled"},
        METADATA,
        METADATA | {"title": "The same product again"},
        {"asin": "B000000002", "title": "Hose", "description": "One text, not a list of them"},
        '{"asin": "B0000000ZZ", "title": broken\n',
        '{"title": "no id"}\n',
    ]
    joined, drops, bad = read(
        Mave(positives=positives, negatives=negatives, metadata=lines(tmp_path / "meta.json.gz", metadata))
    )
    hose = [
        {"text": "Hose", "source": "title"},
        {"text": "One text, not a list of them", "source": "description"},
    ]
    records = [POT | {"paragraphs": PARAGRAPHS}, other | {"paragraphs": hose}]
    whole, _, _ = read(Mave(positives=lines(tmp_path / "whole.jsonl", records)))
    assert joined.sort("domain").equals(whole.sort("domain"))
    assert joined["texts"].to_list()[0] == [{"source": one["source"], "text": one["text"]} for one in PARAGRAPHS]
    assert drops["metadata of a product repeated"] == 1
    assert drops["metadata line unparsable"] == len(bad) == 2
    assert {one.line for one in bad} == {5, 6}


def test_mave_labels_without_texts_ask_for_the_metadata(tmp_path: Path) -> None:
    label = {"id": "B1", "category": "Spades", "attributes": [{"key": "Kind", "evidences": []}]}
    with pytest.raises(RecfoundError, match=r"labels\.jsonl: holds labels without texts; name `metadata`"):
        read(Mave(positives=lines(tmp_path / "labels.jsonl", [label])))


@pytest.mark.parametrize("reader", [Ae110k, WdcPave])
def test_an_entry_that_names_no_file_is_refused(reader: type[Source]) -> None:
    with pytest.raises(UsageError, match="names no file; give `tr"):
        parse(reader, {}, "recipe.yaml")


def test_mave_counts_labels_that_the_metadata_lack_and_products_without_a_title(tmp_path: Path) -> None:
    labels = lines(tmp_path / "labels.jsonl", [POT, POT | {"id": "B000000003"}])
    metadata = lines(tmp_path / "meta.json", [METADATA | {"title": "var t = new Date().getTime()"}])
    rows, drops, _ = read(Mave(positives=labels, metadata=metadata))
    assert rows.is_empty()
    assert drops == {"product without a title": 1, "label of a product that the metadata lack": 1}


def test_a_style_sheet_is_no_paragraph_and_a_text_with_dashes_is(tmp_path: Path) -> None:
    prose = "A well-known, hard-wearing pot for the garden " * 10
    metadata = METADATA | {"description": [prose, "#pot .saucer { margin: 3px } " * 12]}
    labels = POT | {"attributes": [{"key": "Use", "evidences": [evidence("garden", 1, prose.index("garden"))]}]}
    rows, _, _ = read(
        Mave(positives=lines(tmp_path / "l.jsonl", [labels]), metadata=lines(tmp_path / "m.json", [metadata]))
    )
    texts = rows["texts"].to_list()[0]
    assert [text["source"] for text in texts] == ["title", "description", "feature", "price"]


def test_mave_has_the_split_of_its_benchmark_and_variants_are_one_product(tmp_path: Path) -> None:
    records = [
        POT | {"id": f"B{number}", "paragraphs": [*PARAGRAPHS, {"text": "y" * number, "source": "brand"}]}
        for number in range(1, 40)
    ]
    rows, _, _ = read(Mave(positives=lines(tmp_path / "p.jsonl", records)))
    for record, split in zip(records, rows["split"], strict=True):
        fold = sum(json.dumps(record["paragraphs"]).encode("utf-8")) % 10
        assert split == {8: "validation", 9: "test"}.get(fold, "train")
    assert rows["split"].n_unique() == 3
    assert rows["product_id"].n_unique() == 1


OFFER = {
    "id": 1,
    "cluster_id": 77.0,
    "category": "Garden",
    "input_title": "Null Acme Hose Null 20m Null",  # what a template wrote for what it lacked
    "input_description": "A green hose, 20m long, ACME.",
    "target_scores": {
        "Brand": {"Acme": {"pid": [0], "score": 1}, "ACME": {"pid": [1], "score": 1}},
        "Length": {"20m": {"pid": [0, 1], "score": 1}},
        "Color": {"dark green": {"pid": [1], "score": 1}},
        "Diameter": {"n/a": 1},
    },
}


def test_wdc_pave_reads_both_forms_alike(tmp_path: Path) -> None:
    whole = f"{OFFER['input_title']} \n {OFFER['input_description']}"

    def row(attribute: str, *values: str) -> dict[str, object]:
        evidences = [
            {"value": value, "pid": 0, "begin": whole.find(value), "end": whole.find(value) + len(value)}
            for value in values
        ]
        paragraphs = [{"text": whole, "source": "title"}]
        return {
            "category": "Garden", "paragraphs": paragraphs, "id": "5",
            "attributes": [{"key": attribute, "evidences": evidences}],
        }  # fmt: skip

    own, drops, _ = read(WdcPave(train=lines(tmp_path / "train.jsonl", [OFFER])))
    apart = [row("Brand", "Acme"), row("Brand", "ACME"), row("Length", "20m"), row("Color", "dark green")]
    mave, lost, _ = read(WdcPave(train=lines(tmp_path / "p.jsonl", [*apart, row("Diameter")])))
    assert drops["attribute without a value that is where its label says"] == 1
    assert lost["attribute without a value that is where its label says"] == 1
    assert made(own).samples["label"].str.json_decode(pl.List(pl.Struct({"attribute": pl.String}))).list.len()[0] == 3
    first, second = (parts(said(made(rows).samples.row(0, named=True))) for rows in (own, mave))
    assert sorted(first[0]) == sorted(second[0]) == ["Brand", "Diameter", "Length"]
    assert first[1] == second[1] == {"title": ["Acme Hose 20m"], "description": ["A green hose, 20m long, ACME."]}
    assert label(made(own)) == label(made(mave)) == {
        "Brand": [("Acme", "title")],
        "Length": [("20m", "title")],
        "Diameter": [(None, None)],
    }  # fmt: skip


def test_wdc_pave_keeps_clusters_together_and_counts_what_is_in_no_known_form(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.jsonl", [OFFER, OFFER | {"input_title": ""}, OFFER | {"target_scores": {"A": 1}}])
    test = lines(tmp_path / "test.jsonl", [OFFER | {"input_title": "Hose by Acme 20m"}])
    rows, drops, _ = read(WdcPave(train=train, test=test))
    assert rows["split"].to_list() == ["train", "test"]
    assert drops["offer without a title or attributes"] == drops["offer in neither form"] == 1
    # Two offers of one product: the one in test takes the other along.
    assert made(rows).samples["split"].to_list() == ["test", "test"]


def test_wdc_pave_refuses_normalized_values() -> None:
    with pytest.raises(UsageError, match=r"normalized_test.jsonl holds normalized values.*name test.jsonl"):
        parse(WdcPave, {"corpus": "wdc_pave", "test": "raw/normalized_test.jsonl"}, "recipe")
    with pytest.raises(UsageError, match=r"wdc_normalized holds normalized values.*name wdc$"):
        parse(WdcPave, {"corpus": "wdc_pave", "test": "raw/wdc_normalized/test.jsonl"}, "recipe")


def test_ae_110k_reads_triples_and_json_alike(tmp_path: Path) -> None:
    titles = {
        "Blue Acme Rope 9mm": {"Color": ["Blue"], "Brand": ["Acme"], "Weight": ["n/a"]},
        "Rope": {"Color": ["n/a"]},
    }
    triples = [
        f"{title}\x01{name}\x01{'NULL' if value == 'n/a' else value}\n"
        for title, scores in titles.items()
        for name, values in scores.items()
        for value in values
    ]
    triples += ["Rope\x01Color\n", "Rope\x01\x01Red\n", "Rope\x01Material\x01Hemp\n"]
    records = [
        {"input": title, "category": "Rope", "target_scores": {name: dict.fromkeys(v, 1) for name, v in scores.items()}}
        for title, scores in titles.items()
    ]
    apart, drops, bad = read(Ae110k(triples=lines(tmp_path / "publish_data.txt", triples), domain="Rope"))
    together, none, _ = read(Ae110k(train=lines(tmp_path / "train.jsonl", records)))
    assert [one.line for one in bad] == [5, 6]
    assert drops == {"line unparsable": 2, "value that its title does not hold": 1, "title without a label left": 1}
    assert not none
    assert apart["split"].null_count() == len(apart) == 4
    assert set(together["split"]) == {"train"}
    merged = apart.explode("attributes").group_by("product_id").agg("attributes")
    assert merged.sort("product_id")["attributes"].to_list() == together.sort("product_id")["attributes"].to_list()
    assert label(made(apart)) == label(made(together))


# The task


def test_a_value_that_is_stated_again_is_listed_where_it_stands_first() -> None:
    found = built(
        product(
            "Acme hose, green",
            {
                "Brand": [("ACME", "description"), ("Acme", "title")],
                "Color": [("dark green", "description"), ("green", "title")],
            },
            description="The ACME hose in dark green",
        )
    )
    assert label(found) == {
        "Brand": [("Acme", "title")],
        "Color": [("green", "title"), ("dark green", "description")],
    }
    assert_sound(found.samples)


def test_a_value_stands_in_whole_words() -> None:
    title = "Womens tee for Women and Men, size 10 (US 1)Fits all"
    found = built(
        product(
            title,
            {"Gender": [("Women", "title"), ("Men", "title")], "Sex": [("omen", "title")], "Size": [("1", "title")],
             "Fit": [("Fits all", "title")], "Ware": [("tee for", "title")], "Letter": [("S", "title")]},
        )
    )  # fmt: skip
    assert {name: [value for value, _ in values] for name, values in label(found).items()} == {
        "Gender": ["Women", "Men"],
        "Size": ["1"],
        "Fit": ["Fits all"],
        "Ware": ["tee for"],
    }
    assert found.drops["attribute whose values the shown texts do not hold as whole words"] == 2


@pytest.mark.parametrize(
    ("text", "holds"), [("Option KitPart Number", True), ("Kits", False), ("aKit", True), ("KIT", False)]
)
def test_words_that_were_run_together_end_at_a_capital(text: str, holds: bool) -> None:
    found = built(product(f"{text} red", {"Ware": [("Kit", "title")], "Color": [("red", "title")]}))
    assert ("Ware" in label(found)) is holds


def test_an_attribute_whose_values_are_cut_off_is_not_asked_for() -> None:
    long = "word " * 400
    found = built(
        product(
            "Acme hose",
            {"Brand": [("Acme", "title")], "Color": [("green", "description")],
             "Use": [("lawn", "feature"), ("Acme", "title")], "Shade": None},
            description=f"{long}green", feature=long[:900], note=long[:900], more=f"{long[:900]}lawn",
        )
    )  # fmt: skip
    assert set(label(found)) == {"Brand", "Use", "Shade"}
    assert label(found)["Use"] == [("Acme", "title")]
    assert found.drops["attribute whose values the shown texts do not hold as whole words"] == 1
    _, texts = parts(said(found.samples.row(0, named=True)))
    assert all(len(text) <= task.TEXT_CHARS for shown in texts.values() for text in shown)
    assert sum(len(text) for shown in texts.values() for text in shown) <= task.PRODUCT_CHARS


def test_what_is_asked_is_bounded_and_mixes_stated_with_absent() -> None:
    words = [f"word{chr(97 + number)}" for number in range(12)]
    stated = {word.upper(): [(word, "title")] for word in words}
    absent: dict[str, None] = {f"No {number}": None for number in range(12)}
    found = built(
        product(" ".join(words), stated | absent),
        product("worda alone", {"A": [("worda", "title")]} | absent),
        product("nothing is said", absent),
        product("list " + " ".join(words), {"All": [(word, "title") for word in words], "One": [("worda", "title")]}),
    )
    assert_sound(found.samples)
    labels = sorted((json.loads(text) for text in found.samples["label"]), key=len)
    assert [len(one) for one in labels] == [1, 2, 8]
    assert sum(one["value"] is None for one in labels[2]) == task.MOST_ABSENT
    assert found.drops["product without a stated attribute"] == 1
    assert found.drops["attribute with more than 5 values"] == 1


def test_rows_of_one_offer_are_one_sample_and_stated_beats_absent() -> None:
    found = built(
        product("Acme hose, green", {"Brand": [("Acme", "title")], "Color": None}),
        product("Acme hose, green", {"Color": [("green", "title")], "Length": None}),
        product("Acme  hose,<br> green", {"Brand": [("Acme", "title")]}) | {"product_id": "Acme hose, green"},
    )
    assert label(found) == {
        "Brand": [("Acme", "title")],
        "Color": [("green", "title")],
        "Length": [(None, None)],
    }


def test_people_are_not_extracted() -> None:
    found = built(
        product("Acme hose", {"Brand": [("Acme", "title")], "Contact": [("joe@example.org", "description")]},
                description="Write to joe@example.org or call +1 (212) 555-0123")
    )  # fmt: skip
    assert set(label(found)) == {"Brand"}
    assert "example.org" not in said(found.samples.row(0, named=True))
    assert "555-0123" not in said(found.samples.row(0, named=True))


def test_labels_are_json_whatever_the_value_holds() -> None:
    value = 'Größe "L" \\ 5'
    assert label(built(product(f"Tee {value} x", {"Size": [(value, "title")]}))) == {"Size": [(value, "title")]}
    found = built(product(f"Tee {value} x", {"Size": [(value, "title")]}))
    assert "Größe" in found.samples["label"].item()


def test_samples_depend_on_their_product_alone() -> None:
    rows = [product(f"Acme hose {number}m", {"Brand": [("Acme", "title")], "Color": None}) for number in range(60)]
    together = built(*rows).samples
    apart = pl.concat([built(*rows[40:]).samples, built(*rows[:40]).samples])
    assert together.sort("id").equals(apart.sort("id"))
    assert set(together["split"]) == {"train", "validation", "test"}
    assert len({said(sample).split("\n\n")[0] for sample in together.iter_rows(named=True)}) == len(task.PHRASINGS)


# Real corpora


@pytest.mark.corpora
def test_the_forms_of_the_real_wdc_pave_hold_the_same_offers(corpora: Path) -> None:
    folder = corpora / "attribute_values" / "wdc_pave"
    own, drops, _ = read(WdcPave(train=str(folder / "train_large.jsonl"), test=str(folder / "test.jsonl")))
    forms = {name: str(folder / "mave_format" / name / "*" / "*.jsonl") for name in ("train", "validation", "test")}
    mave, lost, _ = read(WdcPave(**forms))
    assert drops["value that is not where its label says"] == 63
    assert lost["value that is not where its label says"] == 20
    shown = []
    for rows in (own, mave):
        found = made(rows, "wdc_pave")
        assert_sound(found.samples)
        by_split = found.samples.partition_by("split", as_dict=True)
        shown.append(
            {
                split: {tuple(parts(said(s))[1]["title"]) for s in part.iter_rows(named=True)}
                for (split,), part in by_split.items()
            }
        )
        assert len(by_split["test",]) == 354
        assert len(found.samples) == 1420
    assert shown[0]["test"] == shown[1]["test"]
    assert not shown[0]["test"] & shown[1]["train"]


@pytest.mark.corpora
def test_the_real_ae_110k_keeps_its_split(corpora: Path) -> None:
    folder = corpora / "attribute_values" / "ae_110k"
    rows, drops, bad = read(Ae110k(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl")))
    found = made(rows, "ae_110k")
    assert not drops
    assert not bad
    assert_sound(found.samples)
    assert len(found.samples) + found.drops["product without a stated attribute"] == 2091
    titles = {split: set(rows.filter(pl.col("split") == split)["product_id"]) for split in ("train", "test")}
    assert not titles["train"] & titles["test"]
