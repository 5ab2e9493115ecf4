"""Who imports whom, read from the files: wings apart, baselines apart, everything downward, no ring.

`measuring` and `bench` alone know every wing; nothing but the hall, `bench`, imports `measuring`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("models", "tasks", "results")
ROOMS = ("schema", *WINGS, "baselines", "measuring", "bench")
ALLOWED = {
    "schema": {"schema"},
    "models": {"schema", "models"},
    "tasks": {"schema", "tasks"},
    "results": {"schema", "results"},
    "baselines": {"schema", "baselines", "models"},
    "measuring": {"schema", "measuring", "baselines", *WINGS},
}


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


def neighbours(links: dict[str, set[str]]) -> list[str]:
    """Imports from one baseline into another."""
    return [
        f"{name} imports {target}"
        for name, targets in links.items()
        for target in targets
        if name.startswith("baselines.") and target.startswith("baselines") and not name.startswith("baselines.oracles")
    ]


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
    assert {"models.registry", "models.kernels.scan", "baselines.attention.transformer", "tasks.task"} <= set(links)
    assert "models.layers" in links["baselines.attention.transformer"]
    assert "models.registry" in links["models.language_model"]  # written as `from models import registry`


def test_wings_do_not_import_one_another(links):
    assert trespasses(links) == []


def test_baselines_do_not_import_one_another(links):
    assert neighbours(links) == []


def test_only_the_hall_and_the_measuring_know_every_wing(links):
    rooms = {name: {target.split(".")[0] for target in targets} for name, targets in links.items()}
    knowing = {name.split(".")[0] for name, seen in rooms.items() if len(seen & set(WINGS)) > 1}
    assert knowing == {"measuring", "bench"}


def test_no_ring(links):
    assert ring(links) == []


def test_what_draws_is_imported_when_something_is_drawn():
    """Every command and every worker imports the hall; matplotlib and pandas would cost each of them a second."""
    known = modules(ROOT)
    seen, waiting = set(), {"bench"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= imports(name, known[name], known, at_once=True) - seen
    assert {"results.plan", "results.record", "measuring.cells"} <= seen
    outside = {target.split(".")[0] for name in seen for target in _targets(name, known[name], at_once=True)}
    assert "torch" in outside and not outside & {"matplotlib", "pandas"}


@pytest.fixture
def house(tmp_path):
    """A function that writes a small project: dotted file path -> source."""

    def write(**files: str) -> dict[str, set[str]]:
        for room in (*WINGS, "baselines", "baselines/first", "measuring"):
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
    assert trespasses(links) == ["models.layers imports baselines.first.one", "results.table imports bench"]


@pytest.mark.parametrize("source", ["from baselines.first.two import Two", "from .two import Two", "from . import two"])
def test_neighbouring_baseline_is_seen(house, source):
    links = house(baselines__first__one=source, baselines__first__two="")
    assert neighbours(links) == ["baselines.first.one imports baselines.first.two"]


def test_who_imports_the_measuring_beside_the_hall_is_seen(house):
    source = "from measuring.cells import measure"
    links = house(
        bench="", measuring__cells="import bench", results__a=source, models__a=source, baselines__first__a=source
    )
    assert sorted(trespasses(links)) == [
        "baselines.first.a imports measuring.cells",
        "measuring.cells imports bench",
        "models.a imports measuring.cells",
        "results.a imports measuring.cells",
    ]


def test_ring_is_seen(house):
    links = house(models__a="import models.b", models__b="from models import c", models__c="from models.a import A")
    assert ring(links) == ["models.a", "models.b", "models.c", "models.a"]


def test_lawful_house_passes(house):
    links = house(
        models__a="import torch",
        baselines__first__one="from models.a import A",
        bench="import baselines, models.a, tasks",
    )
    assert (trespasses(links), neighbours(links), ring(links)) == ([], [], [])
    assert links["bench"] == {"baselines", "models.a", "tasks"}
