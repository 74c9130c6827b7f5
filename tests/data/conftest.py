"""A synthetic shop and the dataset built from it, made once; tests that change something work on a copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_shop import KEY

from recfound_data import build
from recfound_data.shop import generate


@pytest.fixture(scope="module", autouse=True)
def user_key() -> Iterator[None]:
    """Every build of these tests hashes user ids under one key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFOUND_USER_KEY", KEY)
        yield


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds that draw nothing, for tests that build much and look at no plot."""
    monkeypatch.setattr("recfound_data.plots.write_plots", lambda *_: [])


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files of a shop with 1,500 reviews, and `recipe.yaml`; not to be changed."""
    folder = tmp_path_factory.mktemp("raw") / "shop"
    generate(folder, reviews=1_500, seed=11)
    return folder


@pytest.fixture(scope="session")
def dataset(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of that shop; not to be changed."""
    folder = tmp_path_factory.mktemp("built") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFOUND_USER_KEY", KEY)
        build(shop_folder / "recipe.yaml", folder, quiet=True)
    return folder


@pytest.fixture
def shop_copy(shop_folder: Path, tmp_path: Path) -> Path:
    """A copy of the raw files, to be changed."""
    return Path(shutil.copytree(shop_folder, tmp_path / "shop"))


@pytest.fixture
def dataset_copy(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the dataset, to be changed."""
    return Path(shutil.copytree(dataset, tmp_path / "dataset"))
