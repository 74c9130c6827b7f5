"""Export: an adapter's tasks as folders that stock libraries load, each compared with the adapter before it is left.

Nothing in them needs this package, a patched one, or `trust_remote_code`.
"""

from recfound_model.exporting.embedder import export_embedder
from recfound_model.exporting.generator import export_generator
from recfound_model.exporting.report import (
    MINIMUM_SENTENCE_TRANSFORMERS,
    MINIMUM_TRANSFORMERS,
    REPORT_FILE,
    ExportReport,
)

__all__ = [
    "MINIMUM_SENTENCE_TRANSFORMERS",
    "MINIMUM_TRANSFORMERS",
    "REPORT_FILE",
    "ExportReport",
    "export_embedder",
    "export_generator",
]
