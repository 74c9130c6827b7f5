"""The access token is in nothing that a push prints or writes, whatever happens and however much the client logs."""

import subprocess
import sys
from pathlib import Path

import pytest
from hub import LoopbackHub

PUSHES = """
import sys
from recfound_data.cli import main

dataset, command = sys.argv[1], ["data", "push", sys.argv[1], "--repo", "acme/shop"]
command += ["--allow-corpus", "shop", "--allow-corpus", "shop_films"]
codes = [main([*command, "--version", "1.0.0", "--dry-run"])]
codes += [main([*command, "--version", "1.0.0"]) for _ in range(5)]
codes.append(main([*command, "--version", "0.9.0", "--json"]))
print("exit codes:", codes)
"""


@pytest.mark.parametrize("how", ["HF_TOKEN", "login"])
def test_the_token_is_nowhere(hub: LoopbackHub, dataset: Path, tmp_path: Path, how: str) -> None:
    hub.token = "hf_TheTokenOfThisTest"
    hub.fail("POST", "/api/repos/create", 403, message=f"{hub.token} may not")
    hub.fail("GET", "/api/datasets/acme/shop$", 429, headers={"Retry-After": "1"}, message=hub.token)
    hub.cut("PUT", "/large-files/", 100)
    hub.fail("POST", "/verify", 503, message=hub.token)
    hub.fail("POST", "/commit/", 500, message=f"not with {hub.token}")
    hub.fail("POST", "/commit/", 401, message=hub.token)
    hub.fail("POST", "/tag/", 409, message=hub.token)
    folders = {name: tmp_path / name for name in ("home", "temporary", "here")}
    for folder in folders.values():
        folder.mkdir()
    environment = hub.environment(folders["home"]) | {
        "HF_DEBUG": "1",
        "HF_HUB_VERBOSITY": "debug",
        "HF_HUB_DISABLE_PROGRESS_BARS": "0",
        "TMPDIR": str(folders["temporary"]),
    }
    if how == "login":
        del environment["HF_TOKEN"]
        (tmp_path / "token").write_text(hub.token)
        environment["HF_TOKEN_PATH"] = str(tmp_path / "token")
    command = [sys.executable, "-X", "dev", "-W", "default", "-c", PUSHES, str(dataset)]
    done = subprocess.run(command, env=environment, cwd=folders["here"], capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert "exit codes: [0, 1, 1, 1, 1, 0, 1]" in done.stdout, said[-5000:]
    for status in (403, 500, 401, 409):
        assert f"HTTP {status}" in said
    assert "Send: curl" in said and "Rate limited" not in said and "not above v1.0.0" in said
    assert hub.token not in said and hub.token not in repr(hub.log)
    written = [path for folder in (*folders.values(), dataset) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if hub.token.encode() in path.read_bytes()]
    released = hub.repository("dataset", "acme/shop").find("v1.0.0").files
    assert len(released) > 10 and not [path for path in released if hub.token.encode() in released[path].data]
