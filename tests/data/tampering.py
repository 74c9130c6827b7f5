"""Change a dataset on disk and make manifest and card agree with it again, so that only the planted fault is left."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recfound_data.card import content_hash


class Tampered:
    """A dataset that a test damages; each of its files holds one split, or one corpus's items."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, config: str, split: str) -> Path:
        """The file of a split, or of a corpus's items."""
        folder = "items" if config == "items" else f"data/{config}"
        return self.folder / folder / f"{split}-00000-of-00001.parquet"

    def read(self, config: str, split: str) -> pl.DataFrame:
        return pl.read_parquet(self.path(config, split))

    def write(self, config: str, split: str, rows: pl.DataFrame) -> None:
        """Write other rows, whatever their columns."""
        rows.write_parquet(self.path(config, split))
        self.seal()

    def change(self, config: str, split: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Write the rows with the values that `change` returns for one; the first row for which there are some."""
        rows = self.read(config, split)
        found = rows.to_dicts()
        at, values = next((at, values) for at, row in enumerate(found) if (values := change(row)) is not None)
        found[at] |= values
        self.write(config, split, pl.DataFrame(found, schema=rows.schema))

    def add(self, config: str, split: str, **row: Any) -> None:
        """Append a row."""
        rows = self.read(config, split)
        self.write(config, split, pl.concat([rows, pl.DataFrame([row], schema=rows.schema)]))

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "recfound.json").read_text(encoding="utf-8"))

    def seal(self) -> None:
        """Put the files' sizes, hashes and counts into the manifest, and its content hashes into the card."""
        before, after = self.manifest(), self.manifest()
        after["files"] = {
            path.relative_to(self.folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(self.folder.rglob("*.parquet"))
        }
        for config, entry in after["configs"].items():
            if config == "items":
                counts = {name: {"train": len(self.read("items", name))} for name in entry["corpora"]}
                entry |= {"splits": {"train": sum(count["train"] for count in counts.values())}, "corpora": counts}
                continue
            frames = {split: self.read(config, split) for split in entry["splits"]}
            entry["splits"] = {split: len(frame) for split, frame in frames.items()}
            if "corpora" in entry:
                counted = {split: dict(frame.group_by("corpus").len().iter_rows()) for split, frame in frames.items()}
                entry["corpora"] = {
                    corpus: {split: counted[split][corpus] for split in counted if corpus in counted[split]}
                    for corpus in entry["corpora"]
                }
        card = (self.folder / "README.md").read_text(encoding="utf-8")
        for config in after["configs"]:
            card = card.replace(content_hash(before, config), content_hash(after, config))
        (self.folder / "README.md").write_text(card, encoding="utf-8")
        text = json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (self.folder / "recfound.json").write_text(text, encoding="utf-8")
