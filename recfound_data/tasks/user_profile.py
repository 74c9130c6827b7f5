"""user_profile (UP): a user's rated choices → a profile in prose. BERTScore F1.

The profile is composed from what the prompt shows: the latest rated choices of the training period, at most
`max_history` of them, with categories, makers and years, and what the user told of themselves (gender, age,
occupation). It has two to five sentences. A statement is made only where the facts carry it:

- generous or strict: a mean of at least 84 %, at most 56 % of the scale;
- a favourite category: 3 choices or more, a quarter of all, a mean of 70 % of the scale, and not one that more than
  half of the catalogue has;
- a recurring maker: 3 choices or more with a mean of 70 % of the scale;
- a decade: 3 choices or more, and more than half of all;
- a category that does badly: 3 choices or more, a mean of at most 56 % of the scale; a choice that does: 40 %;
- the best rated choices: the user's highest rating, 84 % of the scale or more.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import OPTION_CHARS, clean, shorten
from recfound_data.identity import draw, sample_id
from recfound_data.prose import (
    GOOD,
    HIGH,
    LOW,
    POOR,
    agreeing,
    article,
    at_least,
    at_most,
    figure,
    filled,
    joined,
    listed,
    not_empty,
    one_of,
    paragraph,
    quoted,
    rating_scale,
    things,
    with_more,
    year,
)
from recfound_data.samples import Built, Corpus, generative_rows, group_split, phrased

TASK = "user_profile"
DRIVEN_BY = "events"
READS = ("catalogue", "users", "item_stats")
PHRASINGS = (
    "Write a short profile of this user from what they rated.",
    "Describe the tastes of the person behind these ratings in a few sentences.",
    "Sum up who this user is and what they like and dislike, going by the ratings below.",
    "From the rated history below, compose a brief portrait of the user in prose.",
    "What can be said about this user's preferences? Answer with a paragraph.",
)

_MIN_RATED = 5
_OFTEN = 3
_FAVOURITE_SHARE = 0.25
_BELOW_OWN_MEAN = 0.05
_COMMON_SHARE = 0.5
_CATEGORIES = 4
_NAME_CHARS = 60
_SENTENCES = 5
_SAMPLED_ITEMS = 50_000

_YEAR_IN_TITLE = r"\((1[89]\d\d|20\d\d)\)$"

_OPENINGS = (
    "{who} gives {mean} out of {scale} on average over {n} {things}, which is {verdict}.",
    "{who} rates {n} {things} at {mean} out of {scale} on average and is a {verdict} rater.",
    "Over {n} {things}, {who} averages {mean} out of {scale}, a {verdict} mean.",
    "With a mean of {mean} out of {scale} over {n} {things}, {who} is a {verdict} rater.",
    "{who} is {verdict} with ratings: {mean} out of {scale} on average over {n} {things}.",
)
_UNIFORM = (
    "{who} gives all {n} {things} the same rating, {mean} out of {scale}.",
    "All {n} {things} get {mean} out of {scale} from {who}.",
    "Every one of the {n} {things} is rated {mean} out of {scale} by {who}.",
    "{who} knows one rating for all {n} {things}, {mean} out of {scale}.",
)
_FAVOURITES = (
    "Tastes lean towards {favourites}.",
    "The history turns most often, and with good ratings, to {favourites}.",
    "The favourite {categories} {are} {favourites}.",
    "{favourites} {are} chosen often and rated well.",
    "Among the categories, {favourites} {stand} out.",
)
_MAKERS = (
    "{maker} is a recurring name, with {k} {things} at {mean} on average.",
    "{k} of the {things} are by {maker}, with a mean of {mean}.",
    "A name that returns is {maker}: {k} {things}, {mean} on average.",
    "The user keeps coming back to {maker}, with {k} {things} and a mean of {mean}.",
)
_DECADES = (
    "Most of the {things}, {k} of {n}, are from the {decade}.",
    "The {decade} dominate, with {k} of the {n} {things}.",
    "{k} of the {n} {things} come from the {decade}.",
    "The user mostly picks {things} of the {decade}, {k} of {n}.",
)
_ONE_DECADE = (
    "All {n} {things} are from the {decade}.",
    "The user keeps to the {decade}, with all {n} {things}.",
    "Every one of the {n} {things} comes from the {decade}.",
    "The {n} {things} are all of the {decade}.",
)
_LOVED = (
    "The highest rating given, {top}, went to {loved}.",
    "Best liked, at {top}, {are} {loved}.",
    "{loved} got the user's best rating, {top}.",
    "At the top of the list, rated {top}, {stand} {loved}.",
)
_EXAMPLES = (
    "Among them are {latest}.",
    "The latest are {latest}.",
    "The list begins with {latest}.",
    "Recent choices include {latest}.",
)
_LOW_CATEGORY = (
    "{category} does worse, with {k} {things} at {mean} on average.",
    "Less welcome is {category}: {k} {things}, {mean} on average.",
    "{category} falls behind: {k} {things} average {mean}.",
    "The ratings drop for {category}, to a mean of {mean} over {k} {things}.",
)
_LOW_TITLES = (
    "Least liked {are} {low}.",
    "At the bottom {stand} {low}.",
    "{low} did not please.",
    "The ratings are lowest for {low}.",
)
_RANGE = (
    "The ratings range from {least} to {top}.",
    "No rating is below {least} or above {top}.",
    "All ratings lie between {least} and {top}.",
    "The lowest rating is {least} and the highest {top}.",
)
_TOLD = {"gender": "gender", "age": "age", "age group": "age", "country": "country", "occupation": "occupation"}
_SHOWN = list(dict.fromkeys(_TOLD.values()))
_GENDERS = {"f": "female", "female": "female", "m": "male", "male": "male"}
_AGE = r"^((?i:under )?\d\d|\d\d ?[-–] ?\d\d|\d\d(?:\+| or older))$"
_OCCUPATION = r"^(\p{L}.{2,})$"
_COUNTRY = r"^(\p{L}[\p{L} .'-]{2,29})$"
_PLURAL_COUNTRY = r"^(United|Netherlands|Philippines|Bahamas|Maldives|Seychelles|.* Republic$)"
_NO_OCCUPATION = r"(?i)^(other|none|not specified|unknown)\b"
_STATES = ("retired", "self-employed", "unemployed")
_FIELDS = ("entertainment", "healthcare", "marketing", "sales", "customer service")


def build(corpus: Corpus) -> Built:
    """Return one sample for every user with five rated choices or more in the training period."""
    events, catalogue = corpus.tables["events"], corpus.tables["catalogue"]
    scale = rating_scale(corpus.tables.get("item_stats"))
    rated = events.filter((pl.col("period") == "train") & pl.col("rating").is_not_null())
    order = rated.select("group", "timestamp", "item", row=pl.int_range(pl.len()))
    order = order.filter(pl.len().over("group") >= _MIN_RATED)
    order = order.sort("group", "timestamp", "item", descending=[False, True, False])
    latest = order.group_by("group", maintain_order=True).head(corpus.recipe.history.max_history)
    seen = _described(rated[latest["row"]], catalogue)
    users = _users(seen, _common(catalogue), scale)
    people = _people(corpus.tables.get("users"), users["group"])
    users = users.join(people, on="group", how="left", maintain_order="left")
    rows = users.with_columns(
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("item_ids").list.join(" ")),
        split=group_split(pl.col("group"), corpus.recipe, TASK),
        label_source=pl.lit("composed"),
    )
    seed = corpus.recipe.seed
    rows = _profiles(rows, seed, scale).with_columns(prompt=_prompt(seed, scale))
    drops = {"user with fewer than 5 rated choices": events["group"].n_unique() - len(users)}
    return Built(generative_rows(rows, corpus, TASK), drops=drops)


def _described(rated: pl.DataFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Return rated choices with what the catalogue knows of them, as it is shown."""
    items = catalogue.select("item_id", "domain", "title", "categories", "brand", "facts")[rated["item"]]
    return rated.select("group", pl.col("rating").cast(pl.Float64).round(1)).hstack(
        items.select(
            "item_id",
            "domain",
            title=shorten(pl.col("title"), OPTION_CHARS),
            categories=pl.col("categories").fill_null([]).list.unique(maintain_order=True).list.head(_CATEGORIES),
            maker=not_empty(shorten(pl.col("brand"), _NAME_CHARS)),
            year=pl.coalesce(year(pl.col("facts")), pl.col("title").str.extract(_YEAR_IN_TITLE)),
        )
    )


