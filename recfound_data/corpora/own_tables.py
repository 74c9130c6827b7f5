"""Tables of one's own: CSV, TSV, JSON lines or Parquet, with a mapping of columns in the recipe."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from recfound_data.errors import RecfoundError
from recfound_data.facts import PRIVATE, facts, private
from recfound_data.files import expand
from recfound_data.foreign import Chunk, ForeignFile, Form
from recfound_data.identity import stable_id
from recfound_data.mapping import misunderstood, typed
from recfound_data.mapping import text as as_text
from recfound_data.recipe import Strict, nearest
from recfound_data.sources import Unparsable, listed
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_NEEDED: dict[str, tuple[str, ...]] = {
    "interactions": ("user_id", "item_id"),
    "items": ("item_id", "title"),
    "users": ("user_id",),
    "relations": ("item_id", "other_id", "relation"),
    "judgements": ("query", "item_id", "grade"),
    "questions": ("question",),
    "dialogues": ("dialogue_id", "turns"),
    "attributes": ("product_id", "texts", "attributes"),
    "offers": ("offer_id", "title"),
    "matches": ("left_id", "right_id"),
}
"""The columns that a table cannot do without, in the file and in every row."""
_FACT = "\x00"
"""Stands before the names of facts, among the columns of a chunk."""
_SEPARATORS = ";\t|,"
_HOPELESS_ROWS = 20
"""So many rows of a file, none of which can be used, are a wrong mapping and not bad luck."""
_LOOKED_AT = 200
"""So many columns are looked through for the one that a name may have meant."""
_ONE = {"judgements": "judgement", "dialogues": "dialogue", "attributes": "labelled offer", "matches": "match"}


class TableFile(Strict):
    """The files of one table.

    Attributes:
        path: path, glob or URL.
        columns: the file's column by the table's; what is not named has the table's own name, or is absent.
        values: what to read for a value, by the table's column and the value's text.
        form: of the files; empty tells it by their names.
        separator: between the values of a row; empty is a comma in CSV and a tab in TSV.
        list_separator: between the values of a list that is written as text; empty splits nothing.
    """

    path: str = Field(min_length=1)
    columns: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    form: Form | Literal[""] = ""
    separator: str = Field(default="", max_length=1)
    list_separator: str = "|"

    def files(self) -> list[ForeignFile]:
        """Return the files behind `path`."""
        return [ForeignFile(path, self.form, self.separator) for path in expand(self.path)]


class InteractionsFile(TableFile):
    """The files of the interactions.

    Attributes:
        timestamp_unit: of times that are numbers; empty tells it by their size.
        rating_scale: the best rating; ratings are scaled so that it becomes 5.
    """

    timestamp_unit: Literal["", "s", "ms", "us", "ns"] = ""
    rating_scale: float = Field(default=5.0, gt=0)


class FactsFile(TableFile):
    """The files of items or users.

    Attributes:
        facts: the file's column by the name that the fact has in texts, such as `Colour: colour_name`.
    """

    facts: dict[str, str] = {}


class _OwnTerms:
    """The terms that an entry states for its own tables."""

    def __get__(self, reader: OwnTables | None, owner: type[OwnTables]) -> Terms:
        if reader is None:
            return Terms("Tables of one's own", "", "as the recipe says", "", redistributable=False)
        return Terms(
            reader.title or reader.label, reader.address, reader.licence, reader.citation, reader.redistributable
        )


class OwnTables(Source):
    """Tables of one's own; each is optional.

    Attributes:
        licence: what may be done with the tables, in words.
        title: their name in words.
        address: where they are from.
        citation: how to cite them.
        redistributable: whether a dataset made of them may be passed on.
        interactions: users' choices; without a time their rows are in the order of time.
        items: what is chosen, matched with queries or related.
        users: what is known of users.
        relations: pairs of items; `relation` is `bought together`, `viewed together` or `similar`.
        judgements: queries and items with a grade.
        questions: about items, with evidence and answers.
        offers: of products, to be matched.
        matches: pairs of offers; without a column `match` all are matches.
        dialogues: turns, some with a rewrite.
        attributes: offers' texts with labelled attributes.
    """

    corpus: Literal["tables"] = "tables"
    licence: str = "not stated"
    title: str = ""
    address: str = ""
    citation: str = ""
    redistributable: bool = False
    interactions: InteractionsFile | None = None
    items: FactsFile | None = None
    users: FactsFile | None = None
    relations: TableFile | None = None
    judgements: TableFile | None = None
    questions: TableFile | None = None
    offers: TableFile | None = None
    matches: TableFile | None = None
    dialogues: TableFile | None = None
    attributes: TableFile | None = None

    path_fields: ClassVar[tuple[str, ...]] = ()
    terms: ClassVar[Any] = _OwnTerms()

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        if not self._files():
            raise ValueError(f"needs at least one of {', '.join(_NEEDED)}")
        if (self.offers is None) != (self.matches is None):
            raise ValueError("`offers` and `matches` need each other: pairs of offers, and what they offer")
        for table, file in self._files().items():
            known = [column for column in TABLES[table] if column != "facts" or isinstance(file, FactsFile)]
            for column in [*file.columns, *file.values]:
                if column not in known:
                    other = file.columns.get(column, "")
                    turned = f"; the table's column stands first: `{other}: {column}`" if other in known else ""
                    raise ValueError(
                        f"{table} has no column {column!r}{nearest(column, known)}; it has {', '.join(known)}{turned}"
                    )
            for column, meant in file.values.items():
                for word in meant.values():
                    if kind := misunderstood(column, TABLES[table][column], word):
                        raise ValueError(f"{table}: `values` read {column} as {word!r}, which is not {kind}")
            if table == "users" and isinstance(file, FactsFile):
                telling = private([*file.facts, *file.facts.values()])
                if telling is not None:
                    raise ValueError(f"users: {telling!r} tells who or where a person is; leave it out of `facts`")
        return self

    def _files(self) -> dict[str, TableFile]:
        return {table: file for table in _NEEDED if (file := getattr(self, table)) is not None}

    def paths(self) -> list[str]:
        """Return the paths, globs and URLs that the entry names."""
        return [file.path for file in self._files().values()]

    def resolved(self, resolve: Callable[[str], str]) -> Self:
        """Return this reader with every path that it holds replaced by what `resolve` makes of it."""
        files = self._files().items()
        return self.model_copy(
            update={table: file.model_copy(update={"path": resolve(file.path)}) for table, file in files}
        )

    def parts(self) -> list[Self]:
        """Return a reader for each file; interactions without a time stay together, because their order counts."""
        parts = []
        for table, file in self._files().items():
            paths = [foreign.path for foreign in file.files()]
            if table == "interactions" and file.columns.get("timestamp", "timestamp") not in file.files()[0].columns():
                paths = [file.path]
            for path in paths:
                own = dict.fromkeys(_NEEDED) | {table: file.model_copy(update={"path": path})}
                parts.append(self.model_copy(update=own))
        return parts

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield the rows of every table that the entry names.

        Raises:
            RecfoundError: a file lacks a column, or none of its rows can be used.
        """
        for table, file in self._files().items():
            before, tallies = 0, defaultdict[str, _Tally](_Tally)
            for path, chunk in _chunks(file, table):
                rows, faults = _typed(table, file, chunk)
                rows = self._completed(table, rows, before)
                lines = chunk.lines() if faults.null_count() < len(faults) else []
                wrong = zip(lines, faults.to_list(), strict=False)
                bad = chunk.bad + [Unparsable(path, line, why) for line, why in wrong if why is not None]
                rows, drops = _usable(table, rows.filter(faults.is_null()), file)
                if table in ("interactions", "users"):
                    rows = rows.with_columns(user_id=people.pseudonym(pl.col("user_id")))
                drops[f"{_one(table)} unparsable"] = len(bad)
                before += len(chunk.frame)
                tallies[path].add(len(rows), drops, bad)
                yield Batch(table, rows, {why: count for why, count in drops.items() if count}, bad)
            for path, tally in tallies.items():
                tally.require_a_row(path, table)

    def _completed(self, table: str, rows: pl.DataFrame, before: int) -> pl.DataFrame:
        """Return rows with the columns that follow from others, and a domain for each."""
        has = set(rows.columns)
        defaults: dict[str, pl.Expr] = {}
        if table == "interactions" and "timestamp" not in has:
            defaults["timestamp"] = pl.int_range(before + 1, before + 1 + pl.len(), dtype=pl.Int64)
        if table == "judgements" and "query_id" not in has:
            defaults["query_id"] = pl.col("query")
        if table == "questions" and "question_id" not in has:
            told = [pl.col(name).fill_null("") for name in ("item_id", "question") if name in has]
            defaults["question_id"] = stable_id(*told)
        if table == "matches" and "match" not in has:
            defaults["match"] = pl.lit(True)
        rows = rows.with_columns(**defaults)
        if table == "questions" and "item_id" not in has:
            rows = rows.with_columns(item_id="question_id")
        if "domain" in TABLES[table]:
            given = pl.col("domain") if "domain" in has else pl.lit(None, pl.String)
            rows = rows.with_columns(domain=given.fill_null(self.domain or self.label))
        if "facts" in rows.columns:
            named, value = pl.element().struct["name"], pl.element().struct["value"]
            known = (named.fill_null("") != "") & (value.fill_null("") != "")
            if table == "users":
                known &= ~named.str.contains(PRIVATE)
            rows = rows.with_columns(pl.col("facts").list.filter(known))
        return rows


