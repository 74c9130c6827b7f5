"""A folder becomes a version of a repository on the Hugging Face Hub: one commit on `main`, one tag, read back.

A release can be interrupted anywhere and started again: blobs come before the commit, the commit before the tag, and
the tag is set only once the commit was found to hold what is released. A tag that exists is never moved.
"""

from recfound_data.release.engine import Limits, Release, release_folder
from recfound_data.release.history import Subject
from recfound_data.release.report import describe
from recfound_data.release.versions import Difference, Level, Version

__all__ = ["Difference", "Level", "Limits", "Release", "Subject", "Version", "describe", "release_folder"]
