"""One adapter for all tasks: TMoLE, its training, and what is made of it for stock libraries to load.

Names are imported when they are first used: torch, transformers and PEFT take seconds, `import recfound_model` none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfound_model.adapter_config import TmoleConfig
    from recfound_model.collapsing import collapse, collapse_all
    from recfound_model.exporting import export_embedder, export_generator
    from recfound_model.merging import merge_adapters
    from recfound_model.publishing import push_model
    from recfound_model.routing import task_context
    from recfound_model.scheduling.scheduler import SampleScheduler
    from recfound_model.tmole import add_tmole, load_tmole

# No submodule may bear one of these names: importing it would put the module in the name's place.
_HOMES = {
    "SampleScheduler": "scheduling.scheduler",
    "TmoleConfig": "adapter_config",
    "add_tmole": "tmole",
    "collapse": "collapsing",
    "collapse_all": "collapsing",
    "export_embedder": "exporting",
    "export_generator": "exporting",
    "load_tmole": "tmole",
    "merge_adapters": "merging",
    "push_model": "publishing",
    "task_context": "routing",
}

__all__ = [
    "SampleScheduler",
    "TmoleConfig",
    "add_tmole",
    "collapse",
    "collapse_all",
    "export_embedder",
    "export_generator",
    "load_tmole",
    "merge_adapters",
    "push_model",
    "task_context",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
