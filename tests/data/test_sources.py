"""Where raw files are, how they are compressed and cut, and what is read of them however dirty they are."""

import bz2
import functools
import gzip
import http.server
import io
import itertools
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from hub import LoopbackHub

from recfound_data.errors import RecfoundError
from recfound_data.files import expand, form
from recfound_data.records import (
    Record,
    Values,
    in_batches,
    json_document,
    json_records,
    literal_records,
    table_records,
    whole_files,
)
from recfound_data.sources import (
    Block,
    Unparsable,
    csv_frame,
    frames,
    header_line,
    json_lines,
    line_blocks,
    parquet_frames,
)

LINES = b"".join(f'{{"number": {number}}}\n'.encode() for number in range(2_000))


def content(pattern: str, block_bytes: int = 1_000) -> bytes:
    return b"".join(block.data for block in line_blocks(pattern, block_bytes))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packer:
        packer.write(data)
    return sink.getvalue().to_pybytes()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# Where files are


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "json": bytes,
    "json.gz": gzip.compress,
    "JSON.GZ": gzip.compress,
    "json.bz2": bz2.compress,
    "json.zst": zstd,
    "json.zstd": lambda data: zstd(data[:90]) + zstd(data[90:]),  # files may be written in several frames
    "two.json.gz": lambda data: gzip.compress(data[:90]) + gzip.compress(data[90:]),
}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files_are_what_they_hold(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.{suffix}"
    path.write_bytes(PACKED[suffix](LINES))
    assert content(str(path)) == LINES
    path.write_bytes(PACKED[suffix](b""))
    assert content(str(path)) == b""


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKED if suffix != "json"])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.{suffix}"
    path.write_bytes(PACKED[suffix](LINES)[:-7])
    with pytest.raises(RecfoundError, match=r"(truncated or damaged|cannot be read) after [\d,]+ bytes"):
        content(str(path))
    path.write_bytes(b"no archive at all, but long enough to look like one")
    with pytest.raises(RecfoundError, match=r"after 0 bytes"):
        content(str(path))


@pytest.mark.parametrize("name", ["r.json", "r.csv", "r.jsonl.gz", "r.parquet", "r.dat"])
def test_a_pointer_of_git_lfs_is_no_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 150699451\n")
    with pytest.raises(RecfoundError, match=r"is a pointer of Git LFS and not the file; .*`git lfs pull`"):
        list(frames(str(path), SCHEMA))


def test_a_zip_archive_is_its_one_file_or_the_member_that_is_named(tmp_path: Path) -> None:
    one = zipped(tmp_path / "one.zip", {"ml/": b"", "ml/ratings.csv": b"a\n1\n", "__MACOSX/ml/._ratings.csv": b"junk"})
    assert expand(str(one)) == [f"{one}/ml/ratings.csv"] and content(str(one)) == b"a\n1\n"
    many = zipped(tmp_path / "many.ZIP", {"x/b.csv": b"b\n", "x/a.csv.gz": gzip.compress(b"a\n"), "readme.txt": b"r\n"})
    assert content(f"{many}/x/b.csv") == b"b\n" and content(f"{many}/x/a.csv.gz") == b"a\n"
    assert content(f"{many}/x/*.csv*") == b"a\nb\n"
    assert content(f"{tmp_path}/o*.zip/*/ratings.csv") == b"a\n1\n"
    assert [(block.path, block.first_line) for block in line_blocks(f"{many}/readme.txt")] == [
        (f"{many}/readme.txt", 1)
    ]
    with pytest.raises(
        RecfoundError, match=r"holds 3 files; name one of .*many\.ZIP/ readme\.txt, x/a\.csv\.gz, x/b\.csv"
    ):
        expand(str(many))
    with pytest.raises(RecfoundError, match=r"has no file 'x/c\.csv'"):
        expand(f"{many}/x/c.csv")
    with pytest.raises(RecfoundError, match=r"no such file"):
        expand(f"{tmp_path}/none.zip/x.csv")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["many.ZIP", "one.zip"]  # nothing was extracted


