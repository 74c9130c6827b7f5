"""The card of a released model: the folder's own, with what it was made of, its scores and its terms."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from recfound_data.card import render
from recfound_data.tasks import TASKS
from recfound_model.adapter_card import adapter_card
from recfound_model.adapter_config import TmoleConfig
from recfound_model.evaluation.results import Evaluation
from recfound_model.publishing.folders import ModelFolder
from recfound_model.publishing.links import Link, Links
from recfound_model.publishing.subject import WEIGHTS_LINE

_MADE_OF = "\n## Made of\n"
OTHER_TERMS = "base-and-corpora"


def release_card(
    folder: ModelFolder, links: Links, evaluation: Evaluation | None, name: str, weights: str, hub: str
) -> str:
    """Return the README of a release.

    Args:
        folder: what is released.
        links: what it is linked with.
        evaluation: of this model; its scores go into the text with intervals, and into the metadata.
        name: of the model, for the metadata.
        weights: digest of its weights.
        hub: address that links begin with.
    """
    card = ModelCard(_own_card(folder, links.base, name))
    data = card.data
    assert isinstance(data, ModelCardData)
    if links.base is not None:
        data.base_model = links.base.repo
        if data.get("base_model_relation") is None:
            data["base_model_relation"] = "adapter" if folder.kind == "lora" else "finetune"
    if links.data is not None:
        data.datasets = [links.data.repo]
    corpora = folder.training.corpora if folder.training is not None else {}
    restricted = [label for label, terms in corpora.items() if not terms["redistributable"]]
    if restricted:
        data.license, data.license_name = "other", OTHER_TERMS
    elif links.licence is not None:
        data.license = links.licence
    if evaluation is not None:
        data.model_name, data.eval_results = name, list(_eval_results(evaluation, links.data))
    section = render(
        "release.md",
        links=[(what, link, f"{hub}{prefix}{link.repo}") for what, prefix, link in _listed(links)],
        training=folder.training,
        weights=WEIGHTS_LINE.format(weights),
        evaluation=evaluation,
        corpora=corpora,
        restricted=restricted,
        licence=links.licence,
    )
    body = card.text.partition(_MADE_OF)[0].rstrip("\n").lstrip("\n")
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n{_MADE_OF}\n{section}"


def _own_card(folder: ModelFolder, base: Link | None, name: str) -> str:
    """The folder's README; an adapter's is made anew, since it names the base in many places."""
    if folder.kind == "adapter":
        named = {} if base is None else {"base_model_name_or_path": base.repo, "revision": base.revision}
        return adapter_card(TmoleConfig(**folder.config | named), folder.training)
    readme = folder.path / "README.md"
    if not readme.is_file():
        return f"---\ntags: [recommendation, recfound]\n---\n\n# {name}\n"
    text = readme.read_text(encoding="utf-8")
    return text if base is None or not folder.base[0] else text.replace(f"`{folder.base[0]}`", f"`{base.repo}`")


def _listed(links: Links) -> Iterator[tuple[str, str, Link]]:
    for what, prefix, link in (
        ("base", "/", links.base),
        ("dataset", "/datasets/", links.data),
        ("native adapter", "/", links.adapter),
    ):
        if link is not None:
            yield what, prefix, link
    for link in links.related:
        yield "of the same training", "/", link


def _eval_results(evaluation: Evaluation, data: Link | None) -> Iterator[EvalResult]:
    for task, result in evaluation.results.items():
        for metric, interval in result.summary.items():
            yield EvalResult(
                task_type="sentence-similarity" if TASKS[task].kind == "embedding" else "text-generation",
                dataset_type=data.repo if data is not None else "recfound",
                dataset_name=f"RecFound, {task}",
                dataset_config=task,
                dataset_split=evaluation.split,
                dataset_revision=data.revision if data is not None else None,
                metric_type=metric,
                metric_value=round(interval.value, 4),
                metric_name=f"{metric}, 95 % [{interval.low:.3f}, {interval.high:.3f}]",
            )
