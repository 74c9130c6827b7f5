"""The thirteen tasks by name: what kind of sample each has and how it is scored.

The names are promises: configurations of the dataset, keys of an adapter's routing and columns of result tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["embedding", "generative"]


@dataclass(frozen=True)
class TaskSpec:
    """One task: its name, its kind of sample, and the metric that results are ranked by.

    Source: RecFound, arXiv 2506.11999, tables 1 and 2.
    """

    name: str
    kind: Kind
    abbreviation: str
    metric: str


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec("user2item", "embedding", "U2I", "mrr@20"),
        TaskSpec("query2item", "embedding", "Q2I", "mrr@20"),
        TaskSpec("item2item", "embedding", "I2I", "ndcg@20"),
        TaskSpec("query_rewriting", "generative", "QR", "bertscore_f1"),
        TaskSpec("attribute_value_extraction", "generative", "AVE", "micro_f1"),
        TaskSpec("answer_generation", "generative", "AG", "bertscore_f1"),
        TaskSpec("sequential_recommendation", "generative", "SR", "recall@1"),
        TaskSpec("sentiment_analysis", "generative", "SA", "macro_f1"),
        TaskSpec("user_profile", "generative", "UP", "bertscore_f1"),
        TaskSpec("answerability_prediction", "generative", "AP", "f1_yes"),
        TaskSpec("product_relation_prediction", "generative", "PRP", "macro_f1"),
        TaskSpec("product_matching", "generative", "PM", "f1_yes"),
        TaskSpec("item_profile", "generative", "IP", "bertscore_f1"),
    )
}
