"""What a dataset says of itself: the manifest, the files it lists, and the card."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from recfound_data.card import content_hash
from recfound_data.checking.findings import Findings
from recfound_data.layout import CARD, MANIFEST, sha256
from recfound_data.samples import SCHEMA_VERSION
from recfound_data.tasks.catalogue import TASKS

_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def check_version(manifest: dict[str, Any], findings: Findings) -> None:
    """The schema's version; configurations without which others cannot be used."""
    if manifest["schema_version"] != SCHEMA_VERSION:
        findings.add("schema version", f"{manifest['schema_version']}, this package reads {SCHEMA_VERSION}")
    if any(name in TASKS and TASKS[name].kind == "embedding" for name in manifest["configs"]):
        for name in ("items", "queries", "qrels"):
            if name not in manifest["configs"]:
                findings.add("configuration missing", name, examples=["embedding tasks cannot be ranked without it"])


def check_files(folder: Path, manifest: dict[str, Any], findings: Findings) -> bool:
    """Compare files with the manifest; return whether all that it lists are the ones that were built.

    Hidden files (`.git`, `.gitattributes`) are left aside: they are neither loaded nor published.
    """
    inside = {name: folder / name for name in manifest["files"] if _is_inside(name)}
    for name in manifest["files"]:
        if name not in inside:
            findings.add("file outside the layout", name)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        verdicts = list(pool.map(lambda name: _verdict(inside[name], manifest["files"][name]), inside))
    for name, verdict in zip(inside, verdicts, strict=True):
        if verdict:
            findings.add(verdict, name)
    known = {MANIFEST, CARD, "CHANGELOG.md", *manifest["files"]}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in known and not name.startswith("."):
                findings.add("file not in the manifest", path)
    return len(inside) == len(manifest["files"]) and not any(verdicts)


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def _verdict(path: Path, entry: dict[str, Any]) -> str:
    if not path.is_file():
        return "file missing"
    same = path.stat().st_size == entry["bytes"] and sha256(path) == entry["sha256"]
    return "" if same else "file is not the one that was built"


def check_card(folder: Path, manifest: dict[str, Any], findings: Findings) -> None:
    """The card's header against the manifest, and that its body tells tasks, terms and images."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        _, header_text, body = text.split("---\n", 2)
        header = yaml.safe_load(header_text)
        described = {entry["config_name"]: entry["description"] for entry in header["configs"]}
        loaded = {entry["config_name"]: {part["split"] for part in entry["data_files"]} for entry in header["configs"]}
        counted = {
            entry["config_name"]: {split["name"]: split["num_examples"] for split in entry["splits"]}
            for entry in header["dataset_info"]
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        findings.add("card", f"{CARD} has no readable header", examples=[repr(error)[:200]])
        return
    for config, entry in manifest["configs"].items():
        if described.get(config) != content_hash(manifest, config):
            findings.add("card", f"{CARD}: the description of {config} is not the hash of its files")
        if counted.get(config) != entry["splits"] or loaded.get(config) != set(entry["splits"]):
            findings.add("card", f"{CARD}: the splits of {config} are not those of the manifest")
    for config in {*described, *counted} - set(manifest["configs"]):
        findings.add("card", f"{CARD}: describes {config}, which the manifest does not have")
    _check_body(folder, manifest, body, findings)


def _check_body(folder: Path, manifest: dict[str, Any], body: str, findings: Findings) -> None:
    for config in manifest["configs"]:
        if config in TASKS and f"`{config}`" not in body:
            findings.add("card", f"{CARD}: the text does not name the task {config}")
    for label, corpus in manifest["corpora"].items():
        for what in ("address", "licence", "citation"):
            if corpus.get("terms", {}).get(what, "") not in body:
                findings.add("card", f"{CARD}: the text does not give the {what} of corpus {label}")
    for image in _IMAGE.findall(body):
        if "://" not in image and not (folder / image).is_file():
            findings.add("card", f"{CARD}: shows {image}, which is not there")
