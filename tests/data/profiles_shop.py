"""A small dataset of profiles, and how the tests of annotation ask for them."""

import re
from pathlib import Path
from typing import Any

from recfound_data import build
from recfound_data.annotating import Annotation, Asking, annotate
from recfound_data.patience import Patience
from recfound_data.shop import generate

QUICK = Patience(attempts=6, first_wait=0.01, longest_wait=0.5)
FORMATS = ["amazon_reviews_2018", "movielens"]


def build_profiles(folder: Path) -> Path:
    """Build user and item profiles, and one task that nobody annotates, from a shop of 1,500 reviews."""
    generate(folder / "raw", 1_500, 11, FORMATS)
    recipe = folder / "raw" / "recipe.yaml"
    tasks = "tasks: [sentiment_analysis, user_profile, item_profile]"
    recipe.write_text(re.sub(r"tasks: .*", tasks, recipe.read_text()))
    build(recipe, folder / "dataset", quiet=True)
    return folder / "dataset"


def ask(folder: Path, url: str, out: Path | None = None, model: str = "toy", **settings: Any) -> Annotation:
    """Annotate in silence and with little patience; settings of `Asking` and of `annotate` go where they belong."""
    asking = {name: settings.pop(name) for name in list(settings) if name in Asking.__dataclass_fields__}
    return annotate(folder, Asking(url, model, **{"patience": QUICK} | asking), out=out, quiet=True, **settings)
