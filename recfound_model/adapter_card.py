"""The card of a native adapter: its README, with front matter for the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from recfound_data.card import render
from recfound_model.adapter_config import TmoleConfig
from recfound_model.provenance import Training
from recfound_model.routing import GROUPS


def adapter_card(config: TmoleConfig, training: Training | None) -> str:
    """Return the README of an adapter's folder; `training` is what it was trained on, where that is known."""
    base, published = config.base_model_name_or_path, _published(config)
    targets = config.target_modules
    header = ModelCardData(
        base_model=published,
        base_model_relation="adapter" if published else None,
        library_name="recfound",
        tags=["tmole", "recommendation", "recfound"],
        datasets=[training.data] if training is not None and "/" in training.data else None,
    )
    at = f" at revision `{config.revision}`" if config.revision else ""
    body = render(
        "adapter.md",
        base="a model that was built in memory"
        if base is None
        else f"`{Path(base).name if not published else base}`{at}",
        base_code="..." if base is None else f'"{published or Path(base).name}"',
        config=config,
        experts=", ".join(f"{config.experts[group]} {group}" for group in GROUPS),
        targets=targets if isinstance(targets, str) else ", ".join(f"`{name}`" for name in sorted(targets)),
        tasks=sorted(config.kinds.items()),
        training=training,
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}"


def _published(config: TmoleConfig) -> str | None:
    """The id of the base's repository; None where the base is a folder of this machine, or unknown."""
    base = config.base_model_name_or_path
    return None if base is None or Path(base).exists() or base.count("/") != 1 else base
