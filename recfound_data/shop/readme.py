"""The texts that go with a shop: what is in it and planted in it, and the recipe that builds a dataset from it."""

# ruff: noqa: E501  (tables and paragraphs of the README stand as they are written)

from typing import TYPE_CHECKING, Any

from recfound_data.shop import attributes, films, metadata_2023, offers, queries, questions, relations, reviews, tastes
from recfound_data.shop import reviews_2023 as later
from recfound_data.shop.catalogue import DIRT_RATES, faulty_items
from recfound_data.shop.formats import DEFAULT, FORMATS
from recfound_data.shop.sizes import REVIEWS_PER_USER
from recfound_data.shop.taxonomy import ATTRIBUTES, CATEGORY_NAMES, DEPARTMENT_NAMES, KINDS
from recfound_data.tasks.catalogue import TASKS

if TYPE_CHECKING:
    from recfound_data.shop import ShopSummary

_ONLY_IN_ALL = ("sentiment_analysis", "user_profile", "product_relation_prediction", "item_profile")
"""Tasks of the recipe of all formats alone; what feeds them feeds others too."""
_NUMBERS = ("no", "one corpus", "two corpora", "three corpora", "four corpora", "five corpora", "six corpora",
            "seven corpora", "eight corpora")  # fmt: skip

_HEAD = """\
# A synthetic shop

Every product, person, film, rating and sentence here is made up: `recfound data generate --reviews {summary.reviews} --seed {summary.seed}{option}`
wrote it. The files have the raw, published formats of {corpora}, so that they are read exactly as the real ones are, and
`recipe.yaml` builds a dataset from them. The same seed and number of reviews give the same bytes.

| files | form | size |
|---|---|---|
"""

_AMAZON = ("amazon_reviews_2018", "amazon_reviews_2023")
_ITEMS = (*_AMAZON, "shopping_queries", "amazonqa", "amazon_google", "mave", "mudoco_qr")
_LEARNT: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        _ITEMS,
        """\
- **Items.** {departments} departments, {categories} categories, {kinds} kinds of product, {attribute_count} attributes. Brands belong to a department, product
  lines to a brand and a category. Titles hold brand, attribute, kind and line; descriptions and features name attribute and
  kind by synonyms, and some name the kind that comes next.
""",
    ),
    (
        _AMAZON,
        """\
- **Users** have one to three favourite categories, one attribute and one brand a department. A purchase is within the
  favourite categories with probability {tastes.WITHIN_TASTE}, in the same one as before with {tastes.STAY_IN_CATEGORY} or more, and of the kind that
  follows the last one in that category with {tastes.NEXT_STEP} or more (a tent, then a sleeping bag, then a camp stove). Within a kind,
  {tastes.FAVOURITE_ATTRIBUTE:.0%} are of the user's attribute, {tastes.FAVOURITE_BRAND:.0%} of the brand, and popular items come first. Nobody buys an item
  twice, everybody has {REVIEWS_PER_USER} reviews or more, and a user's purchases are at least a day apart.
- **Ratings** are higher within taste and for better items, about 65 % five stars. A review's sentences and summary come from
  the pool of its stars, except {reviews.OTHER_STARS:.0%} whose opening may be of the stars next to it.
""",
    ),
    (
        ("amazon_reviews_2018",),
        """\
- **also_buy**: other kinds of the same category, of the same line first, then of the same brand. **also_view**: the same kind,
  every other one of the same attribute, {relations.OTHER_KIND_VIEWED:.0%} noise. {relations.NONE_LISTED:.0%} of the lists are empty.
""",
    ),
    (
        ("amazon_reviews_2023",),
        """\
- **bought_together**, for {listed:.0%} of the items: other kinds of the same category, of the same line first, then of the same
  brand. {later.OF_A_VARIANT:.0%} of the reviews are of a variant, whose `asin` is not its `parent_asin`. These items and users are in no other
  format's files.
""",
    ),
    (
        ("shopping_queries",),
        """\
- **Queries** ask for a kind and an attribute, mostly by synonyms. E has both, S the kind alone, C is of another kind of the
  category, I of another department. Up to {queries.MOST_EXACT} items are judged E, so further matches may be unjudged.
  {queries.TEST_SHARE:.0%} of the queries are in the official test split.
""",
    ),
    (
        ("movielens",),
        """\
- **Films** tell their first genre by their titles; {films.SEQUELS:.0%} are sequels. Users have two favourite genres, where
  {films.WITHIN_TASTE:.0%} of their films are from and which they rate higher, and see a sequel after its predecessor with {films.SEQUEL_NEXT}.
""",
    ),
    (
        ("mudoco_qr",),
        """\
- **Dialogues** are about buying, an order, or sending back. Every turn that leaves something out or says `it` is rewritten
  with the product's full name; the others need nothing.
""",
    ),
    (
        ("mave",),
        """\
- **Attributes**: type and brand stand in every title; colour, material, weight, pack size and country of origin are said on
  {attributes.SAID:.0%} of the pages each, and are marked wherever they stand. What is not said is among the negatives.
""",
    ),
    (
        ("amazonqa",),
        """\
- **Questions** are on one topic each, and how things stand with an item is the same in all of its questions. With {questions.ANSWERABLE:.0%} of
  them one or two snippets say it, in other words than the answers; no snippet of the others is on the topic. All of an
  item's questions are in one file.
""",
    ),
    (
        ("amazon_google",),
        """\
- **Offers**: {offers.MATCHES:.0%} of the pairs are matches, which agree in brand, line, kind, attribute and colour in other words and
  order. The others are of the same brand and differ in colour or attribute alone, or in more. All of a brand's pairs are
  in one file.
""",
    ),
)

