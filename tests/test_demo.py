"""The README's first command, whole."""

import json

import polars as pl
import pytest

from recfound_data.cli import main
from recfound_model.demo import BUDGET_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_learns_exports_what_it_trained_and_stays_in_its_budget(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    # The budget holds on two idle cores; a busy machine may take twice as long.
    assert sum(summary["seconds"].values()) < 2 * BUDGET_SECONDS

    def scores(name, task):
        return pl.read_parquet(out / "evaluation" / name / "scores" / f"{task}.parquet")

    for task, metric in (("user2item", "mrr@20"), ("item2item", "ndcg@20")):
        trained, random, base = (scores(name, task)[metric].mean() for name in ("trained", "random", "untrained-base"))
        assert trained > 2 * random
        assert trained > 1.5 * base
    for task in ("user2item", "query2item", "item2item", "sequential_recommendation"):
        native = scores("trained", task).sort("query_id", "corpus")
        exported = pl.read_parquet(out / "evaluation" / "exported" / task / "scores" / f"{task}.parquet")
        exported = exported.sort("query_id", "corpus")
        assert native["query_id"].to_list() == exported["query_id"].to_list()
        for name in [name for name, kind in native.schema.items() if kind == pl.Float64]:
            assert abs(native[name].mean() - exported[name].mean()) < 2e-3

    assert main(["demo", "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
