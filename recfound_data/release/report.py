"""What a release did, or would do, for a person to read."""

from __future__ import annotations

from recfound_data.release.engine import Release


def describe(release: Release) -> str:
    """Return what a release did, or would do."""
    return _plan(release) if release.dry_run else _result(release)


def _result(release: Release) -> str:
    if release.tag_exists:
        said = "was released before and is complete"
    else:
        said = f"{len(release.uploaded)} files sent, {_size(release.uploaded_bytes)}, {len(release.deleted)} deleted"
    load = release.usage or f'revision="{release.version}"'
    return f"{release.url}\ncommit {release.commit}: {said}; load it with\n{load}"


def _plan(release: Release) -> str:
    lines = [
        f"dry run, nothing was changed: {release.url}",
        f"the repository {'exists' if release.repo_exists else 'would be created'}",
        f"would send {len(release.uploaded)} files, {_size(release.uploaded_bytes)}"
        + (", on a branch of their own first" if release.staged else ""),
        *(f"  {path}  {size:,} bytes" for path, size in release.uploaded.items()),
        f"would delete {len(release.deleted)} files",
        *(f"  {path}" for path in release.deleted),
        _version(release),
    ]
    if release.changelog:
        lines += ["the section of CHANGELOG.md:", *_indented(release.changelog)]
    if release.card_diff:
        lines += ["the card, beside the previous release's:", *_indented(release.card_diff)]
    return "\n".join(lines)


def _version(release: Release) -> str:
    if release.refused is not None:
        return f"would be refused: {release.refused}"
    if release.tag_exists:
        return f"the tag {release.version} is set already, on exactly these files"
    after = f", after {release.previous}" if release.previous else ""
    return f"the tag {release.version} would be set{after}"


def _indented(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.rstrip("\n").split("\n")]


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 10**5 else f"{count:,} bytes"
