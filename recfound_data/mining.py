"""Hard negatives that a search finds: the items nearest to what is asked that are not known to answer it.

A search is of one domain of one corpus. Lexical search is BM25 over the domain's texts; a model's is the cosine of
embeddings, kept in parts of a bounded size. What a query finds depends on it and on the domain alone, so shards and
workers change nothing. Libraries are imported where a recipe asks for them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.catalogue import read_mapped
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.negatives import Items, Ranking, among, chunks, paired
from recfound_data.recipe import MiningSettings

_PART = 1 << 16
"""Items whose embeddings lie in one file; a domain has as many as it needs."""
_SCORES_AT_ONCE = 1 << 24
_VECTORS = "vectors.npy"


@dataclass(frozen=True)
class Part:
    """Where some items of one domain can be searched: those of ranks from `first` on; `domain` is its first rank."""

    folder: Path
    domain: int
    first: int
    size: int


@dataclass(frozen=True)
class Index:
    """Where the items of a corpus can be searched, and how."""

    settings: MiningSettings
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Queries:
    """What is searched for.

    Attributes:
        texts: a text a query.
        items: the items that the queries are, or None where they are words alone.
    """

    texts: pl.Series
    items: Items | None = None


@dataclass(frozen=True)
class Mined:
    """What was found for samples.

    Attributes:
        candidates: `[samples, width]`, nearest first, none of them known; a place that is left holds the positive.
        nearest: how many candidates were as near as the negatives wanted.
        positives: how many of these are known positives, and were left out.
    """

    candidates: Items
    nearest: int
    positives: int

    def counts(self, rows: NDArray[np.intp], negatives: Items) -> dict[str, int]:
        """Return what a manifest says of it.

        Args:
            rows: the samples that have negatives.
            negatives: `[rows, negatives]`.
        """
        places = np.arange(len(rows))[:, None]
        mined = int(np.isin(paired(places, negatives), paired(places, self.candidates[rows])).sum())
        return {
            "nearest": self.nearest,
            "positives": self.positives,
            "mined": mined,
            "other": negatives.size - mined,
        }


def located(settings: MiningSettings, folder: Path) -> MiningSettings:
    """Return the settings, a model in a folder beside the recipe named by its whole path."""
    beside = settings.model and folder.absolute() / settings.model
    return settings.model_copy(update={"model": str(beside)}) if beside and beside.is_dir() else settings


def require_miner(settings: MiningSettings) -> None:
    """Raise unless what a recipe mines with is there: a build should not read for hours and then miss it.

    Raises:
        UsageError: sentence-transformers is not installed.
        RecfoundError: the model cannot be loaded.
    """
    if settings.kind == "lexical":
        return
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(
            "mining.kind: model needs sentence-transformers; install it with: pip install 'recfound[model]'"
        )
    _model(settings.model, settings.revision)


def index_parts(statistics: Path, folder: Path, settings: MiningSettings) -> list[Part]:
    """Return the parts to index of a corpus, each to lie in a folder in `folder`.

    Args:
        statistics: of the corpus, ranked.
        folder: of the corpus's index.
        settings: how it is searched.
    """
    domains = read_mapped(statistics).select("first", "size").unique().sort("first")
    ranges = [
        (domain, first, min(step, domain + size - first))
        for domain, size in domains.iter_rows()
        # Words are weighed by how rare they are in all of the domain; embeddings stand for themselves.
        for step in (size if settings.kind == "lexical" else _PART,)
        for first in range(domain, domain + size, step)
    ]
    return [Part(folder / f"{number:05d}", *found) for number, found in enumerate(ranges)]


def write_index(
    folder: Path, part: Part, catalogue: Path, statistics: Path, settings: MiningSettings
) -> dict[str, Any]:
    """Index the texts of a part."""
    items = read_mapped(catalogue)
    ranks = Ranking.of(read_mapped(statistics), items)
    texts = items["text"].gather(ranks.by_rank[part.first : part.first + part.size]).to_list()
    if settings.kind == "lexical":
        import bm25s

        index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        index.index(_words(texts, ids=True), show_progress=False)
        index.save(folder, show_progress=False)
    else:
        model = _model(settings.model, settings.revision)
        np.save(folder / _VECTORS, _embedded(model.encode_document, texts))
    return {"rows": part.size, "drops": {}}


def mine(
    index: Index,
    ranks: Ranking,
    queries: Queries,
    query: NDArray[np.integer],
    apart: Sequence[Items],
    known: NDArray[np.uint64],
    count: int,
) -> Mined:
    """Return what is nearest to each sample's query in its positive's domain.

    Args:
        index: of the corpus.
        ranks: of the corpus.
        queries: what is searched for.
        query: `[samples]`, which of the queries a sample has.
        apart: `[samples]` each, items that are no candidates, nor their duplicates: the positive first, then others.
        known: queries and the products that they are known to fit, as `known_products` returns them.
        count: negatives a sample.
    """
    settings, positive = index.settings, apart[0]
    searches, search = np.unique(paired(query, ranks.first[positive]), return_inverse=True)
    # What is apart or passed over does not count as looked at.
    width = settings.depth + settings.skip + len(apart)
    found = _search(index, ranks, queries, searches, width)
    candidates = np.empty((len(positive), width), np.uint32)
    nearest = positives = 0
    for rows in chunks(np.arange(len(positive)), width):
        places = found[search[rows]]
        items = ranks.by_rank[places]
        product = ranks.product[items]
        there = places >= 0
        for other in apart:
            there &= product != ranks.product[other[rows]][:, None]
        place = np.cumsum(there, axis=1) - 1
        there &= (place >= settings.skip) & (place < settings.skip + settings.depth)
        fits = there & among(paired(query[rows][:, None], product), known)
        near = there & (place < settings.skip + count)
        nearest, positives = nearest + int(near.sum()), positives + int((near & fits).sum())
        candidates[rows] = np.where(there & ~fits, items, positive[rows][:, None])
    return Mined(candidates, nearest, positives)


def _search(
    index: Index, ranks: Ranking, queries: Queries, searches: NDArray[np.uint64], width: int
) -> NDArray[np.int64]:
    """Return the ranks of the items nearest to each search, `[searches, width]`, nearest first, -1 for none.

    Of items that are equally near the more popular comes first.
    """
    query, domain = (searches >> np.uint64(32)).astype(np.int64), (searches & np.uint64(0xFFFFFFFF)).astype(np.int64)
    found = np.full((len(searches), width), -1, np.int64)
    for first in np.unique(domain):
        rows = np.flatnonzero(domain == first)
        parts = [part for part in index.parts if part.domain == first]
        if index.settings.kind == "lexical":
            scored = _lexical(parts[0], queries.texts.gather(query[rows]))
        else:
            scored = _by_vectors(parts, _vectors(index, parts, ranks, queries, query[rows]), width)
        for row, (scores, places) in zip(rows, scored, strict=True):
            best = top(scores, places, width)
            found[row, : len(best)] = best
    return found


def top(scores: NDArray[np.float32], places: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the places of the `width` highest scores, the highest first, of equal ones the smaller place first."""
    if len(scores) > width:
        least = np.partition(scores, len(scores) - width)[len(scores) - width]
        scores, places = scores[scores >= least], places[scores >= least]
    return places[np.lexsort((places, -scores))][:width]


