"""Endpoints that fail, budgets that end, processes that die: nothing is paid twice, nothing wrong becomes a label."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_server import ChatServer, Reply, faithful
from profiles_shop import QUICK, ask, build_profiles
from raw_shop import digests, rows

from recfound_data import check
from recfound_data.annotating import Spending
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_manifest
from recfound_data.patience import Patience

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_profiles(tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="module")
def undisturbed(profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What 30 samples give from a server without faults."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with ChatServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.plots.write_plots", lambda *_: [])
        ask(profiles, server.url, out, limit=30)
    return digests(out)


def first_time(fault: Callable[[dict], Reply], every: int = 3) -> Callable[[int, dict], Reply]:
    """Every third question fails when it is first asked."""
    seen: Counter[str] = Counter()

    def behave(number: int, body: dict) -> Reply:
        key = body["messages"][-1]["content"]
        seen[key] += 1
        return fault(body) if len(seen) % every == 0 and seen[key] == 1 else Reply(faithful(body))

    return behave


UNPAID = {
    "429": lambda body: Reply("slow down", 429),
    "429 with seconds": lambda body: Reply("slow down", 429, {"Retry-After": "0"}),
    "429 with a date": lambda body: Reply("slow down", 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429 with nonsense": lambda body: Reply("slow down", 429, {"Retry-After": "soon"}),
    "503": lambda body: Reply("busy", 503),
}
MAYBE_PAID = {
    "500": lambda body: Reply("broken", 500),
    "502 as a page": lambda body: Reply(status=502, raw=b"<html>Bad gateway</html>"),
    "cut in the body": lambda body: Reply(faithful(body), cut_after=120),
    "cut after the header": lambda body: Reply(faithful(body), cut_after=0),
    "no JSON": lambda body: Reply(raw=b"{'not': json"),
    "no choices": lambda body: Reply(raw=b'{"choices": []}'),
    "another form": lambda body: Reply(raw=b'[{"generated_text": "x"}]'),
    "text of another type": lambda body: Reply(raw=b'{"choices": [{"message": {"content": [1]}}]}'),
    "408": lambda body: Reply("timed out", 408),
    "too slow": lambda body: Reply(faithful(body), slow=20),
    "a byte at a time": lambda body: Reply(faithful(body), drip=0.05),
    "without an end": lambda body: Reply(raw=b" " * (5 << 20)),
}


@pytest.mark.parametrize("fault", [*UNPAID, *MAYBE_PAID])
def test_faults_change_nothing_in_the_result(
    profiles: Path, tmp_path: Path, undisturbed: dict[str, str], fault: str
) -> None:
    timeout = 1.0 if fault in ("too slow", "a byte at a time") else 30.0
    with ChatServer(first_time((UNPAID | MAYBE_PAID)[fault])) as server:
        ask(profiles, server.url, tmp_path / "out", limit=30, timeout=timeout, concurrency=4)
        assert len(server.requests) == 40
    assert digests(tmp_path / "out") == undisturbed


def test_only_what_may_have_been_worked_on_counts_as_spent(profiles: Path, tmp_path: Path) -> None:
    for name, fault in (UNPAID | MAYBE_PAID).items():
        if name in ("too slow", "a byte at a time"):
            continue
        with ChatServer(first_time(fault)) as server:
            out = tmp_path / name.replace(" ", "_")
            ask(profiles, server.url, out, limit=6, concurrency=1)
            spent = ask(profiles, server.url, out, limit=6, dry_run=True).estimate.spent_tokens
            known = sum(sum(_usage(line)) for line in out.with_name(f"{out.name}.answers.jsonl").open())
        assert (spent > known) == (name in MAYBE_PAID), name


def _usage(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return (entry["input"], entry["output"]) if "answered" in entry else (0, 0)


def test_the_wait_that_a_server_asks_for_is_kept_by_all(profiles: Path, tmp_path: Path) -> None:
    def behave(number: int, body: dict) -> Reply:
        return Reply("wait", 429, {"Retry-After": "1"}) if number == 0 else Reply(faithful(body), slow=0.05)

    with ChatServer(behave) as server:
        ask(profiles, server.url, tmp_path / "out", limit=8, concurrency=2, patience=Patience(longest_wait=3))
        refused = server.times[0]
        # Those that were under way already may end, then nobody asks for a second.
        later = [moment - refused for moment in server.times[1:]]
        assert sum(moment < 0.95 for moment in later) <= 2
        assert sum(moment >= 0.95 for moment in later) >= 7


def test_nobody_waits_for_an_hour(profiles: Path, tmp_path: Path) -> None:
    def behave(number: int, body: dict) -> Reply:
        return Reply("wait", 429, {"Retry-After": "3600"}) if number == 0 else Reply(faithful(body))

    started = time.monotonic()
    with ChatServer(behave) as server:
        ask(profiles, server.url, tmp_path / "out", limit=2)
    assert time.monotonic() - started < 10


def test_a_question_that_always_fails_keeps_its_label(profiles: Path, tmp_path: Path) -> None:
    poison: list[str] = []

    def behave(number: int, body: dict) -> Reply:
        if number == 0:
            poison.append(body["messages"][-1]["content"])
        return Reply("broken", 500) if body["messages"][-1]["content"] in poison else Reply(faithful(body))

    with ChatServer(behave) as server:
        done = ask(profiles, server.url, tmp_path / "out", limit=10, concurrency=1)
        assert len(server.requests) == 9 + QUICK.attempts
    assert [list(counts.items()) for counts in done.kept.values()] == [[("no answer", 1)]]
    assert read_manifest(tmp_path / "out")["annotations"][0]["kept_composed"] == done.kept
    assert check(tmp_path / "out").passed


def test_a_question_that_is_refused_is_asked_once(profiles: Path, tmp_path: Path) -> None:
    with ChatServer(lambda number, body: Reply("too long", 400) if number == 0 else Reply(faithful(body))) as server:
        done = ask(profiles, server.url, tmp_path / "out", limit=10)
        assert len(server.requests) == 10
    assert sum(count for counts in done.kept.values() for count in counts.values()) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply("bad key", 401), "RECFOUND_ENDPOINT_KEY"),
        (Reply("no such model", 404), "check --endpoint"),
        (Reply("pay first", 402), "nothing left"),
        (Reply("insufficient_quota", 429), "nothing left"),
        (Reply("", 307, {"Location": "http://127.0.0.1:9/v1/chat/completions"}), "redirects are not followed"),
        (Reply("broken", 500), "one question after the other"),
        (Reply("too long", 422), "one question after the other"),
    ],
)
def test_an_endpoint_that_refuses_all_ends_the_run(profiles: Path, tmp_path: Path, reply: Reply, message: str) -> None:
    patience = Patience(attempts=2, first_wait=0.001)
    with ChatServer(lambda number, body: reply) as server:
        with pytest.raises(RecfoundError, match=message) as raised:
            ask(profiles, server.url, tmp_path / "out", concurrency=2, patience=patience)
        assert len(server.requests) <= 26
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_no_server_at_all(profiles: Path, tmp_path: Path) -> None:
    with pytest.raises(RecfoundError, match="no connection"):
        ask(profiles, "http://127.0.0.1:9/v1", tmp_path / "out", patience=Patience(2, 0.001))


def test_servers_that_know_the_newer_name_of_the_limit(profiles: Path, tmp_path: Path) -> None:
    def behave(number: int, body: dict) -> Reply:
        if "max_tokens" in body:
            return Reply("Unsupported parameter: use max_completion_tokens", 400)
        return Reply(faithful(body))

    with ChatServer(behave) as server:
        done = ask(profiles, server.url, tmp_path / "out", limit=12, concurrency=3)
    assert done.kept == {} and sum("max_tokens" in body for body in server.requests) <= 3


@pytest.mark.parametrize("concurrency", [1, 6])
def test_a_budget_is_not_exceeded(profiles: Path, tmp_path: Path, concurrency: int) -> None:
    budget = 12_000
    with ChatServer(lambda number, body: Reply(faithful(body), slow=0.01)) as server:
        done = ask(profiles, server.url, tmp_path / "out", concurrency=concurrency, spending=Spending(tokens=budget))
        first = len(server.requests)
        assert budget / 2 < server.tokens <= budget
        # What is left does not pay for one more question; what was answered before is not paid for again.
        ask(profiles, server.url, tmp_path / "out", concurrency=concurrency, spending=Spending(tokens=budget))
        assert len(server.requests) == first
    kept = sum(count for counts in done.kept.values() for count in counts.values())
    assert {reason for counts in done.kept.values() for reason in counts} == {"the budget is spent"}
    assert kept == done.estimate.questions - first
    assert check(tmp_path / "out").passed


def test_a_budget_ends_at_the_same_question_however_many_ask(profiles: Path, tmp_path: Path) -> None:
    for concurrency in (1, 6):
        with ChatServer(lambda number, body: Reply(faithful(body), slow=(number % 4) / 100)) as server:
            spending = Spending(amount=0.02, price_in=1, price_out=4)
            ask(profiles, server.url, tmp_path / f"{concurrency}", concurrency=concurrency, spending=spending)
            assert 5 < len(server.paid) < 200
    assert digests(tmp_path / "1") == digests(tmp_path / "6")


def test_a_budget_counts_the_most_where_usage_is_not_told(profiles: Path, tmp_path: Path) -> None:
    budget = 20_000
    with ChatServer(lambda number, body: Reply(faithful(body), usage={})) as server:
        done = ask(profiles, server.url, tmp_path / "out", spending=Spending(tokens=budget))
        bound = max(len(json.dumps(body).encode()) for body in server.requests)
    assert budget - 2 * bound < done.tokens_in + done.tokens_out <= budget
    assert 3 < len(server.requests) < 12


def test_a_budget_counts_answers_that_never_came(profiles: Path, tmp_path: Path) -> None:
    with ChatServer(lambda number, body: Reply(faithful(body), cut_after=50)) as server:
        done = ask(profiles, server.url, tmp_path / "out", spending=Spending(tokens=20_000), concurrency=3)
        assert 3 < len(server.requests) < 12
        before = len(server.requests)
        ask(profiles, server.url, tmp_path / "out", spending=Spending(tokens=20_000), concurrency=3)
        assert len(server.requests) == before
    assert done.labelled == {}


REJECTED = {
    "refusal": lambda body: Reply("I'm sorry, but I can't help with writing about this user."),
    "empty": lambda body: Reply("  \n"),
    "cut off at the most tokens": lambda body: Reply(faithful(body), finish="length"),
    "copied from the prompt": lambda body: Reply(" ".join(body["messages"][-1]["content"].split()[30:110])),
    "too short": lambda body: Reply("The user likes things."),
    "a list or markup": lambda body: Reply("- " + faithful(body)),
    "a title that the facts do not hold": lambda body: Reply(faithful(body) + " Also “Zebulon in the Attic” is there."),
    "a number that the facts do not hold": lambda body: Reply(faithful(body) + " It has been so since 1787."),
    "a name that the facts do not hold": lambda body: Reply(faithful(body) + " It is a work by Zebulon Quark."),
    "repeats itself": lambda body: Reply("what a thing it is and " * 20),
    "e-mail address or phone number": lambda body: Reply(faithful(body) + " Write to jo@mail.example.com for more."),
}


def test_rejected_answers_are_counted_and_never_labels(profiles: Path, tmp_path: Path) -> None:
    reasons = list(REJECTED)
    given: dict[str, str] = {}

    def behave(number: int, body: dict) -> Reply:
        reason = reasons[number % len(reasons)]
        given[body["messages"][-1]["content"]] = reason
        return REJECTED[reason](body)

    out = tmp_path / "out"
    with ChatServer(behave) as server:
        done = ask(profiles, server.url, out, limit=len(reasons) * 6, concurrency=3)
    counted = sum((Counter(counts) for counts in done.kept.values()), Counter())
    assert counted == Counter(given.values())
    assert done.labelled == {} and read_manifest(out)["label_sources"] == []
    composed = {row["label"] for task in ("user_profile", "item_profile") for row in rows(profiles, task)}
    assert {row["label"] for task in ("user_profile", "item_profile") for row in rows(out, task)} == composed
    assert read_manifest(out)["annotations"][0]["kept_composed"] == done.kept
    assert check(out).passed


SCRIPT = """
import sys
from pathlib import Path
from profiles_shop import ask
import recfound_data.plots
recfound_data.plots.write_plots = lambda *_: []
ask(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), limit=200, concurrency=6)
"""


def start(profiles: Path, server: ChatServer, out: Path) -> subprocess.Popen:
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SCRIPT, str(profiles), server.url, str(out)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.01)


def test_killed_twice_and_each_profile_paid_once(profiles: Path, tmp_path: Path) -> None:
    out, answers = tmp_path / "out", tmp_path / "out.answers.jsonl"
    stops = [60, 130]

    def behave(number: int, body: dict) -> Reply:
        if stops and len(server.paid) >= stops[0]:
            server.gate.clear()  # whoever asks now has no answer when the process dies
        return Reply(faithful(body))

    with ChatServer(behave) as server:
        while stops:
            process = start(profiles, server, out)
            until(lambda: not server.gate.is_set() or process.poll() is not None)  # noqa: B023
            assert process.poll() is None, process.stderr.read()
            until(lambda: answers.read_bytes().count(b'"answered"') == sum(server.paid.values()))
            process.send_signal(signal.SIGKILL)
            process.wait()
            until(lambda: server.under_way == 0)
            stops.pop(0)
            server.gate.set()
            assert not out.exists()
        process = start(profiles, server, out)
        assert process.wait(60) == 0, process.stderr.read()
        assert len(server.requests) > 200  # those under way at a kill were asked again
        assert len(server.paid) == 200 and set(server.paid.values()) == {1}
        with ChatServer() as other:
            ask(profiles, other.url, tmp_path / "whole", limit=200)
    assert digests(out) == digests(tmp_path / "whole")
    assert check(out).passed
    assert not list(tmp_path.glob("*.lock")) and not list(tmp_path.glob(".out*"))


@pytest.mark.slow
@pytest.mark.parametrize("remembers", [True, False])
def test_killed_at_any_moment(profiles: Path, tmp_path: Path, remembers: bool) -> None:
    """What was under way at a kill may be paid twice, unless the server knows requests again by their name."""
    out = tmp_path / "out"
    with ChatServer(lambda number, body: Reply(faithful(body), slow=0.03), remembers=remembers) as server:
        for stop in (50, 120):
            process = start(profiles, server, out)
            until(lambda: len(server.requests) >= stop or process.poll() is not None)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start(profiles, server, out).wait(60) == 0
        assert len(server.paid) == 200
        assert sum(server.paid.values()) - 200 <= (0 if remembers else 2 * 6)
    assert check(out).passed


def test_a_torn_line_is_asked_again_and_a_foreign_file_refused(profiles: Path, tmp_path: Path) -> None:
    answers = tmp_path / "out.answers.jsonl"
    with ChatServer() as server:
        ask(profiles, server.url, tmp_path / "out", limit=5, concurrency=1)
        answers.write_bytes(answers.read_bytes()[:-30])
        ask(profiles, server.url, tmp_path / "out", limit=5, concurrency=1)
        assert len(server.requests) == 6
        ask(profiles, server.url, tmp_path / "out", limit=5)
        assert len(server.requests) == 6
        answers.write_text('{"asked": "x", "input": 1, "output": 1}\nnotes of mine\n')
        with pytest.raises(RecfoundError, match=r"jsonl:2: is no line"):
            ask(profiles, server.url, tmp_path / "out", limit=5)
    assert answers.read_text().endswith("notes of mine\n")


def test_two_runs_do_not_share_a_file(profiles: Path, tmp_path: Path) -> None:
    with ChatServer(lambda number, body: Reply(faithful(body), slow=0.02)) as server:
        process = start(profiles, server, tmp_path / "out")
        until(lambda: len(server.requests) > 3)
        with pytest.raises(UsageError, match="another run"):
            ask(profiles, server.url, tmp_path / "out")
        process.kill()
        process.wait()
        ask(profiles, server.url, tmp_path / "out", limit=1)  # a lock ends with its process


def test_an_interrupted_run_keeps_what_was_under_way(profiles: Path, tmp_path: Path) -> None:
    with ChatServer(lambda number, body: Reply(faithful(body), slow=0.1)) as server:
        process = start(profiles, server, tmp_path / "out")
        until(lambda: len(server.requests) > 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        answers = (tmp_path / "out.answers.jsonl").read_bytes()
        assert answers.count(b'"answered"') == sum(server.paid.values()) == len(server.requests) < 60
    assert not (tmp_path / "out").exists()
