"""Which version may follow which, by what changed, and what a release says of it."""

import json
import shutil
from pathlib import Path

import pytest
from hub import LoopbackHub
from hub.clients import use_here
from release_folders import COLUMNS, REPO, at, calls, dataset_files, write

from recfound_data.errors import RecfoundError
from recfound_data.release import Difference, Level, Version, describe, release_folder
from recfound_data.release.dataset import DatasetSubject
from recfound_data.release.versions import previous_of, refusal, released

ROWS = {"user2item": {"train": 1000, "test": 30}, "items": {"train": 50}}
SUBJECT = DatasetSubject()


def facts(rows=ROWS, columns=COLUMNS, **manifest):
    files = dataset_files(rows, columns, **manifest)
    found = SUBJECT.facts(files.get)
    assert found is not None
    return found


def differ(**after) -> set[tuple[str, str]]:
    return {(str(one.level), one.text) for one in SUBJECT.differences(facts(), facts(**after))}


CHANGES = [
    ({}, set()),
    ({"seed": 7}, set()),
    ({"schema_version": 2}, {("major", "schema version 1 → 2")}),
    (
        {"rows": {"user2item": ROWS["user2item"], "things": {"train": 50}}},
        {("major", "configuration `items` removed"), ("minor", "configuration `things` added")},
    ),
    (
        {"rows": {**ROWS, "user2item": {"train": 1000, "validation": 30}}},
        {("major", "`user2item`: split `test` removed"), ("minor", "`user2item`: split `validation` added")},
    ),
    ({"rows": {**ROWS, "items": {"train": 51}}}, {("minor", "`items`, train: 50 → 51 rows")}),
    ({"rows": {**ROWS, "items": {"train": 49}}}, {("patch", "`items`, train: 50 → 49 rows")}),
    (
        {"rows": {**ROWS, "user2item": {"train": 999, "test": 31}}},
        {("patch", "`user2item`, train: 1,000 → 999 rows"), ("minor", "`user2item`, test: 30 → 31 rows")},
    ),
    (
        {"columns": {"id": "string", "answer": "string"}},
        {
            (level, f"`{config}`: column `{name}` {what}")
            for config in ROWS
            for level, name, what in (("major", "label", "removed"), ("minor", "answer", "added"))
        },
    ),
    (
        {"columns": {"id": "string", "label": "int64"}},
        {("major", f"`{config}`: column `label` is of another type: string → int64") for config in ROWS},
    ),
    ({"corpora": {"shop": {}, "films": {}}}, {("minor", "corpus `films` added")}),
    ({"corpora": {"films": {}}}, {("minor", "corpus `shop` removed"), ("minor", "corpus `films` added")}),
    (
        {"recipe": {"split": "global_time"}},
        {("minor", "histories split by global_time, before by leave_last")},
    ),
]


@pytest.mark.parametrize(("after", "expected"), CHANGES)
def test_what_two_datasets_differ_in(after, expected):
    assert differ(**after) == expected


def test_breaks_come_first_and_the_order_is_stable():
    after = facts({"user2item": {"train": 1001, "test": 29}, "things": {"train": 1}}, schema_version=2)
    levels = [one.level for one in SUBJECT.differences(facts(), after)]
    assert levels == sorted(levels, reverse=True) and len(levels) == 5


def test_types_of_nested_columns_are_compared():
    def card(content: str) -> bytes:
        columns = (
            f"  - name: prompt\n    list:\n    - name: role\n      dtype: string\n    - name: content\n      {content}"
        )
        return f"---\ndataset_info:\n- config_name: t\n  features:\n{columns}\n---\n".encode()

    manifest = json.dumps({"schema_version": 1, "corpora": {}, "configs": {"t": {"splits": {"train": 1}}}}).encode()
    before, after = (
        SUBJECT.facts({"recfound.json": manifest, "README.md": card(kind)}.get)
        for kind in ("dtype: string", "list: string")
    )
    (found,) = SUBJECT.differences(before, after)
    assert found.level == Level.MAJOR
    assert found.text.endswith(
        "list of {role: string, content: string} → list of {role: string, content: list of string}"
    )
    assert not SUBJECT.differences(before, before)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"configs": {"a": 1}}', b'{"configs": {}}'])
def test_what_is_no_manifest_gives_no_facts(content):
    assert SUBJECT.facts({"recfound.json": content}.get) is None


LEAST = [
    ("v1.2.3", Level.MAJOR, "v2.0.0"),
    ("v1.2.3", Level.MINOR, "v1.3.0"),
    ("v1.2.3", Level.PATCH, "v1.2.4"),
    ("v0.2.3", Level.MAJOR, "v0.3.0"),
    ("v0.2.3", Level.MINOR, "v0.3.0"),
    ("v0.2.3", Level.PATCH, "v0.2.4"),
]