def test_a_damaged_zip_archive_is_one_clear_error(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.csv": LINES})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecfoundError, match=r"a\.zip: is not a readable zip archive"):
        content(str(path))
    broken = bytearray(whole)
    broken[100:110] = bytes(10)
    path.write_bytes(broken)
    with pytest.raises(RecfoundError, match=r"a\.zip/a\.csv: truncated or damaged"):
        content(str(path))


def test_parquet_is_read_from_an_archive(tmp_path: Path) -> None:
    held = io.BytesIO()
    pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}).write_parquet(held)
    path = zipped(tmp_path / "p.zip", {"d/p.parquet": held.getvalue()})
    assert pl.concat(parquet_frames(str(path), {"b": pl.String}))["b"].to_list() == ["x", "y"]


def test_a_glob_is_all_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        (tmp_path / f"part-{number:02d}.csv").write_text(f"{number}")
    (tmp_path / "part-99.csv").mkdir()
    assert content(str(tmp_path / "part-*.csv")) == b"1210"
    with pytest.raises(RecfoundError, match=r"is a folder; name its files, as in .*/part-99\.csv/\*"):
        expand(str(tmp_path / "part-99.csv"))


def test_a_folder_with_brackets_in_its_name_is_no_glob(tmp_path: Path) -> None:
    path = tmp_path / "ml [latest]" / "ratings?.csv"
    path.parent.mkdir()
    path.write_bytes(b"x\n")
    assert content(str(path)) == b"x\n"


def test_any_fsspec_url_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(LINES)
    zipped(tmp_path / "ml.zip", {"ml-latest/ratings.csv": LINES})
    memory = fsspec.filesystem("memory")
    memory.pipe("/recfound-test/ratings.csv", LINES)
    urls = [
        f"file://{path}",
        f"file://{tmp_path}/rat*.csv",
        "memory://recfound-test/ratings.csv",
        "memory://recfound-test/*.csv",
        f"zip://ml-latest/ratings.csv::{tmp_path}/ml.zip",
        f"zip://*/rat*.csv::file://{tmp_path}/ml.zip",
        f"file://{tmp_path}/ml.zip/ml-latest/ratings.csv",
        f"simplecache::file://{path}",
    ]
    try:
        for url in urls:
            assert content(url) == LINES, url
    finally:
        memory.rm("/recfound-test", recursive=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.d/reviews.JSONL.gz", "jsonl"),
        ("reviews", ""),
        ("https://x.org/p.parquet?download=true", "parquet"),
        ("zip://in/r.csv.bz2::/tmp/a.zip", "csv"),
        ("simplecache::https://x.org/r.csv", "csv"),
    ],
)
def test_the_form_of_a_file_is_its_name_without_compression(path: str, expected: str) -> None:
    assert form(path) == expected


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which its files are served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_are_read_over_http(served: tuple[Path, str]) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    folder, address = served
    (folder / "r.json.gz").write_bytes(gzip.compress(LINES))
    pl.DataFrame({"a": [1]}).write_parquet(folder / "p.parquet")
    assert content(f"{address}/r.json.gz") == LINES
    assert next(parquet_frames(f"{address}/p.parquet", {"a": pl.Int64}))["a"].to_list() == [1]
    with pytest.raises(RecfoundError, match=r"none\.json: cannot be opened: .*404"):
        content(f"{address}/none.json")


HUB_CLIENT = """
import gzip, io, sys
import huggingface_hub
import polars as pl
from recfound_data.sources import frames, line_blocks, parquet_frames
from recfound_data.errors import RecfoundError

lines = b"".join(b'{"number": %d}\\n' % number for number in range(2000))
table = io.BytesIO()
pl.DataFrame({"a": [1, 2]}).write_parquet(table)
api = huggingface_hub.HfApi()
api.create_repo("acme/shop", repo_type="dataset")
for name, data in (("raw/r.jsonl.gz", gzip.compress(lines)), ("p.parquet", table.getvalue())):
    api.upload_file(path_or_fileobj=data, path_in_repo=name, repo_id="acme/shop", repo_type="dataset")
api.create_tag("acme/shop", tag="v1", repo_type="dataset")

root = "hf://datasets/acme/shop"
assert b"".join(block.data for block in line_blocks(f"{root}/raw/r.jsonl.gz", 1000)) == lines
assert pl.concat(frame for frame, _ in frames(f"{root}/raw/*.gz", {"number": pl.Int64}))["number"].sum() == 1999000
assert pl.concat(parquet_frames(f"{root}@v1/p.parquet", {"a": pl.Int64}))["a"].to_list() == [1, 2]
try:
    list(line_blocks("hf://datasets/acme/none/r.jsonl"))
except RecfoundError as error:
    print(error)
"""


