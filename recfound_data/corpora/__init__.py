"""Corpora: each module reads one corpus in its published format into typed tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from recfound_data.corpora.ae_110k import Ae110k
from recfound_data.corpora.alexa_cqr import AlexaCqr
from recfound_data.corpora.amazon_google import AmazonGoogle
from recfound_data.corpora.amazon_reviews_2014 import AmazonReviews2014
from recfound_data.corpora.amazon_reviews_2018 import AmazonReviews2018
from recfound_data.corpora.amazon_reviews_2023 import AmazonReviews2023
from recfound_data.corpora.amazonqa import AmazonQA
from recfound_data.corpora.book_crossing import BookCrossing
from recfound_data.corpora.contextual_pqa import ContextualPQA
from recfound_data.corpora.goodbooks import Goodbooks
from recfound_data.corpora.mave import Mave
from recfound_data.corpora.mcauley_qa import McAuleyQA
from recfound_data.corpora.movielens import MovieLens
from recfound_data.corpora.mudoco_qr import MudocoQr
from recfound_data.corpora.own_tables import OwnTables
from recfound_data.corpora.recbole import RecBole
from recfound_data.corpora.recfound_release import RecFoundRelease
from recfound_data.corpora.shopping_queries import ShoppingQueries
from recfound_data.corpora.subjqa import SubjQA
from recfound_data.corpora.wdc_pave import WdcPave
from recfound_data.errors import UsageError
from recfound_data.recipe import DataRecipe, nearest, parse, resolve
from recfound_data.tables import Source

_READERS: tuple[type[Source], ...] = (
    AmazonReviews2014,
    AmazonReviews2018,
    AmazonReviews2023,
    MovieLens,
    Goodbooks,
    BookCrossing,
    ShoppingQueries,
    AmazonQA,
    McAuleyQA,
    ContextualPQA,
    SubjQA,
    MudocoQr,
    AlexaCqr,
    AmazonGoogle,
    Mave,
    WdcPave,
    Ae110k,
    RecFoundRelease,
    RecBole,
    OwnTables,
)
CORPORA: dict[str, type[Source]] = {reader.model_fields["corpus"].default: reader for reader in _READERS}
"""The readers by the name that a recipe's `corpus` gives."""


def readers(recipe: DataRecipe, folder: Path, where: str) -> list[Source]:
    """Return the readers that the recipe's corpora name, their paths resolved against `folder`.

    Raises:
        UsageError: a corpus is unknown or named twice, or an entry has a wrong key.
    """
    found: list[Source] = []
    for number, entry in enumerate(recipe.corpora):
        place = f"{where}: corpora[{number}]"
        corpus = entry.get("corpus")
        if not isinstance(corpus, str) or corpus not in CORPORA:
            raise UsageError(
                f"{place}: unknown corpus {corpus!r}{nearest(str(corpus), CORPORA)}; known: {', '.join(CORPORA)}"
            )
        reader = parse(CORPORA[corpus], entry, place)
        found.append(reader.resolved(partial(resolve, folder=folder, where=place)))
    labels = [reader.label for reader in found]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"{where}: two corpora are called {label!r}; give each a `name` of its own")
    return found
