"""Broken inputs: an error of ours that names the file, or rows and counts; what fuzzing found stays found."""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzz_seeds import Seed, seeds
from fuzzing import TEXT, Broken, bounded, drawn, mutated, other_entry, run

from recfound_data import build, check
from recfound_data.corpora import CORPORA, readers
from recfound_data.describe import describe
from recfound_data.errors import RecfoundError
from recfound_data.people import UserKey
from recfound_data.preparation import Reading, read_part
from recfound_data.recipe import DataRecipe, parse, read_yaml
from recfound_data.shop import generate
from recfound_data.sources import line_blocks

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seed]:
    """The seeds by name."""
    return {seed.name: seed for seed in seeds(tmp_path_factory.mktemp("seeds"))}


def test_every_reader_has_a_seed_and_reads_it(every: dict[str, Seed], tmp_path: Path) -> None:
    assert {seed.entry["corpus"] for seed in every.values()} == set(CORPORA)
    assert {name: run(seed, (), tmp_path) for name, seed in every.items()} == dict.fromkeys(every, "rows")


# What fuzzing found, by the seed and the mutation that found it


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("tables, csv: judgements", (("garbage", 932544201),)),  # a header with a bare carriage return
        ("contextual_pqa, hetPQA", (("garbage", 866803456), ("flipped", 998001805))),  # the same
        ("amazonqa, squad lines", (("other values", 249407744),)),  # a question that is a text
        ("tables, parquet: judgements", (("other columns", 915471665),)),  # a column of durations
        ("amazon_reviews_2018", (("other numbers again", 1044646131), ("packed", 1030582792))),  # compressed twice
        ("tables, jsonl: judgements", (("deep", 327776530), ("other values again", 109704852))),
        ("ae_110k, JSON", (("other values again", 1016897481),)),  # a category that is an object
        ("tables, csv: judgements", (("many columns", 963795264), ("garbage", 665605556), ("deep", 883286339))),
        ("recfound_release, list", (("packed and broken", 584248001),)),  # a member called /etc/...
        ("book_crossing, dump", (("packed and broken", 490220306), ("other values again", 454052955))),
        ("mave", (("other values again", 989422796),)),  # paragraphs that are null
        ("mave", (("header only", 487077922), ("other header", 702220031), ("other numbers again", 890079061))),
        ("tables, parquet: judgements", (("latin line", 252829825),)),  # a column whose name is no text
        ("tables, parquet: interactions", (("other columns", 1026357936), ("other columns again", 520310051))),
        ("amazon_reviews_2023", (("other numbers", 470153717), ("other numbers", 275454222))),  # an endless price
        (
            "amazon_reviews_2014, Python",
            (
                ("other names", 563801258),
                ("other numbers", 976167778),
                ("other numbers again", 283583563),
                ("other numbers", 218533215),
            ),
        ),  # a number of too many digits
        ("mave, labels", (("cut out", 751448822),)),  # no label at all
        ("alexa_cqr, list", (("packed and broken", 145277311),)),  # a rewrite that names no turn
        ("tables, parquet: dialogues", (("corrupt footer", 652875201),)),  # values that are no text
        ("mave, labels", (("deep", 669171991),)),
        ("mcauley_qa, multiple", (("huge field", 512715493),)),  # a literal of 10 MB
        ("alexa_cqr, lines", (("other names", 168997827),)),  # an empty path
    ],
)
def test_what_was_found_stays_found(every: dict[str, Seed], tmp_path: Path, name: str, plan: Any) -> None:
    run(every[name], plan, tmp_path)


def read(tmp_path: Path, entry: dict[str, Any], **files: bytes) -> dict[str, Any]:
    """Read an entry as a build does; names have `__` for a full stop."""
    for name, data in files.items():
        (tmp_path / name.replace("__", ".")).write_bytes(data)
    recipe = DataRecipe(corpora=[entry], tasks=["user2item"])
    (reader,) = readers(recipe, tmp_path, "recipe.yaml")
    (tmp_path / "out").mkdir()
    return read_part(tmp_path / "out", reader.parts()[0], Reading(UserKey("k", True), False, True, True))


REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1529193600, "reviewText": "ok"}
CLICKS = {"corpus": "tables", "interactions": {"path": "a.parquet"}}


def test_what_is_compressed_twice_is_no_text_and_is_not_unpacked(tmp_path: Path) -> None:
    inner = gzip.compress(json.dumps(REVIEW).encode() + b"\n", mtime=0)
    entry = {"corpus": "amazon_reviews_2018", "reviews": "r.json.gz", "metadata": "r.json.gz"}
    result = read(tmp_path, entry, r__json__gz=gzip.compress(inner))
    assert not result["tables"] and result["drops"]["review unparsable"] >= 1