def test_files_are_read_from_the_hub_that_hf_endpoint_names(hub: LoopbackHub, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUB_CLIENT],
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hf://datasets/acme/none/r.jsonl: ")
    fetched = [entry.path for entry in hub.log if entry.method == "GET" and "/resolve/" in entry.path]
    assert any(path.endswith("raw/r.jsonl.gz") for path in fetched)


# How files are cut


@pytest.mark.parametrize("block_bytes", [1, 7, 60, 10_000])
def test_blocks_are_whole_lines_with_their_numbers(tmp_path: Path, block_bytes: int) -> None:
    data = b"\xef\xbb\xbffirst\n\nthird line, a longer one\r\nlast without an end"
    path = tmp_path / "r.txt"
    path.write_bytes(data)
    blocks = list(line_blocks(str(path), max(block_bytes, 3)))
    assert b"".join(block.data for block in blocks) == data[3:]
    for before, block in itertools.pairwise(blocks):
        assert before.data.endswith(b"\n") and block.first_line == before.first_line + before.data.count(b"\n")


CSV = 'id,text,number\n1,"one\nline ""more""\n\n",1\n2,plain,2\n3,"a,b",3\n\n4,"\n",4\n5,é,5\n'
SCHEMA = {"number": pl.Int64, "text": pl.String}


def read_csv(path: Path, block_bytes: int, **options: object) -> tuple[list[tuple], list[tuple[int, str]]]:
    found, bad, header = [], [], b""
    for block in line_blocks(str(path), block_bytes):
        header = header or header_line(block)
        frame, faults = csv_frame(block, header, SCHEMA, **options)  # type: ignore[arg-type]
        found += frame.rows()
        bad += [(fault.line, fault.why) for fault in faults]
    return found, bad


@pytest.mark.parametrize("block_bytes", [12, 20, 33, 1 << 20])
def test_quoted_line_breaks_at_the_ends_of_blocks_are_kept(tmp_path: Path, block_bytes: int) -> None:
    path = tmp_path / "r.csv"
    path.write_text(CSV, encoding="utf-8")
    rows, bad = read_csv(path, block_bytes)
    assert [number for number, _ in rows] == [1, 2, 3, 5]  # a text of blanks alone is a missing one
    assert [text for _, text in rows] == ['one\nline "more"', "plain", "a,b", "é"]
    assert bad == [(9, "a value is missing or of the wrong type")]
    lenient, none = read_csv(path, block_bytes, needed=("number",))
    assert lenient == [*rows[:3], (4, None), rows[3]] and none == []


def test_a_quote_that_is_never_closed_costs_a_line_and_not_the_file(tmp_path: Path) -> None:
    rows = [f"{number},text {number},{number}\n" for number in range(400)]
    rows[100] = '100,"never closed,100\n'
    (tmp_path / "r.csv").write_text("id,text,number\n" + "".join(rows))
    for block_bytes in (200, 1 << 20):
        found, bad = read_csv(tmp_path / "r.csv", block_bytes)
        assert [number for number, _ in found] == [number for number in range(400) if number != 100]
        assert bad == [(102, "expected 3 values, found 2")]


BROKEN = b"id,text,number\n1,caf\xe9,1\n2,two\n3,three,x\n4,four,4,4\n\n5,\xc3\xa9,5\n6,,6\n7,seven,7\n,,\n  \n"


def test_a_csv_may_have_another_separator() -> None:
    block = Block("r.csv", 1, b'text;number\n"a;""b""";1\nc, d;x\n\ne\n')
    frame, bad = csv_frame(block, b"text;number\n", SCHEMA, needed=["text"], separator=";")
    assert frame.rows() == [(1, 'a;"b"'), (None, "c, d"), (None, "e")] and not bad


def test_broken_rows_of_a_csv_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(BROKEN)
    for block_bytes in (16, 1 << 20):
        rows, bad = read_csv(tmp_path / "r.csv", block_bytes)
        assert rows == [(1, "café"), (5, "é"), (7, "seven")]
        why = "a value is missing or of the wrong type"
        assert bad == [(3, why), (4, why), (5, "expected 3 values, found 4"), (8, why), (10, why)]
        rows, bad = read_csv(tmp_path / "r.csv", block_bytes, needed=())
        assert rows == [(1, "café"), (None, "two"), (None, "three"), (5, "é"), (6, None), (7, "seven"), (None, None)]
        assert bad == [(5, "expected 3 values, found 4")]


