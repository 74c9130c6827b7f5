"""Public recommendation corpora as one dataset of instruction and embedding samples."""

from recfound_data.build import BuildSummary, build
from recfound_data.check import CheckReport, check
from recfound_data.tasks import TASKS

__all__ = ["TASKS", "BuildSummary", "CheckReport", "build", "check"]
