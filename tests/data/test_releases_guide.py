"""The commands of docs/releases.md, as they stand there, against a hub on loopback."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hub import LoopbackHub

GUIDE = Path(__file__).parents[2] / "docs" / "releases.md"


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the page with their languages, in order."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_guide_leads_from_nothing_to_a_second_release(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ["set -e", f'recfound() {{ {shlex.quote(sys.executable)} -m recfound_data.cli "$@"; }}']
    for number, (language, text) in enumerate(blocks()):
        if language == "python":
            (tmp_path / f"block{number}.py").write_text(text)
            text = f"{shlex.quote(sys.executable)} -W error::UserWarning block{number}.py"
        script.append(text)
    assert len(script) == 2 + 6
    root = str(Path(__file__).parents[2])
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    repository = hub.repository("dataset", "acme/shop")
    assert set(repository.tags) == {"v0.1.0", "v0.2.0"}
    assert f"{hub.url}/datasets/acme/shop/tree/v0.2.0" in done.stdout
    assert 'load_dataset("acme/shop", "user2item", revision="v0.2.0")' in done.stdout
    assert "dry run, nothing was changed" in done.stdout and "## v0.2.0\n\nTwice as many reviews.\n" in done.stdout
    assert "v0.1.1 is too small a step from v0.1.0 for a minor change" in done.stderr
    assert hub.token not in done.stdout + done.stderr


def test_the_guide_states_the_limits_that_the_engine_has() -> None:
    from recfound_data.release.engine import LIMITS
    from recfound_data.release.hub import MOST_WAIT

    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    assert f"More than {LIMITS.files:,} files, or {LIMITS.bytes // 10**9} GB" in text
    assert f"up to {LIMITS.batch} files" in text and f"Hub takes {LIMITS.most:,} files" in text
    assert f"up to {MOST_WAIT} seconds a request" in text
