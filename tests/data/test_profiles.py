"""Profiles of users and items: every sentence is read back and compared with what the prompt says."""

import random
import re
from collections import defaultdict
from statistics import mean
from typing import Any

import polars as pl
import pytest

from recfound_data.recipe import DataRecipe
from recfound_data.samples import Built, Corpus
from recfound_data.tasks import item_profile, user_profile

GENRES = ("Sea stories", "Ghosts", "Clockwork", "Gardens", "Duels", "Rain")
MAKERS = ("Ada Quill", "Bo Fenn", "Cy Marsh", "", None)
SETTINGS = {"corpora": [{"corpus": "movielens"}], "tasks": ["user2item"]}


def fact(name: str, value: str | None) -> dict[str, str | None]:
    return {"name": name, "value": value}


FACTS = pl.List(pl.Struct({"name": pl.String, "value": pl.String}))


def library(items: int = 120, seed: int = 5) -> pl.DataFrame:
    """Books of every kind of knowledge: with and without makers, genres, years, further facts and texts."""
    rng = random.Random(seed)
    rows = []
    for item in range(items):
        year = str(rng.choice((1931, 1958, 1984, 1987, 1988, 1989) if item < 90 else (1984, 1989)))
        title = f"Tale {item}" + (f" ({year})" if item % 3 == 0 else "")
        facts = [fact("Year", year)] if item % 4 else []
        facts += [fact("Language", "Norse")] if rng.random() < 0.4 else []
        facts += [fact("Package Dimensions", "3 x 4 inches.")] if rng.random() < 0.3 else []
        facts += [fact("Is signed", "Yes"), fact("Mail", "jo.hat@example.com")] if rng.random() < 0.2 else []
        own = (
            "The wind had been up for nine days when the keeper came down. Then it fell." if item % 5 == 0 else "Short"
        )
        rows.append({
            "item": item, "item_id": f"lib/{item}", "corpus": "lib", "domain": "Books", "title": title,
            "text": f"{title}\nBy: somebody\n{own}" if item % 2 else title,
            "categories": rng.sample(GENRES, rng.randint(0, 3)), "facts": facts, "product": item,
            "brand": rng.choice(MAKERS) if item < 90 else None,
        })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"item": pl.UInt32, "product": pl.UInt32, "facts": FACTS})


def shelf(users: int = 300, items: int = 120, seed: int = 7) -> pl.DataFrame:
    """Ratings of users who are generous, strict, uniform or mixed; some have few."""
    rng = random.Random(seed)
    rows = []
    for user in range(users):
        mood = rng.choice(((5, 4.5, 4), (1, 2, 2.5), (5,), (3,), (3, 3.5), (3.5, 4, 4.5), (0.5, 2, 3, 4, 5), (1, 5)))
        shelves = range(90, items) if user % 4 == 0 else range(items)
        for item in rng.sample(shelves, rng.randint(1, 30)):
            rows.append(
                (f"{user:016x}", item, rng.choice(mood), rng.randint(0, 40), rng.choice(("train",) * 6 + ("test",)))
            )
    return pl.DataFrame(
        rows, schema=["group", "item", "rating", "timestamp", "period"], orient="row",
        schema_overrides={"item": pl.UInt32, "rating": pl.Float32},
    )  # fmt: skip


def people(users: int = 300, seed: int = 9) -> pl.DataFrame:
    rng = random.Random(seed)
    told = {
        "Gender": ("female", "M", "?"), "Age group": ("25-34", "under 18", "56 or older", "1"),
        "Country": ("Norway", "Netherlands", "12, High Street"),
        "Occupation": ("artist", "retired", "other", "marketing"),
    }  # fmt: skip
    rows = [[fact(name, rng.choice(known)) for name, known in told.items() if rng.random() < 0.6] for _ in range(users)]
    return pl.DataFrame(
        {"group": [f"{user:016x}" for user in range(users)], "facts": rows}, schema_overrides={"facts": FACTS}
    )


def stats(events: pl.DataFrame) -> pl.DataFrame:
    trained = events.filter(period="train")
    return trained.group_by("item").agg(popularity=pl.len(), rated=pl.len(), rating_mean=pl.col("rating").mean())


