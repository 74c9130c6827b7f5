"""All that a reader gives, for the tests of readers."""

from collections import Counter, defaultdict
from typing import Any

import polars as pl

from recfound_data.people import UserKey
from recfound_data.sources import Unparsable
from recfound_data.tables import TABLES, Source

USER_KEY = UserKey("the secret of these tests", secret=True)


class Read:
    """Rows by table, drops by reason, and unparsable lines, over all parts of a reader."""

    def __init__(self, reader: Source) -> None:
        self.drops: Counter[str] = Counter()
        self.unparsable: list[Unparsable] = []
        frames = defaultdict(list)
        for part in reader.parts():
            for batch in part.batches(USER_KEY):
                for column, dtype in batch.frame.schema.items():
                    assert TABLES[batch.table][column] == dtype, (batch.table, column)
                if batch.frame.width > 1:
                    frames[batch.table].append(batch.frame)
                self.drops.update({why: count for why, count in batch.drops.items() if count})
                self.unparsable += batch.unparsable
        self.tables = {table: pl.concat(parts) for table, parts in frames.items()}

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        return self.tables[table].select(columns).rows()

    def facts(self, table: str) -> list[dict[str, str]]:
        """The facts of each row, by name."""
        return [{fact["name"]: fact["value"] for fact in facts} for facts in self.tables[table]["facts"].to_list()]

    def at(self) -> list[int]:
        """The lines that could not be parsed."""
        return [fault.line for fault in self.unparsable]


def pseudonym(user: str) -> str:
    return pl.DataFrame({"user": [user]}).select(USER_KEY.pseudonym(pl.col("user"))).item()
