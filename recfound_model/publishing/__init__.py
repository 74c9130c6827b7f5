"""Publish an adapter, an embedder or a generator as a versioned release on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub.constants import ENDPOINT

from recfound_data.release import Release, Version, release_folder
from recfound_data.release.hub import access_token, check_repo_id, hub_address
from recfound_model.adapter_config import CONFIG_FILE
from recfound_model.evaluation.models import REPORT_FILE
from recfound_model.evaluation.results import read_evaluation
from recfound_model.publishing.card import release_card
from recfound_model.publishing.folders import ModelFolder, open_folder
from recfound_model.publishing.links import Link, LinkChecks, weights_digest
from recfound_model.publishing.subject import ModelSubject

__all__ = ["push_model"]


def push_model(
    path: str | Path,
    repo: str,
    version: str,
    *,
    notes: str = "",
    base: str | None = None,
    data: str | None = None,
    adapter: str | None = None,
    related: tuple[str, ...] = (),
    evaluation: str | Path | None = None,
    private: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> Release:
    """Release a model folder: one commit on `main`, then the tag `vX.Y.Z`.

    The release is the folder, with a `CHANGELOG.md` beside it, and in its card what it was made of, its scores, its
    terms and the changes since the release before; where its configuration names a folder of this machine, `base`
    takes its place. The folder itself stays as it is.

    Args:
        path: an adapter, a collapsed LoRA, an embedder, a generator, or a base that has no repository yet.
        repo: `org/name` on the Hub.
        version: X.Y.Z, above the latest release, and as large a step as what changed asks for.
        notes: what there is to say of the release, in Markdown.
        base: `org/name@revision` of the base, where the folder names it otherwise; its weights are compared.
        data: `org/name@revision` of the dataset that it was trained on; its manifest is compared.
        adapter: of an export: `org/name@revision` of the native adapter; its weights are compared.
        related: other repositories of the same training.
        evaluation: folder of an evaluation of this model.
        private: create the repository as a private one.
        dry_run: change nothing, return what would happen.
        token: of the Hub; by default the one that huggingface_hub finds.

    Raises:
        RecfoundError: the folder is no model or holds pickled weights, a link is not what the folder was made of, the
            version is too small a step, or the Hub refuses.
        UsageError: the version, the repository or a link is malformed, or does not go with the folder.
    """
    Version.parse(version)
    check_repo_id(repo)
    folder = open_folder(path)
    measured = None if evaluation is None else read_evaluation(Path(evaluation))
    links = LinkChecks(access_token(token)).links(folder, base, data, adapter, related)
    card = release_card(
        folder, links, measured, repo.split("/")[1], weights_digest(folder.path), hub_address(None) or ENDPOINT
    )
    made = {"README.md": card}
    if links.base is not None:
        made |= _with_base(folder, links.base)
    return release_folder(
        folder.path,
        repo,
        repo_type="model",
        version=version,
        subject=ModelSubject(),
        made=made,
        notes=notes,
        private=private,
        dry_run=dry_run,
        token=token,
    )


def _with_base(folder: ModelFolder, base: Link) -> dict[str, str]:
    """The texts of configurations and reports that name the base, naming this one."""
    found = {}
    for file in [*folder.path.rglob(CONFIG_FILE), folder.path / REPORT_FILE]:
        if not file.is_file():
            continue
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        keys = ("base_model", "base_revision") if file.name == REPORT_FILE else ("base_model_name_or_path", "revision")
        values |= dict(zip(keys, (base.repo, base.revision), strict=True))
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
        found[file.relative_to(folder.path).as_posix()] = text + "\n"
    return found
