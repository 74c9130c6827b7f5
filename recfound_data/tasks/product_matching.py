"""product_matching (PM): two offers → `yes` where they are of one product, else `no`. F1(yes).

An offer is shown as labelled lines (Title, Maker, Price, Description; what it lacks is left out), titles up to
`TITLE_CHARS` characters, descriptions up to `DESCRIPTION_CHARS`. Which offer comes first is drawn.

Offers are connected where a pair matches them or their titles read the same. A corpus with splits of its own keeps
them; elsewhere connected offers are in one split, and with them every pair. A corpus that lists only matches gets
`NON_MATCHES` other pairs for each: the left offer and offers of the other source (what stands before the first `/` of
an offer's id), in the same split and not connected with it, drawn from the `NEAREST` times as many that share most of
the rarest words of its title and maker. Where all words of one title stand in the other offer's title and maker, the
pair may be a match that the corpus does not list, and is not taken.

Pairs that read the same are one: it stays where it is test, or else validation. Labelled both ways, it is in no split.
A non-match whose titles read the same is left out: nothing shown tells it from a match.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import clean, shorten, title_key
from recfound_data.identity import draw, sample_id, stable_id
from recfound_data.samples import Built, Corpus, generative_rows, group_split, official_split, phrased
from recfound_data.tables import TABLES

TASK = "product_matching"
DRIVEN_BY = "matches"
READS = ("offers",)
PHRASINGS = (
    "Are these two offers of the same product? Answer yes or no.",
    "Decide whether both listings sell the same product. Reply with yes or no.",
    "Two shops list a product each. Is it one and the same product? Say yes or no.",
    "Compare the two offers. Do they refer to an identical product? Answer with one word, yes or no.",
)
OPTIONS = ("yes", "no")
TITLE_CHARS, MAKER_CHARS, PRICE_CHARS, DESCRIPTION_CHARS = 200, 60, 30, 300
NON_MATCHES = 5
NEAREST = 2
_RAREST_WORDS = 8
_WORD_OFFERS = 200


def build(corpus: Corpus) -> Built:
    """Return a sample for every pair, and for non-matches found where the corpus lists none."""
    seed = corpus.recipe.seed
    table = corpus.tables[DRIVEN_BY]
    labelled = table.drop_nulls("match")
    stated = labelled.filter(pl.col("left_id") != pl.col("right_id"))
    offers = _offers(corpus.tables.get("offers", pl.DataFrame(schema=TABLES["offers"])), stated.filter("match"))
    pairs = _joined(stated, offers)
    drops = {
        "pair without a label": len(table) - len(labelled),
        "pair of an offer with itself": len(labelled) - len(stated),
        "pair of an offer that is unknown or has no title": len(stated) - len(pairs),
    }
    if corpus.official(DRIVEN_BY):
        keys = [pl.min_horizontal("said", "said_other"), pl.max_horizontal("said", "said_other")]
        pairs = pairs.with_columns(group=stable_id(*keys))
        pairs = pairs.with_columns(split=official_split(corpus, DRIVEN_BY, TASK))
    else:
        offers = offers.with_columns(split=group_split(pl.col("connected"), corpus.recipe, TASK))
        if pairs["match"].all():
            pairs = pl.concat([pairs, _joined(_non_matches(offers, pairs, seed), offers)], how="diagonal_relaxed")
        ends = offers.select("offer_id", "split")
        pairs = pairs.drop("split").join(ends, left_on="left_id", right_on="offer_id", maintain_order="left")
        pairs = pairs.join(ends, left_on="right_id", right_on="offer_id", suffix="_other", maintain_order="left")
        whole = pairs.filter(pl.col("split") == pl.col("split_other"))
        drops["non-match between two splits"] = len(pairs) - len(whole)
        pairs = whole.with_columns(group=stable_id(corpus.name, pl.col("connected")))
    rows, dropped = _sifted(pairs)
    rows = rows.with_columns(
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("left_id"), pl.col("right_id")),
        label=pl.when("match").then(pl.lit("yes")).otherwise(pl.lit("no")),
        options=pl.lit(list(OPTIONS), pl.List(pl.String)),
    )
    turned = draw(seed, "order", pl.col("id")) % 2 == 1
    prompt = pl.format(
        "{}\n\nOffer 1:\n{}\n\nOffer 2:\n{}",
        phrased(PHRASINGS, seed, pl.col("id")),
        pl.when(turned).then("said_other").otherwise("said"),
        pl.when(turned).then("said").otherwise("said_other"),
    )
    return Built(generative_rows(rows.with_columns(prompt=prompt), corpus, TASK), drops={**drops, **dropped})


def _offers(offers: pl.DataFrame, matches: pl.DataFrame) -> pl.DataFrame:
    """Return `offer_id`, `source`, `domain`, `key`, `words`, `said` (what the prompt shows) and `connected`."""
    shown = {"Title": TITLE_CHARS, "Maker": MAKER_CHARS, "Price": PRICE_CHARS, "Description": DESCRIPTION_CHARS}
    columns = {"Title": "title", "Maker": "brand", "Price": "price", "Description": "description"}
    read = offers.unique("offer_id", keep="first", maintain_order=True).select(
        "offer_id",
        "domain",
        *(shorten(clean(pl.col(columns[part])), chars).alias(part) for part, chars in shown.items()),
        source=pl.col("offer_id").str.extract(r"^([^/]+)/"),
    )
    lines = [pl.when(pl.col(part) != "").then(pl.format(f"{part}: {{}}", pl.col(part))) for part in shown]
    read = read.filter(pl.col("Title") != "").with_columns(
        key=title_key(pl.col("Title")),
        words=pl.concat_str(title_key(pl.col("Title")), title_key(pl.col("Maker")), separator=" ")
        .str.split(" ").list.unique().list.filter(pl.element() != ""),
        said=pl.concat_str(lines, separator="\n", ignore_nulls=True),
    )  # fmt: skip
    return read.join(_connected(read, matches), on="offer_id", how="left", maintain_order="left")


def _connected(offers: pl.DataFrame, matches: pl.DataFrame) -> pl.DataFrame:
    """Return `offer_id`, `connected`: the smallest id that matches and equal titles lead to."""
    twins = offers.select(left_id="offer_id", right_id=pl.col("offer_id").min().over("key"))
    known = matches.select("left_id", "right_id").filter(
        pl.col("left_id").is_in(offers["offer_id"].implode()) & pl.col("right_id").is_in(offers["offer_id"].implode())
    )
    edges = pl.concat([known, known.select(left_id="right_id", right_id="left_id"), twins])
    edges = pl.concat([edges, twins.select(left_id="right_id", right_id="left_id")])
    labels = offers.select("offer_id", connected="offer_id")
    while True:
        reached = edges.join(labels, left_on="right_id", right_on="offer_id").group_by("left_id")
        lower = reached.agg(pl.col("connected").min()).rename({"left_id": "offer_id"}).sort("offer_id")
        if lower.equals(labels.sort("offer_id")):
            return labels
        labels = lower


def _joined(pairs: pl.DataFrame, offers: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs whose offers are known, with what is said of both; `_other` for the right one."""
    ends = offers.select("offer_id", "domain", "key", "said", "connected")
    left = pairs.join(ends, left_on="left_id", right_on="offer_id", how="inner", maintain_order="left")
    return left.join(ends, left_on="right_id", right_on="offer_id", how="inner", suffix="_other", maintain_order="left")


