"""The dataset's README: the YAML that `load_dataset` reads, then the card from the template in `cards/`."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jinja2 import Environment, StrictUndefined

from recfound_data.describe import Description
from recfound_data.layout import canonical_json, files_of, schema_of
from recfound_data.samples import SPLITS
from recfound_data.tasks.catalogue import TASKS

_LANGUAGES = {"us": "en", "es": "es", "jp": "ja"}
"""Of the locales of Shopping Queries, the one corpus that has several; they end its domains."""
_FEW = 100
"""Test samples below which the card warns of figures on them."""


def template(name: str) -> str:
    """Return the text of a card template that ships with the package."""
    return files("recfound_data.cards").joinpath(name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """Return a card template filled with `values`; a name that the template uses and nobody gave is an error."""
    # Cards are Markdown, not HTML, and every value comes from this package.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    return environment.from_string(template(name)).render(**values)


def dataset_card(folder: Path, manifest: dict[str, Any]) -> str:
    """Return the README of the dataset in `folder`.

    datasets 5 keys its cache on the folder's name and this YAML, not on content: the hash in each configuration's
    description keeps two builds of one name apart. A split of no rows would make its configuration unloadable, so only
    splits with rows are listed.
    """
    # The same card whether the manifest was just made or read again.
    manifest = json.loads(canonical_json(manifest))
    for entry in manifest["configs"].values():
        entry["splits"] = {split: entry["splits"][split] for split in SPLITS if split in entry["splits"]}
    configs, infos = [], []
    for name, config in manifest["configs"].items():
        content = content_hash(manifest, name)
        configs.append({"config_name": name, "data_files": _data_files(name, config["splits"]), "description": content})
        infos.append(_info(folder, name, config["splits"], content))
    rows = sum(sum(config["splits"].values()) for config in manifest["configs"].values())
    header = {
        "language": _languages(folder, manifest),
        "license": "other",
        "license_name": "terms-of-each-corpus",
        "pretty_name": "RecFound",
        "tags": ["recommendation", "retrieval", "instruction-tuning", "recfound"],
        "task_categories": ["text-retrieval", "text-generation", "sentence-similarity"],
        "size_categories": [_size_category(rows)],
        "configs": configs,
        "dataset_info": infos,
    }
    tasks = [(spec, manifest["configs"][name]) for name, spec in TASKS.items() if name in manifest["configs"]]
    described = manifest.get("description")
    body = render(
        "dataset.md",
        manifest=manifest,
        tasks=tasks,
        first=next((name for name in TASKS if name in manifest["configs"]), "items"),
        label_sources=manifest.get("label_sources", []),
        composed=not {"user_profile", "item_profile"}.isdisjoint(manifest["configs"]),
        few=[f"`{spec.name}`" for spec, config in tasks if 0 < config["splits"].get("test", 0) < _FEW],
        untrained=[f"`{spec.name}`" for spec, config in tasks if not config["splits"].get("train")],
        description=described and Description.from_json(described),
        plots={path.stem: str(path) for path in map(PurePosixPath, manifest["files"]) if path.suffix == ".png"},
    )
    return "---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---\n\n" + body


def _languages(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The languages of a dataset as ISO codes, sorted; all corpora but one are English."""
    labels = [label for label, corpus in manifest["corpora"].items() if corpus["reader"] == "shopping_queries"]
    items = files_of(folder, "items")
    if not labels or not items:
        return ["en"]
    domains = pl.scan_parquet(items).filter(pl.col("corpus").is_in(labels)).select(pl.col("domain").unique()).collect()
    locales = {str(domain).rpartition(" ")[2] for domain in domains["domain"]}
    found = {_LANGUAGES[locale] for locale in locales if locale in _LANGUAGES}
    return sorted(found | ({"en"} if set(manifest["corpora"]) - set(labels) or not found else set()))


def content_hash(manifest: dict[str, Any], config: str) -> str:
    """Return the hash over a configuration's files, as the manifest lists them."""
    prefix = "items/" if config == "items" else f"data/{config}/"
    lines = [
        f"{path} {entry['sha256']}" for path, entry in sorted(manifest["files"].items()) if path.startswith(prefix)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _data_files(config: str, splits: dict[str, int]) -> list[dict[str, str]]:
    if config == "items":
        return [{"split": "train", "path": "items/*.parquet"}]
    return [{"split": split, "path": f"data/{config}/{split}-*.parquet"} for split in splits]


def _info(folder: Path, config: str, splits: dict[str, int], content: str) -> dict[str, Any]:
    from datasets import Features  # imported here: it takes a second that reading a recipe should not

    paths = {split: files_of(folder, config, None if config == "items" else split) for split in splits}
    sizes = {split: sum(_table_bytes(path) for path in found) for split, found in paths.items()}
    features = Features.from_arrow_schema(_arrow_schema(config))
    return {
        "config_name": config,
        "description": content,
        "features": features._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": sizes[split], "num_examples": count} for split, count in splits.items()
        ],
        "download_size": sum(path.stat().st_size for found in paths.values() for path in found),
        "dataset_size": sum(sizes.values()),
    }


def _arrow_schema(config: str) -> pa.Schema:
    # Polars exports large strings and lists; the published features are the plain ones.
    return pa.schema(
        [pa.field(field.name, _plain(field.type)) for field in pl.DataFrame(schema=schema_of(config)).to_arrow().schema]
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    return kind


def _table_bytes(path: Path) -> int:
    metadata = pq.ParquetFile(path).metadata
    return sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))


def _size_category(rows: int) -> str:
    for limit, name in (
        (10**3, "n<1K"),
        (10**4, "1K<n<10K"),
        (10**5, "10K<n<100K"),
        (10**6, "100K<n<1M"),
        (10**7, "1M<n<10M"),
    ):
        if rows < limit:
            return name
    return "10M<n<100M" if rows < 10**8 else "100M<n<1B"
