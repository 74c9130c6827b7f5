"""Looking inside an adapter: what its tasks use, what its groups of experts carry, how its embeddings spread."""

from recfound_model.inspecting.inspection import Inspection, Spectrum, inspect_adapter

__all__ = ["Inspection", "Spectrum", "inspect_adapter"]
