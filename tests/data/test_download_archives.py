"""Archives from strangers: what leads out, links or swells is refused, and nothing of it is left."""

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from recfound_data.downloading.unpacking import unpack
from recfound_data.errors import RecfoundError

GOOD = {"top/ratings.csv": b"1,2,3\n" * 500, "top/deep/movies.csv": b"1,x\n", "top/other.txt": b"no"}
TAKE = ("ratings.csv", "deep/*.csv")


def zipped(path: Path, files: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tarred(path: Path, files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None and "evil" in name:
                change(info)
            archive.addfile(info, io.BytesIO(content))
    return path


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("make", [zipped, tarred])
def test_only_what_is_named_without_its_top_folder(make: Callable[..., Path], tmp_path: Path) -> None:
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar.gz"), GOOD)
    out = tmp_path / "out"
    assert sorted(unpack(archive, out, TAKE)) == everything(out) == ["deep/movies.csv", "ratings.csv"]
    assert (out / "ratings.csv").read_bytes() == GOOD["top/ratings.csv"]


def test_files_of_several_folders_keep_them(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"one/a.csv": b"1", "two/a.csv": b"2", "a.csv": b"3"})
    assert sorted(unpack(archive, tmp_path / "out", ("*/a.csv",))) == ["one/a.csv", "two/a.csv"]


OUTSIDE = ["../evil.csv", "top/../../evil.csv", "/evil.csv", "top/..\\evil.csv", "C:/evil.csv", "top//evil.csv"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out(make: Callable[..., Path], name: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = make(inner / ("a.zip" if make is zipped else "a.tar.gz"), GOOD | {name: b"evil"})
    with pytest.raises(RecfoundError, match="leads out of the folder"):
        unpack(archive, inner / "out", TAKE)
    assert everything(tmp_path) == [archive.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_no_links_and_devices_in_a_zip(kind: int, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", GOOD | {"top/evil.csv": b"/etc/passwd"}, {"top/evil.csv": kind | 0o777})
    with pytest.raises(RecfoundError, match="is a link, a device"):
        unpack(archive, tmp_path / "out", TAKE)
    assert everything(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_no_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    def evil(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    archive = tarred(tmp_path / "a.tar.gz", GOOD | {"top/evil.csv": b""}, evil)
    with pytest.raises(RecfoundError, match="is a link, a device"):
        unpack(archive, tmp_path / "out", TAKE)
    assert everything(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_is_not_unpacked(make: Callable[..., Path], tmp_path: Path) -> None:
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar.gz"), {"top/ratings.csv": bytes(64 << 20)})
    with pytest.raises(RecfoundError, match="times its size"):
        unpack(archive, tmp_path / "out", ("ratings.csv",))
    assert everything(tmp_path) == [archive.name]


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"top/ratings.csv": bytes(64 << 20)})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((64 << 20).to_bytes(4, "little"), (1_000).to_bytes(4, "little")))
    with pytest.raises(RecfoundError, match=r"times its size|damaged"):
        unpack(archive, tmp_path / "out", ("ratings.csv",))
    assert everything(tmp_path) == ["a.zip"]


def test_too_many_files_and_one_name_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ratings.csv", "a")
        archive.writestr("ratings.csv", "b")
    with pytest.raises(RecfoundError, match="twice"):
        unpack(tmp_path / "a.zip", tmp_path / "out", ("ratings.csv",))
    monkeypatch.setattr("recfound_data.downloading.unpacking._MOST_PARTS", 2)
    for make, name in ((zipped, "b.zip"), (tarred, "b.tar.gz")):
        with pytest.raises(RecfoundError, match="more than 2 files"):
            unpack(make(tmp_path / name, GOOD), tmp_path / "out", TAKE)


def test_what_the_registry_names_must_be_there(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", GOOD)
    with pytest.raises(RecfoundError, match=r"holds no tags\.csv"):
        unpack(archive, tmp_path / "out", (*TAKE, "tags.csv"))
    assert unpack(archive, tmp_path / "out", (*TAKE, "README*"))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_damaged_archives(make: Callable[..., Path], tmp_path: Path) -> None:
    rng = random.Random(4)
    noise = {"top/ratings.csv": rng.randbytes(40_000), "top/deep/movies.csv": b"1"}
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar.gz"), noise)
    whole = archive.read_bytes()
    for _ in range(25):
        data = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.4 else whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        archive.write_bytes(data)
        out = tmp_path / "out"
        try:
            unpack(archive, out, TAKE)
        except RecfoundError as error:
            assert "\n" not in str(error)
        else:
            assert make is tarred or (out / "ratings.csv").read_bytes() == noise["top/ratings.csv"]
        assert not list(tmp_path.rglob(".unpacking*"))
