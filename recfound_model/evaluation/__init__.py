"""Evaluation: any model on the tasks of a dataset, with intervals, paired comparisons and baselines."""

from recfound_model.evaluation.comparing import Comparison, compare, write_comparison
from recfound_model.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Comparison", "Evaluation", "compare", "evaluate", "write_comparison"]
