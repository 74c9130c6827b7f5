# ruff: noqa: E501
"""Broken inputs for every reader: mutations of valid files, what may come of them, and a campaign of any size.

    python tests/data/fuzzing.py --inputs 10000 --seed 1 --found FOLDER

An input is a seed of `fuzz_seeds` and a few mutations, each with a number that it draws from; the two say all of it.
"""

import argparse
import bz2
import faulthandler
import gzip
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzz_seeds import Seed, seeds

from recfound_data.corpora import readers
from recfound_data.errors import RecfoundError
from recfound_data.people import UserKey
from recfound_data.preparation import Reading, read_part
from recfound_data.recipe import DataRecipe, parse, read_yaml
from recfound_data.resuming import inputs

SECONDS = 60.0
"""Of the processor's time that an input may take; the largest bombs take ten."""
MEMORY = 2 << 30
MESSAGE_CHARS = 4_000
Plan = tuple[tuple[str, int], ...]


class FaultError(AssertionError):
    """What may not come of an input."""


class Broken(NamedTuple):
    """An entry of a recipe and its files, on the way to being broken."""

    entry: dict[str, Any]
    files: dict[str, bytes]


# Mutations of text


Mutation = Callable[[bytes, random.Random], bytes]


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flipped(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if made:
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    what = rng.choice(_PIECES)
    return data[:at] + what + data[at:]


_PIECES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b'"', b"'", b"\\", b",", b";", b"\t", b"::", b"|", b"#",
    b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", b"\\ud800", b"\x1f", b"\x0b", b"\x85", "\u2028".encode(), b"{", b"}", b"[", b"]",
    b"null", b"NaN", b"1e999", b"\x1a", b"../", b"${HOME}", b"<b>", b"&#x110000;", b"&#9999999999999;", b"<!--", b"<![", b"%00",
)  # fmt: skip


def cut_out(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 10, 300)) :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    to = at + rng.choice((1, 10, 300))
    return data[:to] + data[at:to] * rng.choice((1, 1, 50)) + data[to:]


def garbage(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 7, 500, 20_000)))


def garbled_line(data: bytes, rng: random.Random) -> bytes:
    return on_line(data, rng, lambda line: rng.randbytes(len(line)))


def empty(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (b"", b"\n", b" ", b"\xef\xbb\xbf", b"\x00" * 100, b"[]", b"{}", b"null", b'""', b"1", b"[[[]]]", b"{}\n" * 30)
    )


def header_only(data: bytes, rng: random.Random) -> bytes:
    return data.split(b"\n")[0] + rng.choice((b"", b"\n", b"\r\n"))


def other_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\n\r", b"\x0b", b"")))


def other_letters(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7")), "replace"
    )


def latin_line(data: bytes, rng: random.Random) -> bytes:
    return on_line(data, rng, lambda line: line.replace(b"e", "é".encode("latin-1")).replace(b"a", b"\x80\xff"))


def on_line(data: bytes, rng: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = change(lines[at])
    return b"\n".join(lines)


def swapped_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


_NUMBERS = (
    b"1e999", b"-1e999", b"NaN", b"inf", b"-1", b"0", b"-0.0", str(2**70).encode(), str(-(2**63)).encode(), str(2**64).encode(), b"1e308",
    b"5e-324", b"", b"null", b'"7"', b"1_000", b"0x10", b"1e5", b"99999999999999", b"253402300800", b"9" * 5000, b"1" + b"0" * 30,
    b"[1]", b"true", "٣".encode(), b"1,5", b"1.2.3", b"9223372036854775807", b"-62135596801",
)  # fmt: skip


def other_numbers(data: bytes, rng: random.Random) -> bytes:
    places = [match.span() for match in re.finditer(rb"-?\d+(?:\.\d+)?", data)]
    for start, end in sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 3, 40)))), reverse=True):
        data = data[:start] + rng.choice(_NUMBERS) + data[end:]
    return data


