"""MuDoCo-QR: dialogues with a voice assistant in six domains, both speakers' turns made self-contained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from recfound_data.errors import RecfoundError
from recfound_data.records import frame_of, json_document
from recfound_data.sources import Unparsable
from recfound_data.tables import Batch, People, Source, Terms

_SPLITS = {"train": "train", "eval": "validation", "test": "test"}


class MudocoQr(Source):
    """MuDoCo-QR: one JSON document a domain.

    Attributes:
        dialogues: path, glob or URL of `mudoco_<domain>.json`.
    """

    corpus: Literal["mudoco_qr"] = "mudoco_qr"
    dialogues: str

    path_fields: ClassVar[tuple[str, ...]] = ("dialogues",)
    terms: ClassVar[Terms] = Terms(
        title="MuDoCo-QR",
        address="https://github.com/apple/ml-cread",
        licence="the repository has Apple's own licence (use, change and pass on with its notice); the dialogues "
        "are those of MuDoCo, under a LICENSE.md of its own",
        citation="Bo-Hsiang Tseng, Shruti Bhargava, Jiarui Lu, Joel Ruben Antony Moniz, Dhivya Piraviperumal, Lin Li, "
        "Hong Yu. CREAD: Combined Resolution of Ellipses and Anaphora in Dialogues. NAACL 2021.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield the dialogues of one domain after another.

        Raises:
            RecfoundError: a file is no JSON, or is not one domain of MuDoCo-QR.
        """
        for path, document in json_document(self.dialogues):
            dialogues = document.get("dialogs") if isinstance(document, dict) else None
            if not isinstance(dialogues, dict):
                raise RecfoundError(f"{path}: has no mapping 'dialogs'; expected a file like mudoco_weather.json")
            domain = self.domain or str(document.get("domain") or self.label).capitalize()
            rows: list[dict[str, Any]] = []
            drops: Counter[str] = Counter()
            bad: list[Unparsable] = []
            for name, dialogue in dialogues.items():
                try:
                    turns, total = _turns(dialogue["turns"])
                    split = _SPLITS.get(dialogue.get("split"))
                except (KeyError, TypeError, AttributeError) as error:
                    bad.append(Unparsable(path, 1, f"dialogue {name}: {type(error).__name__}: {error}"))
                    continue
                drops["turn after one that is missing"] += total - len(turns)
                if turns:
                    rows.append({"dialogue_id": name, "turns": turns, "split": split, "domain": domain})
                else:
                    drops["dialogue without its first turn"] += 1
            drops["record unparsable"] += len(bad)
            frame, lost = frame_of("dialogues", rows)
            drops["record with a value of the wrong type"] += lost
            yield Batch("dialogues", frame, dict(+drops), bad)


def _turns(turns: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the turns up to the first one that is missing or empty, and how many there were.

    Odd turns are the user's. What follows a gap was not annotated, and cannot be understood without it.
    """
    kept: list[dict[str, Any]] = []
    for number, turn in enumerate(turns, 1):
        text = turn["utterance"].strip()
        if turn["number"] != number or not text:
            break
        rewrite = turn.get("rewritten_utterance") if turn.get("graded") else None
        kept.append({"speaker": "user" if number % 2 else "assistant", "text": text, "rewrite": rewrite or None})
    return kept, len(turns)
