"""The documented sequence of commands on real slices of the corpora, with the nano base and few steps."""

import json

import pytest

from recfound_data.cli import main


@pytest.mark.slow
@pytest.mark.corpora
@pytest.mark.timeout(1500)
def test_build_check_train_merge_export_evaluate_on_real_slices(tmp_path, corpora, capsys, monkeypatch):
    monkeypatch.setenv("RECFOUND_CORPORA", str(corpora))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, run = str(tmp_path / "slices"), tmp_path / "run"

    def recfound(*arguments):
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    recfound("data", "build", "recipes/slices.yaml", "--out", data)
    assert recfound("data", "check", data)["findings"] == []
    recfound(
        *(
            "model",
            "train",
            "recipes/nano.yaml",
            "--set",
            f"data={data}",
            f"out={run}",
            "steps=30",
            "checkpoint_every=10",
        ),
        *("embedding_batch=24", "generative_batch=2"),
    )
    last = [run / "checkpoints" / f"step-0000{step}" for step in (20, 30)]
    recfound("model", "merge", *last, "--method", "ties", "--out", tmp_path / "merged")
    exports = recfound("model", "export", tmp_path / "merged", "--to", "embedder", "--out", tmp_path / "embedder")
    assert len(exports["paths"]) == 3
    result = recfound(
        *("model", "evaluate", tmp_path / "embedder" / "query2item", "--data", data, "--out", tmp_path / "results"),
        *("--task", "query2item", "--max-length", 32),
    )
    assert result["tasks"]["query2item"]["queries"] == 24
    assert (tmp_path / "results" / "results.md").is_file()
