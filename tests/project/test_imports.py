"""Who imports whom, read from the files: wings apart, baselines apart, everything downward, no ring; and how full a folder is.

`runner` and `bench` alone know every wing; nothing but the command line, `bench`, imports `runner`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from schema.places import ROOT

WINGS = ("models", "tasks", "results")
ROOMS = ("schema", *WINGS, "baselines", "runner", "bench")
ALLOWED = {
    "schema": {"schema"},
    "models": {"schema", "models"},
    "tasks": {"schema", "tasks"},
    "results": {"schema", "results"},
    "baselines": {"schema", "baselines", "models"},
    "runner": {"schema", "runner", "baselines", *WINGS},
}

FLOORS = {  # of a wing, the lowest first: what stands on a floor imports from those below it alone
    "models": (
        "family law", "registry", "ops", "layers attention", "shell", "matching", "language_model",
        "titans user_file conformance",
    ),
    "tasks": ("task rng", "text", "harness", "language_modelling", "needle babilong synthetic", "speed show outline"),
    "results": ("cell", "rows", "plans", "report"),
}  # fmt: skip
FULL = 12  # entries of a folder at most
OF_ONE_KIND = (  # folders whose entries are all of one kind may hold more
    "baselines/*", "baselines/oracles/parity", "models/ops", "results/published", "results/comparisons/*", "tests/support",
    "tests/models/ops",
)  # fmt: skip


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the project."""
    files = [path for room in ROOMS for path in (root / room).rglob("*.py")]
    files += [path for path in (root / f"{room}.py" for room in ROOMS) if path.exists()]
    names = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: dict[str, Path], at_once: bool = False) -> set[str]:
    """The project's modules that a module imports: anywhere in its file, or `at_once`, when it is imported itself."""
    found = set()
    for target in _targets(name, path, at_once):
        while target and target not in known:  # `from models.layers import RMSNorm` names a module and what is in it
            target = target.rpartition(".")[0]
        if target:
            found.add(target)
    return found - {name}


def _targets(name: str, path: Path, at_once: bool = False) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


def trespasses(links: dict[str, set[str]]) -> list[str]:
    """Imports from a room that a module must not enter."""
    return [
        f"{name} imports {target}"
        for name, targets in links.items()
        for target in targets
        if name.split(".")[0] in ALLOWED and target.split(".")[0] not in ALLOWED[name.split(".")[0]]
    ]


def climbs(links: dict[str, set[str]]) -> list[str]:
    """Imports inside a wing from the same floor or a higher one, and modules that stand on no floor."""
    found = []
    for wing, floors in FLOORS.items():
        floor = {name: level for level, names in enumerate(floors) for name in names.split()}
        inside = {name: name.split(".")[1] for name in links if name.startswith(f"{wing}.")}
        found += [f"{name} stands on no floor" for name, room in inside.items() if room not in floor]
        found += [
            f"{name} imports {target}"
            for name, room in inside.items()
            for target in sorted(links[name] & set(inside))
            if room != inside[target] and floor.get(room, 0) <= floor.get(inside[target], 0)
        ]
    return found


def crowded(root: Path) -> list[str]:
    """Folders with code that hold more than FULL entries, though these are not all of one kind."""
    folders = {path.parent for room in (*ROOMS, "tests") for path in (root / room).rglob("*.py")}
    found = []
    for folder in sorted(folders):
        entries = {one.stem for one in folder.iterdir() if _counts(one)}  # a module and its C, or its page, are one
        name = folder.relative_to(root)
        if len(entries) > FULL and not any(name.match(pattern) for pattern in OF_ONE_KIND):
            found.append(f"{name} holds {len(entries)} entries")
    return found


def _counts(entry: Path) -> bool:
    """Whether an entry is one that a visitor reads; a folder that only Python's caches have kept alive is not."""
    if entry.is_dir():
        return any(path.is_file() and path.suffix != ".pyc" for path in entry.rglob("*"))
    return not entry.name.startswith(("__", ".", "conftest"))


def neighbours(links: dict[str, set[str]], root: Path) -> list[str]:
    """Imports from one baseline into another, but for what a family's folder has in common and registers nothing."""
    return [
        f"{name} imports {target}"
        for name, targets in links.items()
        for target in targets
        if name.startswith("baselines.") and target.startswith("baselines") and not name.startswith("baselines.oracles")
        if name.rpartition(".")[0] != target.rpartition(".")[0] or _registers(root, target)
    ]


