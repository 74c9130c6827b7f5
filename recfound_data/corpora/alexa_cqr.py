"""Alexa contextual query rewrites: dialogues with a car's assistant (KVRET), the driver's turns made self-contained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from recfound_data.errors import RecfoundError
from recfound_data.records import Record, Values, decoded, in_batches, whole_files
from recfound_data.sources import Unparsable
from recfound_data.tables import Batch, People, Source, Terms

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_SPEAKERS = {"driver": "user", "assistant": "assistant"}
_DOMAINS = {"schedule": "Calendar", "weather": "Weather", "navigate": "Navigation"}


class AlexaCqr(Source):
    """Alexa's contextual query rewrites of the Stanford in-car dialogues.

    Attributes:
        dialogues: path, glob or URL of `cqr_kvret_<split>_public.json`; the file's name says the split.
    """

    corpus: Literal["alexa_cqr"] = "alexa_cqr"
    dialogues: str

    path_fields: ClassVar[tuple[str, ...]] = ("dialogues",)
    terms: ClassVar[Terms] = Terms(
        title="Alexa Contextual Query Rewrite",
        address="https://github.com/alexa/alexa-dataset-contextual-query-rewrite",
        licence="MIT No Attribution (MIT-0)",
        citation="Michael Regan, Pushpendre Rastogi, Arpit Gupta, Lambert Mathias. A dataset for resolving referring "
        "expressions in spoken dialogue via contextual query rewrites (CQR). arXiv:1903.11783, 2019.",
        redistributable=True,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield the dialogues.

        Raises:
            RecfoundError: a file is no JSON.
        """
        yield from in_batches("dialogues", _records(self.dialogues), self._rows)

    def _rows(self, values: Values) -> list[Values] | str:
        scenario = values["scenario"]
        if not scenario.get("uuid"):
            return "dialogue without an id"
        intent = str((scenario.get("task") or {}).get("intent") or "")
        domain = self.domain or _DOMAINS.get(intent, intent or self.label)
        turns = _turns(values["dialogue"])
        if not turns:
            return "dialogue without turns"
        return [{"dialogue_id": scenario["uuid"], "turns": turns, "split": values["split"], "domain": domain}]


def _records(pattern: str) -> Iterator[Record | Unparsable]:
    """Yield the dialogues of a JSON list, or of JSON lines, with the `split` that the file's name gives."""
    for path, data in whole_files(pattern):
        named = re.findall(r"train|dev|test", path.rsplit("/", 1)[-1])
        split = _SPLITS[named[-1]] if named else None
        text = decoded(data).removeprefix("\ufeff").strip()
        listed = text.startswith("[")
        try:
            found = json.loads(text) if listed else [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError) as error:
            raise RecfoundError(f"{path}: is no valid JSON ({error}); download it again") from None
        for number, values in enumerate(found, 1):
            line = 1 if listed else number
            why = _fault(values)
            yield (
                Unparsable(path, line, f"dialogue {number}: {why}")
                if why
                else Record(path, line, {**values, "split": split})
            )


def _fault(values: Any) -> str:
    """Return what is wrong with the shape of a dialogue, or an empty string."""
    if not isinstance(values, dict) or not isinstance(values.get("scenario"), dict):
        return "has no 'scenario'"
    turns = values.get("dialogue")
    if not isinstance(turns, list):
        return "has no list 'dialogue'"
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("turn") not in _SPEAKERS:
            return "a turn is neither the driver's nor the assistant's"
        if not isinstance(turn.get("data"), dict) or not isinstance(turn["data"].get("utterance"), str):
            return "a turn has no utterance"
        rewrite = turn.get("reformulation") or {}
        if not isinstance(rewrite, dict) or not isinstance(rewrite.get("reformulated_utt") or "", str):
            return "a rewrite is no text"
        at = rewrite.get("base_utt_idx", None if rewrite.get("reformulated_utt") else 0)
        if not isinstance(at, int) or not 0 <= at < len(turns):
            return "a rewrite names a turn that is not there"
    return ""


def _turns(dialogue: list[Values]) -> list[Values]:
    turns: list[Values] = [
        {"speaker": _SPEAKERS[turn["turn"]], "text": turn["data"]["utterance"].strip(), "rewrite": None}
        for turn in dialogue
    ]
    for at, turn in enumerate(dialogue):
        reformulation = turn.get("reformulation") or {}
        if reformulation.get("reformulated_utt"):
            turns[_rewritten(turns[:at], reformulation)]["rewrite"] = reformulation["reformulated_utt"].strip()
    return turns


def _rewritten(turns: list[Values], reformulation: Values) -> int:
    """Return the place of the turn that a rewrite replaces, of the turns before the one that carries it.

    The corpus names the turn whose words the rewrite starts from. Where a driver asks (`will it rain`), the assistant
    asks back (`where?`) and the driver answers (`in Bonn`), that is the question, but the rewrite (`will it rain in
    Bonn`) is what the answer means: the question could not have been put so before the answer was given.
    """
    base: int = reformulation["base_utt_idx"]
    last = max((at for at, turn in enumerate(turns) if turn["speaker"] == "user"), default=base)
    if last <= base:
        return base
    added = _words(reformulation["reformulated_utt"]) - _words(turns[base]["text"])
    return last if added & _words(turns[last]["text"]) else base


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
