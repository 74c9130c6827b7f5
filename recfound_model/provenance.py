"""Where an adapter comes from: `training.json` beside its tensors, which merges and exports of it carry on.

It names no folder of the machine that trained: a dataset or base in a folder goes by the folder's name, and the dataset
also by the hash of its manifest, so that a release of the model can be held to the release of the dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from recfound_data.errors import RecfoundError
from recfound_data.layout import MANIFEST
from recfound_model.folders import fetch

if TYPE_CHECKING:
    from recfound_model.training.recipe import TrainRecipe

TRAINING_FILE = "training.json"
# Where a run was made, and what does not change what it makes.
_NOT_TOLD = ("out", "data", "data_revision", "base", "revision", "trackers", "plots", "keep_checkpoints", "sharding")


@dataclass(frozen=True)
class Training:
    """What a run was made of.

    Attributes:
        data: the dataset's repository, or the name of its folder.
        data_revision: of the repository.
        data_manifest: SHA-256 of the dataset's `recfound.json`; None for a dataset without one.
        corpora: label of a corpus -> its licence, and whether its terms allow passing it on.
        settings: the recipe, without what names a place.
        recfound: the version that trained.
    """

    data: str
    data_revision: str | None
    data_manifest: str | None
    corpora: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    recfound: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Training:
        """Return what `to_json` returned.

        Raises:
            RecfoundError: the values are not a training's.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise RecfoundError(f"what is said of the training cannot be read ({error}): export again") from None

    def write(self, folder: Path) -> None:
        """Write `training.json`."""
        text = json.dumps(self.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
        (folder / TRAINING_FILE).write_text(text + "\n", encoding="utf-8")


def training_of(recipe: TrainRecipe) -> Training:
    """Return what a run of this recipe is made of.

    Raises:
        RecfoundError: the dataset's manifest is not JSON.
    """
    manifest = manifest_of(recipe.data, recipe.data_revision)
    corpora = {}
    if manifest is not None:
        try:
            for label, corpus in json.loads(manifest)["corpora"].items():
                corpora[label] = {key: corpus["terms"][key] for key in ("licence", "address", "redistributable")}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RecfoundError(f"{recipe.data}: its {MANIFEST} cannot be read; build the dataset again") from None
    return Training(
        data=named(recipe.data),
        data_revision=recipe.data_revision,
        data_manifest=None if manifest is None else hashlib.sha256(manifest).hexdigest(),
        corpora=corpora,
        settings={key: value for key, value in recipe.model_dump(mode="json").items() if key not in _NOT_TOLD},
        recfound=version("recfound"),
    )


def read_training(source: str | Path, revision: str | None = None) -> Training | None:
    """Return what an adapter says of its training; None where it says nothing.

    Raises:
        RecfoundError: the file is damaged.
    """
    try:
        file = fetch(source, TRAINING_FILE, revision)
    except RecfoundError:  # adapters that were made in one's own loop have none
        return None
    try:
        return Training(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RecfoundError(f"{file} cannot be read ({error}): remove it or fetch the adapter again") from None


def manifest_of(data: str, revision: str | None) -> bytes | None:
    """Return the bytes of a dataset's manifest, from a folder or the Hub; None where it has none."""
    if Path(data).is_dir():
        file = Path(data) / MANIFEST
        return file.read_bytes() if file.is_file() else None
    try:
        return Path(hf_hub_download(data, MANIFEST, repo_type="dataset", revision=revision)).read_bytes()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
        return None


def named(place: str) -> str:
    """Return the id of a repository as it is, and of a folder its name alone."""
    return Path(place).resolve().name if Path(place).exists() or place.count("/") != 1 else place