def test_a_csv_without_a_column_or_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(b"id,text\n1,x\n")
    with pytest.raises(RecfoundError, match=r"r\.csv: line 1: has no column 'number'; it has id, text"):
        read_csv(tmp_path / "r.csv", 1_000)
    rows, bad = read_csv(tmp_path / "r.csv", 1_000, optional=("number",), needed=("text",))
    assert rows == [(None, "x")] and bad == []
    (tmp_path / "r.csv").write_bytes(gzip.compress(b"id,text,number\n1,x,1\n"))
    with pytest.raises(RecfoundError, match=r"line 1: is no text .* ends in \.gz"):
        read_csv(tmp_path / "r.csv", 1_000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_header_is_read_in_the_encodings_of_the_lines_after_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.csv").write_text("number,Größe,text\n1,groß,schön\n", encoding=encoding)
    assert read_csv(tmp_path / "r.csv", 1_000) == ([(1, "schön")], [])


def test_parquet_files_may_lack_optional_columns_only(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    pl.DataFrame({"a": ["1", "x"]}).write_parquet(path)
    found = list(parquet_frames(path, {"a": pl.Int64, "b": pl.List(pl.String)}, optional=("b",)))
    assert [frame.rows() for frame in found] == [[(1, None), (None, None)]]
    with pytest.raises(RecfoundError, match=r"p\.parquet: has no column 'b'; it has a"):
        list(parquet_frames(path, {"a": pl.Int64, "b": pl.String}))
    (tmp_path / "p.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(RecfoundError, match=r"is not a readable Parquet file"):
        list(parquet_frames(path, {"a": pl.Int64}))


def test_the_same_rows_come_from_every_form(tmp_path: Path) -> None:
    frame = pl.DataFrame({"number": [1, None, 3], "text": ["a", "b\nc", None]})
    frame.write_parquet(tmp_path / "r.parquet")
    frame.write_csv(tmp_path / "r.csv")
    frame.write_ndjson(tmp_path / "r.jsonl")
    (tmp_path / "bare.csv").write_text((tmp_path / "r.csv").read_text().partition("\n")[2])
    frame.select("text", other=pl.lit("x"), number="number").write_csv(tmp_path / "own.csv")
    for name in ("r.parquet", "r.csv", "r.jsonl", "bare.csv", "own.csv"):
        header = "number,text" if name in ("bare.csv", "own.csv") else ""
        (read, bad), *more = frames(str(tmp_path / name), SCHEMA, header=header)
        assert read.rows() == [(1, "a"), (None, "b\nc"), (3, None)] and not bad and not more, name


# Reading ahead


def test_the_next_block_is_read_while_the_caller_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.txt").write_bytes(LINES)
    readers: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            readers.append(threading.get_ident())
            return super().read(size)

    monkeypatch.setattr("recfound_data.sources.decompressed", lambda raw, path: Watched(raw.read()))
    blocks = line_blocks(str(tmp_path / "r.txt"), 1_000)
    next(blocks)
    deadline = time.monotonic() + 5
    while len(readers) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(readers) == 2 and threading.get_ident() not in readers
    blocks.close()


def test_no_thread_is_left_and_no_error_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(LINES))
    (tmp_path / "b.gz").write_bytes(gzip.compress(LINES)[:-4])
    before = threading.active_count()
    blocks = line_blocks(str(tmp_path / "a.gz"), 1_000)
    next(blocks)
    assert threading.active_count() == before + 1
    blocks.close()  # the caller has enough
    assert threading.active_count() == before
    assert content(str(tmp_path / "a.gz")) == LINES
    read = 0
    with pytest.raises(RecfoundError, match=r"b\.gz: truncated"):
        for block in line_blocks(str(tmp_path / "*.gz"), 1_000):
            read += len(block.data)
    assert read >= len(LINES) and threading.active_count() == before
    with pytest.raises(ZeroDivisionError):
        for _ in line_blocks(str(tmp_path / "a.gz"), 1_000):
            raise ZeroDivisionError
    with pytest.raises(RecfoundError, match="no such file"):
        list(line_blocks(str(tmp_path / "none")))
    assert threading.active_count() == before


# JSON lines by the block


REVIEW = {"reviewerID": pl.String, "overall": pl.Float32, "unixReviewTime": pl.Int64, "also_buy": pl.List(pl.String)}
ODD = [
    b'{"reviewerID": "x\\ud800"}',
    b'{"unixReviewTime": 99999999999999999999}',
    b'{"overall": "4.0", "unixReviewTime": "12"}',
    b'{"overall": true, "unixReviewTime": 12.5}',
    b'{"reviewerID": ["a"], "also_buy": ""}',
    b'{"reviewerID": {"a": 1}, "also_buy": [1, null, "b"]}',
    b'{"reviewerID": "A", "reviewerID": "B"}',
    b"{}",
    b" \t ",
]


def test_a_broken_line_changes_nothing_about_how_the_others_are_read() -> None:
    good = [json.dumps({"reviewerID": f"A{number}", "overall": 5.0}).encode() for number in range(50)]
    good[20:20] = ODD
    expected, none = json_lines(Block("file", 1, b"\n".join(good)), REVIEW)
    assert none == [] and len(expected) == 58
    for places in ([0], [58], [20, 21, 22], [7, 30, 59], range(0, 60, 2)):
        mixed, broken = list(good), []
        for place in places:
            mixed.insert(place, b'{"reviewerID": "A1"')
            broken.append(place)
        frame, bad = json_lines(Block("file", 101, b"\n".join(mixed) + b"\n"), REVIEW)
        assert frame.equals(expected)
        assert [(line.path, line.line) for line in bad] == [("file", 101 + place) for place in broken]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[1, 2]", "expected an object, found list"),
        (b'"text"', "expected an object, found str"),
        (b"null", "expected an object, found NoneType"),
        (b"12", "expected an object, found int"),
        (b"{'reviewerID': 'A'}", "Expecting property name enclosed in double quotes"),
        (b'{"reviewerID": "A"', "Expecting ',' delimiter"),
        (b'{"reviewerID": "\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
        (b'{"overall": NaN}', "no readable JSON"),
        (b"{} {}", "Extra data"),
    ],
)
def test_why_a_line_is_no_object_is_said(line: bytes, why: str) -> None:
    frame, bad = json_lines(Block("file", 1, b'{"reviewerID": "A"}\n' + line + b"\n"), REVIEW)
    assert frame["reviewerID"].to_list() == ["A"]
    assert [(found.line, found.why[: len(why)]) for found in bad] == [(2, why)]


# Records


def read_records(records: Iterator[Record | Unparsable]) -> tuple[list[tuple[int, Values]], list[int]]:
    found, bad = [], []
    for record in records:
        if isinstance(record, Unparsable):
            bad.append(record.line)
        else:
            found.append((record.line, record.values))
    return found, bad


@pytest.fixture(params=[10, 1 << 20])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test run with blocks of a few bytes too."""
    monkeypatch.setattr(line_blocks, "__defaults__", (request.param,))


@pytest.mark.usefixtures("small_blocks")
def test_tables_with_quoted_line_breaks_other_encodings_and_broken_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b'\xef\xbb\xbf id ,text\r\n1,"two\nlines, ""quoted"""\r\n2,caf\xe9\n3,\xc3\xa9\n\n4\n5,a,b\n6,"open\n7,x\n'
    )
    found, bad = read_records(table_records(str(path), ["id", "text"]))
    assert found == [
        (2, {"id": "1", "text": 'two\nlines, "quoted"'}),
        (4, {"id": "2", "text": "café"}),
        (5, {"id": "3", "text": "é"}),
        (9, {"id": "6", "text": "open\n7,x\n"}),
    ]
    assert bad == [7, 8]
    with pytest.raises(RecfoundError, match=r"r\.csv: line 1: has no column 'name'; it has id, text"):
        list(table_records(str(path), ["id", "name"]))


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_left_open_in_a_table_costs_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text('a\tb\tc\n1\t"open\t2\n3\t4\t5\n6\t7\t8\n')
    found, bad = read_records(table_records(str(path), ["a"], delimiter="\t"))
    assert [line for line, _ in found] == [3, 4] and bad == [2]
    found, bad = read_records(table_records(str(path), ["a"], delimiter="\t", quote=None))
    assert found[0] == (2, {"a": "1", "b": '"open', "c": "2"}) and len(found) == 3 and not bad


