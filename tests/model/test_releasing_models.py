"""The commands of docs/releasing-models.md, as they stand there, against a hub on loopback."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hub import LoopbackHub

from recfound_data import build
from recfound_data.shop import generate
from recfound_model.training.loop import train
from recfound_model.training.recipe import TrainRecipe

GUIDE = Path(__file__).parents[2] / "docs" / "releasing-models.md"
STOCK = 'import sys; sys.modules["recfound_data"] = sys.modules["recfound_model"] = None\n'


@pytest.fixture
def workplace(settings, base, tmp_path, monkeypatch):
    """A folder with a dataset that may be released, a base, and a run of thirty steps."""
    monkeypatch.setenv("RECFOUND_USER_KEY", "a key for tests")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    generate(tmp_path / "raw", reviews=600)
    build(tmp_path / "raw" / "recipe.yaml", tmp_path / "dataset", quiet=True)
    (tmp_path / "base").symlink_to(base)
    places = {"data": str(tmp_path / "dataset"), "base": str(tmp_path / "base"), "out": str(tmp_path / "run")}
    train(TrainRecipe(**settings(steps=30, checkpoint_every=10, **places)))
    return tmp_path


def test_the_guide_leads_from_a_run_to_a_family_of_releases(hub: LoopbackHub, workplace, base):
    tmp_path = workplace
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    script = ["set -e", f'recfound() {{ {shlex.quote(sys.executable)} -W ignore -m recfound_data.cli "$@"; }}']
    for number, (language, text) in enumerate(blocks):
        if language == "python":
            (tmp_path / f"block{number}.py").write_text(STOCK + text)
            text = f"{shlex.quote(sys.executable)} -W ignore block{number}.py"
        script.append(text)
    assert len(script) == 2 + 4
    root = str(Path(__file__).parents[2])
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and hub.token not in done.stdout + done.stderr
    assert "v0.1.1 is too small a step from v0.1.0 for a minor change: other weights" in done.stderr
    assert 'SentenceTransformer("acme/shop-embedder", revision="v0.1.0")' in done.stdout
    assert set(hub.repository("model", "acme/shop-adapter").tags) == {"v0.1.0", "v0.2.0"}
    for name in ("adapter", "embedder", "generator"):
        card = hub.repository("model", f"acme/shop-{name}").find("v0.1.0").files["README.md"].data.decode()
        assert "[acme/shop](" in card and "[acme/shop-base](" in card
        assert str(tmp_path) not in card and str(Path(base).parent) not in card
        assert name == "adapter" or "[acme/shop-adapter](" in card
    card = hub.repository("model", "acme/shop-embedder").find("v0.1.0").files["README.md"].data.decode()
    assert "model-index" in card and "95 % bootstrap interval" in card
