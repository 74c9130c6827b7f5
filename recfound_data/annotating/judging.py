"""Whether an answer may become a label: it is whole, is prose of the right length, and names what the facts name.

What is checked of the facts is what can be checked cheaply: numbers, titles between quotation marks, and words with a
capital within a sentence. A true statement in other words passes, and so does a false one without a name or a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from recfound_data.annotating.answers import Answer
from recfound_data.annotating.asking import Question
from recfound_data.people import EMAIL, PHONE
from recfound_data.tasks import item_profile, user_profile

WORDS = {user_profile.TASK: (30, 200), item_profile.TASK: (12, 200)}
"""Fewest and most words of a profile."""

_CHARS = 2_000
_FREE_WORDS, _WORDS_PER_FACT_WORD = 25, 2
"""A profile has at most so many words, and twice those of the facts: what is longer was made up."""
_COPIED_WORDS = 8
_MOST_COPIED = 0.5
_FEWEST_DIFFERENT = 0.6
_STEM = 5

_THOUGHT = re.compile(r"(?s)^\s*<think>.*?</think>")
_PREAMBLE = re.compile(
    r"^\s*(?:Here(?:'s|’s| is| are)|Sure|Certainly|Of course)\b[^\n]{0,120}:[ \t]*\n+", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|i am sorry|sorry\b|i can(?:no|['’])t\b|i['’]m (?:unable|not able)|i am (?:unable|not able)"
    r"|unfortunately,? i\b|as an? (?:ai|language model|assistant)\b)"
    r"|\bas an ai\b|\b(?:large )?language model\b"
    r"|\bi (?:cannot|can['’]t|won['’]t) (?:help|assist|provide|write|comply|fulfill?|create|generate)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"(?m)^\s*(?:[-*•#>|]|\d+[.)]\s)|\*|`|</?\w+>|\]\(")
_PERSON = re.compile(f"{EMAIL}|{PHONE}")
_WORD = re.compile(r"[^\W_]+")
_QUOTED = re.compile(r"“([^”]{2,})”|\"([^\"]{2,})\"")
_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?!\w)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_DECADE = re.compile(r"\b(\d{3})0['’]?s\b")
_CAPITAL = re.compile(
    r"(?<![.!?:;] )(?<![.!?:;][\"”’')] )(?<![.!?:;] [\"“'(‘])(?<!^)(?<!^[\"“'(‘])(?<![\w'’])[A-Z][\w'’]+"
)
"""A word with a capital that does not begin a sentence."""


@dataclass(frozen=True)
class Verdict:
    """The label that an answer gives, or the reason for which it gives none."""

    label: str = ""
    reason: str = ""


def judge(question: Question, answer: Answer) -> Verdict:
    """Return the label that an answer gives, on one line, or why it is rejected."""
    if answer.finish == "length":
        return Verdict(reason="cut off at the most tokens")
    if answer.finish == "content_filter":
        return Verdict(reason="refusal")
    text = _THOUGHT.sub("", answer.text, count=1)
    text = _PREAMBLE.sub("", text, count=1).strip()
    label = " ".join(text.split())
    reason = _fault_of_form(text, question) or _fault_of_facts(label, question)
    return Verdict(reason=reason) if reason else Verdict(label)


def _fault_of_form(text: str, question: Question) -> str:
    words = _WORD.findall(text.casefold())
    fewest, most = WORDS[question.task]
    if not words:
        return "empty"
    if _REFUSAL.search(text):
        return "refusal"
    if _MARKUP.search(text):
        return "a list or markup"
    if _copied(words, question.text) > _MOST_COPIED:
        return "copied from the prompt"
    if len(words) < fewest:
        return "too short"
    if len(words) > most or len(text) > _CHARS:
        return "too long"
    if len(words) > _FREE_WORDS + _WORDS_PER_FACT_WORD * len(_WORD.findall(question.facts)):
        return "longer than the facts allow"
    triples = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(triples)) < _FEWEST_DIFFERENT * len(triples):
        return "repeats itself"
    return "e-mail address or phone number" if _PERSON.search(text) else ""


def _copied(words: list[str], source: str) -> float:
    """Return the share of an answer's runs of eight words that stand in the prompt."""
    there = set(_runs(_WORD.findall(source.casefold())))
    runs = _runs(words)
    return sum(run in there for run in runs) / len(runs)


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    size = min(_COPIED_WORDS, len(words))
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def _fault_of_facts(text: str, question: Question) -> str:
    facts = question.facts.casefold()
    known = _WORD.findall(facts)
    said = " ".join(known)
    for quoted in _QUOTED.findall(text):
        if f" {' '.join(_WORD.findall(''.join(quoted).casefold()))} " not in f" {said} ":
            return "a title that the facts do not hold"
    if _unknown_number(text, question):
        return "a number that the facts do not hold"
    stems = {word[:_STEM] for word in known}
    for name in _CAPITAL.findall(text):
        for word in _WORD.findall(re.sub(r"['’]s$", "", name).casefold()):
            if word not in known and (len(word) < _STEM - 1 or word[:_STEM] not in stems):
                return "a name that the facts do not hold"
    return ""


def _unknown_number(text: str, question: Question) -> bool:
    """Return whether a number is neither stated nor, in a user's profile, a count or a mean of ratings."""
    both = question.facts + "\n" + _THOUSANDS.sub("", question.facts)  # 1,250 may be one number or two
    stated = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", both)}
    if any(
        not any(int(decade) * 10 <= year < int(decade) * 10 + 10 for year in stated) for decade in _DECADE.findall(text)
    ):
        return True
    choices = re.findall(r"(?m)^- .*: (\d+(?:\.\d+)?)$", question.facts) if question.task == user_profile.TASK else []
    least, top = (min(map(float, choices)), max(map(float, choices))) if choices else (1.0, 0.0)
    for number in _NUMBER.findall(text):
        value = float(number.replace(",", "") or 0)
        count = value == int(value) and value <= len(choices)
        if value not in stated and not count and not least <= value <= top:
            return True
    return False
