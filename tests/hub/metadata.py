"""The metadata of cards, as far as the Hub's own check of it is known: types of fields, and names it has lists of."""

from __future__ import annotations

import re
from typing import Any

import yaml

_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "other", "unknown"}
_SIZE = re.compile(r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|1B<n<10B")
_LISTS = ("tags", "language", "task_categories", "size_categories", "datasets", "metrics")


def metadata_errors(text: str) -> list[str]:
    """What is wrong with the YAML of a card; empty where nothing is."""
    try:
        metadata = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"metadata is not YAML: {' '.join(str(error).split())}"]
    if not isinstance(metadata, dict):
        return ["metadata is not a mapping"]
    return [*_list_errors(metadata), *_license_errors(metadata), *_name_errors(metadata), *_config_errors(metadata)]


def _list_errors(metadata: dict[str, Any]) -> list[str]:
    errors = []
    for name in _LISTS:
        value = metadata.get(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(entry, str) for entry in values):
            errors.append(f'"{name}" must be a string or a list of strings')
    return errors


def _license_errors(metadata: dict[str, Any]) -> list[str]:
    licence = metadata.get("license")
    if licence is not None and licence not in _LICENSES:
        return [f'"license" must be one of {sorted(_LICENSES)}']
    link = metadata.get("license_link", "LICENSE")
    if licence == "other" and not re.match(r"https?://|LICENSE(\.md)?$", str(link)):
        return ['"license_link" must be LICENSE, LICENSE.md or an address']
    return []


def _name_errors(metadata: dict[str, Any]) -> list[str]:
    errors = []
    codes = metadata.get("language") or []
    for code in [codes] if isinstance(codes, str) else codes:
        if re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]+)?|code|multilingual", str(code)) is None:
            errors.append(f'"language" must hold ISO 639 codes, not {code!r}')
    for size in metadata.get("size_categories") or []:
        if _SIZE.fullmatch(str(size)) is None:
            errors.append(f'"size_categories" has no {size!r}')
    return errors


def _config_errors(metadata: dict[str, Any]) -> list[str]:
    configs = metadata.get("configs", [])
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        return ['"configs" must be a list of mappings']
    names = [config.get("config_name") for config in configs]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return ['"configs" must each have a "config_name" of their own']
    return []
