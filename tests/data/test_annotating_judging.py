"""Which answers become labels, and what a server's words about waiting mean."""

from datetime import UTC, datetime

import pytest

from recfound_data.annotating import Asking
from recfound_data.annotating.answers import Answer
from recfound_data.annotating.asking import question
from recfound_data.annotating.judging import judge
from recfound_data.patience import Patience, retry_after

ASKING = Asking("http://127.0.0.1:1/v1", "toy")
USER = """Sum up this user.

About the user:
- Gender: female
- Age: 25-34
- Country: United States

Rated choices, latest first, with ratings up to 5:
- Wonder (2017) [Drama]: 5
- Alien (1979) [Horror / Sci-Fi]: 2
- Star Wars: Episode IV - A New Hope (1977) [Action / Adventure / Sci-Fi]: 4
- The Way of Tea [by Ada O'Hara; from 1983]: 4.5
- Rocky (1976) [Action / Drama]: 4"""
ITEM = """Describe this item.

Title: Texas Roadhouse Gift Card
By: Texas Roadhouse
Categories: Gift Cards, Restaurants
Price: $1,250.00
Mean rating: 4.4 out of 5 (8 ratings)
Text: Redeemable at any one of our 350+ locations nationwide. Known for its Hand-Cut Steaks and ribs."""
GOOD_USER = (
    'The user is a woman aged 25-34 from the United States who likes dramas most of all. "Wonder" has her highest '
    "rating, 5, and “Rocky (1976)” and “The Way of Tea” by Ada O'Hara do well too, at 4 and 4.5. Of the 5 titles, "
    "which lean towards the 1970s, “Alien” is the only one she puts low. Her ratings are generous, 3.9 on the whole."
)
GOOD_ITEM = (
    "“Texas Roadhouse Gift Card” is a gift card by Texas Roadhouse, filed under Gift Cards and Restaurants, for "
    "$1,250. It can be used at any of 350 places and has 4.4 out of 5 over 8 ratings."
)


def verdict(text: str, prompt: str = USER, finish: str = "stop") -> str:
    task = "user_profile" if prompt == USER else "item_profile"
    found = judge(question(task, prompt, ASKING), Answer(text, finish, 1, 1))
    assert bool(found.label) != bool(found.reason)
    return found.reason


@pytest.mark.parametrize(("text", "prompt"), [(GOOD_USER, USER), (GOOD_ITEM, ITEM)])
def test_faithful_prose_passes(text: str, prompt: str) -> None:
    assert verdict(text, prompt) == ""
    for dressed in (
        f"<think>Let me see.\n- a list\n</think>\n\n{text}",
        f"Here is a profile of the user:\n\n{text}",
        f"Sure, a short one:\n{text}",
        text.replace(". ", ".\n\n", 1),
        text.replace(". ", ".   ", 1),
        f"  {text}\n",
    ):
        found = judge(question("user_profile" if prompt == USER else "item_profile", prompt, ASKING),
                      Answer(dressed, "stop", 1, 1))  # fmt: skip
        assert found.label == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("…", "empty"),
        ("<think>what is there to say", "a list or markup"),
        (GOOD_USER.replace("“Alien” is", "there is “Alien.” Only that is"), ""),
        ("I’m sorry, but I can’t do that.", "refusal"),
        ("I cannot create a profile of a real person.", "refusal"),
        ("As an AI language model I have no opinion on it.", "refusal"),
        (GOOD_USER + " As an AI, I cannot say more.", "refusal"),
        ("The user likes dramas.", "too short"),
        (GOOD_USER + " " + " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(150)), "too long"),
        ("## Profile\n" + GOOD_USER, "a list or markup"),
        (GOOD_USER.replace("dramas", "**dramas**"), "a list or markup"),
        ("1. " + GOOD_USER, "a list or markup"),
        (" ".join(USER.split()[20:60]), "copied from the prompt"),
        ("the user likes good films a lot and " * 8, "repeats itself"),
        (GOOD_USER.replace("“Alien”", "“Aliens”"), "a title that the facts do not hold"),
        (GOOD_USER.replace("“Alien”", '"Blade Runner"'), "a title that the facts do not hold"),
        (GOOD_USER.replace("“Rocky (1976)”", "“Rocky (1977)”"), "a title that the facts do not hold"),
        (GOOD_USER.replace("1970s", "1950s"), "a number that the facts do not hold"),
        (GOOD_USER.replace("3.9", "5.9"), "a number that the facts do not hold"),
        (GOOD_USER.replace("the 5 titles", "the 12 titles"), "a number that the facts do not hold"),
        (GOOD_USER.replace("the 5 titles", "the titles of 2014"), "a number that the facts do not hold"),
        (GOOD_USER.replace("dramas most", "the films of Kubrick most"), "a name that the facts do not hold"),
        (GOOD_USER.replace("woman", "Canadian woman"), "a name that the facts do not hold"),
        (GOOD_USER + " Reach her at jo@mail.example.com or so.", "e-mail address or phone number"),
        (GOOD_USER + " Her number is 212-555-0123 by the way.", "e-mail address or phone number"),
    ],
)
def test_verdicts_on_a_user(text: str, reason: str) -> None:
    assert verdict(text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD_ITEM.replace("4.4", "4.6"), "a number that the facts do not hold"),
        (GOOD_ITEM.replace("350", "400"), "a number that the facts do not hold"),
        (GOOD_ITEM.replace("over 8", "over 5"), ""),
        (GOOD_ITEM.replace("by Texas", "from Nevada by Texas"), "a name that the facts do not hold"),
        ("It is a gift card.", "too short"),
        (GOOD_ITEM + " It is a fine thing to give and a finer thing to get, " + "which is said by all who know of it, "
         "from the first day on and ever since, in fair weather and in foul, at home and on the road, by young people "
         "and by old ones, and nobody so far has been heard to say that it was too much or too little for them. "
         "It does what it is there to do, and it does so without fuss, which is more than can be said of many others.",
         "longer than the facts allow"),
    ],
)  # fmt: skip
def test_verdicts_on_an_item(text: str, reason: str) -> None:
    assert verdict(text, ITEM) == reason


def test_how_an_answer_ended_counts() -> None:
    assert verdict(GOOD_USER, finish="length") == "cut off at the most tokens"
    assert verdict(GOOD_USER, finish="content_filter") == "refusal"


def test_waits_that_servers_ask_for() -> None:
    now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
    assert retry_after("7") == 7.0 and retry_after("0.5") == 0.5 and retry_after("-3") == 0.0
    assert retry_after("Sun, 22 Nov 2026 12:01:30 GMT", now) == 90.0
    assert retry_after("Sun, 22 Nov 2026 11:00:00 GMT", now) == 0.0
    assert retry_after(None) is retry_after("soon") is retry_after("inf") is None


def test_waits_grow_and_end() -> None:
    patience = Patience(first_wait=1, longest_wait=10)
    for attempt, whole in enumerate((1, 2, 4, 8, 10, 10), start=1):
        waits = {patience.wait(attempt, None) for _ in range(50)}
        assert whole / 2 <= min(waits) < max(waits) <= whole
    assert patience.wait(1, 5.0) == 5.0 and patience.wait(1, 5_000.0) == 10.0