@pytest.mark.parametrize(("latest", "level", "least"), LEAST)
def test_the_least_version_is_allowed_and_the_one_below_is_refused_with_it(latest, level, least):
    others, differences = [Version.parse("0.1.0"), Version.parse(latest)], [Difference(level, "this and that")]
    assert refusal(Version.parse(least), others, differences) is None
    assert refusal(Version.parse("3.0.0"), others, differences) is None
    below = {"v2.0.0": "v1.99.99", "v1.3.0": "v1.2.99", "v0.3.0": "v0.2.99"}.get(least)
    if below:
        said = refusal(Version.parse(below), others, differences)
        assert f"{below} is too small a step from {latest} for a {level} change: this and that" in said
        assert f"the least that is right is {least}" in said
    for low in (latest, "v1.0.0" if latest > "v1" else "v0.2.2"):
        assert f"{low} is not above {latest}" in refusal(Version.parse(low), others, differences)


def test_only_the_changes_that_ask_for_the_version_are_named():
    differences = [Difference(Level.MINOR, f"more {number}") for number in range(7)] + [Difference(Level.PATCH, "less")]
    said = refusal(Version.parse("1.0.1"), [Version.parse("1.0.0")], differences)
    assert "more 4; and 2 more; the least" in said and "less" not in said


def test_tags_are_ordered_as_versions():
    tags = ["v0.10.0", "v0.9.0", "latest", "v1.0", "1.0.0", "v1.0.0-rc1", "v01.0.0"]
    assert [str(version) for version in released(tags)] == ["v0.9.0", "v0.10.0"]
    assert previous_of(Version.parse("0.9.5"), released(tags)) == Version.parse("0.9.0")
    assert previous_of(Version.parse("0.1.0"), released(tags)) is None and refusal(Version(0, 0, 1), [], []) is None


