"""Verify a dataset over what was written: files, schema, counts, labels, leakage, negatives, people.

It trusts nothing that the build meant; each rule reads the Parquet files again, a few thousand rows at a time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from recfound_data.checking.catalogue import Items, Judgements
from recfound_data.checking.embedding import check_embedding
from recfound_data.checking.findings import CheckReport, Finding, Findings
from recfound_data.checking.generative import check_generative
from recfound_data.checking.header import check_card, check_files, check_version
from recfound_data.checking.keys import Keys
from recfound_data.checking.rows import Rows, open_rows
from recfound_data.checking.samples import check_counts
from recfound_data.checking.users import check_shared_groups, check_users
from recfound_data.errors import RecfoundError
from recfound_data.layout import read_manifest
from recfound_data.progress import Progress
from recfound_data.tasks.catalogue import TASKS

_SHARED_GROUPS = {
    "pair of products": ("item2item", "product_relation_prediction"),
    "product asked about": ("answer_generation", "answerability_prediction"),
}
"""Tasks whose groups are the same, so that one's training could tell the other's test."""

__all__ = ["CheckReport", "Finding", "check", "require_passed"]


def check(path: str | Path) -> CheckReport:
    """Check a dataset folder and return all findings.

    Raises:
        RecfoundError: the folder is no dataset, or a file of it cannot be read at all.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    findings = Findings()
    check_version(manifest, findings)
    check_card(folder, manifest, findings)
    # The rules below read the files, which are opened only if they are the ones that were built.
    if not check_files(folder, manifest, findings):
        return CheckReport(folder, 0, findings.all())
    rows = open_rows(folder, manifest, findings)
    if rows is None:
        return CheckReport(folder, 0, findings.all())
    total = sum(map(len, rows.values()))
    with Progress("checking rows", total) as progress:
        for config in rows.values():
            config.progress = progress
        _check_rows(rows, manifest, findings)
    return CheckReport(folder, total, findings.all())


def _check_rows(rows: dict[str, Rows], manifest: dict[str, Any], findings: Findings) -> None:
    items = Items(rows.get("items"), manifest, findings)
    judgements = Judgements(rows.get("queries"), rows.get("qrels"), items, findings)
    for config in ("queries", "qrels"):
        if config in rows:
            check_counts(config, rows[config], Counter(), manifest, findings)
    groups: dict[str, Keys] = {}
    for task in (name for name in rows if name in TASKS):
        if TASKS[task].kind == "embedding":
            groups[task] = check_embedding(rows[task], items, judgements, manifest, findings)
        else:
            groups[task] = check_generative(rows[task], manifest, findings)
    check_users(rows, items, findings)
    for what, tasks in _SHARED_GROUPS.items():
        check_shared_groups(what, tasks, rows, groups, findings)


def require_passed(report: CheckReport) -> None:
    """Raise what a check found, as one error.

    Raises:
        RecfoundError: there is a finding.
    """
    if not report.passed:
        lines = "\n".join(str(finding) for finding in report.findings)
        raise RecfoundError(f"{report.path}: {len(report.findings)} findings\n{lines}")
