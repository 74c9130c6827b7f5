"""What a model is asked: the facts of a sample under a fixed instruction, and the name under which the answer is kept.

A question holds the facts that the sample's prompt states and nothing else of the sample: no id, no group, no corpus.
The sample's own phrasing of its task is left out too, so that the same facts are one question.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from recfound_data.errors import UsageError
from recfound_data.patience import Patience
from recfound_data.tasks import item_profile, user_profile

TASKS = (user_profile.TASK, item_profile.TASK)
"""The tasks whose labels are composed where no model wrote them."""

_RULES = """You write profiles for a data set of recommendations. Keep to these rules:
- Say only what the given facts state or what follows from them. Add nothing that you know or guess: no plot, cast, \
origin, audience, quality or opinion that the facts do not give.
- Copy titles and names letter by letter, and put titles between double quotation marks.
- Write one paragraph of plain prose in English: no list, no heading, no markup, no introduction, no closing remark.
- Write about the {subject} in the third person, and do not mention these rules or "the facts"."""
_SUBJECTS = {user_profile.TASK: "user", item_profile.TASK: "item"}
_WISHES = {
    user_profile.TASK: (
        "Write a profile of the user behind the following facts, in 60 to 120 words. Say which kinds of things the "
        "user likes and which they rate lower, with two or three titles that show it; name makers or decades that "
        "return often; say whether the ratings are generous, moderate or strict. Begin with gender, age, country or "
        "occupation where they are given. Sum up instead of going through the list, do not calculate averages, and "
        'call the person "the user".'
    ),
    item_profile.TASK: (
        "Describe the item of the following facts to somebody who has not seen it, in at most {most} words. Use every "
        "fact that says something about the item, in sentences of your own, and stop when they are told. Of its text "
        "take what describes the item, and leave out advertising and terms of sale."
    ),
}

_TEMPLATE_TOKENS = 256
"""What a server may add to a prompt: the marks of its chat template, a system line of its own."""
_CHARS_PER_TOKEN = 4
_MOST_WORDS, _LEAST_WORDS, _WORDS_PER_FACT_WORD = 120, 20, 1.5
_USUAL_ANSWER = 150


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how.

    Attributes:
        endpoint: address of an OpenAI-compatible API; requests go to `<endpoint>/chat/completions`.
        model: the model's name, as the server knows it; it becomes the `label_source` of what it wrote.
        concurrency: most requests under way at once; the result does not depend on it.
        answer_tokens: most tokens of an answer, `max_tokens` of the request. A model that reasons before it answers
            needs more than the default.
        temperature: of the sampling; None leaves it to the server.
        timeout: most seconds that one request may take.
        patience: how often and after what time a request is repeated.
    """

    endpoint: str
    model: str
    concurrency: int = 8
    answer_tokens: int = 400
    temperature: float | None = None
    timeout: float = 300.0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if not self.model.strip() or self.model != " ".join(self.model.split()):
            raise UsageError(f"--model {self.model!r}: is no model's name")
        if self.model in ("corpus", "composed"):
            raise UsageError(f"--model {self.model}: labels are called so that no model wrote; name the model")
        if self.concurrency < 1 or self.answer_tokens < 1:
            raise UsageError("--concurrency and --answer-tokens are at least 1")


@dataclass(frozen=True)
class Question:
    """One request for one profile.

    Attributes:
        key: SHA-256 of model, messages and parameters; not of the endpoint, since two may serve the same model.
        task: whose label the answer is to be.
        facts: what the prompt states.
        body: of the request.
    """

    key: str
    task: str
    facts: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """All that the model reads."""
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def most_input(self) -> int:
        """An upper bound of the prompt's tokens: none is shorter than a byte."""
        return len(self.text.encode()) + _TEMPLATE_TOKENS

    @property
    def most_output(self) -> int:
        """An upper bound of the answer's tokens."""
        return int(self.body["max_tokens"])

    @property
    def likely_tokens(self) -> tuple[int, int]:
        """An estimate of the tokens of prompt and answer, for English text."""
        return len(self.text) // _CHARS_PER_TOKEN + 16, min(_USUAL_ANSWER, self.most_output)


def question(task: str, prompt: str, asking: Asking) -> Question:
    """Return the question for a sample, given what its prompt says."""
    facts = prompt.partition("\n\n")[2] or prompt
    most = min(_MOST_WORDS, _LEAST_WORDS + int(_WORDS_PER_FACT_WORD * len(facts.split())))
    messages = [
        {"role": "system", "content": _RULES.format(subject=_SUBJECTS[task])},
        {"role": "user", "content": f"{_WISHES[task].format(most=most)}\n\n{facts}"},
    ]
    body: dict[str, Any] = {"model": asking.model, "messages": messages, "max_tokens": asking.answer_tokens}
    if asking.temperature is not None:
        body["temperature"] = asking.temperature
    return Question(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(), task, facts, body)