@pytest.fixture
def waits(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    return use_here(hub, monkeypatch, tmp_path)


def release(tmp_path: Path, version: str, rows=ROWS, name: str | None = None, **options):
    shutil.rmtree(tmp_path / "dataset", ignore_errors=True)
    folder = write(tmp_path / "dataset", dataset_files(rows, **options.pop("manifest", {})))
    return release_folder(folder, name or REPO, repo_type="dataset", version=version, subject=SUBJECT, **options)


MORE = {"user2item": {"train": 1200, "test": 30}, "items": {"train": 50}, "item2item": {"train": 7}}


def test_a_changelog_and_the_cards_changes_over_three_releases(hub, waits, tmp_path):
    release(tmp_path, "0.1.0", notes="Made for the tests.\n\n## With a heading\n")
    first = at(hub, "v0.1.0")
    assert first["CHANGELOG.md"].decode() == (
        "# Changelog\n\n## v0.1.0\n\nMade for the tests.\n\n## With a heading\n\nFirst release.\n\nRows:\n\n"
        "| configuration | train | validation | test |\n|---|--:|--:|--:|\n"
        "| `items` | 50 | 0 | 0 |\n| `user2item` | 1,000 | 0 | 30 |\n"
    )
    made = release(tmp_path, "0.2.0", MORE, manifest={"corpora": {"shop": {}, "films": {}}})
    section = made.changelog
    assert made.previous == "v0.1.0" and made.differences[0] == "configuration `item2item` added (minor)"
    for line in (
        "- `user2item`, train: 1,000 → 1,200 rows (minor)",
        "- corpus `films` added (minor)",
        "| `item2item` | 0 → 7 | 0 | 0 |",
        "| `items` | 50 | 0 | 0 |",
        "| `user2item` | 1,000 → 1,200 | 0 | 30 |",
    ):
        assert line in section.splitlines()
    third = release(tmp_path, "0.2.1", MORE, manifest={"corpora": {"shop": {}, "films": {}}, "seed": 3})
    assert "Nothing that versions are compared by changed since v0.2.0." in third.changelog

    changelog = at(hub, "v0.2.1")["CHANGELOG.md"].decode()
    assert changelog == f"# Changelog\n\n{third.changelog}\n{section}\n" + first["CHANGELOG.md"].decode().removeprefix(
        "# Changelog\n\n"
    )
    card = at(hub, "v0.2.0")["README.md"].decode()
    assert card.count("## Changes") == 1 and card.index("## Terms") < card.index("## Changes")
    assert f"## Changes\n\nv0.2.0, beside v0.1.0.\n\n{section.removeprefix('## v0.2.0').strip()}\n" in card
    assert 'load_dataset("acme/shop", "user2item", revision="v0.2.0")' in card and "org/name" not in card
    assert not (tmp_path / "dataset/CHANGELOG.md").exists()
    assert b"Changes" not in (tmp_path / "dataset/README.md").read_bytes()


def test_the_same_push_gives_the_same_bytes_and_a_downloaded_release_can_be_pushed_elsewhere(hub, waits, tmp_path):
    for name in (REPO, "acme/other"):
        release(tmp_path, "1.0.0", name=name)
        release(tmp_path, "1.1.0", MORE, name=name)
    here, there = (
        {path: blob.data for path, blob in hub.repository("dataset", name).find("v1.1.0").files.items()}
        for name in (REPO, "acme/other")
    )
    assert here.pop("README.md").replace(b"acme/shop", b"acme/other") == there.pop("README.md") and here == there

    downloaded = write(tmp_path / "downloaded", at(hub, "v1.1.0"))
    options = {"repo_type": "dataset", "subject": SUBJECT}
    hub.log.clear()
    again = release_folder(downloaded, REPO, version="1.1.0", **options)
    assert again.commit == hub.repository("dataset", REPO).tags["v1.1.0"] and not calls(hub, "POST", "PUT")
    assert "was released before and is complete" in describe(again)
    tags = hub.repository("dataset", REPO).tags
    assert release(tmp_path, "1.0.0").commit == tags["v1.0.0"] != tags["v1.1.0"]  # released, and not the latest
    release_folder(downloaded, "acme/mirror", version="1.1.0", **options)
    mirrored = hub.repository("dataset", "acme/mirror").find("v1.1.0").files
    assert mirrored["README.md"].data.decode().count("## Changes") == 1
    assert "1.0.0" not in mirrored["CHANGELOG.md"].data.decode()  # it tells of its own repository
    assert 'load_dataset("acme/mirror", "user2item", revision="v1.1.0")' in mirrored["README.md"].data.decode()


def test_too_small_a_version_is_refused_before_anything_is_sent(hub, waits, tmp_path):
    release(tmp_path, "1.0.0")
    hub.log.clear()
    gone = {"user2item": {"train": 1000, "test": 30}}
    with pytest.raises(RecfoundError, match=r"v1\.1\.0 is too small a step.*`items` removed.*right is v2\.0\.0"):
        release(tmp_path, "1.1.0", gone)
    with pytest.raises(RecfoundError, match=r"v0\.9\.0 is not above v1\.0\.0, the latest release"):
        release(tmp_path, "0.9.0")
    planned = release(tmp_path, "1.0.1", MORE, dry_run=True)
    assert not planned.passed and "the least that is right is v1.1.0" in planned.refused
    assert "would be refused: v1.0.1 is too small" in describe(planned)
    assert set(hub.repository("dataset", REPO).tags) == {"v1.0.0"} and not calls(hub, "POST", "PUT", "DELETE")
    release(tmp_path, "2.0.0", gone)


def test_a_release_before_that_does_not_say_what_it_holds(hub, waits, tmp_path):
    folder = write(tmp_path / "foreign", {"README.md": b"# Something else\n", "CHANGELOG.md": b"- once\n"})
    release_folder(folder, REPO, repo_type="dataset", version="1.0.0")
    made = release(tmp_path, "1.0.1")
    assert "v1.0.0 does not say what it holds: what changed since is not known." in made.changelog
    assert at(hub, "v1.0.1")["CHANGELOG.md"].decode().endswith("|\n\n- once\n")
    with pytest.raises(RecfoundError, match="the folder does not say what it holds"):
        release_folder(folder, REPO, repo_type="dataset", version="2.0.0", subject=SUBJECT)


def test_a_dry_run_shows_files_with_sizes_deletions_version_changelog_and_card(hub, waits, tmp_path):
    release(tmp_path, "1.0.0")
    before = at(hub, "main")
    planned = release(tmp_path, "2.0.0", {"user2item": {"train": 1200, "test": 30}}, dry_run=True)
    text = describe(planned)
    assert at(hub, "main") == before and not planned.commit
    made = release(tmp_path, "2.0.0", {"user2item": {"train": 1200, "test": 30}})
    after = at(hub, "main")
    changed = {path: len(content) for path, content in after.items() if before.get(path) != content}
    assert planned.uploaded == made.uploaded == changed and set(planned.deleted) == set(before) - set(after)
    for path, size in changed.items():
        assert f"  {path}  {size:,} bytes" in text.splitlines()
    for line in ("  data/items/train-00000-of-00001.parquet", "the tag v2.0.0 would be set, after v1.0.0"):
        assert line in text.splitlines()
    assert "  - configuration `items` removed (major)" in text and "  +v2.0.0, beside v1.0.0." in text
    assert planned.changelog == made.changelog and f"\n\n{made.changelog}" in after["CHANGELOG.md"].decode()
    assert describe(made).splitlines()[-1] == 'load_dataset("acme/shop", "user2item", revision="v2.0.0")'
