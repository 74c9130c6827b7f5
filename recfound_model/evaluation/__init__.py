"""Evaluation: any model on the tasks of a dataset, with intervals, on the whole catalogue."""

from recfound_model.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