def huge_field(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    what = rng.choice(
        (b"x", b"1", b" ", b'"', b"a b ", b"<p>", b"&amp;", b"[", b"9,", b"\\", b"a@", b"555-", b"\xc3\xa9")
    )
    return data[:at] + what * (10_000_000 // len(what)) + data[at:]


def deep(data: bytes, rng: random.Random) -> bytes:
    count = rng.choice((200, 1_000, 5_000, 100_000))
    opening, closing = rng.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b"[", b""), (b'{"a":[', b"]}"), (b"-", b"1"))
    )
    nest = opening * count + rng.choice((b"1", b'"x"', b"")) + closing * count

    def within(line: bytes) -> bytes:
        colon = line.find(b": ")
        if colon < 0 or rng.random() < 0.3:
            return nest
        return line[:-1] + b', "deep": ' + nest + line[-1:] if rng.random() < 0.5 else line[: colon + 2] + nest + b"}"

    return on_line(data, rng, within)


def many_columns(data: bytes, rng: random.Random) -> bytes:
    count = rng.choice((300, 20_000))
    mark = next((mark for mark in (b"\t", b",", b";", b"|", b"#") if mark in data.split(b"\n")[0]), b",")
    more = [b"c%d" % number for number in range(count)]
    if rng.random() < 0.5:
        return on_line(data, rng, lambda line: line + mark + mark.join(more))
    first, _, rest = data.partition(b"\n")
    return first + mark + mark.join(more) + b"\n" + rest


def other_header(data: bytes, rng: random.Random) -> bytes:
    first, end, rest = data.partition(b"\n")
    mark = next((mark for mark in (b"\t", b",", b";", b"|", b"#") if mark in first), b",")
    names = first.split(mark)
    match rng.randrange(5):
        case 0:
            names.pop(rng.randrange(len(names)))
        case 1:
            names[rng.randrange(len(names))] = rng.choice(names)
        case 2:
            names[rng.randrange(len(names))] = rng.choice((b"", b" ", b'"', b"\x00", b"line", b"x" * 1000, b"\xff"))
        case 3:
            rng.shuffle(names)
        case 4:
            names.append(rng.choice(names))
    return mark.join(names) + end + rest


_LEAVES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**70, -(2**80), 1e308, float("nan"), float("inf"), "", " ", "x", "1", "\x00", "\ud800", [], {}, [None],
    [[]], [{}], {"": None}, {"a": {"b": [1]}}, [1, "a", None, {}], "[1,", "{'a'", "\n", ["x"] * 50, "é" * 300, [[["x"]]], 1.5, "null",
    "99999999999999999999", "-1", "NaN",
)  # fmt: skip


