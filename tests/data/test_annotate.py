"""Annotated datasets: what a model wrote is in the right places, the rest is what it was, and nobody pays twice."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import ChatServer, Reply, faithful
from profiles_shop import ask, build_profiles
from raw_shop import digests, ratings, reviews, rows

from recfound_data import check
from recfound_data.annotating import Asking, Spending
from recfound_data.annotating.asking import question
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_manifest
from recfound_data.shop import REVIEWER_NAMES

PROFILES = ("user_profile", "item_profile")
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_profiles(tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="module")
def annotated(profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ChatServer]:
    out = tmp_path_factory.mktemp("annotated") / "dataset"
    with ChatServer() as server:
        ask(profiles, server.url, out)
    return out, server


def by_id(dataset: Path, config: str) -> dict[str, dict]:
    return {row["id"]: row for row in rows(dataset, config)}


def test_only_labels_change(profiles: Path, annotated: tuple[Path, ChatServer]) -> None:
    out, _ = annotated
    assert check(out).findings == ()
    for task in PROFILES:
        before, after = by_id(profiles, task), by_id(out, task)
        assert list(before) == list(after)
        for sample, row in after.items():
            assert row["label_source"] == "toy"
            assert row["completion"] == [{"role": "assistant", "content": row["label"]}]
            assert row["label"] != before[sample]["label"]
            for column in ("prompt", "task", "corpus", "domain", "options"):
                assert row[column] == before[sample][column]
    changed = {name for name, digest in digests(out).items() if digests(profiles).get(name) != digest}
    assert not any(name.startswith(("data/sentiment_analysis", "items/")) for name in changed)
    assert any(name.startswith("data/user_profile") for name in changed)


def test_each_label_answers_its_own_prompt(annotated: tuple[Path, ChatServer]) -> None:
    out, _ = annotated
    for task in PROFILES:
        for row in rows(out, task):
            said = faithful({"messages": [{"content": row["prompt"][0]["content"]}]})
            assert row["label"] == " ".join(said.split())


def test_manifest_and_card_tell_of_it(profiles: Path, annotated: tuple[Path, ChatServer]) -> None:
    out, server = annotated
    manifest = read_manifest(out)
    assert manifest["label_sources"] == ["toy"]
    (said,) = manifest["annotations"]
    assert said["model"] == "toy" and said["answers"] == len(server.paid)
    assert said["labelled"] == {task: read_manifest(profiles)["configs"][task]["splits"] for task in PROFILES}
    assert said["tokens"]["input"] + said["tokens"]["output"] == server.tokens
    assert manifest["configs"] == read_manifest(profiles)["configs"]
    assert "annotations" not in read_manifest(profiles)


def test_nobody_is_told_who_a_user_is(profiles: Path, annotated: tuple[Path, ChatServer]) -> None:
    _, server = annotated
    sent = b"\n".join(server.raw).decode()
    shop = profiles.parent / "raw"
    secrets = {row["id"] for task in PROFILES for row in rows(profiles, task)}
    secrets |= {part for sample in secrets for part in sample.split("-")}
    secrets |= {review["reviewerID"] for review in reviews(shop)} | {review["asin"] for review in reviews(shop)}
    assert not [secret for secret in secrets if secret in sent]
    assert not [name for name in REVIEWER_NAMES if name in sent]
    assert not re.findall(r'"userId"|"reviewerID"', sent) and len(ratings(shop)) > 0
    assert {frozenset(body) for body in server.requests} == {frozenset({"model", "messages", "max_tokens"})}


def test_the_same_bytes_however_many_ask(profiles: Path, annotated: tuple[Path, ChatServer], tmp_path: Path) -> None:
    with ChatServer(lambda number, body: Reply(faithful(body), slow=(number % 5) / 200)) as server:
        ask(profiles, server.url, tmp_path / "one", concurrency=1, limit=40)
    with ChatServer(lambda number, body: Reply(faithful(body), slow=(number % 7) / 200)) as server:
        ask(profiles, server.url, tmp_path / "many", concurrency=12, limit=40)
        assert 1 < server.most_under_way <= 12
    assert digests(tmp_path / "one") == digests(tmp_path / "many")


def test_answers_are_paid_once_over_runs(profiles: Path, tmp_path: Path) -> None:
    with ChatServer() as server:
        ask(profiles, server.url, tmp_path / "out", limit=20)
        assert len(server.requests) == 20
        ask(profiles, server.url, tmp_path / "out", limit=30)
        assert len(server.requests) == 30
        again = ask(profiles, server.url, tmp_path / "out", limit=30)
        assert len(server.requests) == 30
    assert again.estimate.answered == 30 and again.tokens_in > 0
    assert check(tmp_path / "out").passed


def test_other_words_are_another_question(profiles: Path, tmp_path: Path) -> None:
    with ChatServer() as server:
        ask(profiles, server.url, tmp_path / "out", limit=5)
        ask(profiles, server.url, tmp_path / "out", limit=5, temperature=0.5)
        ask(profiles, server.url, tmp_path / "out", limit=5, model="other")
        assert len(server.requests) == 15
        assert [body.get("temperature") for body in server.requests] == [None] * 5 + [0.5] * 5 + [None] * 5
    with ChatServer() as elsewhere:  # which serves the same model
        ask(profiles, elsewhere.url, tmp_path / "out", limit=5)
        assert elsewhere.requests == []


def test_in_place_goes_on_with_what_is_composed_still(profiles: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(profiles, tmp_path / "dataset"))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    with ChatServer() as server:
        ask(folder, server.url, limit=15, tasks=("user_profile",))
        first = {row["id"] for row in rows(folder, "user_profile") if row["label_source"] == "toy"}
        ask(folder, server.url, limit=15, tasks=("user_profile",), model="other")
        second = {row["id"] for row in rows(folder, "user_profile") if row["label_source"] == "other"}
    assert len(first) == len(second) == 15 and not first & second
    assert {row["label_source"] for row in rows(folder, "item_profile")} == {"composed"}
    assert read_manifest(folder)["label_sources"] == ["other", "toy"]
    assert [said["model"] for said in read_manifest(folder)["annotations"]] == ["toy", "other"]
    assert (folder / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert check(folder).passed


def test_the_original_is_not_written_through_its_links(profiles: Path, tmp_path: Path) -> None:
    before = digests(profiles)
    with ChatServer() as server:
        ask(profiles, server.url, tmp_path / "out", limit=5)
    assert digests(profiles) == before


def test_one_question_for_the_same_facts() -> None:
    asking = Asking("http://127.0.0.1:1/v1", "toy")
    one = question("user_profile", "Sum up this user.\n\nRated choices:\n- A: 4\n- B: 3", asking)
    two = question("user_profile", "Who is it?\n\nRated choices:\n- A: 4\n- B: 3", asking)
    other = question("user_profile", "Who is it?\n\nRated choices:\n- A: 4\n- B: 2", asking)
    assert one.key == two.key != other.key and one.facts in one.text


def test_a_dry_run_asks_and_writes_nothing(profiles: Path, tmp_path: Path) -> None:
    with ChatServer() as server:
        found = ask(profiles, server.url, tmp_path / "out", dry_run=True, spending=Spending(price_in=1, price_out=10))
        assert server.requests == []
        assert list(tmp_path.iterdir()) == []
        done = ask(profiles, server.url, tmp_path / "out", spending=Spending(price_in=1, price_out=10))
        asked = found.estimate
        assert asked.samples == asked.questions == len(server.requests)
        # Words are fewer than tokens: what was used is below the estimate, and far below the most.
        assert done.tokens_in < asked.tokens_in < asked.most_tokens
        assert asked.cost == pytest.approx((asked.tokens_in + 10 * asked.tokens_out) / 1e6)
        assert done.cost == pytest.approx((done.tokens_in + 10 * done.tokens_out) / 1e6)
        after = ask(profiles, server.url, tmp_path / "out", dry_run=True).estimate
        assert (after.answered, after.tokens_in, after.most_tokens) == (after.questions, 0, 0)
        assert after.spent_tokens == server.tokens


def test_a_dataset_that_was_changed_is_not_paid_for(profiles: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(profiles, tmp_path / "dataset"))
    file = next((folder / "data" / "user_profile").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-4] + b"PAR2")
    with ChatServer() as server:
        with pytest.raises(RecfoundError, match="is not the file that was built"):
            ask(folder, server.url)
        assert server.requests == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "ftp://127.0.0.1/v1"}, "--endpoint is the address"),
        ({"url": "http://:pass@127.0.0.1/v1"}, "holds a password"),
        ({"model": "composed"}, "name the model"),
        ({"model": "a\nb"}, "is no model's name"),
        ({"tasks": ("item_profil",)}, "did you mean 'item_profile'"),
        ({"concurrency": 0}, "at least 1"),
        ({"out": "something else"}, "holds something else"),
    ],
)
def test_wrong_arguments_are_refused(profiles: Path, tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "something else").mkdir()
    (tmp_path / "something else" / "notes.txt").write_text("mine")
    settings = {"url": "http://127.0.0.1:1/v1"} | change
    settings["out"] = tmp_path / settings.get("out", "out")
    with pytest.raises(UsageError, match=message):
        ask(profiles, **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [{"price_in": 1.0}, {"amount": 1.0}, {"tokens": 5, "amount": 1.0, "price_in": 1, "price_out": 1}, {"tokens": -1}],
)
def test_spending_that_makes_no_sense(settings: dict) -> None:
    with pytest.raises(UsageError):
        Spending(**settings)


def test_a_key_goes_into_the_header_and_nowhere_else(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECFOUND_ENDPOINT_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    with ChatServer(lambda number, body: Reply(faithful(body)) if number else Reply("busy", 500)) as server:
        ask(profiles, server.url, tmp_path / "out", limit=3)
        assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
        monkeypatch.delenv("RECFOUND_ENDPOINT_KEY")
        ask(profiles, server.url, tmp_path / "other", limit=1)
        assert "authorization" not in server.headers[-1]
    said = "".join(capfd.readouterr())
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert "secret" not in said and not any(b"very-secret" in data for data in written)


def test_no_torch_and_no_openai_are_imported() -> None:
    script = "import sys, recfound_data.annotating; print(sorted({'torch', 'openai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
