"""Items, queries and judgements as hashes, and the rules that they must keep themselves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.checking.findings import Findings
from recfound_data.checking.keys import Keys, Lookup, hash_of, hashed, joined, paired, repeated
from recfound_data.checking.people import check_people
from recfound_data.checking.rows import Rows, show
from recfound_data.checking.samples import check_counts
from recfound_data.checking.texts import check_nulls, spoken
from recfound_data.cleaning import product_key
from recfound_data.samples import SPLITS
from recfound_data.tasks.catalogue import TASKS

GRADES = (0, 3)
LEAST_GRADE = {"query2item": 2}
"""The grade from which a judged item answers the query; 1 where a task is not named."""
_SALT = np.arange(1, len(SPLITS) + 1, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)


class Items:
    """The catalogue, an array entry an item: hashes of its text, of its product and of its corpus with its domain."""

    def __init__(self, rows: Rows | None, manifest: dict[str, Any], findings: Findings) -> None:
        """Read the catalogue and check it."""
        found: dict[str, list[Keys]] = {"id": [], "text": [], "product": [], "place": []}
        limit = manifest.get("recipe", {}).get("item_text_chars")
        counts = Counter[tuple[str, str]]()
        for batch in rows.batches() if rows else ():
            frame = check_nulls(batch.frame, "items", "item_id", findings)
            texts = {name: spoken(frame, name) for name in ("title", "text", "brand", "categories")}
            check_people(frame, "items", texts, "item_id", findings)
            empty = frame.filter((pl.col("title") == "") | (pl.col("text") == ""))
            findings.rows("empty text", "items", empty, "item_id")
            if limit:
                long = frame.filter(pl.col("text").str.len_chars() > limit)
                findings.rows("text longer than item_text_chars", "items", long, "item_id")
            foreign = frame.filter(~pl.col("corpus").is_in(list(manifest["corpora"])))
            findings.rows("corpus not in the manifest", "items", foreign, "item_id", "corpus")
            for corpus, number in frame["corpus"].value_counts().iter_rows():
                counts[corpus, batch.split] += number
            keys = frame.select(
                id=hashed(pl.col("item_id")),
                text=hashed(pl.col("text")),
                product=hashed(product_key(pl.col("title"))),
                place=hashed(pl.col("corpus"), pl.col("domain")),
            )
            for name, parts in found.items():
                parts.append(keys[name].to_numpy())
        ids = joined(found["id"])
        # The last entry stands for an item that there is not, at -1.
        none = np.zeros(1, np.uint64)
        self.text, self.product, self.place = (joined([*found[name], none]) for name in ("text", "product", "place"))
        self._by_id = Lookup(ids, positions=True)
        if rows:
            check_counts("items", rows, counts, manifest, findings)
            show(findings, "item id repeated", rows, repeated(ids), "item_id")

    def find(self, ids: Keys) -> NDArray[np.int64]:
        """Return where items stand, by hashes of their ids; -1 where there is no such item."""
        return self._by_id.find(ids)


class Judgements:
    """Queries and known positives; both are asked by hashes of ids."""

    def __init__(self, queries: Rows | None, qrels: Rows | None, items: Items, findings: Findings) -> None:
        """Read queries and judgements and check them."""
        self._queries = Lookup(_read_queries(queries, findings))
        pairs, grades, named = _read_qrels(qrels, items, findings)
        if qrels:
            show(findings, "judgement repeated", qrels, repeated(pairs), "query_id", "item_id", "split")
            unknown = np.flatnonzero(~np.isin(named, _query_ids(queries)))
            show(findings, "judgement of a query that is not in queries", qrels, unknown, "query_id", "split")
        splits = qrels.splits() if qrels else np.empty(0, np.uint8)
        answers = {least: Lookup(pairs[grades >= least]) for least in {1, *LEAST_GRADE.values()}}
        self._known = answers
        self._listed = Lookup((pairs + _SALT[splits])[grades >= 1])

    def asked(self, queries: Keys, split: str) -> NDArray[np.bool_]:
        """Return whether these queries are among those of a split."""
        return self._queries.contains(queries + _SALT[SPLITS.index(split)])

    def listed(self, queries: Keys, items: Keys, split: str) -> NDArray[np.bool_]:
        """Return whether an item of grade 1 or more is listed for its query in a split."""
        return self._listed.contains(paired(queries, items) + _SALT[SPLITS.index(split)])

    def known(self, task: str, queries: Keys, items: Keys) -> NDArray[np.bool_]:
        """Return whether an item answers its query, in any split."""
        return self._known[LEAST_GRADE.get(task, 1)].contains(paired(queries, items))


def _query_ids(queries: Rows | None) -> Keys:
    return joined(hash_of(batch.frame["query_id"]) for batch in (queries.batches(["query_id"]) if queries else ()))


def _read_queries(queries: Rows | None, findings: Findings) -> Keys:
    found = []
    for batch in queries.batches() if queries else ():
        frame = check_nulls(batch.frame, "queries", "query_id", findings)
        check_people(frame, "queries", {"text": frame["text"]}, "query_id", findings)
        findings.rows("empty text", "queries", frame.filter(pl.col("text") == ""), "query_id")
        embedding = [name for name, task in TASKS.items() if task.kind == "embedding"]
        unknown = frame.filter(~pl.col("task").is_in(embedding))
        findings.rows("query of no embedding task", "queries", unknown, "query_id", "task")
        raw = frame.filter((pl.col("task") == "user2item") & ~pl.col("query_id").str.contains(r"^[0-9a-f]{16}$"))
        findings.rows("user id is not a hash", "queries", raw, "query_id")
        found.append(hash_of(frame["query_id"]) + _SALT[SPLITS.index(batch.split)])
    keys = joined(found)
    if queries:
        show(findings, "query id repeated", queries, repeated(keys), "query_id", "split")
    return keys


def _read_qrels(qrels: Rows | None, items: Items, findings: Findings) -> tuple[Keys, NDArray[np.int8], Keys]:
    """Return hashes of query and item together, grades, and hashes of the queries."""
    pairs, grades, named = [], [], []
    for batch in qrels.batches() if qrels else ():
        frame = check_nulls(batch.frame, "qrels", "query_id", findings)
        query, item = hash_of(frame["query_id"]), hash_of(frame["item_id"])
        unknown = frame.filter(pl.Series(items.find(item) < 0))
        findings.rows("judgement of an item that is not in items", "qrels", unknown, "query_id", "item_id")
        wrong = frame.filter(~pl.col("grade").is_between(*GRADES))
        findings.rows("grade that there is not", "qrels", wrong, "query_id", "item_id", "grade")
        pairs.append(paired(query, item))
        grades.append(frame["grade"].to_numpy())
        named.append(query)
    return joined(pairs), np.concatenate(grades) if grades else np.empty(0, np.int8), joined(named)
