"""Publish a dataset folder as a versioned release on the Hub, after checking that it may be."""

from __future__ import annotations

from pathlib import Path

from recfound_data.check import check, require_passed
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_manifest
from recfound_data.people import KEY_VARIABLE
from recfound_data.recipe import nearest
from recfound_data.release import Release, release_folder
from recfound_data.release.dataset import DatasetSubject


def push_dataset(
    path: str | Path,
    repo: str,
    version: str,
    *,
    notes: str = "",
    private: bool = False,
    dry_run: bool = False,
    allow_corpora: tuple[str, ...] = (),
    token: str | None = None,
) -> Release:
    """Release a dataset: one commit on `main`, then the tag `vX.Y.Z`.

    The release is the folder, with a `CHANGELOG.md` beside it and the changes since the release before in its card;
    the folder itself stays as it is.

    Args:
        path: a folder that `recfound data build` wrote, or a release that was downloaded.
        repo: `org/name` on the Hub.
        version: X.Y.Z, above the latest release, and as large a step as what changed asks for.
        notes: what there is to say of the release, in Markdown.
        private: create the repository as a private one.
        dry_run: change nothing, return what would happen.
        allow_corpora: corpora to publish although their terms are not known to allow it: the maintainer answers for it.
        token: of the Hub; by default the one that huggingface_hub finds.

    Raises:
        RecfoundError: the dataset fails its check, was built without a user key, or holds a corpus that may not be
            passed on; or its version is too small a step, or the Hub refuses.
        UsageError: the version or a corpus's name is wrong.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    unknown = [name for name in allow_corpora if name not in manifest["corpora"]]
    if unknown:
        known = ", ".join(manifest["corpora"])
        hint = nearest(unknown[0], manifest["corpora"])
        raise UsageError(f"{folder}: holds no corpus {unknown[0]!r}{hint}; it has {known}")
    if not manifest["user_key"]:
        raise RecfoundError(
            f"{folder}: was built without a user key, so its user ids can be turned back; "
            f"set {KEY_VARIABLE} to a secret and build again"
        )
    for label, corpus in manifest["corpora"].items():
        if not corpus["terms"]["redistributable"] and label not in allow_corpora:
            raise RecfoundError(
                f"{folder}: the terms of {label} are not known to allow passing it on: {corpus['terms']['licence']} "
                f"({corpus['terms']['address']}); leave it out, or allow it by name if you may publish it"
            )
    require_passed(check(folder))
    return release_folder(
        folder,
        repo,
        repo_type="dataset",
        version=version,
        subject=DatasetSubject(),
        notes=notes,
        private=private,
        dry_run=dry_run,
        token=token,
    )
