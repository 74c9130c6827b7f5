"""Small folders in the layout of a dataset, for tests of releases that need no built one, and what a hub holds."""

import json
from pathlib import Path

import yaml
from hub import LoopbackHub

REPO = "acme/shop"
COLUMNS = {"id": "string", "label": "string"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def dataset_files(rows: dict[str, dict[str, int]], columns: dict[str, str] = COLUMNS, **manifest) -> dict[str, bytes]:
    """A dataset by rows of each configuration and split; a large file for each split, whose content is its count."""
    infos = [
        {"config_name": config, "features": [{"name": name, "dtype": kind} for name, kind in columns.items()]}
        for config in rows
    ]
    manifest = {"schema_version": 1, "corpora": {"shop": {}}, "recipe": {"split": "leave_last"}, **manifest}
    manifest["configs"] = {config: {"splits": splits} for config, splits in rows.items()}
    header = yaml.safe_dump({"license": "other", "dataset_info": infos}, sort_keys=False)
    card = (
        f'---\n{header}---\n\n# Shop\n\nload_dataset("org/name", "user2item", revision="v0.1.0")\n\n## Terms\n\nNone.\n'
    )
    files = {
        f"data/{config}/{split}-00000-of-00001.parquet": f"PAR1 {config} {split} {count} PAR1".encode()
        for config, splits in rows.items()
        for split, count in splits.items()
    }
    return {**files, "README.md": card.encode(), "recfound.json": json.dumps(manifest).encode()}


def at(hub: LoopbackHub, revision: str, repo_type: str = "dataset") -> dict[str, bytes]:
    """The files that the hub holds at a revision."""
    commit = hub.repository(repo_type, REPO).find(revision)
    assert commit is not None
    return {path: blob.data for path, blob in commit.files.items() if path != ".gitattributes"}


def calls(hub: LoopbackHub, *methods: str) -> list[str]:
    return [entry.path for entry in hub.log if entry.method in methods]


def titles(hub: LoopbackHub, revision: str = "main") -> list[str]:
    """The commits that lead to a revision, newest first."""
    commit, found = hub.repository("dataset", REPO).find(revision), []
    while commit is not None:
        found.append(commit.title)
        commit = commit.parent
    return found