def test_a_file_none_of_whose_first_thousand_lines_can_be_parsed_is_another_one(tmp_path: Path) -> None:
    entry = {"corpus": "amazon_reviews_2018", "reviews": "r.json", "metadata": "r.json"}
    with pytest.raises(RecfoundError, match=r"r\.json: line 1: .*every line; is it the right file\?"):
        read(tmp_path, entry, r__json=b"a,b\n" * 1_001)
    shutil.rmtree(tmp_path / "out")
    good = json.dumps(REVIEW).encode() + b"\n"
    result = read(tmp_path, entry, r__json=b"a,b\n" * 900 + good + b"a,b\n" * 600)
    assert result["tables"]["interactions"] == 1 and result["drops"]["review unparsable"] == 1_500


def test_a_line_without_an_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfound_data.sources.BLOCK_BYTES", 1_000)
    (tmp_path / "a.json").write_bytes(b"x\n" + b"y" * 10_000)
    with pytest.raises(RecfoundError, match=r"a\.json: line 2: is longer than .*is it the right file"):
        list(line_blocks(str(tmp_path / "a.json"), 1_000))
    (tmp_path / "b.json").write_bytes(b"x\n" + b"y" * 3_000 + b"\nz\n")
    assert b"".join(block.data for block in line_blocks(str(tmp_path / "b.json"), 1_000))[-2:] == b"z\n"


@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
def test_a_block_has_few_lines_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("recfound_data.sources._MOST_LINES", 10)
    text = b'1,"a\nb\nc"\n2,d\n\n' * 40 + b"end"
    (tmp_path / name).write_bytes(text)
    blocks = list(line_blocks(str(tmp_path / name)))
    assert b"".join(block.data for block in blocks) == text and len(blocks) >= 15
    assert [block.first_line for block in blocks] == [
        1 + b"".join(before.data for before in blocks[:at]).count(b"\n") for at in range(len(blocks))
    ]
    assert all(block.data.count(b"\n") <= 20 for block in blocks)
    assert name == "a.txt" or all(block.data.count(b'"') % 2 == 0 for block in blocks)


def test_a_document_that_is_too_large_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfound_data.records.whole_files.__defaults__", (100,))
    with pytest.raises(RecfoundError, match=r"d\.json: is larger than 0 MiB and one document"):
        read(tmp_path, {"corpus": "mudoco_qr", "dialogues": "d.json"}, d__json=b'{"dialogs": {}}' + b" " * 100)


def test_rows_whose_values_have_another_type_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    title = {"input": "YTQ Spoon", "category": "Lure", "target_scores": {"Brand": {"YTQ": 1}}}
    lines = [title, {**title, "category": {"a": 1}}, {**title, "input": "YTQ Hook"}]
    result = read(tmp_path, {"corpus": "ae_110k", "train": "t.jsonl"},
                  t__jsonl=b"".join(json.dumps(line).encode() + b"\n" for line in lines))  # fmt: skip
    assert result["tables"] == {"attributes": 2} and result["drops"] == {"record with a value of the wrong type": 1}


def test_columns_of_any_type_are_text_or_nothing(tmp_path: Path) -> None:
    columns = {"user_id": pa.array([1, 2], pa.duration("s")), "item_id": pa.array([b"\xff", b"ab"]),
               "timestamp": pa.array([1, 2]), "rating": pa.array([1, 2], pa.time64("us"))}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    result = read(tmp_path, CLICKS)
    assert result["drops"]["interaction unparsable"] == 2  # times of a day are no ratings


def test_a_list_is_read_one_value_at_a_time_and_its_faults_are_said(tmp_path: Path) -> None:
    sample = {"task": "Answer_Generation", "text": ["Q", "A"], "id": 7}
    entry = {"corpus": "recfound_release", "samples": "x_train.json"}
    text = f" [\n{json.dumps(sample)} , 3,{json.dumps({**sample, 'text': ['R', 'é']})}]\n"
    result = read(tmp_path, entry, x_train__json=text.encode())
    assert result["tables"] == {"made": 2} and result["drops"] == {"record unparsable": 1}
    for broken, fault in ((text.replace(" , 3", " 3"), "comma"), (text[:40], "no valid JSON"), ("[" * 100_000, "JSON")):
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(RecfoundError, match=rf"x_train\.json: .*{fault}"):
            read(tmp_path, entry, x_train__json=broken.encode())


def test_an_archive_writes_nothing_and_its_members_stay_in_it(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../../outside.csv", "/etc/outside.csv"):
            archive.writestr(name, "user_id,item_id\n1,2\n")
    before = sorted(tmp_path.parent.rglob("outside.csv"))
    entry = {"corpus": "tables", "interactions": {"path": "a.zip/*"}}
    with pytest.raises(RecfoundError, match=r"a\.zip"):
        read(tmp_path, entry)
    assert sorted(tmp_path.parent.rglob("outside.csv")) == before


def test_a_message_lists_few_columns_of_many(tmp_path: Path) -> None:
    header = ",".join(f"c{number}" for number in range(20_000)) + ',"' + "x" * 5_000 + '\n\x00"'
    with pytest.raises(RecfoundError, match=r"a\.csv: has no column 'user_id'.* and 19,971 more") as raised:
        read(tmp_path, {"corpus": "tables", "interactions": {"path": "a.csv"}}, a__csv=header.encode())
    assert len(str(raised.value)) < 2_000 and "\n" not in str(raised.value)


# Datasets and recipes


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, user_key: None) -> Path:
    """A dataset of two tasks; not to be changed."""
    folder = tmp_path_factory.mktemp("films")
    generate(folder / "shop", reviews=200, seed=5, formats=["movielens"])
    settings = yaml.safe_load((folder / "shop/recipe.yaml").read_text())
    settings["tasks"] = ["user2item", "sequential_recommendation"]
    (folder / "shop/recipe.yaml").write_text(yaml.safe_dump(settings))
    build(folder / "shop/recipe.yaml", folder / "dataset", quiet=True)
    return folder / "dataset"