def user_profiles(events: pl.DataFrame, told: bool = True, **recipe: Any) -> Built:
    tables = {"events": events, "catalogue": library(), "item_stats": stats(shelf())}
    tables |= {"users": people()} if told else {}
    return user_profile.build(Corpus("lib", DataRecipe.model_validate(SETTINGS | recipe), tables))


def item_profiles(catalogue: pl.DataFrame, **recipe: Any) -> Built:
    few = stats(shelf()).with_columns(rated=pl.col("item") % 9)
    tables = {"catalogue": catalogue, "item_stats": few}
    return item_profile.build(Corpus("lib", DataRecipe.model_validate(SETTINGS | recipe), tables))


def pairs(built: Built) -> list[tuple[str, str]]:
    return [
        (prompt[0]["content"], answer[0]["content"])
        for prompt, answer in built.samples.select("prompt", "completion").iter_rows()
    ]


SHAPES = {
    "title": "“.+?”", "kind": r"\w+", "n": r"\d+", "k": r"\d+", "rated": r"\d+", "mean": r"[\d.]+", "top": r"[\d.]+",
    "least": r"[\d.]+", "scale": r"\d+", "things": r"\w+", "sentence": "“.+”", "are": "is|are", "stand": "stands?",
    "verdict": "generous|strict|moderate|very good|good|poor|fair",
}  # fmt: skip


def read(sentence: str, patterns: dict[str, tuple[str, ...]]) -> tuple[str, dict[str, str]]:
    """Return which pattern a sentence follows and the facts in it."""
    found = []
    for name, wordings in patterns.items():
        for wording in wordings:
            shape = re.escape(wording)
            for fact in re.findall(r"\{(\w+)\}", wording):
                shape = shape.replace(rf"\{{{fact}\}}", f"(?P<{fact}>{SHAPES.get(fact, '.*?')})")
            if match := re.fullmatch(shape, sentence, re.IGNORECASE):
                found.append((name, match.groupdict()))
    assert found, f"no pattern says: {sentence}"
    # The one with the longest fixed words is meant where several fit.
    return min(found, key=lambda one: sum(map(len, one[1].values())))


def parts(text: str) -> list[str]:
    return re.split(r", | and ", text)


def sentences(text: str) -> list[str]:
    return [said.strip() for said in re.findall(r"(?:“[^”]*”|[^“])+?\.(?= [A-Z0-9“]|$)", text)]


def rated(prompt: str) -> list[dict[str, Any]]:
    """Return the rated choices of a prompt, by its own words alone."""
    rows = []
    for line in prompt.split("ratings up to 5:\n")[1].split("\n"):
        title, known, rating = re.fullmatch(r"- (.+?)(?: \[(.*)\])?: ([\d.]+)", line).groups()  # type: ignore[union-attr]
        row: dict[str, Any] = {"title": title, "rating": float(rating), "genres": [], "maker": None, "year": None}
        for part in (known or "").split("; "):
            if part.startswith("by "):
                row["maker"] = part[3:]
            elif part.startswith("from "):
                row["year"] = part[5:]
            elif part:
                row["genres"] = part.split(" / ")
        year = re.search(r"\((\d{4})\)$", title)
        row["year"] = row["year"] or (year and year[1])
        rows.append(row)
    return rows


