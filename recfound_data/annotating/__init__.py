"""Prose by a language model in place of composed profiles: asked for, paid once, checked, written as labels."""

from recfound_data.annotating.annotate import Annotation, annotate
from recfound_data.annotating.asking import Asking
from recfound_data.annotating.budget import Spending

__all__ = ["Annotation", "Asking", "Spending", "annotate"]
