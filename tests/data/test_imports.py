"""The data side works without torch: nothing that it does imports it."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import recfound_data
assert "torch" not in sys.modules, "after the import"
recfound_data.build(sys.argv[1], sys.argv[2], quiet=True)
assert recfound_data.check(sys.argv[2]).passed
assert "torch" not in sys.modules, "after a build and a check"
from recfound_data import cli, publish
cli.parser()
assert "torch" not in sys.modules, "after the command line"
"""


def test_torch_is_not_imported_by_a_build_or_a_check(shop_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(shop_folder / "recipe.yaml"), str(tmp_path / "dataset")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