def shared(rows: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    found = defaultdict(list)
    for row in rows:
        for value in row[key] if key == "genres" else [row[key]]:
            found[value].append(row["rating"])
    return found


def figure(number: float) -> str:
    return str(round(number, 1)).removesuffix(".0")


def near(text: str, number: float) -> bool:
    return abs(float(text) - number) <= 0.0501


USER_PATTERNS = {
    name: getattr(user_profile, name)
    for name in ("_OPENINGS", "_UNIFORM", "_FAVOURITES", "_MAKERS", "_DECADES", "_ONE_DECADE", "_LOVED", "_EXAMPLES",
                 "_LOW_CATEGORY", "_LOW_TITLES", "_RANGE")
}  # fmt: skip


def holds(sentence: str, prompt: str) -> str:
    """Check what a sentence of a user's profile says against the prompt; return which pattern it follows."""
    rows = rated(prompt)
    by_title, own = {row["title"]: row["rating"] for row in rows}, mean(row["rating"] for row in rows)
    ratings = list(by_title.values())
    name, said = read(sentence, USER_PATTERNS)
    titles = re.findall(r"“(.+?)”", sentence)
    assert set(titles) <= set(by_title)
    if "n" in said:
        assert int(said["n"]) == len(rows)
    if name in ("_OPENINGS", "_UNIFORM"):
        assert near(said["mean"], own) and said["scale"] == "5"
        assert (len(set(ratings)) == 1) == (name == "_UNIFORM")
        verdict = "generous" if float(said["mean"]) >= 4.2 else "strict" if float(said["mean"]) <= 2.8 else "moderate"
        assert said.get("verdict", verdict) == verdict
        told = re.findall(r"^- (?:Gender|Age|Country|Occupation): (.+)$", prompt, re.MULTILINE)
        assert all(word.lower() in said["who"].lower() for word in told)
        assert told or said["who"].lower() == "this user"
    if name == "_FAVOURITES":
        listed = re.findall(r"(?:^|, | and )([^,(]+?) \((\d+) titles, ([\d.]+) on average\)", said["favourites"])
        assert 1 <= len(listed) <= 3 and said["favourites"].count("(") == len(listed)
        for genre, count, average in listed:
            given = next(given for known, given in shared(rows, "genres").items() if known.lower() == genre.lower())
            assert len(given) == int(count) >= max(3, len(rows) / 4) and near(average, mean(given))
            assert float(average) >= 3.5 and mean(given) >= own - 0.25 - 1e-6
    if name == "_MAKERS":
        given = shared(rows, "maker")[said["maker"]]
        assert len(given) == int(said["k"]) >= 3 and near(said["mean"], mean(given)) and float(said["mean"]) >= 3.5
    if name in ("_DECADES", "_ONE_DECADE"):
        inside = [row for row in rows if row["year"] and row["year"][:3] + "0s" == said["decade"]]
        assert len(inside) == int(said.get("k", len(rows))) > len(rows) / 2
    if name == "_LOW_CATEGORY":
        given = next(
            given for known, given in shared(rows, "genres").items() if known.lower() == said["category"].lower()
        )
        assert len(given) == int(said["k"]) >= 3 and near(said["mean"], mean(given))
        assert float(said["mean"]) <= 2.8 and mean(given) <= own - 0.5 + 1e-6
    if name in ("_LOVED", "_LOW_TITLES"):
        more = re.search(r" and (\d+) more\b", sentence)
        count = len(titles) + (int(more[1]) if more else 0)
        if name == "_LOVED":
            assert {by_title[title] for title in titles} == {float(said["top"])} == {max(ratings)} and max(
                ratings
            ) >= 4.2
            assert count == sum(row["rating"] == max(ratings) for row in rows)
        else:
            low = sorted(rating for rating in ratings if rating <= 2)
            assert [float(given) for given in re.findall(r"” \(([\d.]+)\)", sentence)] == low[: len(titles)]
            assert [by_title[title] for title in titles] == low[: len(titles)] and count == len(low)
    if name == "_EXAMPLES":
        assert titles == [row["title"] for row in rows[:2]]
    if name == "_RANGE":
        assert (float(said["least"]), float(said["top"])) == (min(ratings), max(ratings))
    return name


def test_the_prompt_supports_every_sentence_about_a_user() -> None:
    seen = set()
    for prompt, profile in pairs(user_profiles(shelf())):
        said = sentences(profile)
        assert 2 <= len(said) <= 5 and profile.endswith(".")
        seen |= {holds(sentence, prompt) for sentence in said}
    assert seen == set(USER_PATTERNS), "every kind of sentence was read"


def test_profiles_do_not_all_read_the_same() -> None:
    openings = [sentences(profile)[0] for _, profile in pairs(user_profiles(shelf()))]
    shapes = {re.sub(r"[\d.]+", "0", opening) for opening in openings}
    assert len(shapes) > 20


def test_what_was_told_only_in_part_is_left_out() -> None:
    prompts = [prompt for prompt, _ in pairs(user_profiles(shelf()))]
    told = set(re.findall(r"^- (Gender|Age|Country|Occupation): (.+)$", "\n".join(prompts), re.MULTILINE))
    assert told == {
        ("Gender", "female"), ("Gender", "male"), ("Age", "25-34"), ("Age", "under 18"), ("Age", "56 or older"),
        ("Country", "Norway"), ("Country", "Netherlands"), ("Occupation", "artist"), ("Occupation", "retired"),
        ("Occupation", "marketing"),
    }  # fmt: skip
    text = " ".join(profile for _, profile in pairs(user_profiles(shelf())))
    assert "who is an artist" in text and "who is retired" in text and "who works in marketing" in text
    assert "from the Netherlands" in text and "from Norway" in text and "aged 56 or older" in text
    assert not any("About the user" in prompt for prompt, _ in pairs(user_profiles(shelf(), told=False)))


def test_a_history_is_the_latest_of_training_and_bounded() -> None:
    events = shelf()
    built = user_profiles(events, history={"max_history": 8})
    titles = dict(library().select("item", "title").iter_rows())
    histories = {tuple(row["title"] for row in rated(prompt)) for prompt, _ in pairs(built)}
    expected = set()
    for _, items in (
        events.filter(period="train").sort("timestamp", "item", descending=[True, False])
        .group_by("group", maintain_order=True).agg("item").iter_rows()
    ):  # fmt: skip
        if len(items) >= 5:
            expected.add(tuple(titles[item] for item in items[:8]))
    assert histories == expected
    assert built.drops["user with fewer than 5 rated choices"] == events["group"].n_unique() - len(built.samples) > 0


def test_held_out_ratings_change_nothing_about_users() -> None:
    events = shelf()
    held_out = pl.col("period") != "train"
    other = events.with_columns(
        rating=pl.when(held_out).then(pl.lit(0.5, pl.Float32)).otherwise("rating"),
        item=pl.when(held_out).then(pl.lit(0, pl.UInt32)).otherwise("item"),
        timestamp=pl.when(held_out).then(pl.lit(10_000)).otherwise("timestamp"),
    )
    assert user_profiles(events).samples.equals(user_profiles(other).samples)


def test_a_category_of_most_of_the_catalogue_is_no_taste() -> None:
    catalogue = library().with_columns(categories=pl.lit(["Books", "Ghosts"]))
    tables = {"catalogue": catalogue, "events": shelf()}
    built = user_profile.build(Corpus("lib", DataRecipe.model_validate(SETTINGS), tables))
    assert all("[Books / Ghosts" in prompt and "Ghosts" not in profile for prompt, profile in pairs(built))


@pytest.mark.parametrize("scale", [10, 100])
def test_another_scale_is_stated(scale: int) -> None:
    events = shelf().with_columns(rating=pl.col("rating") * (scale / 5))
    tables = {"events": events, "catalogue": library(), "item_stats": stats(events)}
    built = user_profile.build(Corpus("lib", DataRecipe.model_validate(SETTINGS), tables))
    for prompt, profile in pairs(built):
        assert f"with ratings up to {scale}:" in prompt and f"out of {scale}" in profile
    verdicts = set()
    for _, profile in pairs(built):
        if said := re.search(
            r"([\d.]+) out of \d+.*?(generous|strict|moderate)|(generous|strict|moderate).*?([\d.]+) out of", profile
        ):
            shown, verdict = float(said[1] or said[4]), said[2] or said[3]
            assert verdict == (
                "generous" if shown >= 0.84 * scale else "strict" if shown <= 0.56 * scale else "moderate"
            )
            verdicts.add(verdict)
    assert verdicts == {"generous", "strict", "moderate"}


def lines(prompt: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in prompt.split("\n\n")[1].split("\n"))


ITEM_PATTERNS = {
    name: getattr(item_profile, name)
    for name in ("_NAMED", "_NAMED_AND_FILED", "_FILED", "_RATED", "_DETAILED", "_TOLD")
}


def test_the_prompt_supports_every_sentence_about_an_item() -> None:
    seen = set()
    for prompt, profile in pairs(item_profiles(library())):
        known = lines(prompt)
        own = re.search(r"(?:says|begins|description|this): “(.+)”", profile)
        said = sentences(profile[: own.start()].rstrip() if own else profile)
        if own:
            assert known["Text"].startswith(own[1])
            last = profile[profile.rindex(". ", 0, own.start()) + 2 :]
            said = [*sentences(profile[: -len(last) - 1]), last]
        assert 2 <= len(said) <= 4
        for sentence in said:
            name, facts = read(sentence, ITEM_PATTERNS)
            seen.add(name)
            if "title" in facts:
                bare = facts["title"].strip("“”")
                assert known["Title"] in (bare, f"{bare} ({known.get('Year')})")
                made = "".join(
                    f" {word} {known[key]}" for word, key in (("by", "By"), ("from", "Year")) if key in known
                )
                assert facts["made"] == made and facts["kind"] == "book"
            if "categories" in facts:
                assert parts(facts["categories"]) == known["Categories"].split(", ")
            if name == "_RATED":
                assert known["Mean rating"] == f"{facts['mean']} out of {facts['scale']} ({facts['rated']} ratings)"
                assert int(facts["rated"]) >= 5
                stars = float(facts["mean"])
                place = 0 if stars >= 4.2 else 1 if stars >= 3.5 else 2 if stars <= 2.8 else 3
                assert facts.get("verdict", ("very good", "good", "poor", "fair")[place]) == (
                    "very good", "good", "poor", "fair")[place]  # fmt: skip
                assert facts.get("liked", liked := (
                    "very well liked", "well liked", "not much liked", "fairly liked")[place]) == liked  # fmt: skip
            if name == "_DETAILED":
                for detail in facts["details"].split("; "):
                    key, value = re.fullmatch(r"the (.+?) (?:is|are) (.+)", detail, re.IGNORECASE).groups()  # type: ignore[union-attr]
                    assert value == {text.lower(): fact for text, fact in known.items()}[key.lower()]
    assert seen == set(ITEM_PATTERNS)


def test_items_of_which_little_is_known_are_counted() -> None:
    catalogue = library()
    built = item_profiles(catalogue)
    assert len(built.samples) + sum(built.drops.values()) == len(catalogue)
    assert built.drops["item with fewer than three facts to tell"] > 0
    assert all(len(lines(prompt)) >= 4 for prompt, _ in pairs(built))


def test_facts_that_are_no_prose_or_not_for_readers_stay_out_of_it() -> None:
    prompts = " ".join(f"{prompt} {profile}" for prompt, profile in pairs(item_profiles(library())))
    assert "jo.hat@example.com" not in prompts and "Mail: [email]" in prompts
    assert "Is signed" not in prompts and "package dimensions are 3 x 4 inches" in prompts.lower()


def test_offers_of_one_product_are_in_one_split() -> None:
    catalogue = library().with_columns(product=pl.col("item") // 2, title=pl.format("Tale {}", pl.col("item") // 2))
    built = item_profiles(catalogue)
    assert built.drops["item that repeats a product"] == len(catalogue) // 2
    halves = [item_profiles(catalogue.filter(pl.col("item") % 2 == side)) for side in (0, 1)]
    both = pl.concat(half.samples for half in halves).with_columns(group=pl.col("id").str.split("-").list.first())
    splits = both.group_by("group").agg(pl.len(), pl.col("split").n_unique())
    assert splits["split"].max() == 1 and splits["len"].max() == 2
    assert set(both["split"]) == {"train", "validation", "test"}


def test_order_of_rows_and_shards_change_nothing() -> None:
    events, catalogue = shelf(), library()
    users, items = user_profiles(events).samples.sort("id"), item_profiles(catalogue).samples.sort("id")
    assert users.equals(user_profiles(events.sample(fraction=1, shuffle=True, seed=1)).samples.sort("id"))
    assert items.equals(item_profiles(catalogue.sample(fraction=1, shuffle=True, seed=1)).samples.sort("id"))
    early = pl.col("group") < f"{140:016x}"
    assert users.equals(pl.concat(user_profiles(events.filter(part)).samples for part in (early, ~early)).sort("id"))
    first = pl.col("item") < 50
    assert items.equals(pl.concat(item_profiles(catalogue.filter(part)).samples for part in (first, ~first)).sort("id"))
    assert users["id"].is_unique().all() and items["id"].is_unique().all()
    assert set(users["label_source"]) == set(items["label_source"]) == {"composed"}
    assert set(users["split"]) == {"train", "validation", "test"}
