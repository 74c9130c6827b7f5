"""A wheel that is installed elsewhere has its cards and can publish."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import LoopbackHub

ROOT = Path(__file__).parents[2]
SHIPPED = ("recfound_data", "recfound_model", "cards", "pyproject.toml", "README.md", "LICENSE")

USE = """
import sys
from pathlib import Path
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]  # of this checkout
from recfound_data.card import template
from recfound_data.cli import main
assert all(template(f"{name}.md") for name in ("dataset", "embedder", "generator"))
assert main(["data", "generate", "--out", "shop", "--reviews", "400"]) == 0
assert main(["data", "build", "shop/recipe.yaml", "--out", "dataset"]) == 0
allowed = ["--allow-corpus", "shop", "--allow-corpus", "shop_films"]
assert main(["data", "push", "dataset", "--repo", "acme/shop", "--version", "0.1.0", *allowed]) == 0
ours = [module.__file__ for name, module in sys.modules.items() if name.startswith("recfound")]
assert len(ours) > 50 and all(Path(file).is_relative_to(sys.argv[1]) for file in ours), ours
"""


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_builds_and_publishes(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "source" / name)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "./source"]
    subprocess.run(wheel, cwd=tmp_path, check=True, timeout=300)
    (built,) = (tmp_path / "wheels").glob("recfound-*.whl")
    install = [*pip, "install", "--no-deps", "--no-compile", "--target", "installed", str(built)]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=300)
    (tmp_path / "here").mkdir()
    installed = str(tmp_path / "installed")
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": installed, "RECFOUND_USER_KEY": "secret"}
    command = [sys.executable, "-P", "-c", USE, installed]
    done = subprocess.run(command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    held = hub.repository("dataset", "acme/shop").find("v0.1.0").files
    assert b"## Known defects" in held["README.md"].data and "CHANGELOG.md" in held
    assert os.fspath(tmp_path).encode() not in held["README.md"].data
