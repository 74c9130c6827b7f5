"""Public recommendation corpora as one dataset of instruction and embedding samples."""

from typing import TYPE_CHECKING, Any

from recfound_data.build import BuildSummary, build
from recfound_data.check import CheckReport, check
from recfound_data.tasks import TASKS

if TYPE_CHECKING:
    from recfound_data.publish import push_dataset

__all__ = ["TASKS", "BuildSummary", "CheckReport", "build", "check", "push_dataset"]


def __getattr__(name: str) -> Any:
    """Load what speaks to the Hub only when it is asked for: its client takes a while to import."""
    if name == "push_dataset":
        from recfound_data.publish import push_dataset

        return push_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