def _non_matches(offers: pl.DataFrame, matches: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return `left_id`, `right_id`, `match` false: offers near the left one of a match, as many as `NON_MATCHES` asks.

    Bounded: an offer is looked for by its rarest words, and a word that many offers have finds none.
    """
    words = offers.select("offer_id", "source", "connected", "split", word="words").explode("word")
    words = words.with_columns(found=pl.len().over("word"), length=pl.len().over("offer_id"))
    words = words.filter(pl.col("found").is_between(2, _WORD_OFFERS))
    wanted = matches.group_by("left_id").agg(wanted=NON_MATCHES * pl.len())
    rarest = pl.struct("found", "word").rank("ordinal").over("offer_id") <= _RAREST_WORDS
    asked = words.join(wanted, left_on="offer_id", right_on="left_id").filter(rarest)
    others = words.join(wanted, left_on="offer_id", right_on="left_id", how="anti")
    shared = asked.join(others.drop("found"), on=["word", "split"], suffix="_other").filter(
        (pl.col("connected") != pl.col("connected_other"))
        & (pl.col("source") != pl.col("source_other")).fill_null(True)
    )
    # A shared word counts for more the fewer offers have it; whole numbers add up the same in any order. A long title
    # shares words with many and is like none of them.
    weight = (1000 * (len(offers) / pl.col("found")).log()).cast(pl.Int64).sum() / pl.col("length_other").first().sqrt()
    near = shared.group_by(left_id="offer_id", right_id="offer_id_other").agg(pl.col("wanted").first(), weight=weight)
    near = near.with_columns(drawn=draw(seed, "non-match", pl.col("left_id"), pl.col("right_id"))).sort(
        ["left_id", "weight", "drawn"], descending=[False, True, False]
    )
    near = near.filter(pl.int_range(pl.len()).over("left_id") < NEAREST * pl.col("wanted"))
    near = _told_apart(near, offers).sort("left_id", "drawn")
    taken = near.filter(pl.int_range(pl.len()).over("left_id") < pl.col("wanted"))
    return taken.select("left_id", "right_id", match=pl.lit(False))


def _told_apart(pairs: pl.DataFrame, offers: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs in which each title has a word that the other offer's title and maker lack."""
    titles = offers.select("offer_id", "words", title=pl.col("key").str.split(" "))
    both = pairs.join(titles, left_on="left_id", right_on="offer_id").join(
        titles, left_on="right_id", right_on="offer_id", suffix="_other"
    )
    own = pl.col("title").list.set_difference("words_other").list.len()
    other = pl.col("title_other").list.set_difference("words").list.len()
    return both.filter((own > 0) & (other > 0)).select(pairs.columns)


def _sifted(pairs: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the pairs without those that read the same, and how many were dropped why."""
    pair = [pl.min_horizontal("said", "said_other"), pl.max_horizontal("said", "said_other")]
    keyed = pairs.with_columns(pair=stable_id(*pair))
    agreed = keyed.filter(pl.col("match").n_unique().over("pair") == 1)
    apart = agreed.filter(pl.col("match") | (pl.col("key") != pl.col("key_other")))
    rows = apart.sort("left_id", "right_id").unique("pair", keep="first", maintain_order=True)
    return rows, {
        "pair labelled as match and as non-match": len(keyed) - len(agreed),
        "non-match of two offers with the same title": len(agreed) - len(apart),
        "pair stated again": len(apart) - len(rows),
    }
