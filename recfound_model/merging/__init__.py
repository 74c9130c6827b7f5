"""Model Merge: several checkpoints of one run, or runs from one initialisation, become one adapter.

The methods are mergekit's. What is ours: what is merged (factors, as in the paper, or the products that they stand
for), which adapters are (a greedy soup), and refusing those whose factors do not mean the same.
"""

from recfound_model.merging.adapters import initial_adapter, merge_adapters
from recfound_model.merging.report import MergeReport

__all__ = ["MergeReport", "initial_adapter", "merge_adapters"]