_Scored = tuple[NDArray[np.float32], NDArray[np.int64]]


def _lexical(part: Part, texts: pl.Series) -> Iterator[_Scored]:
    """Yield for each text the scores and ranks of the items that share a word with it."""
    import bm25s

    index = bm25s.BM25.load(part.folder, mmap=True, show_progress=False)
    for words in _words(texts.to_list(), ids=False):
        known = [word for word in words if word in index.vocab_dict]
        scores = index.get_scores(known) if known else np.zeros(part.size, np.float32)
        shared = np.flatnonzero(scores > 0)
        yield scores[shared], part.first + shared


def _words(texts: Sequence[str], ids: bool) -> Any:
    import bm25s

    return bm25s.tokenize(list(texts), stopwords=[], return_ids=ids, show_progress=False)


def _by_vectors(parts: Sequence[Part], vectors: NDArray[np.float32], width: int) -> Iterator[_Scored]:
    """Yield for each vector the scores and ranks of the nearest items of each part."""
    stored = [np.load(part.folder / _VECTORS, mmap_mode="r") for part in parts]
    step = max(1, _SCORES_AT_ONCE // max((part.size for part in parts), default=1))
    for begin in range(0, len(vectors), step):
        block = vectors[begin : begin + step]
        kept: list[list[_Scored]] = [[] for _ in block]
        for part, values in zip(parts, stored, strict=True):
            for mine_, scores in zip(kept, block @ values.T, strict=True):
                places = top(scores, np.arange(part.size), width)
                mine_.append((scores[places], part.first + places))
        for mine_ in kept:
            yield np.concatenate([scores for scores, _ in mine_]), np.concatenate([places for _, places in mine_])


def _vectors(
    index: Index, parts: Sequence[Part], ranks: Ranking, queries: Queries, query: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the embedding of each query; items have theirs in the index."""
    if queries.items is None:
        model = _model(index.settings.model, index.settings.revision)
        return _embedded(model.encode_query, queries.texts.gather(query).to_list())
    places = ranks.rank[queries.items[query]]
    found: NDArray[np.float32] | None = None
    for part in parts:
        values = np.load(part.folder / _VECTORS, mmap_mode="r")
        found = np.empty((len(query), values.shape[1]), np.float32) if found is None else found
        inside = (places >= part.first) & (places < part.first + part.size)
        found[inside] = values[places[inside] - part.first]
    assert found is not None, "an item's domain has parts"
    return found


@lru_cache(maxsize=1)
def _model(name: str | None, revision: str | None) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, revision=revision)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise RecfoundError(f"mining.model: {name}: cannot be loaded: {why}") from None


def _embedded(encode: Any, texts: list[str]) -> NDArray[np.float32]:
    vectors = encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(vectors, np.float32)
