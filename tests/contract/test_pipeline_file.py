"""dvc.yaml against the stage modules: the same parameters, files and code."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from leanface import catalog, paths
from leanface.config import Config
from leanface.runner import stage_sections

ROOT = Path(__file__).parents[2]
SOURCE = Path("src/leanface")
STAGES_FOLDER = SOURCE / "stages"
MAX_LINES = 45

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = {name: entry.get("do", entry) for name, entry in PIPELINE["stages"].items()}
OUTS: dict[str, list[Any]] = {name: stage.get("outs", []) + stage.get("metrics", []) for name, stage in STAGES.items()}

PLUMBING = {
    "",
    "catalog",
    "config",
    "errors",
    "extras",
    "files",
    "paths",
    "composition",
    "inputs",
    "params",
    "device",
    "environment",
    "stages",
}
"""Code that carries a stage's inputs and outputs but does not shape its result."""

SHAPED_BY = {"report": {"catalog"}}
"""Except of these stages: titles and colors are what a report shows."""

PACKAGED_MODEL = SOURCE / "assets/morphable_model.npz"
READERS = {
    SOURCE / "assets/faces": "photos.face_network",
    PACKAGED_MODEL: "face.morphable_model",
    SOURCE / "assets/teacher.npz": "networks.packed",
    SOURCE / "assets/teacher_224.npz": "networks.packed",
}
"""Which module reads a packaged file."""


def names(entries: list[Any]) -> set[Path]:
    return {Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries}


def covered(path: Path, by: set[Path]) -> bool:
    return path in by or any(parent in by for parent in path.parents)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("leanface", exclude_type_checking_imports=True, cache_dir=None)


PARTS = {"load_task": "task", **{f"{part}_of": part for part in ("prepare", "make_teacher", "evaluate", "journey")}}
"""What `leanface.task` has to import a part of a task with, and which part that is."""