def other_values(data: bytes, rng: random.Random) -> bytes:
    """Change values, keys and shapes of JSON, of the whole file or of a line."""

    def changed(text: bytes) -> bytes:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text + b" "
        for _ in range(rng.choice((1, 1, 2, 5))):
            value = _changed(value, rng)
        made = json.dumps(value, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            made = made.replace(b'{"', b'{"' + made[2:8] + b'": 1, "', 1)  # a key twice
        return made

    try:
        json.loads(data)
    except (ValueError, RecursionError):
        if rng.random() < 0.3:
            return b"\n".join(changed(line) for line in data.split(b"\n") if line)
        return on_line(data, rng, changed)
    return changed(data)


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {name: held for name, held in value.items() if name != key}
            case 1:
                return {
                    rng.choice(("", "x", "\x00", "\ud800")) if name == key else name: held
                    for name, held in value.items()
                }
            case 2:
                return value | {rng.choice(("new", "", *value)): rng.choice(_LEAVES)}
        return value | {key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value + [value[at]] * rng.choice((1, 3))
            case 2:
                return [*value[:at], rng.choice(_LEAVES), *value[at:]]
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    return rng.choice((*_LEAVES, [value], {"x": value}, str(value)))


TEXT: dict[str, Mutation] = {
    "truncated": truncated, "flipped": flipped, "inserted": inserted, "cut out": cut_out, "repeated": repeated, "garbage": garbage,
    "garbled line": garbled_line, "empty": empty, "header only": header_only, "other ends": other_ends, "other letters": other_letters,
    "latin line": latin_line, "swapped lines": swapped_lines, "other numbers": other_numbers, "deep": deep, "many columns": many_columns,
    "other header": other_header, "other values": other_values, "other values again": other_values, "other numbers again": other_numbers,
}  # fmt: skip
RARE: dict[str, Mutation] = {"huge field": huge_field}
"""What takes long."""


# Mutations of Parquet


def other_columns(data: bytes, rng: random.Random) -> bytes:
    """Change types, names, nulls and order of columns."""
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError):
        return data
    for _ in range(rng.choice((1, 1, 3))):
        if not table.num_columns:
            break
        at = rng.randrange(table.num_columns)
        name = table.column_names[at]
        match rng.randrange(7):
            case 0:
                table = table.remove_column(at)
            case 1:
                table = table.append_column(name, table.column(at))
            case 2:
                table = table.set_column(
                    at, name, pa.nulls(len(table), rng.choice((pa.null(), pa.string(), pa.int64())))
                )
            case 3:
                table = table.slice(0, 0)
            case _:
                table = table.set_column(at, name, _strange(len(table), rng))
    file = io.BytesIO()
    try:
        pq.write_table(table, file, compression=rng.choice(("snappy", "zstd", "gzip", "none")))
    except (pa.ArrowException, NotImplementedError):
        return data
    return file.getvalue()


def _strange(rows: int, rng: random.Random) -> pa.Array:
    values, kind = rng.choice((
        (range(rows), pa.int8()), (range(rows), pa.uint64()), ([2**63 + at for at in range(rows)], pa.uint64()),
        ([float("nan")] * rows, pa.float32()), ([-1e308] * rows, pa.float64()), ([True] * rows, pa.bool_()),
        ([b"\xff\x00"] * rows, pa.binary()), ([b"ab"] * rows, pa.binary(2)), ([["x", None]] * rows, pa.list_(pa.string())),
        ([[[1]]] * rows, pa.list_(pa.list_(pa.int64()))), ([{"a": 1}] * rows, pa.struct([("a", pa.int64())])),
        ([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())), ([2**62] * rows, pa.timestamp("s")), ([-(2**60)] * rows, pa.timestamp("ns")),
        ([1] * rows, pa.date32()), ([2**31 - 1] * rows, pa.date32()), ([1] * rows, pa.time64("us")), ([5] * rows, pa.duration("s")),
        (["x"] * rows, pa.large_string()), (["\x00"] * rows, pa.string()), ([""] * rows, pa.string()), ([1] * rows, pa.decimal128(20, 2)),
        ([10**30] * rows, pa.decimal128(38, 0)), ([[]] * rows, pa.list_(pa.struct([("name", pa.string())]))), ([1.5] * rows, pa.float16()),
        ([10**60] * rows, pa.decimal256(70, 0)), ([5] * rows, pa.timestamp("ms", "Europe/Berlin")),
    ))  # fmt: skip
    made = (
        pa.array(list(values), pa.int64()).cast(pa.int8(), safe=False)
        if kind == pa.int8()
        else pa.array(list(values), kind)
    )
    return made.dictionary_encode() if kind == pa.string() and rng.random() < 0.3 else made


def corrupt_footer(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 4, 30))):
        made[-1 - rng.randrange(min(len(made), 2_000))] = rng.randrange(256)
    return bytes(made)


PARQUET: dict[str, Mutation] = {
    "other columns": other_columns, "other columns again": other_columns, "other columns and more": other_columns, "truncated": truncated,
    "flipped": flipped, "corrupt footer": corrupt_footer, "garbage": garbage, "empty": empty, "cut out": cut_out,
}  # fmt: skip


# Mutations of what a file is packed in


