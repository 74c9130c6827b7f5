"""Corpora from their official addresses: a registry of files, fetched whole and checked, laid out for the readers."""

from recfound_data.downloading.download import Download, download, listed
from recfound_data.downloading.registry import RELEASES, Release, RemoteFile

__all__ = ["RELEASES", "Download", "Release", "RemoteFile", "download", "listed"]