_WRONG: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        _AMAZON,
        """\
| exact duplicate reviews | {summary.duplicate_reviews:,} |
| reviews without {no_text} | about {reviews.NO_TEXT:.1%} |
| reviews with an e-mail address or phone number (reserved for examples) | about {reviews.CONTACT:.1%} |
""",
    ),
    (("amazon_reviews_2023",), "| reviews with a line break as HTML | about {later.MARKUP:.0%} |\n"),
    (("amazon_reviews_2018",), "| reviewers' made-up names in `reviewerName` | every review |\n"),
    (
        _AMAZON,
        """\
| items reviewed but without metadata | {dirt[NO_METADATA]:,} |
| titles that are a piece of script (`getTime`) | {dirt[SCRIPT_TITLE]:,} |
| titles with HTML tags or entities | {dirt[HTML_TITLE]:,} |
| descriptions with HTML tags or entities | {dirt[HTML_DESCRIPTION]:,} |
| descriptions of HTML alone | {dirt[HTML_ONLY_DESCRIPTION]:,} |
| descriptions with an e-mail address or phone number | {dirt[CONTACT_IN_DESCRIPTION]:,} |
| other items without a description | about 5 % |
""",
    ),
    (
        ("amazon_reviews_2018",),
        """\
| empty prices; prices that are a range | about 15 %; 5 % |
| `also_buy` and `also_view` lists that name an item nobody knows | about {relations.ABSENT:.0%} of those not empty |
""",
    ),
    (
        ("amazon_reviews_2023",),
        """\
| prices that are null; that are a text (`from 12.99`) | about 25 %; 5 % |
| `bought_together` lists that name an item nobody knows | about {relations.ABSENT:.0%} of those not null |
""",
    ),
    (("movielens",), "| films without genre; without year | about {films.NO_GENRE:.1%}; {films.NO_YEAR:.1%} |\n"),
    (("mudoco_qr",), "| farewells that nobody graded, so that they have no rewrite | a few |\n"),
    (("amazonqa",), "| answers by people who do not know | about 20 % |\n"),
    (("amazon_google",), "| offers without a manufacturer; without a price | 30 %; 10 % |\n"),
)
_TITLES = """
The title faults are in the Amazon metadata only; the Shopping Queries products have the same items under clean titles.
"""


def readme(summary: "ShopSummary") -> str:
    """Return the README of a shop, with its actual sizes."""
    names = summary.formats
    rows = [
        f"| `{name}/{files} | {form} | {size.format(**vars(summary))} |\n"
        for name in names
        for files, form, size in FORMATS[name].rows
    ]
    facts = _facts(summary)
    learnt = [text for formats, text in _LEARNT if set(formats) & set(names)]
    wrong = [text for formats, text in _WRONG if set(formats) & set(names)]
    parts = [_HEAD.format(**facts), *rows, "\n## What is planted to be learnt\n\n", *_filled(learnt, facts)]
    if wrong:
        parts += ["\n## What is planted to be wrong\n\n| what | how many |\n|---|---|\n", *_filled(wrong, facts)]
    if {"amazon_reviews_2018", "shopping_queries"} <= set(names):
        parts.append(_TITLES)
    return "".join(parts)


def _filled(texts: list[str], facts: dict[str, Any]) -> list[str]:
    return [text.format(**facts) for text in texts]


def _facts(summary: "ShopSummary") -> dict[str, Any]:
    names = summary.formats
    given = "all" if names == tuple(FORMATS) else " ".join(names)
    fields = {"amazon_reviews_2018": "`reviewText`", "amazon_reviews_2023": "`text`"}
    return {
        "summary": summary,
        "option": "" if names == DEFAULT else f" --formats {given}",
        "corpora": _NUMBERS[len(names)],
        "no_text": " or ".join(field for name, field in fields.items() if name in names),
        "departments": len(DEPARTMENT_NAMES),
        "categories": len(CATEGORY_NAMES),
        "kinds": len(KINDS),
        "attribute_count": len(ATTRIBUTES),
        "dirt": {fault.name: faulty_items(fault, summary.items) for fault in DIRT_RATES},
        "tastes": tastes,
        "reviews": reviews,
        "later": later,
        "listed": metadata_2023.LISTED * (1 - relations.NONE_LISTED),
        "relations": relations,
        "queries": queries,
        "films": films,
        "attributes": attributes,
        "questions": questions,
        "offers": offers,
        "REVIEWS_PER_USER": REVIEWS_PER_USER,
    }


def recipe(names: tuple[str, ...], seed: int) -> str:
    """Return the build recipe of a shop; its paths are relative to the shop's folder."""
    everything = names == tuple(FORMATS)
    lines = [f"seed: {seed}\n", "corpora:\n"]
    fed: set[str] = set(_ONLY_IN_ALL if everything else ())
    for name in names:
        entries = dict(FORMATS[name].entries)
        if name == "movielens" and everything:
            entries["users"] = "u.user"
        paths = {key: value if key in ("name", "domain") else f"{name}/{value}" for key, value in entries.items()}
        lines.append("  - {" + ", ".join(f"{key}: {value}" for key, value in {"corpus": name, **paths}.items()) + "}\n")
        fed |= set(FORMATS[name].tasks)
    lines.append(f"tasks: [{', '.join(task for task in TASKS if task in fed)}]\n")
    lines.append("history: {train_targets_per_user: 4}\n" if fed & {"user2item"} else "")
    return "".join(lines)
