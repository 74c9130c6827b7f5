"""Downloads: a file is there whole and right or not at all, whatever a server does; readers take what is left."""

import gzip
import hashlib
import io
import json
import random
import re
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from file_server import FileServer, Sent
from raw_shop import digests

from recfound_data import build, check
from recfound_data.corpora import CORPORA
from recfound_data.downloading import RELEASES, Release, RemoteFile, download, listed
from recfound_data.downloading.download import NOTE
from recfound_data.downloading.fetching import _Fetch
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.patience import Patience
from recfound_data.recipe import parse
from recfound_data.shop import FORMATS, generate

QUICK = Patience(attempts=4, first_wait=0.001, longest_wait=0.05)
DATA = random.Random(7).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/data.bin": DATA}) as running:
        yield running


def release(server: FileServer, path: str = "/data.bin", **known: Any) -> tuple[Release, ...]:
    file = RemoteFile(f"{server.url}{path}", path.rpartition("/")[2], **known)
    return (Release("movielens", "toy", (file,), {"ratings": file.name, "movies": file.name}),)


def get(server: FileServer, out: Path, path: str = "/data.bin", **known: Any) -> Path:
    download(["movielens/toy"], out, releases=release(server, path, **known), patience=QUICK, quiet=True)
    return out / "movielens" / "toy" / path.rpartition("/")[2]


def left(out: Path) -> list[str]:
    """The names of files that are there, without those of a download that goes on."""
    names = (path.name for path in out.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.endswith((".part", ".part.json", ".lock")))


SHA, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


@pytest.mark.parametrize("known", [{}, {"sha256": SHA}, {"md5": MD5}, {"sha256": SHA, "md5": MD5, "size": len(DATA)}])
def test_what_comes_is_what_there_is(server: FileServer, tmp_path: Path, known: dict) -> None:
    path = get(server, tmp_path, **known)
    assert path.read_bytes() == DATA
    assert left(tmp_path) == ["data.bin", NOTE]
    (entry,) = json.loads((path.parent / NOTE).read_text())["files"]
    assert entry["sha256"] == SHA and entry["size"] == len(DATA)
    assert entry["verified"] == next((name for name in ("sha256", "md5") if name in known), None)
    get(server, tmp_path, **known)
    assert len(server.asked) == 1  # it was there
    path.write_bytes(DATA[:-1] + b"x")
    if known:
        with pytest.raises(RecfoundError, match="move it away"):
            get(server, tmp_path, **known)
    path.unlink()
    assert get(server, tmp_path, **known).read_bytes() == DATA