@pytest.mark.usefixtures("small_blocks")
def test_each_file_of_a_pattern_has_a_header_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2")
    (tmp_path / "b.csv").write_text("y,x\n3,4\n")
    (tmp_path / "c.csv").write_text("")
    found, bad = read_records(table_records(str(tmp_path / "*.csv"), ["x", "y"]))
    assert [values for _, values in found] == [{"x": "1", "y": "2"}, {"y": "3", "x": "4"}] and not bad


def test_tables_are_read_without_holding_them_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.csv"
    path.write_text("x,y\n" + "1,2\n" * 1_000)
    taken = 0

    def counted(pattern: str) -> Iterator[Block]:
        nonlocal taken
        for block in line_blocks(pattern, 100):
            taken += 1
            yield block

    monkeypatch.setattr("recfound_data.records.line_blocks", counted)
    records = table_records(str(path), ["x"])
    next(records)
    assert taken == 1
    assert len(list(records)) == 999 and taken > 30


@pytest.mark.usefixtures("small_blocks")
def test_json_and_literals_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b'{"a": 1}\r\n\n[1]\n{"a": \n{"b": "\\ud83d\\ude00 \\ud83d x"}\n{"c": "caf\xe9"}')
    found, bad = read_records(json_records(str(path)))
    assert found == [(1, {"a": 1}), (5, {"b": "😀 � x"}), (6, {"c": "café"})] and bad == [3, 4]
    written = [
        b"{'a': u'it\\'s', 'b': \"q\"}", b"{'a': True, 'c': (None, '\\ud83d\\ude00')}", b"__import__('os')", b"{[]: 1}",
        b"{'d': '\\d'}", b"[" * 5_000, b"{'a': 1",
    ]  # fmt: skip
    path.write_bytes(b"\n".join(written))
    found, bad = read_records(literal_records(str(path)))
    assert found == [
        (1, {"a": "it's", "b": "q"}),
        (2, {"a": True, "c": [None, "😀"]}),
        (5, {"d": "\\d"}),
    ]
    assert bad == [3, 4, 6, 7]


