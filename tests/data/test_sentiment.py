"""Sentiment: labels follow the stars, nothing held out is told, rare ratings come first, users stay in one split."""

import random

import polars as pl
import pytest

from recfound_data.recipe import DataRecipe
from recfound_data.samples import Built, Corpus
from recfound_data.tasks import sentiment_analysis
from recfound_data.tasks.sentiment_analysis import LABELS

TEN = "one two three four five six seven eight nine ten"
RARITY = [2.0, 1.0, 3.0, 4.0, 5.0]


def review(number: int, words: int = 12) -> str:
    return " ".join([f"review{number}", *["word"] * (words - 1)])


def events(rows: list[tuple[str, float | None, str | None, str]]) -> pl.DataFrame:
    users, ratings, texts, periods = zip(*rows, strict=True)
    return pl.DataFrame(
        {"group": users, "item": range(len(rows)), "rating": ratings, "timestamp": range(len(rows)),
         "period": periods, "text": texts},
        schema_overrides={"item": pl.UInt32, "rating": pl.Float32, "text": pl.String},
    )  # fmt: skip


def build(frame: pl.DataFrame, per_user: int = 1, mean: float = 4.2, **recipe: object) -> Built:
    items = range(int(frame["item"].max()) + 1)  # type: ignore[arg-type]
    catalogue = pl.DataFrame(
        {"item": items, "item_id": [f"shop/{i}" for i in items], "domain": "Hats", "title": [f"Hat {i}" for i in items]}
    )
    stats = pl.DataFrame({"item": items, "rated": 3, "rating_mean": mean})
    settings = {"corpora": [{"corpus": "movielens"}], "tasks": ["user2item"], "sentiment_per_user": per_user} | recipe
    tables = {"events": frame, "catalogue": catalogue, "item_stats": stats}
    return sentiment_analysis.build(Corpus("shop", DataRecipe.model_validate(settings), tables))


def crowd(users: int = 200, seed: int = 3) -> pl.DataFrame:
    rng = random.Random(seed)
    rows = [
        (f"user{user:03}", float(rng.choices((1, 2, 3, 4, 5), (1, 1, 2, 4, 9))[0]), "", rng.choice(("train", "test")))
        for user in range(users)
        for _ in range(rng.randint(1, 8))
    ]
    return events([(user, rating, review(at), period) for at, (user, rating, _, period) in enumerate(rows)])


def texts(built: Built) -> list[str]:
    return [prompt[0]["content"] for prompt in built.samples["prompt"]]


def shown(prompt: str) -> str:
    return prompt.split("Review: ")[1]


def test_the_label_is_the_number_of_stars() -> None:
    frame = crowd()
    stars = dict(frame.select("text", "rating").iter_rows())
    built = build(frame, per_user=3)
    for prompt, completion, label, options in built.samples.select(
        "prompt", "completion", "label", "options"
    ).iter_rows():
        assert label == LABELS[int(stars[shown(prompt[0]["content"])]) - 1] == completion[0]["content"]
        assert tuple(options) == LABELS and f"Options: {', '.join(LABELS)}\n" in prompt[0]["content"]
    assert set(built.samples["label"]) == set(LABELS)


def test_held_out_reviews_change_nothing() -> None:
    frame = crowd()
    held_out = pl.col("period") != "train"
    other = frame.with_columns(
        text=pl.when(held_out).then(pl.lit(review(9_999))).otherwise("text"),
        rating=pl.when(held_out).then(pl.lit(2.0, pl.Float32)).otherwise("rating"),
    )
    built = build(frame, per_user=2)
    assert built.samples.equals(build(other, per_user=2).samples)
    trained = set(frame.filter(~held_out)["text"])
    assert {shown(text) for text in texts(built)} <= trained


@pytest.mark.parametrize("per_user", [1, 2, 4])
def test_the_rarest_ratings_of_each_user_are_taken(per_user: int) -> None:
    frame = crowd()
    stars = dict(frame.select("text", "rating").iter_rows())
    taken: dict[str, list[float]] = {}
    owner = dict(frame.select("text", "group").iter_rows())
    for text in texts(build(frame, per_user)):
        taken.setdefault(owner[shown(text)], []).append(stars[shown(text)])
    expected = {}
    for user, ratings in frame.filter(period="train").group_by("group").agg("rating").iter_rows():
        expected[user] = sorted(ratings, key=RARITY.index)[:per_user]
    assert {user: sorted(ratings, key=RARITY.index) for user, ratings in taken.items()} == expected


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (TEN, True),
        (TEN.removesuffix(" ten"), False),
        (f"<p>{TEN}</p>", True),
        ("<br /><b class='x'>" + TEN.removesuffix(" ten").replace(" ", "<br /> ") + "</b> ", False),
        (TEN.replace("ten", "<3"), True),
        (TEN.replace("ten", "&nbsp;"), False),
        (TEN.replace(" ", "\n\t"), True),
        ("   ", False),
        (None, False),
    ],
)
def test_words_are_counted_without_markup(text: str | None, kept: bool) -> None:
    built = build(events([("a", 4.0, text, "train")]))
    assert len(built.samples) == kept
    assert sum(built.drops.values()) == (not kept)


def test_only_whole_stars_from_one_to_five_are_sentiments() -> None:
    given = [0.5, 0.0, 1.0, 2.5, 5.0, 6.0, None]
    built = build(events([(f"u{at}", stars, review(at), "train") for at, stars in enumerate(given)]))
    assert sorted(built.samples["label"]) == ["very negative", "very positive"]
    assert built.drops["review without a whole number of one to five stars"] == 5
    assert build(crowd(), mean=7.4).samples.is_empty(), "five of ten is not very positive"


def test_every_event_is_a_sample_or_counted() -> None:
    frame = crowd()
    built = build(frame)
    assert len(frame) == len(built.samples) + sum(built.drops.values())


def test_a_user_is_in_one_split_and_all_splits_are_filled() -> None:
    built = build(crowd(), per_user=4)
    users = built.samples.select("split", user=pl.col("id").str.split("-").list.first())
    assert users.group_by("user").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(users["split"]) == {"train", "validation", "test"}
    assert built.samples["id"].is_unique().all()


def test_order_of_rows_and_shards_change_nothing() -> None:
    frame = crowd()
    whole = build(frame, per_user=2).samples.sort("id")
    assert whole.equals(build(frame.sample(fraction=1, shuffle=True, seed=1), per_user=2).samples.sort("id"))
    early = pl.col("group") < "user090"
    parts = [build(frame.filter(part), per_user=2).samples for part in (early, ~early)]
    assert whole.equals(pl.concat(parts).sort("id"))
    assert not whole["prompt"].equals(build(frame, per_user=2, seed=1).samples.sort("id")["prompt"])


def test_reviews_are_cleaned_and_bounded() -> None:
    long = "Fine &amp; dandy, <i>write</i> to jo.hat@example.com or call (212) 555-0123. " + "tall words " * 200
    prompt = texts(build(events([("a", 5.0, long, "train")])))[0]
    assert "Item: Hat 0\nReview: Fine & dandy, write to [email] or call [phone]." in prompt
    assert 900 < len(shown(prompt)) <= 1_000 and shown(prompt).endswith(("tall", "words"))
