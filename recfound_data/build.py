"""From a recipe to a dataset: corpora become tables, tables become plans of samples, plans become Parquet files.

Work is cut into units: a file of a corpus, a shard of users, a shard of a task, a file of the dataset. A finished unit
is a folder in `.<name>.building` beside the dataset; a build that was killed does the others and ends with the same
bytes, as does one with any number of workers: everything random is a hash of the recipe's seed and the row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from recfound_data.corpora import readers
from recfound_data.finishing import finish
from recfound_data.layout import (
    canonical_json,
    read_manifest,
    replacing,
    require_replaceable,
)
from recfound_data.mining import Index, Part, index_parts, located, require_miner, write_index
from recfound_data.near_duplicates import require_minhash
from recfound_data.people import KEY_VARIABLE, UserKey
from recfound_data.planning import Prepared, Shard, choose, require_samples, write_plan
from recfound_data.preparation import (
    CATALOGUE,
    STATISTICS,
    PairSources,
    Reading,
    counts_of,
    read_part,
    require_rows,
    settle,
    write_catalogue,
    write_co_liked,
    write_events,
    write_first,
    write_judged,
    write_pairs,
    write_statistics,
)
from recfound_data.progress import say
from recfound_data.ray_stage import RayTasks, require_ray
from recfound_data.recipe import DataRecipe, MiningSettings, parse, read_yaml
from recfound_data.resuming import inputs, work_folder
from recfound_data.samples import CATALOGUE_CONFIGS, SCHEMA_VERSION, SPLITS
from recfound_data.shards import ALL, ranges
from recfound_data.tables import GROUPS, Source
from recfound_data.tasks import BUILDERS
from recfound_data.units import Executor, Processes, Result, Stage, Unit, total
from recfound_data.writing import FilePlan, Slice, file_plans, write_file, write_items, write_sketch

_Folders = dict[str, list[Path]]
"""Folders of finished units by corpus."""
_ROWS_PER_SHARD = {"interactions": 250_000, "judgements": 500_000, "pairs": 250_000, "catalogue": 50_000}
_TEXT_ROWS_PER_SHARD = 20_000
"""Rows of tables whose rows hold whole texts: questions, dialogues, products."""


@dataclass(frozen=True)
class BuildSummary:
    """What a build wrote: its folder, rows by configuration and split, and rows dropped by corpus and reason."""

    path: Path
    rows: dict[str, dict[str, int]]
    drops: dict[str, dict[str, int]]


def build(
    recipe: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    executor: Literal["local", "ray"] = "local",
    strict: bool = False,
    quiet: bool = False,
) -> BuildSummary:
    """Build the dataset that a recipe describes.

    Args:
        recipe: path of the YAML file; paths in it are relative to its folder.
        out: folder to write; an earlier dataset there is replaced, whole, at the end.
        workers: most units at once; None is one here, and on Ray as many as the cluster has CPUs. The result does not
            depend on it.
        executor: `local` uses processes of this machine; `ray` the cluster that this process is in or that
            `RAY_ADDRESS` names, or else a local one that ends with the build. All nodes must see the recipe's files and
            `out` at the same paths, and have the same user key in their environment.
        strict: stop at the first line that cannot be parsed instead of counting it.
        quiet: print no progress.

    Raises:
        UsageError: the recipe is wrong, or Ray is not installed.
        RecfoundError: a corpus cannot be read or gives nothing, or a worker or node cannot go on.
    """
    if executor == "ray":
        require_ray()
    path = Path(recipe)
    settings = parse(DataRecipe, read_yaml(path), str(path))
    # Tasks of Ray run in other folders than this process.
    sources = readers(settings, path.parent.absolute() if executor == "ray" else path.parent, str(path))
    found = [inputs(reader) for reader in sources]
    key = UserKey.from_environment()
    if not (key.secret or quiet):
        say(f"{KEY_VARIABLE} is not set: user ids are hashed without a secret, and the dataset cannot be published")
    require_replaceable(Path(out))
    mining = settings.mining and located(settings.mining, path.parent)
    if mining:
        require_miner(mining)
    if settings.near_duplicates:
        require_minhash()
    identity = {
        "recfound": version("recfound"),
        "recipe": settings.model_dump(mode="json"),
        "inputs": found,
        "user_key": key.fingerprint(),
        "strict": strict,
    }
    with (
        work_folder(Path(out), identity, quiet) as work,
        Stage(_executor(executor, workers, work, found), quiet) as stage,
    ):
        reading = Reading(key, strict, "sentiment_analysis" in settings.tasks, quiet)
        job = _Build(work, settings, stage)
        prepared = job.prepare(sources, reading)
        if mining:
            prepared = job.index(prepared, mining)
        chosen = job.plan(prepared)
        written = job.write(prepared, chosen)
        with replacing(Path(out)) as folder:
            manifest = job.manifest(folder, sources, key, chosen, written)
            finish(folder, manifest)
    manifest = read_manifest(Path(out))
    rows = {name: config["splits"] for name, config in manifest["configs"].items()}
    return BuildSummary(Path(out), rows, manifest["drops"])


def _executor(name: str, workers: int | None, work: Path, found: list[list[Any]]) -> Executor:
    if name == "ray":
        return RayTasks(workers, work, [file for files in found for file in files])
    return Processes(workers or 1)


@dataclass(frozen=True)
class _Plans:
    """The plans of one task in order, the corpus of each, and what was chosen of them."""

    folders: list[Path]
    corpora: list[Prepared]
    chosen: Path
    result: Result


class _Build:
    """The stages of one build; `drops` grows as they go."""

    def __init__(self, work: Path, recipe: DataRecipe, stage: Stage) -> None:
        self._work, self._recipe, self._stage = work, recipe, stage
        self._drops: dict[str, list[dict[str, int]]] = {}
        self._rows: dict[str, dict[str, int]] = {}
        self._label_sources: set[str] = set()
        self._mined: dict[str, dict[str, dict[str, int]]] = {}

    def prepare(self, sources: list[Source], reading: Reading) -> list[Prepared]:
        """Read all corpora and make what tasks read."""
        work, recipe, stage = self._work, self._recipe, self._stage
        parts = [(reader, part) for reader in sources for part in reader.parts()]
        units, folders = [], dict[str, list[Path]]()
        for reader, part in parts:
            mine = folders.setdefault(reader.label, [])
            mine.append(work / "read" / reader.label / f"{len(mine):04d}")
            units.append(Unit(mine[-1], read_part, (part, reading)))
        results: dict[str, list[Result]] = {}
        for (reader, _), result in zip(parts, stage.run("read", units), strict=True):
            results.setdefault(reader.label, []).append(result)
            self._count(reader.label, result)
        counts = {label: counts_of(found) for label, found in results.items()}
        for label in folders:
            require_rows(label, counts[label]["tables"], total(result["drops"] for result in results[label]))
        self._rows = {label: dict(found["tables"]) for label, found in counts.items()}
        labels = list(folders)
        catalogues = self._each(
            "catalogue", labels, write_catalogue, lambda label: (folders[label], label, recipe), "items"
        )
        for label, result in zip(labels, catalogues, strict=True):
            self._rows[label]["catalogue"] = result["rows"]
        first, events = self._events(labels, folders)

        self._each(
            "ranks",
            labels,
            write_statistics,
            lambda label: (work / "catalogue" / label / CATALOGUE, events[label]),
            "items",
        )
        pairs = self._pairs(labels, folders, events)
        return [
            Prepared(
                name=label,
                read=tuple(folders[label]),
                catalogue=work / "catalogue" / label,
                first=tuple(first[label]),
                events=tuple(events[label]),
                statistics=work / "ranks" / label,
                pairs=pairs.get(label),
                splits={table: frozenset(found) for table, found in counts[label]["splits"].items()},
            )
            for label in labels
        ]

    def _each(self, what: str, labels: list[str], work: Any, arguments: Any, rows: str = "rows") -> list[Result]:
        """Run one unit for each corpus."""
        units = [Unit(self._work / what / label, work, arguments(label)) for label in labels]
        results = self._stage.run(what, units, rows)
        for label, result in zip(labels, results, strict=True):
            self._count(label, result)
        return results

    def _events(self, labels: list[str], folders: _Folders) -> tuple[_Folders, _Folders]:
        work, recipe = self._work, self._recipe
        shards = [
            (label, number, within)
            for label in labels
            if self._rows[label].get("interactions")
            for number, within in enumerate(ranges(self._rows[label]["interactions"], _ROWS_PER_SHARD["interactions"]))
        ]
        first: dict[str, list[Path]] = {label: [] for label in labels}
        units = []
        for label, number, within in shards:
            folder = work / "first" / label / f"{number:05d}"
            first[label].append(folder)
            catalogue = work / "catalogue" / label / CATALOGUE
            units.append(Unit(folder, write_first, (folders[label], within, catalogue, label)))
        for (label, _, _), result in zip(shards, self._stage.run("order", units, "interactions"), strict=True):
            self._count(label, result)
            self._rows[label]["events"] = self._rows[label].get("events", 0) + result["rows"]
        with_events = [label for label in labels if first[label]]
        cuts: dict[str, tuple[int, int] | None] = {}
        settled = self._each(
            "settle", with_events, settle, lambda label: (first[label], self._rows[label]["catalogue"], recipe)
        )
        for label, result in zip(with_events, settled, strict=True):
            cuts[label] = (result["validation"], result["test"]) if "test" in result else None
        events = {label: [work / "events" / label / path.name for path in first[label]] for label in labels}
        self._stage.run(
            "events",
            [
                Unit(events[label][number], write_events, (path, work / "settle" / label, cuts[label], recipe))
                for label in with_events
                for number, path in enumerate(first[label])
            ],
            "events",
        )
        return first, events

    def _pairs(self, labels: list[str], folders: _Folders, events: _Folders) -> dict[str, Path]:
        work, recipe = self._work, self._recipe
        if not any(BUILDERS[task].driven_by == "pairs" for task in recipe.tasks):
            return {}
        able = [
            label
            for label in labels
            if self._rows[label]["catalogue"]
            and (events[label] or self._rows[label].get("relations") or self._rows[label].get("judgements"))
        ]
        units, co_liked, judged = [], dict[str, list[Path]](), dict[str, list[Path]]()
        for label in able:
            items = self._rows[label]["catalogue"]
            catalogue = work / "catalogue" / label / CATALOGUE
            co_liked[label], judged[label] = [], []
            for number in range(len(events[label])):
                low, high = (items * at // len(events[label]) for at in (number, number + 1))
                co_liked[label].append(work / "co_liked" / label / f"{number:05d}")
                units.append(Unit(co_liked[label][-1], write_co_liked, (events[label], low, high)))
            rows = self._rows[label].get("judgements", 0)
            for number, within in enumerate(ranges(rows, _ROWS_PER_SHARD["judgements"]) if rows else []):
                judged[label].append(work / "judged" / label / f"{number:05d}")
                arguments = (folders[label], within, catalogue, label, recipe.seed)
                units.append(Unit(judged[label][-1], write_judged, arguments))
        self._stage.run("relate", units, "pairs")

        def sources(label: str) -> tuple[Any, ...]:
            where = (folders[label], events[label], co_liked[label], judged[label])
            catalogue = work / "catalogue" / label / CATALOGUE
            return (PairSources(*(tuple(paths) for paths in where)), catalogue, label, recipe)

        for label, result in zip(able, self._each("pairs", able, write_pairs, sources, "pairs"), strict=True):
            self._rows[label]["pairs"] = result["rows"]
        return {label: work / "pairs" / label for label in able}

    def index(self, prepared: list[Prepared], mining: MiningSettings) -> list[Prepared]:
        """Make the items of all corpora that mined negatives come from searchable."""
        tables = {BUILDERS[task].driven_by for task in mining.tasks if task in self._recipe.tasks}
        units, parts = [], dict[str, list[Part]]()
        for corpus in prepared:
            if not any(self._rows[corpus.name].get(table) for table in tables):
                continue
            catalogue, statistics = corpus.catalogue / CATALOGUE, corpus.statistics / STATISTICS
            parts[corpus.name] = index_parts(statistics, self._work / "index" / corpus.name, mining)
            units += [
                Unit(part.folder, write_index, (part, catalogue, statistics, mining), part.size)
                for part in parts[corpus.name]
            ]
        self._stage.run("index", units, "items")
        return [
            replace(corpus, index=Index(mining, tuple(parts[corpus.name]))) if corpus.name in parts else corpus
            for corpus in prepared
        ]

    def plan(self, prepared: list[Prepared]) -> dict[str, _Plans]:
        """Make the plans of all tasks and choose what stays."""
        plans: dict[str, _Plans] = {}
        units: dict[str, list[Unit]] = {}
        corpora: dict[str, list[Prepared]] = {}
        for task in self._recipe.tasks:
            units[task], corpora[task] = [], []
            for corpus in prepared:
                for driven_by in (BUILDERS[task].driven_by, "made"):
                    for shard in self._shards(corpus, driven_by):
                        folder = self._work / "plan" / task / corpus.name / f"{driven_by}-{shard.number:05d}"
                        arguments = (corpus, task, shard, self._recipe, driven_by)
                        units[task].append(Unit(folder, write_plan, arguments))
                        corpora[task].append(corpus)
        every = [unit for found in units.values() for unit in found]
        results = dict(zip((unit.folder for unit in every), self._stage.run("sample", every, "samples"), strict=True))
        for task, found in units.items():
            for unit, corpus in zip(found, corpora[task], strict=True):
                self._count(f"{task} from {corpus.name}", results[unit.folder])
                self._label_sources.update(results[unit.folder]["label_sources"])
                if mined := total([results[unit.folder]["mined"]]):
                    of_task = self._mined.setdefault(task, {})
                    of_task[corpus.name] = total([of_task.get(corpus.name, {}), mined])
        sketches = self._sketches(units, corpora)
        choices = [
            Unit(
                self._work / "chosen" / task,
                choose,
                (task, [unit.folder for unit in units[task]], self._recipe, sketches.get(task, ())),
            )
            for task in self._recipe.tasks
        ]
        chosen = self._stage.run("choose", choices, "samples")
        for task, unit, result in zip(self._recipe.tasks, choices, chosen, strict=True):
            names = {corpus.name for corpus in prepared} | {f"{task} from {corpus.name}" for corpus in prepared}
            require_samples(task, result, {name: total(self._drops.get(name, [])) for name in sorted(names)})
            self._count(task, result)
            plans[task] = _Plans([unit.folder for unit in units[task]], corpora[task], unit.folder, result)
        return plans

    def _sketches(self, units: dict[str, list[Unit]], corpora: dict[str, list[Prepared]]) -> dict[str, list[Path]]:
        """Sketch the texts of the plans of all tasks that lose near-duplicates; return where the sketches lie."""
        settings = self._recipe.near_duplicates
        tasks = [task for task in units if settings is not None and settings.covers(task)]
        made: dict[str, list[Unit]] = {}
        for task in tasks:
            made[task] = []
            for plan, corpus in zip(units[task], corpora[task], strict=True):
                folder = self._work / "sketches" / task / corpus.name / plan.folder.name
                driven_by = plan.arguments[-1]
                arguments = (plan.folder, task, corpus, self._recipe, driven_by != "made")
                made[task].append(Unit(folder, write_sketch, arguments))
        self._stage.run("sketch", [unit for task in tasks for unit in made[task]], "samples")
        return {task: [unit.folder for unit in made[task]] for task in tasks}

    def _shards(self, corpus: Prepared, driven_by: str) -> list[Shard]:
        rows = self._rows[corpus.name].get(driven_by, 0)
        if not rows:
            return []
        if driven_by == "events":
            within = ranges(self._rows[corpus.name]["interactions"], _ROWS_PER_SHARD["interactions"])
        elif driven_by in GROUPS or driven_by == "pairs":
            within = ranges(rows, _ROWS_PER_SHARD.get(driven_by, _TEXT_ROWS_PER_SHARD))
        elif driven_by == "catalogue":
            size = _ROWS_PER_SHARD["catalogue"]
            return [Shard(number, ALL, at, size) for number, at in enumerate(range(0, rows, size))]
        else:
            within = [ALL]
        return [Shard(number, part) for number, part in enumerate(within)]

    def write(self, prepared: list[Prepared], plans: dict[str, _Plans]) -> dict[str, tuple[Path, Result]]:
        """Write all files and return, by their path in the dataset, where they lie and what they are."""
        recipe = self._recipe
        files: list[FilePlan] = []
        for config in (*recipe.tasks, "queries", "qrels"):
            for split in SPLITS:
                parts = [part for task in recipe.tasks for part in _parts(config, split, task, plans[task])]
                files += file_plans(config, split, parts, recipe.rows_per_file)
        units, paths = [], []
        for plan in files:
            paths.append(plan.path)
            rows = sum(part.stop - part.start for part in plan.slices)
            units.append(Unit(self._work / "files" / plan.path, write_file, (plan, recipe), rows))
        for corpus in prepared:
            rows = self._rows[corpus.name]["catalogue"]
            total_files = -(-rows // recipe.rows_per_file)
            for number in range(total_files):
                name = f"{corpus.name}-{number:05d}-of-{total_files:05d}.parquet"
                first = number * recipe.rows_per_file
                count = min(recipe.rows_per_file, rows - first)
                paths.append(f"items/{name}")
                arguments = (corpus, name, first, count)
                units.append(Unit(self._work / "files" / "items" / name, write_items, arguments, count))
        results = self._stage.run("write", units)
        return {
            path: (unit.folder / Path(path).name, result)
            for path, unit, result in zip(paths, units, results, strict=True)
        }

    def manifest(
        self,
        folder: Path,
        sources: list[Source],
        key: UserKey,
        plans: dict[str, _Plans],
        written: dict[str, tuple[Path, Result]],
    ) -> dict[str, Any]:
        """Put the files in their places and return the manifest."""
        for path, (made, _) in written.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(made, folder / path)
        resolved = self._recipe.model_dump(mode="json")
        drops = {name: counted for name, parts in self._drops.items() if (counted := total(parts))}
        return {
            "schema_version": SCHEMA_VERSION,
            "recfound": version("recfound"),
            "recipe": resolved,
            "recipe_sha256": hashlib.sha256(canonical_json(resolved).encode()).hexdigest(),
            "seed": self._recipe.seed,
            "user_key": key.secret,
            "configs": self._configs(plans),
            "label_sources": sorted(self._label_sources),
            "drops": drops,
            "files": {
                path: {"bytes": result["bytes"], "sha256": result["sha256"]} for path, (_, result) in written.items()
            },
            "corpora": {reader.label: {"reader": reader.corpus, "terms": asdict(reader.terms)} for reader in sources},
        } | ({"mining": _with_shares(self._mined)} if self._mined else {})

    def _configs(self, plans: dict[str, _Plans]) -> dict[str, Any]:
        configs: dict[str, Any] = {}
        for task, found in plans.items():
            for kind, counts in found.result["counts"].items():
                name = task if kind == "samples" else kind
                entry = configs.setdefault(name, {"splits": {}} | ({"corpora": {}} if kind == "samples" else {}))
                for corpus, rows in zip(found.corpora, counts, strict=True):
                    entry["splits"] = total([entry["splits"], rows])
                    if kind == "samples" and rows:
                        entry["corpora"][corpus.name] = total([entry["corpora"].get(corpus.name, {}), rows])
        items = {label: rows["catalogue"] for label, rows in self._rows.items() if rows["catalogue"]}
        if items:
            configs["items"] = {
                "splits": {"train": sum(items.values())},
                "corpora": {label: {"train": count} for label, count in items.items()},
            }
        return {name: configs[name] for name in sorted(configs)}

    def _count(self, name: str, result: Result) -> None:
        self._drops.setdefault(name, []).append(result["drops"])


def _with_shares(mined: dict[str, dict[str, dict[str, int]]]) -> dict[str, Any]:
    """Return what was mined by task and corpus, with the share of the nearest candidates that are known positives."""
    said: dict[str, Any] = {}
    for task, corpora in mined.items():
        for corpus, counts in corpora.items():
            found: dict[str, float] = {name: counts.get(name, 0) for name in ("nearest", "positives", "mined", "other")}
            found["share"] = round(found["positives"] / max(found["nearest"], 1), 4)
            said.setdefault(task, {})[corpus] = found
    return said


def _parts(config: str, split: str, task: str, plans: _Plans) -> Iterator[tuple[Slice, int]]:
    """Yield the rows that a task's plans give to a configuration, in order."""
    kind = config if config in CATALOGUE_CONFIGS else "samples"
    if (kind == "samples" and config != task) or kind not in plans.result["counts"]:
        return
    for number, (folder, corpus) in enumerate(zip(plans.folders, plans.corpora, strict=True)):
        count = plans.result["counts"][kind][number].get(split, 0)
        if count:
            mask = plans.chosen / f"{kind}-{number:06d}.npy"
            yield Slice(folder, mask, task, corpus, 0, count), count