def test_records_become_batches_with_what_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    rows = [json.dumps({"id": str(number), "text": "\ud83d"}) for number in range(25_000)]
    path.write_text("\n".join([*rows, "broken", '{"id": ""}']))

    def made(values: Values) -> list[Values] | str:
        return [{"user_id": values["id"], "item_id": "1", "text": values["text"]}] if values["id"] else "no id"

    batches = list(in_batches("interactions", json_records(str(path)), made))
    assert [len(batch.frame) for batch in batches] == [10_000, 10_000, 5_000]
    assert batches[-1].drops == {"no id": 1, "record unparsable": 1}
    assert [bad.line for batch in batches for bad in batch.unparsable] == [25_001]
    assert batches[0].frame["text"][0] == "�" and batches[0].frame["rating"].null_count() == 10_000


def test_a_document_and_whole_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1, "caf\xc3\xa9"]}')
    assert list(json_document(str(tmp_path / "a.json"))) == [(str(tmp_path / "a.json"), {"a": [1, "café"]})]
    (tmp_path / "b.json").write_text("{'a': 1}\n\n")
    with pytest.raises(RecfoundError, match=r"b\.json: is no valid JSON"):
        list(json_document(str(tmp_path / "*.json")))
    assert [data for _, data in whole_files(str(tmp_path / "*.json"))] == [
        '{"a": [1, "café"]}'.encode(),
        b"{'a': 1}\n\n",
    ]
    with pytest.raises(RecfoundError, match="no such file"):
        list(table_records(str(tmp_path / "none.csv"), []))


def test_a_stray_quote_costs_its_own_line(tmp_path: Path) -> None:
    schema = {"user": pl.String, "time": pl.Int64}
    for closing in ("", 'z,"9"\n'):
        rows = [f"u{number},{number}" for number in range(300)]
        rows[100] = 'u100,"100'
        block = Block("ratings.csv", 1, ("user,time\n" + "\n".join(rows) + "\n" + closing).encode())
        frame, bad = csv_frame(block, b"user,time\n", schema)
        assert [line.line for line in bad] == [102]
        assert len(frame) == 299 + bool(closing) and "u299" in frame["user"]
