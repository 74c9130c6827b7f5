"""Several adapters that descend from one initial adapter become one adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from recfound_data.errors import UsageError
from recfound_data.progress import say
from recfound_model.adapter_files import write_adapter
from recfound_model.folders import write_folder
from recfound_model.merging.call import Call, checked_call
from recfound_model.merging.report import Candidate, Ingredient, MergeReport
from recfound_model.merging.soup import Losses, Soup, greedy_soup
from recfound_model.merging.sources import Source, open_sources, read_group, run_of
from recfound_model.merging.spaces import Merged, Space, merge_sources
from recfound_model.provenance import read_training


def merge_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    method: str = "linear",
    weights: Sequence[float] | None = None,
    base: str | Path | None = None,
    density: float | None = None,
    *,
    space: Space = "factors",
    rank: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int | None = None,
    select: Literal["validation"] | None = None,
    data: str | None = None,
    samples: int = 64,
) -> MergeReport:
    """Merge adapters into one, which is written as an adapter's folder with a `merge_report.json`.

    Memory: the result, and of each input one linear's tensors for each worker.

    Args:
        adapters: folders, or ids of repositories on the Hub.
        out: the folder to write.
        method: any of mergekit's, by name; `docs/merging.md` says what each needs. The paper's choice: `ties` since
            the initial adapter, density 0.8.
        weights: one an adapter, by default 1 / number of adapters. For methods that normalise, only proportions count.
        base: the initial adapter, for methods that merge changes.
        density: share of each adapter's changes that stays, in (0, 1], for methods that have one; by default 0.8.
        space: `factors` merges A, B, R, b and z, each by itself, as the paper does. `delta` merges each expert's
            product B A and cuts it back to a rank; R, b and z as before.
        rank: of an expert in the result, in delta space; by default that of the inputs. Nothing is lost in delta
            space by `linear` from the inputs' rank times their number on.
        parameters: of mergekit's method, by name; what is not given is mergekit's default.
        seed: of methods that draw values.
        workers: threads of one core each; all cores by default. The result does not depend on them.
        select: `validation` merges only those adapters that a greedy soup keeps (see `greedy_soup`); they lie in a
            run's folder, whose recipe says how losses are measured.
        data: another dataset to select by than the run's: a folder, or a repository on the Hub.
        samples: validation samples of each task to select by.

    Returns:
        What was merged.

    Raises:
        UsageError: the method does not take what is given.
        RecfoundError: the adapters do not belong together, with the reason, one is missing or damaged, or the method
            has no finite result for them.
    """
    if isinstance(adapters, str | Path) or not adapters:
        raise UsageError("merging takes a list of adapters")
    _check_options(space, rank, select, data)

    def call_of(places: Sequence[int]) -> Call:
        given = weights if weights is None or len(weights) != len(adapters) else [weights[at] for at in places]
        return checked_call(method, len(places), base is not None, given, density, parameters, seed)

    every = tuple(range(len(adapters)))
    call = call_of(every)
    if select is not None:
        _check_soup(call, len(adapters))
    sources = open_sources([*adapters] if base is None else [*adapters, base])
    members, behind = sources[: len(adapters)], sources[len(adapters) :]

    def merged_of(places: Sequence[int]) -> Merged:
        if select is not None and len(places) == 1:
            return _as_it_is(members[places[0]])
        some = [*(members[at] for at in places), *behind]
        return merge_sources(call_of(places), some, space, rank, workers)

    soup = None if select is None else _soup(members, adapters[0], data, samples, merged_of)
    chosen = every if soup is None else soup.chosen
    merged = merged_of(chosen)
    # A soup of one is that adapter, whatever the method: its weight is all there is.
    given = call.weights if soup is None else call_of(chosen).weights if len(chosen) > 1 else (1.0,)
    report = MergeReport(
        path=Path(out),
        method=method,
        space=space,
        inputs=tuple(
            Ingredient(members[place].name, members[place].sha256, None if given is None else given[at])
            for at, place in enumerate(chosen)
        ),
        base=Ingredient(behind[0].name, behind[0].sha256, None) if behind else None,
        parameters=dict(call.parameters),
        seed=seed if call.method.random else None,
        rank=merged.config.r,
        truncation=merged.truncation,
        candidates=()
        if soup is None
        else tuple(Candidate(one.name, soup.ranks[at], at in chosen) for at, one in enumerate(members)),
        losses={} if soup is None else dict(soup.losses),
    )
    with write_folder(out) as folder:
        write_adapter(folder, merged.config, merged.tensors, read_training(adapters[0]))
        report.write(folder)
    return report


def initial_adapter(adapter: str | Path) -> Path | None:
    """Return the adapter as its run first drew it, for an adapter or checkpoint that still lies in its run's folder."""
    first = run_of(adapter) / "checkpoints" / "step-000000"
    return first if first.is_dir() else None


def _check_options(space: str, rank: int | None, select: str | None, data: str | None) -> None:
    if space not in get_args(Space):
        raise UsageError(f"space must be one of {', '.join(get_args(Space))}, not {space!r}")
    if select not in (None, "validation"):
        raise UsageError(f"select must be validation, not {select!r}")
    if data is not None and select is None:
        raise UsageError("data is what select measures on: give both, or neither")
    if rank is not None and space != "delta":
        raise UsageError("rank is chosen in delta space; in that of factors it is the inputs'")
    if rank is not None and select is not None:
        raise UsageError("a soup has its members' rank: leave rank out")
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, not {rank}")


def _check_soup(call: Call, adapters: int) -> None:
    if adapters < 2:
        raise UsageError("a soup is chosen from two or more adapters")
    if call.method.most is not None:
        raise UsageError(f"{call.method.name} takes no number of adapters but one, and a soup may be of any")
    if 0 in (call.weights or ()):
        raise UsageError("an adapter of weight 0 adds nothing to a soup: leave it out")


def _soup(
    members: Sequence[Source],
    first: str | Path,
    data: str | None,
    samples: int,
    merged_of: Callable[[Sequence[int]], Merged],
) -> Soup:
    """Return the greedy soup of adapters by their validation losses."""
    from recfound_model.merging.validation import Validation  # datasets and training take seconds to import

    validation = Validation(first, data, samples)

    def measure(places: Sequence[int]) -> Losses:
        losses = validation.losses(merged_of(places).tensors)
        names = " + ".join(members[at].name for at in places)
        say(f"{names}: validation losses of {sum(losses.values()) / len(losses):.4f} on average")
        return losses

    return greedy_soup([measure([at]) for at in range(len(members))], measure)


def _as_it_is(source: Source) -> Merged:
    tensors = {key: tensor.clone() for key, (tensor,) in read_group([source], source.keys).items()}
    return Merged(source.config, tensors, None)