@dataclass
class _Tally:
    """What became of a file's rows."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: Unparsable | None = None

    def add(self, kept: int, drops: dict[str, int], bad: list[Unparsable]) -> None:
        self.kept += kept
        self.dropped.update(drops)
        self.first = self.first or next(iter(bad), None)

    def require_a_row(self, path: str, table: str) -> None:
        """Raise RecfoundError if many rows were dropped and none was kept."""
        if self.kept or self.dropped.total() < _HOPELESS_ROWS:
            return
        reasons = ", ".join(f"{count:,} times {why}" for why, count in self.dropped.most_common(3) if count)
        first = f"; line {self.first.line}: {self.first.why}" if self.first else ""
        raise RecfoundError(f"{path}: none of its rows can be used as {table}: {reasons}{first}; check the mapping")


def _chunks(file: TableFile, table: str) -> Iterator[tuple[str, Chunk]]:
    """Yield the rows of a table's files, their columns called as the table's are, with the file's path."""
    wanted = {column: file.columns.get(column, column) for column in TABLES[table]}
    if isinstance(file, FactsFile):
        wanted |= {_FACT + name: column for name, column in file.facts.items()}
    named = {column for column in wanted if column in file.columns or column.startswith(_FACT)}
    for foreign in file.files():
        names = foreign.columns(list(wanted.values()))
        if not names:
            continue
        for column, source in wanted.items():
            if source in names or not (column in named or column in _NEEDED[table]):
                continue
            hint = "" if column in named else f"; name the column that holds it: `columns: {{{column}: ...}}`"
            if len(names) == 1 and (mark := next((mark for mark in _SEPARATORS if mark in names[0]), "")):
                hint = f"; is it separated by {mark!r}? Say so: `separator: {mark!r}`"
            near = nearest(source, names[:_LOOKED_AT])
            raise RecfoundError(f"{foreign.path}: has no column {source!r}{near}; it has {listed(names)}{hint}")
        present = {column: source for column, source in wanted.items() if source in names}
        for chunk in foreign.chunks(sorted(set(present.values()))):
            columns = (pl.col(source).alias(column) for column, source in present.items())
            yield foreign.path, replace(chunk, frame=chunk.frame.select(columns))