def bomb(size: int, rng: random.Random) -> bytes:
    """Many bytes that are little when compressed: of one line, of lines, or of what looks like records."""
    what = rng.choice((b"\x00", b"\n", b"{}\n", b"a,b\n", b'"', b"[", b"1::2::3::4\n", b" ", b'{"a":1}'))
    return what * (size // len(what))


def packed(broken: Broken, name: str, rng: random.Random, size: int) -> Broken:
    """Put a file into an archive or a compression, whole, damaged, named as another, or as a bomb."""
    entry, files = broken
    data = files[name]
    plain = re.sub(r"\.gz$", "", name)
    data = gzip.decompress(data) if name.endswith(".gz") and data[:2] == b"\x1f\x8b" and size else data
    if size:
        data = bomb(size, rng)
    match rng.randrange(8):
        case 0:
            return renamed(broken, name, f"{plain}.gz", gzip.compress(data, mtime=0))
        case 1:
            return renamed(broken, name, f"{plain}.bz2", bz2.compress(data))
        case 2:
            return renamed(broken, name, f"{plain}.zst", pa.compress(data, codec="zstd", asbytes=True))
        case 3:
            whole = gzip.compress(data, mtime=0)
            return renamed(broken, name, f"{plain}.gz", rng.choice((truncated, flipped, garbage, empty))(whole, rng))
        case 4:
            return renamed(broken, name, f"{plain}{rng.choice(('.gz', '.zst', '.bz2', '.zip'))}", data)
        case 5:
            pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
            return Broken(entry, files | {name: pointer})
    file = io.BytesIO()
    member = rng.choice(
        (plain, plain, f"../../{plain}", f"/etc/{plain}", f"a/b/{plain}", "..", "a\x00" + plain, "*.csv", "/")
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
        if rng.random() < 0.4:
            archive.writestr(rng.choice(("other.csv", "__MACOSX/x", f"x/{plain}", "d/")), b"x")
    whole = file.getvalue()
    if rng.random() < 0.4:
        whole = rng.choice((truncated, flipped, garbage, empty))(whole, rng)
    inside = rng.choice(("", f"/{plain}", "/*", "/**", f"/{member}", "/../x", "/nothing", "/[", "/"))
    return renamed(broken, name, "archive.zip" + inside, whole, "archive.zip")


def renamed(broken: Broken, name: str, path: str, data: bytes, file: str = "") -> Broken:
    entry = json.loads(json.dumps(broken.entry).replace(json.dumps(name), json.dumps(path)))
    return Broken(entry, {other: held for other, held in broken.files.items() if other != name} | {file or path: data})


def other_entry(broken: Broken, rng: random.Random) -> Broken:
    """Change the recipe's entry, or give one file's name to another."""
    if rng.random() < 0.3 and len(broken.files) > 1:
        first, second = rng.sample(sorted(broken.files), 2)
        return Broken(broken.entry, broken.files | {first: broken.files[second]})
    entry = _changed(broken.entry, rng)
    return Broken(entry if isinstance(entry, dict) else broken.entry, broken.files)


def other_names(broken: Broken, rng: random.Random) -> Broken:
    """Name a path as no one does."""
    name = rng.choice(sorted(broken.files))
    strange = ("", ".", "..", "/", "~", "*", "[", "**/*", "a::b", "://", "zip://x::y", "no://x", "\x00", "x" * 300, "${", "${NOPE}", "?",
               "file://", "memory://x", "simplecache::file://x", "x.zip/../y", f"./{name}/", f"{name}/x", "http://127.0.0.1:9/x", "data:,x",
               "blockcache::x", "{a,b}", "\ud800", "con", "%2e%2e/", "filecache::zip://a::b", "reference://x", "github://x")  # fmt: skip
    return renamed(broken, name, rng.choice(strange), broken.files[name], name)


_WHOLE: dict[str, Callable[[Broken, str, random.Random], Broken]] = {
    "packed": lambda broken, name, rng: packed(broken, name, rng, 0),
    "packed and broken": lambda broken, name, rng: packed(mutated(broken, name, "flipped", rng), name, rng, 0),
    "other entry": lambda broken, name, rng: other_entry(broken, rng),
    "other names": lambda broken, name, rng: other_names(broken, rng),
}
_RARE: dict[str, Callable[[Broken, str, random.Random], Broken]] = {
    "bomb": lambda broken, name, rng: packed(broken, name, rng, 20_000_000),
    "large bomb": lambda broken, name, rng: packed(broken, name, rng, 200_000_000),
}
COMMON = (*TEXT, *PARQUET, *_WHOLE)
SELDOM = (*RARE, *RARE, *_RARE)


def mutated(broken: Broken, name: str, how: str, rng: random.Random) -> Broken:
    """Change one file; what does not fit its form changes its bytes."""
    data = broken.files[name]
    if ".parquet" in name:
        made = PARQUET.get(how, flipped)(data, rng)
    elif name.endswith(".gz") and data[:2] == b"\x1f\x8b" and rng.random() < 0.9:
        try:
            made = gzip.compress(_text(how)(gzip.decompress(data), rng), 1, mtime=0)
        except (OSError, EOFError, zlib.error):
            made = flipped(data, rng)
    else:
        made = _text(how)(data, rng)
    return Broken(broken.entry, broken.files | {name: made})


def _text(how: str) -> Mutation:
    return TEXT.get(how) or RARE.get(how) or flipped


def broken(seed: Seed, plan: Plan) -> Broken:
    """Return a seed after its mutations."""
    made = Broken(json.loads(json.dumps(seed.entry)), dict(seed.files))
    for how, number in plan:
        rng = random.Random(f"{how} {number}")
        name = rng.choice(sorted(made.files))
        change = _WHOLE.get(how) or _RARE.get(how)
        made = change(made, name, rng) if change else mutated(made, name, how, rng)
    return made


# What comes of an input


def read(seed: Seed, plan: Plan, folder: Path) -> str:
    """Read a broken input as a build does, and return `rows`, or what was said of it.

    Raises:
        FaultError: anything else came of it.
    """
    made = broken(seed, plan)
    here = folder / "in"
    here.mkdir(parents=True)
    for name, data in made.files.items():
        (here / name).write_bytes(data)
    with bounded(folder, {str(here), "the recipe", *_strings(made.entry)}) as said:
        (here / "recipe.yaml").write_text(
            yaml.safe_dump({"corpora": [made.entry], "tasks": ["user2item"]}), encoding="utf-8", errors="surrogatepass"
        )
        settings = parse(DataRecipe, read_yaml(here / "recipe.yaml"), str(here / "recipe.yaml"))
        reading = Reading(UserKey("k", secret=True), strict=False, texts=True, quiet=True)
        for reader in readers(settings, here, str(here / "recipe.yaml")):
            inputs(reader)
            for number, part in enumerate(reader.parts()):
                (folder / f"out-{number}").mkdir()
                result = read_part(folder / f"out-{number}", part, reading)
                json.dumps(result)
                if not all(isinstance(count, int) and count > 0 and why for why, count in result["drops"].items()):
                    raise FaultError(f"counts {result['drops']}")
    return said[0] if said else "rows"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _strings(held)


@contextmanager
def bounded(folder: Path, names: set[str]) -> Iterator[list[str]]:
    """Run a block that may end with an error of ours that names one of the files, and within bounds of time and memory.

    Raises:
        FaultError: it ended in another way.
    """
    said: list[str] = []
    beside = set(folder.parent.iterdir())
    started = time.process_time()
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)
    try:
        yield said
    except RecfoundError as error:
        said.append(str(error))
    except FaultError:
        raise
    except BaseException as error:  # a panic of polars is none of Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FaultError(f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    spent = time.process_time() - started
    if spent > SECONDS:
        raise FaultError(f"took {spent:.0f} s")
    if (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) > MEMORY:
        raise FaultError(f"took {peak >> 20:,} MiB")
    if set(folder.parent.iterdir()) != beside:
        raise FaultError("wrote beside its folder")
    if said and (("\n" in said[0].strip() and not any("\n" in name for name in names)) or len(said[0]) > MESSAGE_CHARS):
        raise FaultError(f"is no line: {said[0][:200]!r}")
    if said and not any(name and name in said[0] for name in names):
        raise FaultError(f"names no file: {said[0][:200]!r}")


# Campaigns


def run(found: Seed, plan: Plan, folder: Path) -> str:
    """Read an input in a folder that goes afterwards."""
    place = folder / "input"
    try:
        return read(found, plan, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def drawn(every: Sequence[Seed], number: int, seed: int) -> tuple[Seed, Plan]:
    """Return the input of a number; one in a hundred is large."""
    rng = random.Random(f"{seed} {number}")
    found = every[number % len(every)]
    if rng.random() < 0.01:
        return found, ((rng.choice(SELDOM), rng.randrange(1 << 30)),)
    return found, tuple((rng.choice(COMMON), rng.randrange(1 << 30)) for _ in range(rng.choice((1, 1, 2, 4))))


def campaign(first: int, count: int, seed: int, journal: Path) -> None:
    """Read inputs and write what came of each, a line before and after it."""
    with tempfile.TemporaryDirectory() as name, journal.open("a") as lines:
        folder = Path(name)
        every = seeds(folder / "seeds")
        (folder / "work").mkdir()
        for number in range(first, first + count):
            found, plan = drawn(every, number, seed)
            print(json.dumps({"number": number, "seed": found.name, "plan": plan}), file=lines, flush=True)
            try:
                told = {"said": run(found, plan, folder / "work")[:200]}
            except FaultError as fault:
                told = {"fault": str(fault), "at": _where(fault)}
            print(json.dumps(told), file=lines, flush=True)


def _where(fault: BaseException) -> str:
    """Return the last line of the project's that an error went through."""
    trace, found = (fault.__cause__ or fault).__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "recfound_data" in code.co_filename:
            found = f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return found


def main() -> int:
    """Run a campaign in processes that may die, and list what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--journal", default="fuzzing.jsonl")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    journal = Path(options.journal)
    if options.child:
        campaign(options.first, options.inputs, options.seed, journal)
        return 0
    journal.unlink(missing_ok=True)
    at, end = options.first, options.first + options.inputs
    while at < end:
        count = min(500, end - at)  # a process of its own for a few: memory is measured by process
        command = [sys.executable, __file__, "--child", "--first", str(at), "--inputs", str(count)]
        command += ["--seed", str(options.seed), "--journal", str(journal)]
        died = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        if died.returncode:
            with journal.open("a") as more:
                told = {"fault": f"the process died ({died.returncode})", "at": died.stderr[-2_000:]}
                print(json.dumps(told), file=more)
            at = next((line["number"] for line in reversed(lines) if "number" in line), at) + 1
        else:
            at += count
    return report(journal)


def report(journal: Path) -> int:
    """Print what came of a campaign, and return 1 if a fault did."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    pairs = [(begun, told) for begun, told in itertools.pairwise(lines) if "number" in begun and "number" not in told]
    read_whole = sum(told.get("said") == "rows" for _, told in pairs)
    faults = [(begun, told) for begun, told in pairs if "fault" in told]
    print(
        f"{len(pairs):,} inputs: {read_whole:,} read, {len(pairs) - read_whole - len(faults):,} refused, {len(faults):,} faults"
    )
    kinds = Counter((told["at"], told["fault"][:110]) for _, told in faults)
    for (where, fault), count in kinds.most_common():
        example = next(begun for begun, told in faults if (told["at"], told["fault"][:110]) == (where, fault))
        print(f"{count:5} {where}: {fault}\n      {example['seed']!r}, {tuple(map(tuple, example['plan']))}")
    return int(bool(faults))


if __name__ == "__main__":
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