def _registers(root: Path, module: str) -> bool:
    """Whether a module registers a model."""
    return "@register(" in (root / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def ring(links: dict[str, set[str]]) -> list[str]:
    """A ring of imports, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(links[name]):
            if found := walk(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(links) if (found := walk(name, []))), [])


@pytest.fixture(scope="module")
def links() -> dict[str, set[str]]:
    return graph(ROOT)


def test_project_is_read(links):
    assert {"models.registry", "models.ops.scan.chunked", "baselines.attention.transformer", "tasks.task"} <= set(links)
    assert "models.layers" in links["baselines.attention.transformer"]
    assert "models.registry" in links["models.shell.model"]  # written as `from models import registry`


def test_wings_do_not_import_one_another(links):
    assert trespasses(links) == []


def test_baselines_do_not_import_one_another(links):
    assert neighbours(links, ROOT) == []


def test_only_the_hall_and_the_runner_know_every_wing(links):
    rooms = {name: {target.split(".")[0] for target in targets} for name, targets in links.items()}
    knowing = {name.split(".")[0] for name, seen in rooms.items() if len(seen & set(WINGS)) > 1}
    assert knowing == {"runner", "bench"}


def test_inside_a_wing_everything_is_imported_downward(links):
    assert climbs(links) == []


def test_no_folder_is_crowded():
    assert crowded(ROOT) == []


def test_no_ring(links):
    assert ring(links) == []


def test_what_draws_is_imported_when_something_is_drawn():
    """Every command and every worker imports the hall; matplotlib and pandas would cost each of them a second."""
    known = modules(ROOT)
    seen, waiting = set(), {name for name in known if name == "bench" or name.startswith("runner.commands.")}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= imports(name, known[name], known, at_once=True) - seen
    assert {"results.plans.reader", "results.rows.store", "runner.measure"} <= seen
    outside = {target.split(".")[0] for name in seen for target in _targets(name, known[name], at_once=True)}
    assert "torch" in outside and not outside & {"matplotlib", "pandas"}


@pytest.fixture
def house(tmp_path):
    """A function that writes a small project: dotted file path -> source."""

    def write(**files: str) -> dict[str, set[str]]:
        for room in (*WINGS, "baselines", "baselines/first", "runner"):
            (tmp_path / room).mkdir(exist_ok=True)
            (tmp_path / room / "__init__.py").touch()
        for name, source in files.items():
            (tmp_path / (name.replace("__", "/") + ".py")).write_text(source)
        return graph(tmp_path)

    return write


@pytest.mark.parametrize(
    "source",
    [
        "import tasks.task",
        "from tasks.task import Batch",
        "from tasks import task",
        "def late():\n    from tasks.task import Batch",
        "import importlib\nimportlib.import_module('tasks.task')",
        "from ..tasks.task import Batch",
    ],
)
def test_trespass_is_seen_however_it_is_written(house, source):
    assert trespasses(house(models__layers=source, tasks__task="")) == ["models.layers imports tasks.task"]


def test_wing_that_imports_the_hall_or_a_baseline_is_seen(house):
    links = house(
        results__table="import bench", models__layers="import baselines.first.one", baselines__first__one="", bench=""
    )
    assert trespasses(links) == [
        "models.layers imports baselines.first.one",
        "results.table imports bench",
    ]


@pytest.mark.parametrize("source", ["from baselines.first.two import Two", "from .two import Two", "from . import two"])
def test_neighbouring_baseline_is_seen(house, source, tmp_path):
    links = house(baselines__first__one=source, baselines__first__two="@register('two')\nclass Two: ...")
    assert neighbours(links, tmp_path) == ["baselines.first.one imports baselines.first.two"]


def test_what_a_family_has_in_common_is_its_own(house, tmp_path):
    links = house(
        baselines__first__one="from baselines.first.parts import Part", baselines__first__parts="class Part: ..."
    )
    assert neighbours(links, tmp_path) == []


def test_who_imports_the_runner_beside_the_hall_is_seen(house):
    source = "from runner.measure import measure"
    links = house(
        bench="", runner__measure="import bench", results__a=source, models__a=source, baselines__first__a=source
    )
    assert sorted(trespasses(links)) == [
        "baselines.first.a imports runner.measure",
        "models.a imports runner.measure",
        "results.a imports runner.measure",
        "runner.measure imports bench",
    ]


def test_ring_is_seen(house):
    links = house(models__a="import models.b", models__b="from models import c", models__c="from models.a import A")
    assert ring(links) == ["models.a", "models.b", "models.c", "models.a"]


def test_lawful_house_passes(house, tmp_path):
    links = house(
        models__a="import torch",
        baselines__first__one="from models.a import A",
        bench="import baselines, models.a, tasks",
    )
    assert (trespasses(links), neighbours(links, tmp_path), ring(links)) == ([], [], [])
    assert links["bench"] == {"baselines", "models.a", "tasks"}


def test_who_climbs_inside_a_wing_is_seen(house):
    links = house(results__cell="from results.rows import row", results__rows="", results__other="", tasks__rng="")
    assert climbs(links) == ["results.other stands on no floor", "results.cell imports results.rows"]


def test_a_crowded_folder_is_seen(house, tmp_path):
    house(**{f"results__part_{number}": "" for number in range(FULL + 1)})
    house(**{f"baselines__first__part_{number}": "" for number in range(FULL + 1)})
    assert crowded(tmp_path) == [f"results holds {FULL + 1} entries"]