def _common(catalogue: pl.DataFrame) -> pl.Series:
    """Return the categories that say nothing about taste, because more than half of the catalogue has them."""
    sampled = catalogue.select("categories").gather_every(max(len(catalogue) // _SAMPLED_ITEMS, 1))
    names = sampled.select(pl.col("categories").list.unique()).explode("categories").drop_nulls()
    return names.group_by("categories").len().filter(pl.col("len") > _COMMON_SHARE * len(sampled))["categories"]


def _users(seen: pl.DataFrame, common: pl.Series, scale: int) -> pl.DataFrame:
    """Return a row a user: what can be said of the ratings, each fact null or an empty list where it does not hold."""
    rating, title = pl.col("rating"), pl.col("title")
    top = (rating == rating.max()) & at_least(rating, HIGH, scale)
    low = at_most(rating, LOW, scale)
    users = seen.group_by("group", maintain_order=True).agg(
        pl.col("domain").first(),
        item_ids=pl.col("item_id"),
        lines=_line(),
        n=pl.len(),
        mean=rating.mean(),
        least=rating.min(),
        top=rating.max(),
        latest=quoted(title).head(2),
        loved=quoted(title).filter(top).head(3),
        loved_n=top.sum(),
        low=filled("{title} ({rating})", title=quoted(title), rating=figure(rating))
        .filter(low)
        .sort_by(rating.filter(low), maintain_order=True)
        .head(2),
        low_n=low.sum(),
    )
    known = seen.join(users.select("group", "n", user_mean="mean"), on="group", maintain_order="left")
    categories = _counts(known.explode("categories").rename({"categories": "category"}), "category")
    telling = categories.filter(~pl.col("category").is_in(common.implode()))
    mean, gap = pl.col("mean"), pl.col("mean") - pl.col("user_mean")
    often = pl.col("k") >= _FAVOURITE_SHARE * pl.col("n")
    liked = telling.filter(often & at_least(mean, GOOD, scale) & (gap >= -_BELOW_OWN_MEAN * scale))
    favourites = liked.group_by("group", maintain_order=True).agg(
        favourites=filled(
            "{name} ({k} {things}, {mean} on average)",
            name=pl.col("category"), k=pl.col("k"), mean=figure(mean), things=things(pl.col("domain")),
        ).head(3)
    )  # fmt: skip
    poor = telling.filter(at_most(mean, POOR, scale) & (gap <= -2 * _BELOW_OWN_MEAN * scale))
    makers = _counts(known, "maker").filter(at_least(mean, GOOD, scale))
    decades = _counts(known.with_columns(decade=pl.col("year").str.slice(0, 3) + "0s"), "decade")
    users = users.join(favourites, on="group", how="left", maintain_order="left")
    for counts, name in (
        (makers, "maker"),
        (decades.filter(pl.col("k") * 2 > pl.col("n")), "decade"),
        (poor.sort("group", "mean", "category"), "category"),
    ):
        first = counts.unique("group", keep="first", maintain_order=True)
        facts = first.select("group", name, pl.col("k").alias(f"{name}_k"), mean.alias(f"{name}_mean"))
        users = users.join(facts, on="group", how="left", maintain_order="left")
    return users


def _counts(seen: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return how many of a user's choices share a value, `k`, and their `mean`; three or more, the most first."""
    known = seen.filter(pl.col(name).is_not_null())
    counts = known.group_by("group", name).agg(
        pl.col("n", "domain", "user_mean").first(), k=pl.len(), mean=pl.col("rating").mean()
    )
    often = counts.filter(pl.col("k") >= _OFTEN)
    return often.sort("group", "k", "mean", name, descending=[False, True, True, False])


def _line() -> pl.Expr:
    """Return a rated choice as the prompt shows it: `- Title [Category / Category; by Maker; from 1999]: 4.5`."""
    dated = pl.when(~pl.col("title").str.contains(pl.col("year"), literal=True)).then(pl.format("from {}", "year"))
    known = joined([not_empty(pl.col("categories").list.join(" / ")), pl.format("by {}", "maker"), dated], "; ")
    more = pl.when(known.is_null()).then(pl.lit("")).otherwise(pl.format(" [{}]", known))
    return pl.format("- {}{}: {}", "title", more, figure(pl.col("rating")))


def _people(users: pl.DataFrame | None, groups: pl.Series) -> pl.DataFrame:
    """Return what users told of themselves: `group`, `gender`, `age` and `occupation`, null where it is not known."""
    if users is None:
        return pl.DataFrame(schema=dict.fromkeys(("group", *_SHOWN), pl.String))
    told = users.filter(pl.col("group").is_in(groups.implode())).select("group", "facts").explode("facts").drop_nulls()
    named = pl.col("name").str.to_lowercase().replace_strict(_TOLD, default=None, return_dtype=pl.String)
    told = told.unnest("facts").select("group", name=named, value=clean(pl.col("value")))
    told = told.group_by("group").agg(
        pl.col("value").filter(pl.col("name") == name).min().alias(name) for name in _SHOWN
    )
    occupation = shorten(pl.col("occupation").str.replace_all("/", " or "), _NAME_CHARS).str.extract(_OCCUPATION)
    return told.select(
        "group",
        gender=pl.col("gender").str.to_lowercase().replace_strict(_GENDERS, default=None, return_dtype=pl.String),
        age=pl.col("age").str.extract(_AGE),
        country=pl.col("country").str.extract(_COUNTRY),
        occupation=pl.when(~occupation.str.contains(_NO_OCCUPATION)).then(occupation),
    )


def _prompt(seed: int, scale: int) -> pl.Expr:
    told = [pl.format(f"- {name.capitalize()}: {{}}", pl.col(name)) for name in _SHOWN]
    about = joined(told, "\n")
    about = pl.when(about.is_null()).then(pl.lit("")).otherwise(pl.format("About the user:\n{}\n\n", about))
    lines = pl.col("lines").list.join("\n")
    head = f"Rated choices, latest first, with ratings up to {scale}:"
    return pl.format(f"{{}}\n\n{{}}{head}\n{{}}", phrased(PHRASINGS, seed, pl.col("id")), about, lines)


def _who() -> pl.Expr:
    """Return the user as the subject of a sentence: `a female user aged 25-34 who is a writer`."""
    age, occupation = pl.col("age"), pl.col("occupation")
    aged = pl.when(age.str.contains(r"^\d")).then(pl.format("aged {}", age)).otherwise(age.str.to_lowercase())
    the = pl.when(pl.col("country").str.contains(_PLURAL_COUNTRY)).then(pl.lit("the ")).otherwise(pl.lit(""))
    lives = pl.format("from {}{}", the, "country")
    works = (
        pl.when(occupation.is_in(_STATES)).then(pl.format("who is {}", occupation))
        .when(occupation.is_in(_FIELDS)).then(pl.format("who works in {}", occupation))
        .otherwise(pl.format("who is {} {}", article(occupation), occupation))
    )  # fmt: skip
    noun = pl.coalesce(pl.format("a {} user", "gender"), pl.lit("a user"))
    told = pl.any_horizontal(pl.col(_SHOWN).is_not_null())
    return pl.when(told).then(joined([noun, lives, aged, works], " ")).otherwise(pl.lit("this user"))


def _profiles(users: pl.DataFrame, seed: int, scale: int) -> pl.DataFrame:
    """Return the users with their profile, `label`, and the sentences that it is made of."""

    def said(salt: str, patterns: tuple[str, ...], **facts: pl.Expr) -> pl.Expr:
        return one_of(patterns, seed, f"{TASK} {salt}", pl.col("id"), n=pl.col("n"), things=plural, **facts)

    def counted(name: str) -> dict[str, pl.Expr]:
        return {name: pl.col(name), "k": pl.col(f"{name}_k"), "mean": figure(pl.col(f"{name}_mean"))}

    def verbs(count: pl.Expr) -> dict[str, pl.Expr]:
        return {"are": agreeing(count, "is", "are"), "stand": agreeing(count, "stands", "stand")}

    plural, mean = things(pl.col("domain")), pl.col("mean")
    verdict = (
        pl.when(at_least(mean, HIGH, scale)).then(pl.lit("generous"))
        .when(at_most(mean, POOR, scale)).then(pl.lit("strict"))
        .otherwise(pl.lit("moderate"))
    )  # fmt: skip
    rater = {"who": _who(), "mean": figure(mean), "scale": pl.lit(str(scale)), "verdict": verdict}
    favourites = pl.col("favourites").list.len()
    uniform = pl.col("least") == pl.col("top")
    ends = {"least": figure(pl.col("least")), "top": figure(pl.col("top"))}
    loved = with_more(pl.col("loved"), pl.col("loved_n"))
    low = with_more(pl.col("low"), pl.col("low_n"))
    users = users.with_columns(
        opening=pl.when(uniform)
        .then(said("uniform", _UNIFORM, **rater))
        .otherwise(said("opening", _OPENINGS, **rater)),
        liking=said(
            "favourites",
            _FAVOURITES,
            favourites=listed(pl.col("favourites")),
            categories=agreeing(favourites, "category", "categories"),
            **verbs(favourites),
        ),
        recurring=pl.coalesce(
            said("maker", _MAKERS, **counted("maker")),
            pl.when(pl.col("decade_k") == pl.col("n"))
            .then(said("one decade", _ONE_DECADE, decade=pl.col("decade")))
            .otherwise(said("decade", _DECADES, **counted("decade"))),
        ),
        loving=pl.when(uniform)
        .then(said("examples", _EXAMPLES, latest=listed(pl.col("latest"))))
        .otherwise(said("loved", _LOVED, loved=listed(loved), **ends, **verbs(pl.col("loved_n")))),
        disliking=pl.coalesce(
            said("low category", _LOW_CATEGORY, **counted("category")),
            pl.when(~uniform).then(said("low titles", _LOW_TITLES, low=listed(low), **verbs(pl.col("low_n")))),
        ),
    )
    sentences = pl.col("liking", "recurring", "loving", "disliking")
    alone = pl.all_horizontal(sentences.is_null())
    users = users.with_columns(disliking=pl.when(alone).then(said("range", _RANGE, **ends)).otherwise("disliking"))
    tastes_first = draw(seed, f"{TASK} order", pl.col("id")) % 2 == 0
    tastes, titles = [pl.col("liking"), pl.col("recurring")], [pl.col("loving")]
    return users.with_columns(
        label=pl.when(tastes_first)
        .then(paragraph(_SENTENCES, pl.col("opening"), *tastes, *titles, pl.col("disliking")))
        .otherwise(paragraph(_SENTENCES, pl.col("opening"), *titles, *tastes, pl.col("disliking")))
    )
