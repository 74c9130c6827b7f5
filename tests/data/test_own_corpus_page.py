"""docs/own-corpus.md, run as it stands: what its commands print, what it says was left out, and what may go wrong."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from recfound_data import build
from recfound_data.describe import describe
from recfound_data.errors import RecfoundError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-corpus.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MISTAKES = PAGE.split("## What may go wrong")[1].split("\n## ")[0]
PROGRESS = re.compile(r"^\w[\w ]*: [\d,]+/[\d,]+, |^Generating ")


def printed(text: str) -> str:
    """What a command printed, without progress."""
    lines = (line.rsplit("\r", 1)[-1] for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not PROGRESS.search(line))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the blocks of the page were run in one shell, and what each block with an output printed."""
    folder = tmp_path_factory.mktemp("page")
    python = shlex.quote(sys.executable)
    script = [f'recfound() {{ {python} -m recfound_data.cli "$@"; }}']
    for number, (language, text) in enumerate(BLOCKS):
        if language == "yaml":
            (file,) = re.findall(r"`([\w/]+\.yaml)`", PAGE.split(text)[0].rsplit("\n\n", 2)[1])
            text = f"cat > {file} <<'END OF FILE'\n{text}END OF FILE\n"
        elif language == "python":
            (folder / f"{number}.py").write_text(text, encoding="utf-8")
            text = f"{python} -X utf8 {number}.py || exit 1\n"
        elif language == "text":
            continue
        script.append(f"{{\n{text}}} > {number}.out 2>&1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RECFOUND_", "HF_"))}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, env=environment, timeout=300)
    outputs = [(folder / f"{number}.out") for number in range(len(BLOCKS))]
    assert done.returncode == 0, "".join(path.read_text(encoding="utf-8") for path in outputs if path.exists())
    return folder, [printed(path.read_text(encoding="utf-8")) if path.exists() else "" for path in outputs]


def test_the_page_shows_what_its_commands_print(page: tuple[Path, list[str]]) -> None:
    shown = [(number, text) for number, (language, text) in enumerate(BLOCKS) if language == "text"]
    assert [language for language, _ in BLOCKS] == ["python", "yaml", "bash", "text", "python", "text"]
    for number, text in shown:
        assert page[1][number - 1] == text


def test_the_page_says_what_was_left_out_and_why(page: tuple[Path, list[str]]) -> None:
    manifest = json.loads((page[0] / "tea" / "recfound.json").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (\d+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    stated = [(source, reason, int(count)) for source, reason, count in rows]
    left_out = {(source, reason, count) for source, part in manifest["drops"].items() for reason, count in part.items()}
    assert len(stated) == len(set(stated)) and set(stated) == left_out
    card = (page[0] / "tea" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {source} | {reason} | {count} |" in card for source, reason, count in stated)
    last = str(describe(page[0] / "tea")).split("\n\n")[-1].splitlines()[2:]
    assert {tuple(re.split(r"  +", line)) for line in last} == {(*said, str(count)) for *said, count in stated}


def test_what_nobody_named_stays_out_and_people_are_not_told(page: tuple[Path, list[str]]) -> None:
    files = sorted((page[0] / "tea").rglob("*.parquet"))
    written = "".join(pl.read_parquet(path).write_json() for path in files)
    assert "Sencha, tin" in written and "Content: tin" in written and "[email]" in written
    assert not re.search(r"anna|\bR[0-6]\b|\bK\d+\b", written)
    assert all(b"the key of this page" not in path.read_bytes() for path in (page[0] / "tea").rglob("*.*"))


Edit = Callable[[dict[str, Any], Path], object]


def rewritten(folder: Path, name: str, change: Callable[[str], str]) -> None:
    path = folder / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def german(text: str) -> str:
    return re.sub(r"(\d{4})-(\d\d)-(\d\d)", r"\3.\2.\1", text)


def few(_: dict[str, Any], folder: Path) -> None:
    """27 products, of which those who have chosen any have chosen nine: 18 others, one too few."""
    rewritten(folder, "artikel.csv", lambda text: re.sub(r"(?m)^[0-8];.*\n", "", text))


@pytest.mark.parametrize(
    ("said", "edit"),
    [
        ("is it separated by ';'?", lambda entry, _: entry["interactions"].pop("separator")),
        ("is not a time", lambda _, folder: rewritten(folder, "bewertungen.csv", german)),
        (
            "its name does not tell what it is",
            lambda entry, folder: entry["items"].update(path=(folder / "artikel.csv").rename(folder / "a.xlsx").name),
        ),
        ("has no sample", lambda entry, _: entry.pop("judgements")),
        ("has no sample", few),
    ],
)
def test_what_may_go_wrong(page: tuple[Path, list[str]], tmp_path: Path, said: str, edit: Edit) -> None:
    assert said in MISTAKES
    folder = shutil.copytree(page[0] / "shop", tmp_path / "shop")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    edit(recipe["corpora"][0], folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"tasks": ["query2item", "sequential_recommendation"]}))
    with pytest.raises(RecfoundError) as error:
        build(folder / "recipe.yaml", tmp_path / "out", quiet=True)
    assert said in str(error.value)
