"""`TmoleConfig`: everything about an adapter that is not a tensor, and its file `adapter_config.json`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftConfig

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import TASKS, Kind
from recfound_model.folders import fetch
from recfound_model.routing import GROUPS, UnknownTaskError, live_groups

CONFIG_FILE = "adapter_config.json"
PEFT_TYPE = "TMOLE"
KINDS: tuple[Kind, ...] = ("embedding", "generative")
PROMPT_SIDES = ("query", "document")


@dataclass(kw_only=True)
class TmoleConfig(PeftConfig):
    """An adapter's tasks, sizes, targets and base. The defaults are the paper's.

    Every ValueError says which field is wrong.
    """

    tasks: list[str] | dict[str, Kind]
    """Names of the catalogue, or {name: "embedding" | "generative"} for one's own; a dict after construction."""
    r: int = 16
    """Rank of one expert."""
    alpha: int = 64
    """The update is scaled by alpha / r."""
    dropout: float = 0.1
    """Probability of dropout on the input of the experts."""
    experts: dict[str, int] = field(default_factory=lambda: {"embedding": 2, "shared": 2, "generative": 2})
    """Number of experts in each group; a group may be empty as long as every task sees an expert."""
    task_dim: int = 512
    """d, the size of a task embedding."""
    target_modules: list[str] | set[str] | str = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    """Linear layers to adapt, as PEFT reads it: names or ends of names, a regular expression, or "all-linear"."""
    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    """task -> {"query": ..., "document": ...}: the exact prompts that its texts were given in training."""
    max_length: int | None = None
    """Tokens at which an exported embedder truncates; None leaves the tokenizer's own limit."""
    initialization: str | None = None
    """SHA-256 of the tensors as they were first drawn: only descendants of the same ones can be merged."""
    peft_type: str = PEFT_TYPE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.peft_type != PEFT_TYPE:
            raise ValueError(f"peft_type is {self.peft_type!r}, and a TmoleConfig's is {PEFT_TYPE!r}")
        self.tasks = _kinds(self.tasks)
        for name in ("r", "alpha", "task_dim"):
            if not _is_count(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive whole number, not {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout!r}")
        if self.max_length is not None and (not _is_count(self.max_length) or self.max_length < 1):
            raise ValueError(f"max_length must be None or a positive number of tokens, not {self.max_length!r}")
        if set(self.experts) != set(GROUPS) or not all(_is_count(n) and n >= 0 for n in self.experts.values()):
            raise ValueError(f"experts must give a number for each of {', '.join(GROUPS)}, not {self.experts!r}")
        for task, kind in self.tasks.items():
            self._check_experts(task, kind)
        if not self.target_modules:
            raise ValueError('target_modules is empty: name linear layers, or use "all-linear"')
        if not isinstance(self.target_modules, str) and not _are_texts(self.target_modules):
            raise ValueError(f"target_modules must be names or one regular expression, not {self.target_modules!r}")
        self._check_prompts()

    def _check_experts(self, task: str, kind: Kind) -> None:
        if not live_groups([kind], self.experts):
            raise ValueError(f"task {task!r} would see no expert: there are {self.experts}")

    def _check_prompts(self) -> None:
        for task, prompts in self.prompts.items():
            if self.kind_of(task) != "embedding":
                raise ValueError(f"prompts: {task!r} is not an embedding task")
            if not set(prompts) <= set(PROMPT_SIDES):
                raise ValueError(f"prompts of {task!r}: the sides are {PROMPT_SIDES}, not {sorted(prompts)}")
            if not _are_texts([*prompts.values()]):
                raise ValueError(f"prompts of {task!r}: a prompt is a text, not {prompts!r}")

    @property
    def kinds(self) -> dict[str, Kind]:
        """Task -> its kind."""
        assert isinstance(self.tasks, dict)
        return self.tasks

    @property
    def scale(self) -> float:
        """The factor alpha / r of the update."""
        return self.alpha / self.r

    def kind_of(self, task: str) -> Kind:
        """The kind of one task.

        Raises:
            UnknownTaskError: the adapter does not have it.
        """
        if task not in self.kinds:
            raise UnknownTaskError(task, self.kinds)
        return self.kinds[task]

    def kinds_with(self, name: str, kind: Kind | None = None) -> dict[str, Kind]:
        """The adapter's tasks and kinds together with one more; known names bring their kind with them.

        Raises:
            ValueError: the name cannot be one, is taken, or does not go with the kind.
            UnknownTaskError: a name that is not in the catalogue and comes without a kind.
        """
        if name in self.kinds:
            raise ValueError(f"tasks: there is {name!r} already")
        added = _kinds([name] if kind is None else {name: kind})
        self._check_experts(name, added[name])
        return self.kinds | added

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; a set (PEFT turns "all-linear" into one) as a sorted list."""
        return {
            key: sorted(value) if isinstance(value, set) else value for key, value in dataclasses.asdict(self).items()
        }

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes `adapter_config.json`: the same configuration always gives the same bytes."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> TmoleConfig:
        """Reads the configuration of an adapter.

        Args:
            source: a folder, or the id of a repository on the Hub.
            revision: branch, tag or commit of the repository.

        Raises:
            RecfoundError: the file is missing, is not JSON, or is not a TMoLE adapter's.
        """
        file = fetch(source, CONFIG_FILE, revision)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecfoundError(f"{file} is not valid JSON ({error}): the file is damaged") from error
        found = values.get("peft_type") if isinstance(values, dict) else None
        if found != PEFT_TYPE:
            raise RecfoundError(
                f"{file}: peft_type is {found!r}, not {PEFT_TYPE!r}. A collapsed or ordinary LoRA adapter is opened "
                "with peft.PeftModel.from_pretrained"
            )
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise RecfoundError(
                f"{file}: unknown keys {', '.join(unknown)}: it was written by a newer recfound; upgrade"
            )
        try:
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise RecfoundError(f"{file}: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(values: object) -> bool:
    return isinstance(values, list | tuple | set) and all(isinstance(value, str) for value in values)


def _kinds(tasks: list[str] | Mapping[str, Kind]) -> dict[str, Kind]:
    """Task -> kind, checked; known names bring their kind with them."""
    if not tasks or isinstance(tasks, str):
        raise ValueError(f"tasks must be a list of names or a dict of name to kind, not {tasks!r}")
    for name in tasks:
        # Names become parameters of a module and folders on disk.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"tasks: {name!r} may hold letters, digits, _ and - only")
    if not isinstance(tasks, Mapping):
        for name in tasks:
            if name not in TASKS:
                raise UnknownTaskError(name, TASKS)
        return {name: TASKS[name].kind for name in tasks}
    for name, kind in tasks.items():
        if kind not in KINDS:
            raise ValueError(f"tasks: the kind of {name!r} must be one of {', '.join(KINDS)}, not {kind!r}")
        if name in TASKS and TASKS[name].kind != kind:
            raise ValueError(f"tasks: {name!r} is a known {TASKS[name].kind} task, not {kind}; choose another name")
    return dict(tasks)