@pytest.mark.parametrize("seed", range(6))
def test_cut_at_random_bytes_and_gone_on_with(server: FileServer, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    server.faults = [Sent(cut_after=rng.choice((0, 1, rng.randrange(90_000)))) for _ in range(3)]
    assert get(server, tmp_path, sha256=SHA).read_bytes() == DATA
    assert sum(asked.sent for asked in server.asked) == len(DATA)  # no byte came twice
    assert server.asked[0].range is None


def test_a_download_that_was_stopped_goes_on_with_the_same_command(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Sent(cut_after=100_000), *[Sent(status=503)] * 10]
    with pytest.raises(RecfoundError, match=r"broke off after 100,000 bytes .* go on"):
        get(server, tmp_path)
    assert left(tmp_path) == []
    server.faults = []
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked[-1].range == "bytes=100000-" and server.asked[-1].sent == len(DATA) - 100_000
    assert server.asked[-1].if_range == f'"{SHA[:12]}"'


def test_a_server_that_ignores_ranges_is_asked_for_all(tmp_path: Path) -> None:
    with FileServer({"/data.bin": DATA}, ranges=False) as server:
        server.faults = [Sent(cut_after=200_000)]
        assert get(server, tmp_path, sha256=SHA).read_bytes() == DATA
        assert [asked.sent for asked in server.asked] == [200_000, len(DATA)]


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_that_changes_between_tries(tmp_path: Path, tags: bool, checksum: bool) -> None:
    other = random.Random(8).randbytes(len(DATA))
    known = {"sha256": hashlib.sha256(other).hexdigest()} if checksum else {}
    with FileServer({"/data.bin": DATA}, tags=tags) as server:
        server.faults = [Sent(cut_after=100_000), *[Sent(status=503)] * 10]
        with pytest.raises(RecfoundError):
            get(server, tmp_path, **known)
        server.faults, server.files["/data.bin"] = [], other
        assert get(server, tmp_path, **known).read_bytes() == other


def test_a_range_that_was_not_asked_for(server: FileServer, tmp_path: Path) -> None:
    other = {"Content-Range": f"bytes 0-199999/{len(DATA)}"}
    server.faults = [Sent(cut_after=100_000), Sent(content=DATA[:200_000], headers=other)]
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_server_that_gives_less_than_was_asked_for(server: FileServer, tmp_path: Path) -> None:
    part = {"Content-Range": f"bytes 100000-149999/{len(DATA)}"}
    server.faults = [Sent(cut_after=100_000), Sent(content=DATA[100_000:150_000], headers=part)]
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked[-1].range == "bytes=150000-"


def test_a_length_that_is_too_short_leaves_nothing_that_looks_whole(server: FileServer, tmp_path: Path) -> None:
    server.fault = lambda asked: Sent(length=len(DATA) - 1_000)
    with pytest.raises(RecfoundError, match=r"broke off|is not the file"):
        get(server, tmp_path, sha256=SHA)
    assert left(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_length_that_is_too_long(tmp_path: Path, ranges: bool) -> None:
    with FileServer({"/data.bin": DATA}, ranges=ranges) as server:
        server.fault = lambda asked: Sent(length=None if asked.range and ranges else len(DATA) + 1_000)
        if ranges:  # the answer to the next request tells that there is no more
            assert get(server, tmp_path, sha256=SHA).read_bytes() == DATA
            assert len(server.asked) == 2
        else:
            with pytest.raises(RecfoundError, match="broke off"):
                get(server, tmp_path, sha256=SHA)
            assert left(tmp_path) == []


def test_a_length_that_nobody_tells(tmp_path: Path) -> None:
    with FileServer({"/data.bin": DATA}) as server:
        server.chunked = True
        server.faults = [Sent(cut_after=150_000)]
        assert get(server, tmp_path).read_bytes() == DATA


def test_all_came_but_nobody_knew(tmp_path: Path) -> None:
    with FileServer({"/data.bin": DATA}) as server:
        server.chunked = True
        server.faults = [Sent(cut_after=len(DATA))]  # all bytes, and no end mark
        assert get(server, tmp_path).read_bytes() == DATA
        assert server.asked[-1].range == f"bytes={len(DATA)}-"


@pytest.mark.parametrize(
    ("known", "what"),
    [({"sha256": "0" * 64}, "SHA-256"), ({"md5": "0" * 32}, "MD5"), ({"size": 5}, "bytes and should have 5")],
)
def test_another_file_than_the_registry_knows(server: FileServer, tmp_path: Path, known: dict, what: str) -> None:
    with pytest.raises(RecfoundError, match=what) as raised:
        get(server, tmp_path, **known)
    assert "\n" not in str(raised.value) and "grouplens.org" in str(raised.value)
    assert left(tmp_path) == [] and not list(tmp_path.rglob("*.part"))


def test_another_file_after_being_pieced_together_is_fetched_once_more(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Sent(cut_after=100_000), Sent(content=bytes(200_000))]
    assert get(server, tmp_path, sha256=SHA).read_bytes() == DATA
    assert [asked.sent for asked in server.asked] == [100_000, 200_000, len(DATA)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Sent(status=404), "moved it"),
        (Sent(status=403), "form or a login"),
        (Sent(headers={"Content-Type": "text/html; charset=utf-8"}), "web page"),
        (Sent(headers={"Content-Encoding": "br"}), "compressed"),
        (Sent(status=302, headers={"Location": "file:///etc/passwd"}), "leads to file://"),
        (Sent(status=302, headers={"Location": "ftp://127.0.0.1/data.bin"}), "leads to ftp://"),
        (Sent(status=302, headers={"Location": "/data.bin"}), "redirects"),
        (Sent(content=b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"), "Git LFS"),
        (Sent(status=503), "503"),
        (Sent(status=429, headers={"Retry-After": "3000"}), "429"),
    ],
)
def test_servers_that_do_not_give_the_file(server: FileServer, tmp_path: Path, fault: Sent, message: str) -> None:
    server.fault = lambda asked: fault
    with pytest.raises(RecfoundError, match=message) as raised:
        get(server, tmp_path)
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == [] and len(server.asked) <= 10


def test_a_redirect_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Sent(status=302, headers={"Location": f"{server.url}/elsewhere"})]
    server.files["/elsewhere"] = DATA
    assert get(server, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(("begins", "leads", "allowed"), [("https", "http", False), ("http", "http", True)])
def test_what_began_secure_stays_so(tmp_path: Path, begins: str, leads: str, allowed: bool) -> None:
    job = _Fetch(RemoteFile(f"{begins}://127.0.0.1:9/x", "x"), tmp_path / "x", "page", lambda count: None)
    (follow,) = job._client().event_hooks["request"]
    with nullcontext() if allowed else pytest.raises(RecfoundError, match="leads to http://"):
        follow(httpx2.Request("GET", f"{leads}://127.0.0.1:9/y"))


def test_an_address_that_answers_nobody(tmp_path: Path) -> None:
    nowhere = (Release("movielens", "toy", (RemoteFile("http://127.0.0.1:9/x", "x"),)),)
    with pytest.raises(RecfoundError, match="broke off after 0 bytes"):
        download(["movielens"], tmp_path, releases=nowhere, patience=QUICK, quiet=True)


def test_a_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("recfound_data.downloading.fetching.Sums.add", full)
        with pytest.raises(RecfoundError, match="No space left on device; free space") as raised:
            get(server, tmp_path)
    assert "\n" not in str(raised.value) and left(tmp_path) == []
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_disk_that_is_too_small(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr("recfound_data.downloading.fetching.shutil.disk_usage", lambda path: usage)
    with pytest.raises(RecfoundError, match="needs 300,000 bytes more"):
        get(server, tmp_path)


def test_a_file_of_the_users_own_is_not_touched(server: FileServer, tmp_path: Path) -> None:
    mine = tmp_path / "movielens" / "toy" / "data.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for known in ({}, {"sha256": SHA}):
        with pytest.raises(RecfoundError, match="move it away"):
            get(server, tmp_path, **known)
    assert mine.read_bytes() == b"mine" and server.asked == []
    mine.write_bytes(DATA)  # fetched by hand, and right
    get(server, tmp_path, sha256=SHA)
    assert server.asked == []


def test_two_layers_of_gzip_become_one(server: FileServer, tmp_path: Path) -> None:
    once = gzip.compress(b'{"asin": "a"}\n')
    server.files |= {"/one.json.gz": once, "/two.json.gz": gzip.compress(once)}
    for name in ("one", "two"):
        path = get(server, tmp_path / name, f"/{name}.json.gz", peel=True)
        assert path.read_bytes() == once
        get(server, tmp_path / name, f"/{name}.json.gz", peel=True)
    assert len(server.asked) == 2


def test_names_that_there_are_not(tmp_path: Path) -> None:
    for name, message in (
        ("movilens", "did you mean 'movielens'"),
        ("movielens/ml-1n", "did you mean 'movielens/ml-1m'"),
        ("movielens", "has several releases"),
        ("recbole", "Google Drive"),
    ):
        with pytest.raises(UsageError, match=message):
            download([name], tmp_path, quiet=True)
    with pytest.raises(UsageError, match="did you mean"):
        listed(["movilens"])
    assert list(tmp_path.iterdir()) == []


def test_the_registry_is_sound() -> None:
    names = [found.name for found in RELEASES]
    assert len(set(names)) == len(names)
    assert {found.corpus for found in RELEASES} == set(CORPORA) - {"tables"}
    sums: dict[str, str] = {}
    for found in RELEASES:
        assert found.files or found.note
        assert len({file.name for file in found.files}) == len(found.files)
        for file in found.files:
            assert urlsplit(file.address).scheme in ("http", "https") and "/" not in file.name
            assert re.fullmatch("([0-9a-f]{64})?", file.sha256) and re.fullmatch("([0-9a-f]{32})?", file.md5)
            assert file.tried is None or re.fullmatch(r"\d{4}-\d\d-\d\d", file.tried)
            for known in filter(None, (file.sha256, file.md5)):
                assert sums.setdefault(known, file.address) == file.address, "one sum for two files"
        if found.files:
            reader = parse(CORPORA[found.corpus], {"corpus": found.corpus} | dict(found.entry), found.name)
            for path in reader.paths():
                assert any(_gives(file, path) for file in found.files), (found.name, path)


def _gives(file: RemoteFile, path: str) -> bool:
    """Whether a file, or what is unpacked from it, is what a recipe's path names."""
    pattern = re.escape(path.replace("[", "")).replace(r"\*", "[^/]*")
    if file.take:
        ways = [re.escape(taken).replace(r"\*", "[^/]*") for taken in file.take]
        return any(re.fullmatch(way, path.replace("*", "x")) for way in ways)
    return bool(re.fullmatch(pattern, file.name)) or path.startswith(f"{file.name}/")


def test_the_list_says_what_was_not_tried() -> None:
    records = listed(["movielens", "recbole"])
    assert {record["name"].partition("/")[0] for record in records} == {"movielens", "recbole"}
    assert all(record["tried"] is None for record in records)
    assert next(record for record in records if record["name"] == "movielens/ml-1m")["page"].endswith("/movielens/")
    assert len(listed()) == sum(max(len(found.files), 1) for found in RELEASES)


def _zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


SHOP = {
    "movielens/ml-latest-small": ({"ratings.csv": "ratings.csv", "movies.csv": "movies.csv"}, "shop_films"),
    "amazon_reviews_2018/Gift_Cards_5": (
        {"Gift_Cards_5.json.gz": "Shop_5.json.gz", "meta_Gift_Cards.json.gz": "meta_Shop.json.gz"},
        "shop",
    ),
    "amazon_reviews_2023/Gift_Cards": (
        {"Gift_Cards.jsonl.gz": "Shop.jsonl.gz", "meta_Gift_Cards.jsonl.gz": "meta_Shop.jsonl.gz"},
        "shop",
    ),
    "shopping_queries/large": ({}, ""),
    "amazonqa/reviews": ({}, ""),
    "amazon_google/inline": ({}, ""),
    "mudoco_qr/all": ({"MuDoCo-QR-dataset/mudoco_shopping.json": "mudoco_shopping.json"}, ""),
}
"""Releases, and which file of the synthetic shop stands for which of theirs where the names differ."""


def _served(name: str, raw: Path, server: FileServer) -> Release:
    """A release whose files are those of the shop, at addresses of the server."""
    found = next(one for one in RELEASES if one.name == name)
    renamed, _ = SHOP[name]
    folder = raw / found.corpus
    files = []
    for number, file in enumerate(found.files):
        address = f"/{name}/{number}/{file.name}"
        if file.take:
            packed = {f"top/{inside}": (folder / own).read_bytes() for inside, own in renamed.items()}
            packed |= {
                "top/tags.csv": b"userId,movieId,tag,timestamp\n",
                "top/setup.py": b"print()",
                "top/README.txt": b".",
            }
            server.files[address] = _zipped(packed)
        else:
            server.files[address] = (folder / renamed.get(file.name, file.name)).read_bytes()
        content = server.files[address]
        sums = {"sha256": hashlib.sha256(content).hexdigest(), "md5": "", "size": len(content)}
        files.append(replace(file, address=f"{server.url}{address}", **sums))
    return replace(found, files=tuple(files))


@pytest.mark.usefixtures("no_plots")
def test_readers_take_what_is_left_there(server: FileServer, tmp_path: Path) -> None:
    generate(tmp_path / "raw", 800, 3, [name for name in FORMATS if name != "mave"])
    releases = tuple(_served(name, tmp_path / "raw", server) for name in SHOP)
    rng = random.Random(1)
    cut: set[str] = set()

    def once(asked: Any) -> Sent:
        if asked.path in cut:
            return Sent()
        cut.add(asked.path)
        return Sent(cut_after=rng.randrange(len(server.files[asked.path])))

    server.fault = once
    out = tmp_path / "corpora"
    done = download(SHOP, out, releases=releases, patience=QUICK, quiet=True)
    assert done.unverified == [] and len(cut) == sum(len(found.files) for found in releases)
    assert not list(out.rglob("setup.py")) and not list(out.rglob("*.zip")) and list(out.rglob("README.txt"))
    tasks = ["user2item", "query2item", "query_rewriting", "answer_generation", "product_matching", "item_profile"]
    entries = [entry for entry in done.corpora if "tags" not in entry]
    films = next(entry for entry in done.corpora if "tags" in entry)
    recipe = {"corpora": [*entries, {key: films[key] for key in films if key != "tags"}], "tasks": tasks}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    summary = build(out / "recipe.yaml", tmp_path / "dataset", quiet=True)
    assert check(tmp_path / "dataset").passed and set(tasks) <= set(summary.rows)
    corpora = json.loads((tmp_path / "dataset" / "recfound.json").read_text())["corpora"]
    assert {found["reader"] for found in corpora.values()} == {name.partition("/")[0] for name in SHOP}
    before = digests(out)
    again = download(SHOP, out, releases=releases, patience=QUICK, quiet=True)
    assert again.files == done.files and digests(out) == before
    assert yaml.safe_load(done.recipe)["corpora"] == done.corpora