def _typed(table: str, file: TableFile, chunk: Chunk) -> tuple[pl.DataFrame, pl.Series]:
    """Return a chunk with the table's types, and for each row which value cannot be read; null where all can."""
    unit = file.timestamp_unit if isinstance(file, InteractionsFile) else ""
    columns, faults = [], []
    for name, dtype in TABLES[table].items():
        if name in chunk.frame.columns:
            meant = file.values.get(name, {})
            made, fault = typed(
                chunk.frame[name], name, dtype, values=meant, unit=unit, list_separator=file.list_separator
            )
            columns.append(made)
            faults.append(fault.alias(name))
    rows = pl.DataFrame(columns)
    if isinstance(file, FactsFile) and file.facts:
        named = pl.DataFrame([as_text(chunk.frame[_FACT + name]) for name in file.facts])
        told = named.select(facts=facts({name: pl.col(_FACT + name) for name in file.facts}))["facts"]
        own = pl.col("facts").fill_null([]) if "facts" in rows.columns else pl.lit([], told.dtype)
        rows = rows.with_columns(facts=pl.concat_list(own, told))
    return rows, pl.DataFrame(faults).select(pl.coalesce(pl.all())).to_series()


def _usable(table: str, rows: pl.DataFrame, file: TableFile) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the rows that lack nothing and have a possible rating, and what was dropped by reason."""
    drops = {}
    for name in [*_NEEDED[table], *(["timestamp"] if table == "interactions" else [])]:
        present = rows.filter(pl.col(name).is_not_null())
        drops[f"{_one(table)} without {name}"] = len(rows) - len(present)
        rows = present
    if table == "dialogues":
        turn = [pl.element().struct[part].fill_null("").str.strip_chars() != "" for part in ("speaker", "text")]
        told = rows.filter(pl.col("turns").list.eval(turn[0] & turn[1]).list.all())
        drops["dialogue with a turn without speaker or text"] = len(rows) - len(told)
        rows = told
    if table == "attributes":
        label = pl.element().struct
        known = (label["attribute"].fill_null("") != "") & (label["value"].is_null() | label["source"].is_not_null())
        told = rows.filter(pl.col("attributes").list.eval(known).list.all())
        drops["labelled offer with a label without its attribute or its source"] = len(rows) - len(told)
        rows = told
    if isinstance(file, InteractionsFile) and "rating" in rows.columns:
        above, below = pl.col("rating") > file.rating_scale, pl.col("rating") < 0
        counts = rows.select(above=above.sum(), below=below.sum()).row(0, named=True)
        drops[f"rating above {file.rating_scale:g}, the rating_scale"] = counts["above"]
        drops["rating below 0"] = counts["below"]
        rows = rows.filter(~(above | below).fill_null(False))
        rows = rows.with_columns((pl.col("rating") * 5 / file.rating_scale).cast(pl.Float32))
    return rows, drops


def _one(table: str) -> str:
    return _ONE.get(table, table.removesuffix("s"))