def examine(films: Path, folder: Path, number: int) -> None:
    """Check and describe a dataset one of whose files is broken; a Parquet file so that the manifest agrees."""
    rng = random.Random(number)
    files = sorted(path.relative_to(films).as_posix() for path in films.rglob("*.parquet"))
    name = rng.choice(["recfound.json"] * 8 + ["README.md"] * 3 + files)
    how = rng.choice([*TEXT, *["other values"] * (12 if name == "recfound.json" else 0)])
    shutil.copytree(films, folder)
    data = mutated(Broken({}, {name: (films / name).read_bytes()}), name, how, rng).files[name]
    (folder / name).write_bytes(data)
    if name.endswith(".parquet") and rng.random() < 0.7:
        manifest = json.loads((folder / "recfound.json").read_text())
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / "recfound.json").write_text(json.dumps(manifest))
    for look in (check, describe):
        with bounded(folder, {str(folder)}):
            look(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_broken_dataset_is_refused_or_its_faults_are_found(films: Path, tmp_path: Path) -> None:
    for number in range(300):
        examine(films, tmp_path / "dataset", number)


def change(manifest: dict[str, Any], *place: str) -> None:
    *path, last = place
    for key in path:
        manifest = manifest[key]
    manifest[last] = 7


@pytest.mark.parametrize("place", ["configs", "files", "corpora", "recipe", "drops", "label_sources", "user_key",
                                   "configs user2item", "configs user2item splits", "corpora shop_films",
                                   "corpora shop_films terms"])  # fmt: skip
def test_a_manifest_of_another_shape_is_refused(films: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(films, tmp_path / "dataset")
    manifest = json.loads((films / "recfound.json").read_text())
    change(manifest, *place.split())
    (tmp_path / "dataset/recfound.json").write_text(json.dumps(manifest))
    for look in (check, describe):
        with pytest.raises(RecfoundError, match=rf"recfound\.json: is no dataset manifest: {place.replace(' ', '.')}"):
            look(tmp_path / "dataset")


def test_a_manifest_of_brackets_alone_is_refused(films: Path, tmp_path: Path) -> None:
    shutil.copytree(films, tmp_path / "dataset")
    (tmp_path / "dataset/recfound.json").write_text("[" * 100_000)
    with pytest.raises(RecfoundError, match=r"recfound\.json: cannot be read"):
        check(tmp_path / "dataset")


def test_recipes_of_any_shape_are_refused_by_name(every: dict[str, Seed], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    some = list(every.values())
    for number in range(300):
        rng = random.Random(number)
        broken = Broken({"corpora": [rng.choice(some).entry], "tasks": ["user2item"], "seed": 1}, {"x": b""})
        entry = other_entry(other_entry(broken, rng), rng).entry
        how = rng.choice(("deep", "inserted", "flipped", "garbled line", "other numbers", "repeated", "empty"))
        text = yaml.safe_dump(entry, allow_unicode=True).encode("utf-8", "surrogatepass")
        recipe.write_bytes(TEXT[how](text, rng) if rng.random() < 0.5 else text)
        with bounded(tmp_path, {str(recipe)}):
            readers(parse(DataRecipe, read_yaml(recipe), str(recipe)), tmp_path, str(recipe))


def test_a_recipe_of_aliases_of_aliases_ends(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, 10)]
    (tmp_path / "recipe.yaml").write_text("\n".join([*lines, "corpora: *a9", "tasks: [user2item]"]))
    with bounded(tmp_path, {"recipe.yaml"}) as said:
        parse(DataRecipe, read_yaml(tmp_path / "recipe.yaml"), str(tmp_path / "recipe.yaml"))
    assert said


# A part of the campaign


def test_a_few_inputs_of_every_seed(every: dict[str, Seed], tmp_path: Path) -> None:
    some = list(every.values())
    for number in range(3 * len(some)):
        found, plan = drawn(some, number, 2026)
        if plan[0][0] not in ("bomb", "large bomb", "huge field"):
            run(found, plan, tmp_path)


@pytest.mark.slow
def test_a_campaign_of_a_thousand_inputs(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "fuzzing.py"), "--inputs", "1000", "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([*command, "--journal", str(tmp_path / "journal.jsonl")], env=environment, check=False,
                          capture_output=True, text=True, timeout=550)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    assert done.stdout.startswith("1,000 inputs") and ", 0 faults" in done.stdout
