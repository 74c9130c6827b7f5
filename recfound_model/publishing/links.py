"""What a release names: the base, the dataset and the adapter it was made of, each looked up where it is said to be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.hf_api import RepoFile

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import MANIFEST
from recfound_data.release.hub import hub_address
from recfound_data.release.local import local_files
from recfound_model.adapter_files import TENSOR_FILE
from recfound_model.publishing.folders import ModelFolder


@dataclass(frozen=True)
class Link:
    """A repository, and perhaps a revision of it."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Links:
    """What a release is linked with.

    Attributes:
        base: the base model.
        data: the dataset that it was trained on.
        adapter: the native adapter that it was exported from.
        related: other releases of the same training.
        licence: that the base's own card names.
    """

    base: Link | None = None
    data: Link | None = None
    adapter: Link | None = None
    related: tuple[Link, ...] = ()
    licence: str | None = None


def parse_link(text: str) -> Link:
    """Read `ORG/NAME` or `ORG/NAME@REVISION`.

    Raises:
        UsageError: it is written otherwise.
    """
    repo, at, revision = text.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or (at and not revision):
        raise UsageError(f"{text!r} is no repository: write ORG/NAME, or ORG/NAME@REVISION")
    return Link(repo, revision or None)


class LinkChecks:
    """Looks linked repositories up on the Hub."""

    def __init__(self, token: str | None) -> None:
        self._api = HfApi(endpoint=hub_address(None), token=token)

    def links(
        self,
        folder: ModelFolder,
        base: str | None,
        data: str | None,
        adapter: str | None,
        related: tuple[str, ...],
    ) -> Links:
        """Return the links of a release: those that are given, and those that the folder names itself.

        Raises:
            UsageError: one is malformed, or does not go with this kind of folder.
            RecfoundError: a repository is not there, or holds something else than this folder was made of.
        """
        if adapter is not None and folder.kind not in ("embedder", "generator"):
            raise UsageError(f"{folder.path}: is no export of an adapter: leave --adapter out")
        if data is not None and folder.training is None:
            raise UsageError(f"{folder.path}: does not say what it was trained on: leave --data out")
        found = Links(
            base=self._base(folder, None if base is None else parse_link(base)),
            data=self._data(folder, None if data is None else parse_link(data)),
            adapter=None if adapter is None else self._adapter(folder, parse_link(adapter)),
            related=tuple(parse_link(text) for text in related),
        )
        return Links(found.base, found.data, found.adapter, found.related, self._licence(found.base))

    def _base(self, folder: ModelFolder, given: Link | None) -> Link | None:
        name, revision = folder.base
        here = name is not None and Path(name).is_dir()
        if given is None:
            if name is None or folder.kind == "model":
                return None
            if folder.kind == "adapter" and (here or name.count("/") != 1):
                raise RecfoundError(
                    f"{folder.path}: names its base by a folder of this machine, {name}, where nobody else finds it: "
                    "push the base and give --base ORG/NAME@REVISION"
                )
            return Link(name, revision) if name.count("/") == 1 and not here else None
        remote = self._files("model", given)
        if here:
            weights = {path: file for path, file in local_files(Path(str(name))).items() if _is_weights(path)}
            wrong = [path for path, file in weights.items() if path not in remote or not file.equals(remote[path])]
            if wrong:
                raise RecfoundError(f"{given}: is not the base {name}: its {wrong[0]} is missing or another")
        return given

    def _data(self, folder: ModelFolder, given: Link | None) -> Link | None:
        training = folder.training
        if training is None:
            return None
        if given is None:
            return Link(training.data, training.data_revision) if training.data.count("/") == 1 else None
        held = self._files("dataset", given)
        if training.data_manifest is not None and (
            MANIFEST not in held or self._sha256("dataset", given, MANIFEST) != training.data_manifest
        ):
            raise RecfoundError(
                f"{given}: is not the dataset that {folder.path} was trained on: its {MANIFEST} is missing or another"
            )
        return given

    def _adapter(self, folder: ModelFolder, given: Link) -> Link:
        file = self._files("model", given).get(TENSOR_FILE)
        digest = file.lfs.sha256 if file is not None and file.lfs else None
        if digest != folder.report.get("adapter_sha256"):
            raise RecfoundError(f"{given}: is not the adapter that {folder.path} was exported from: its weights differ")
        return given

    def _licence(self, base: Link | None) -> str | None:
        if base is None:
            return None
        try:
            card = self._api.model_info(base.repo, revision=base.revision).card_data
        except (HfHubHTTPError, HTTPError, HFValidationError, OSError):
            return None  # the base need not be on the hub that is pushed to
        licence = card.get("license") if card is not None else None
        return licence if isinstance(licence, str) else None

    def _files(self, repo_type: str, link: Link) -> dict[str, RepoFile]:
        with self._errors(repo_type, link):
            tree = self._api.list_repo_tree(link.repo, repo_type=repo_type, revision=link.revision, recursive=True)
            return {file.path: file for file in tree if isinstance(file, RepoFile)}

    def _sha256(self, repo_type: str, link: Link, path: str) -> str:
        with self._errors(repo_type, link):
            file = self._api.hf_hub_download(link.repo, path, repo_type=repo_type, revision=link.revision)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()

    @contextmanager
    def _errors(self, repo_type: str, link: Link) -> Iterator[None]:
        try:
            yield
        except (HfHubHTTPError, HTTPError, HFValidationError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            said = "there is none that the token may see" if status == 404 else f"{status or type(error).__name__}"
            raise RecfoundError(f"{repo_type} {link}: cannot be looked up on the Hub: {said}") from None


def weights_digest(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of a folder's safetensors files."""
    digest = hashlib.sha256()
    for path, file in local_files(folder).items():
        if _is_weights(path):
            digest.update(f"{path} {file.sha256}\n".encode())
    return digest.hexdigest()


def _is_weights(path: str) -> bool:
    return path.endswith(".safetensors")
