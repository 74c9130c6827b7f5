"""Tasks: each module turns typed tables into the samples of one task."""

from recfound_data.tasks.catalogue import TASKS, Kind, TaskSpec

__all__ = ["TASKS", "Kind", "TaskSpec"]
