"""A cell's key covers what the cell uses and nothing else, seen in copies of the project to which files are added."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from results.rows import provenance
from schema.places import ROOT

# Each line that is read asks for the keys of the code as it stands then; torch is imported once for all of them, and a file is
# parsed once, since what is remembered of it goes by its content.
SERVER = """
import os, sys, torch, numpy, pydantic
from pathlib import Path
from results.rows import provenance
for wing in ("schema", "models", "baselines", "tasks", "results", "runner"):
    for file in Path(wing).rglob("*.py"):
        provenance._effective(file.read_bytes())
for _ in sys.stdin:
    if not (child := os.fork()):
        exec({keys!r})
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
KEYS = """
import json
import baselines
from models import registry
from results.cell import Cell
from runner.cell_key import identify

some = {"transformer", "mamba", "deltanet", "ttt-linear", "ttt-mlp", "titans-lmm", "hybrid", "later", "another"}
size, budget = {"width": 32, "depth": 2, "heads": 2}, {"steps": 2, "batch_tokens": 64}
task, nothing = {"pairs": [2], "length": 16, "vocab": 16, "samples": 2}, {}
found = {}
for name in some & set(registry.names()):
    for kind, settings, own in (("training", task, budget), ("timing", {"batch": 1, "length": 16}, {})):
        asked = "mqar" if own else "throughput"
        cell = Cell("c", kind, name, {}, asked, settings, size, own, 0, 1e-3, "float32", "auto", "cpu", 1)
        found[f"{name}, {kind}"] = identify(cell).key
print(json.dumps(found))
"""
FAMILY = """\"\"\"A family that comes later.\"\"\"

from models.family import Family

FAMILY = Family(__name__, "later", place=35, hue=10.0)
"""
BASELINE = """\"\"\"A baseline that comes later.\"\"\"

from torch import nn

from models.registry import register


@register("later", paper="Nobody 2026", equation="y = x")
class Later(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, x, state=None):
        return self.out(x), ()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project's code."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    for name in ("schema", "models", "baselines", "tasks", "results", "runner"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "comparisons"))
    return copy


@pytest.fixture(scope="module")
def keys(project) -> Iterator[Callable[[], dict[str, str]]]:
    """What tells the key of one model's cells of each family, and of those that are added: of a training and of a timing."""
    command, piped = [sys.executable, "-c", SERVER.format(keys=KEYS)], subprocess.PIPE
    with subprocess.Popen(command, cwd=project, stdin=piped, stdout=piped, text=True) as server:

        def ask() -> dict[str, str]:
            server.stdin.write("\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


def test_what_is_added_elsewhere_changes_no_other_models_key(project, keys):
    before = keys()
    (project / "models" / "ops" / "later").mkdir()
    (project / "models" / "ops" / "later" / "__init__.py").write_text('"""An operation that comes later."""\n')
    (project / "models" / "ops" / "ttt" / "later.py").write_text('"""A form that comes later."""\n\nPLACE = 1\n')
    (project / "baselines" / "later").mkdir()
    (project / "baselines" / "later" / "__init__.py").write_text(FAMILY)
    (project / "baselines" / "later" / "later.py").write_text(BASELINE)
    (project / "baselines" / "attention" / "another.py").write_text(BASELINE.replace("later", "another"))
    with (project / "models" / "layers" / "__init__.py").open("a") as file:
        file.write("\n# a comment\n")
    after = keys()
    changed = {name for name, key in before.items() if after[name] != key}
    assert changed == {name for name in before if name.startswith("ttt")} and changed
    assert {"later, training", "another, timing"} <= set(after)
    with (project / "models" / "layers" / "__init__.py").open("a") as file:
        file.write("\nNEW = 1\n")
    assert not set(keys().values()) & set(after[name] for name in before if name.startswith("transformer"))


def test_compiled_code_counts_with_the_headers_that_it_includes_and_without_its_comments(project, keys):
    def append(file: str, text: str) -> None:
        with (project / "models" / "ops" / file).open("a") as source:
            source.write(text)

    before = keys()
    append("selective_scan/native.c", "\n/* a\n comment */ // and another\n")
    append("selective_scan/native.c", "\nstatic const int later = 1;\n")
    append("associative_memory/native/loss.h", "\n// a comment\n")
    append("diagonal_scan/native.c", "\n// a comment\n")
    after = keys()
    assert {name.split(",")[0] for name, key in after.items() if before[name] != key} == {"mamba"}
    append("tiles.h", "\n#define LATER 1\n")
    assert "ttt-mlp, training" in {name for name, key in keys().items() if after[name] != key}


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(FileNotFoundError, match="matches 'models/kernels/\\*.py'; it has moved"):
        provenance.matching(ROOT, "models/kernels/*.py")