def parts(stage: str, modules: set[str]) -> set[str]:
    """The parts of a task that a stage imports when it runs."""
    tree = ast.parse((ROOT / STAGES_FOLDER / f"{stage}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    # A bundle's network is built by its task.
    return {PARTS[name] for name in names & set(PARTS)} | ({"network"} if "leanface.bundle" in modules else set())


def addresses(part: str) -> list[str]:
    return [getattr(entry, part) for entry in catalog.TASKS.values()]


def reached(imports: grimp.ImportGraph, stage: str) -> dict[str, Path]:
    """Module name (below leanface) and file of everything that a stage imports, directly or not."""
    modules = imports.find_upstream_modules(f"leanface.stages.{stage}") | {f"leanface.stages.{stage}"}
    if "leanface.runtime" in modules:  # which imports what implements a runtime when that is opened
        for module in {entry.implementation.partition(":")[0] for entry in catalog.RUNTIMES.values()}:
            modules |= imports.find_upstream_modules(module) | {module}
    for module in {address.partition(":")[0] for part in parts(stage, modules) for address in addresses(part)}:
        modules |= imports.find_upstream_modules(module) | {module}
    found: dict[str, Path] = {}
    for module in modules:
        name = module.removeprefix("leanface").removeprefix(".")
        if name not in PLUMBING - SHAPED_BY.get(stage, set()):
            path = SOURCE.joinpath(*name.split("."))
            found[name] = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
    return found


def artifacts(stage: str) -> Iterator[Path]:
    """Generated files that a stage names through `leanface.paths`, with ${key} for the variant."""
    for node in ast.walk(ast.parse((ROOT / STAGES_FOLDER / f"{stage}.py").read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "paths":
            value = getattr(paths, node.attr)
            if callable(value):
                yield value("${key}")
            elif isinstance(value, Path) and not value.is_absolute():
                yield value


def test_the_stages_are_the_stage_modules() -> None:
    modules = {path.stem for path in (ROOT / STAGES_FOLDER).glob("[!_]*.py")}
    assert set(STAGES) == modules


def test_the_variants_and_their_bundles_are_those_of_the_catalog() -> None:
    variables = {name: value for entry in PIPELINE["vars"] for name, value in entry.items()}
    bundles = {name: variant.bundle.as_posix() for name, variant in catalog.VARIANTS.items()}
    assert variables["exported"] == bundles
    assert tuple(variables["exported"]) == tuple(catalog.VARIANTS)
    assert variables["built"] == {name: bundles[name] for name in catalog.ENGINES}
    # A flavor without an engine follows the engine of the same bundle, so that both are of one network.
    assert tuple(variables["evaluated"]) == catalog.EVALUATED
    assert set(variables["evaluated"].values()) == set(catalog.ENGINES)
    assert all(bundles[engine] == bundles[name] for name, engine in variables["evaluated"].items())


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_those_of_run(stage: str) -> None:
    entries = STAGES[stage].get("params", [])
    assert all(list(entry) == [paths.CONFIG.as_posix()] for entry in entries)
    listed = [section for entry in entries for section in entry[paths.CONFIG.as_posix()]]
    assert sorted(listed) == stage_sections(stage)
    assert set(listed) <= set(Config.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_exactly_what_is_imported(stage: str, imports: grimp.ImportGraph) -> None:
    modules = reached(imports, stage)
    if stage in ("configure", "probe"):
        assert set(modules) <= {f"stages.{stage}", "task"}
        return  # both are cheap: one depends on all of conf/, the other one always runs
    deps = names(STAGES[stage]["deps"])
    code = {dep for dep in deps if SOURCE in dep.parents and SOURCE / "assets" not in dep.parents}
    files = set(modules.values())
    assert not {file for file in files if not covered(file, code)}, "imported, but not among the deps"
    unused = {dep for dep in code if dep not in files and not any(dep in file.parents for file in files)}
    assert not unused, "among the deps, but not imported"


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"configure", "probe"}))
def test_the_packaged_files_that_a_stage_reads_are_among_its_deps(stage: str, imports: grimp.ImportGraph) -> None:
    deps = names(STAGES[stage]["deps"])
    listed = {dep for dep in deps if SOURCE / "assets" in dep.parents}
    readable = {file for file, module in READERS.items() if module in reached(imports, stage)}
    assert listed <= readable
    direct = imports.find_modules_directly_imported_by(f"leanface.stages.{stage}")
    if "leanface.face.choice" in direct:
        assert PACKAGED_MODEL in listed
    elif "leanface.face.morphable_model" in direct:
        assert paths.MORPHABLE_MODEL in deps


@pytest.mark.parametrize("stage", STAGES)
def test_paths_that_a_stage_names_are_its_inputs_or_outputs(stage: str) -> None:
    entry = STAGES[stage]
    declared = names(entry.get("deps", [])) | names(OUTS[stage])
    declared |= {Path("${item}"), Path("models/teacher")} if "${item}" in str(entry.get("deps")) else set()
    for path in artifacts(stage):
        # The state of an unfinished training, a hidden file, is no output.
        assert covered(path, declared) or path.name.startswith("."), path


def test_every_file_that_one_stage_reads_is_made_by_another_or_is_in_git() -> None:
    outs = set[Path]().union(*map(names, OUTS.values()))
    for stage, entry in STAGES.items():
        for dep in names(entry.get("deps", [])) - {Path("${item}")}:
            dep = Path(str(dep).replace("${item}.", "${key}."))  # an engine that belongs to another variant too
            made = covered(dep, outs) or any(dep in out.parents for out in outs)
            assert made or (ROOT / dep).exists(), f"{stage}: {dep}"


def test_outputs_are_where_paths_says() -> None:
    constants = {value for value in vars(paths).values() if isinstance(value, Path)}
    constants |= {paths.evaluation_dir("${key}")}
    for function in (paths.onnx_path, paths.engine_path):
        constants |= {function("${key}"), function("${key}").with_suffix(".json")}
    outs = set[Path]().union(*map(names, OUTS.values()))
    assert outs <= constants


def test_no_output_is_a_folder_in_which_users_keep_their_own() -> None:
    """DVC empties an output before its stage runs."""
    for out in set[Path]().union(*map(names, OUTS.values())):
        assert len(out.parts) > 1, out


def test_experiments_share_the_results_of_all_stages_that_take_long() -> None:
    shared = {
        name
        for name, stage in STAGES.items()
        # What DVC's run cache asks of a stage (dvc/stage/cache.py and Stage.run).
        if not any(isinstance(out, dict) and set(*out.values()) & {"cache", "persist"} for out in stage.get("outs", []))
    }
    assert set(STAGES) - shared == {"configure", "probe", "report"}


def test_plots_lie_in_outputs() -> None:
    outs = set[Path]().union(*map(names, OUTS.values()))
    curves = [plot for plot in PIPELINE["plots"] if isinstance(plot, dict)]
    plots = [file for plot in curves for axes in plot.values() for file in axes["y"]]
    plots += [plot for plot in PIPELINE["plots"] if isinstance(plot, str)]
    for path in map(Path, plots):
        assert covered(path, outs), path


def test_dvc_lists_few_metrics() -> None:
    """`dvc exp show` has a column for every number in every metrics file."""
    assert "metrics" not in PIPELINE
    metrics = {name: stage["metrics"] for name, stage in STAGES.items() if "metrics" in stage}
    assert metrics == {"report": [{paths.METRICS.as_posix(): {"cache": False}}]}
    for entry in catalog.TASKS.values():
        assert len(entry.subject.headline) <= 8
        assert set(entry.subject.headline) <= set(entry.subject.summary)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_only_loads_calls_the_library_saves_and_returns(stage: str) -> None:
    tree = ast.parse((ROOT / STAGES_FOLDER / f"{stage}.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["run"]
    assert functions[0].end_lineno is not None
    assert functions[0].end_lineno - functions[0].lineno < MAX_LINES
