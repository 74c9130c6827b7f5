"""What the versions of a dataset are compared by: configurations, splits, columns, corpora and rows.

| what changed | asks for |
|---|---|
| schema version; a configuration, split or column gone; a column of another type | major |
| a configuration, split, column or corpus more; a corpus gone; the split rule; more rows in a split | minor |
| fewer rows in a split, and everything that counts do not show | patch |

A configuration or column with a new name is one gone and one more. Types are those of the card's `dataset_info`, which
is what `load_dataset` goes by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from recfound_data.layout import CARD, MANIFEST
from recfound_data.release.history import Read
from recfound_data.release.versions import Difference, Level
from recfound_data.samples import SPLITS
from recfound_data.tasks.catalogue import TASKS

_EXAMPLE = re.compile(r'load_dataset\("[^"]+", "(\w+)", revision="[^"]+"\)')


@dataclass(frozen=True)
class DatasetFacts:
    """What versions of a dataset are compared by.

    Attributes:
        schema_version: of the samples.
        split_rule: how histories were split; None where the recipe does not say.
        rows: by configuration and split.
        columns: types by configuration and column; empty where the card's header cannot be read.
        corpora: labels.
    """

    schema_version: str
    split_rule: str | None
    rows: Mapping[str, Mapping[str, int]]
    columns: Mapping[str, Mapping[str, str]]
    corpora: tuple[str, ...]


class DatasetSubject:
    """A dataset that `recfound data build` wrote; `recfound_data.release.Subject`."""

    def facts(self, read: Read) -> DatasetFacts | None:
        """Return the facts from manifest and card; None where there is no manifest that can be read."""
        try:
            manifest = json.loads(read(MANIFEST) or b"")
            rows = {config: dict(entry["splits"]) for config, entry in manifest["configs"].items()}
            recipe = manifest.get("recipe") or {}
            schema, corpora = str(manifest["schema_version"]), tuple(manifest["corpora"])
            return DatasetFacts(schema, recipe.get("split"), rows, _columns(read(CARD) or b""), corpora)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def differences(self, before: DatasetFacts, after: DatasetFacts) -> list[Difference]:
        """Return in what two datasets differ, breaks first."""
        return sorted(_differences(before, after), key=lambda difference: -difference.level)

    def figures(self, before: DatasetFacts | None, after: DatasetFacts) -> str:
        """Return the table of rows by configuration and split, before and after."""
        known = before.rows if before is not None else {}
        lines = [f"| configuration | {' | '.join(SPLITS)} |", "|---|" + "--:|" * len(SPLITS)]
        for config in sorted({*known, *after.rows}):
            counts = [
                _cell(known.get(config, {}).get(split, 0), after.rows.get(config, {}).get(split, 0), before is not None)
                for split in SPLITS
            ]
            lines.append(f"| `{config}` | {' | '.join(counts)} |")
        heading = "Rows" if before is None else "Rows, before → after where they differ"
        return f"{heading}:\n\n" + "\n".join(lines)

    def card(self, text: str, repo_id: str, version: str) -> str:
        """Return the card whose example loads this release."""
        return _EXAMPLE.sub(rf'load_dataset("{repo_id}", "\1", revision="{version}")', text)

    def usage(self, repo_id: str, version: str, facts: DatasetFacts) -> str:
        """Return the line that loads the first task of the release."""
        first = next((task for task in TASKS if task in facts.rows), next(iter(facts.rows), "items"))
        return f'load_dataset("{repo_id}", "{first}", revision="{version}")'


def _differences(before: DatasetFacts, after: DatasetFacts) -> Iterator[Difference]:
    if after.schema_version != before.schema_version:
        yield Difference(Level.MAJOR, f"schema version {before.schema_version} → {after.schema_version}")
    yield from _of_names("configuration", before.rows, after.rows, Level.MAJOR)
    for config in before.rows.keys() & after.rows.keys():
        yield from _of_names(f"`{config}`: split", before.rows[config], after.rows[config], Level.MAJOR)
        for split in before.rows[config].keys() & after.rows[config].keys():
            old, new = before.rows[config][split], after.rows[config][split]
            if new != old:
                level = Level.MINOR if new > old else Level.PATCH
                yield Difference(level, f"`{config}`, {split}: {old:,} → {new:,} rows")
    for config in before.columns.keys() & after.columns.keys():
        old_types, new_types = before.columns[config], after.columns[config]
        yield from _of_names(f"`{config}`: column", old_types, new_types, Level.MAJOR)
        for column in old_types.keys() & new_types.keys():
            if old_types[column] != new_types[column]:
                change = f"{old_types[column]} → {new_types[column]}"
                yield Difference(Level.MAJOR, f"`{config}`: column `{column}` is of another type: {change}")
    yield from _of_names("corpus", before.corpora, after.corpora, Level.MINOR)
    if after.split_rule != before.split_rule:
        yield Difference(Level.MINOR, f"histories split by {after.split_rule}, before by {before.split_rule}")


def _of_names(what: str, before: Any, after: Any, gone: Level) -> Iterator[Difference]:
    for name in before:
        if name not in after:
            yield Difference(gone, f"{what} `{name}` removed")
    for name in after:
        if name not in before:
            yield Difference(Level.MINOR, f"{what} `{name}` added")


def _cell(before: int, after: int, compared: bool) -> str:
    return f"{before:,} → {after:,}" if compared and before != after else f"{after:,}"


def _columns(card: bytes) -> dict[str, dict[str, str]]:
    """The types in a card's header by configuration and column; empty where it cannot be read."""
    try:
        header = yaml.safe_load(card.decode().split("---\n", 2)[1])
        return {
            info["config_name"]: {feature["name"]: _type(feature) for feature in info["features"]}
            for info in header["dataset_info"]
        }
    except (ValueError, KeyError, TypeError, IndexError, yaml.YAMLError):
        return {}


def _type(feature: Any) -> str:
    """A type of `dataset_info` in words: `string`, `list of string`, `list of {role: string, content: string}`."""
    if isinstance(feature, str):
        return feature
    if isinstance(feature, list):
        return "{" + ", ".join(f"{field['name']}: {_type(field)}" for field in feature) + "}"
    for key, words in (("dtype", ""), ("list", "list of "), ("struct", "")):
        if key in feature:
            return words + _type(feature[key])
    return json.dumps({key: value for key, value in feature.items() if key != "name"}, sort_keys=True)
