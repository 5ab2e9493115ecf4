"""Cells of a user's models beside the house's: who imports the file, what a cell may leave behind, what keys depend on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import bench
from models import registry, user_file
from models.conformance.causality import LooksAhead
from models.user_file import load_file
from results.cell import Cell
from runner import cell_key
from runner import measure as cells
from runner.cell_key import identify
from runner.measure import measure, with_own_files

pytestmark = pytest.mark.usefixtures("no_user_files")

MINE = """
from torch import nn
from models.registry import register


@register("{name}", paper="none", equation="y = W x")
class Mine(nn.Module):
    fixed_state = True

    def __init__(self, width: int, heads: int):
        {first}
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, x, state=None):
        return self.out(x), ()
"""
CELL = Cell(
    comparison="tiny", kind="training", model="retnet", settings={}, task="mqar", task_settings={"samples": 4},
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 1, "batch_tokens": 64}, seed=0, lr=1e-3,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip


@pytest.fixture
def load(tmp_path):
    """Writes a file that registers a model and loads it; gives its path."""

    def loaded(name: str, first: str = "pass") -> str:
        path = tmp_path / f"{name.replace('-', '_')}_of_user_cells.py"
        path.write_text(MINE.format(name=name, first=first))
        load_file(path)
        return str(path)

    return loaded


def test_a_cell_names_the_files_of_its_own_models_alone(load):
    files = tuple(load(name) for name in ("mine", "other"))
    every = [dataclasses.replace(CELL, model=name, model_files=files) for name in ("retnet", "mine", "other")]
    entrants = [{"model": name} for name in ("retnet", "other", "")]
    every.append(dataclasses.replace(CELL, kind="contest", model="", entrants=entrants, model_files=files))
    found = [cell.model_files for cell in with_own_files(every)]
    assert found == [(), (files[0],), (files[1],), (files[1],)]


AHEAD = MINE.replace("return self.out(x), ()", "return self.out(x.roll(-1, 1)), ()")


@pytest.mark.parametrize("kind", ["trial", "training"])
def test_a_model_that_looks_ahead_is_refused_before_it_trains(load, monkeypatch, kind):
    """Its numbers would be the best of all, and no prediction."""
    monkeypatch.setitem(globals(), "MINE", AHEAD)
    cell = dataclasses.replace(CELL, model="mine", kind=kind, model_files=(load("mine"),))
    with pytest.raises(LooksAhead, match="at token 0 hang on tokens from 1 on: the model looks ahead"):
        measure(cell, lambda news: None)


def test_keys_do_not_depend_on_other_files_that_are_there(load):
    mine = load("mine")
    cell = dataclasses.replace(CELL, model="mine", model_files=(mine,))
    alone, house = identify(cell), identify(CELL)
    other = load("other")
    assert identify(dataclasses.replace(cell, model_files=(mine, other))) == alone and identify(CELL) == house


def test_a_worker_registers_a_file_for_the_cell_that_names_it(load):
    mine = load("mine")
    user_file._brought.clear()
    registry._entries.pop("mine")
    cell = dataclasses.replace(CELL, model="mine", model_files=(mine,))
    assert identify(cell).family == "yours"


def test_what_a_cell_changes_is_put_back_and_told(monkeypatch):
    real = F.cross_entropy

    def rude(cell, progress, checkpoints):
        torch.set_default_dtype(torch.float64)
        F.cross_entropy = None
        torch.manual_seed(1)
        return {"measured": 1}

    monkeypatch.setattr(cells, "_measured", rude)
    drawn = torch.get_rng_state()
    with pytest.warns(
        UserWarning, match="retnet on mqar, seed 0 changed the default dtype, torch.nn.functional.cross_entropy"
    ):
        assert measure(CELL, print) == {"measured": 1}
    assert torch.get_default_dtype() == torch.float32 and F.cross_entropy is real
    assert torch.equal(torch.get_rng_state(), drawn)


def test_what_a_user_s_constructor_changes_in_a_forecast_is_put_back(load, results, monkeypatch):
    path = load("rude", "import torch; torch.set_default_dtype(torch.float64)")
    assert bench.main(["run", "tiny", "--models", path, "--dry-run"]) == 0
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("raise SystemExit(0)", "line 11: SystemExit: 0"),
        ("import os; os._exit(0)", "line 11: SystemExit: os._exit(0)"),
        ("assert False, 'one\\n' + 'x' * 5000", "line 11: AssertionError: one xxx"),
        ("raise ValueError('one\\n' + 'x' * 5000)", "line 11: ValueError: one xxx"),
    ],
)
def test_what_a_user_s_constructor_raises_is_one_line_before_anything_is_measured(
    first, told, tmp_path, results, capsys
):
    mine = tmp_path / "raises_of_user_cells.py"
    mine.write_text(MINE.format(name="mine-raises", first=first.replace("\n", "\\n")))
    assert bench.main(["run", "tiny", "--models", f"transformer,{mine}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench.py: raises_of_user_cells.py, " + told) and len(line) < 500
    assert not (results / "tiny" / "rows.jsonl").exists()


def test_sys_exit_in_a_checked_file_is_exit_2(tmp_path, capsys):
    mine = tmp_path / "leaves.py"
    mine.write_text("import sys\nsys.exit(0)")
    for words in (["check", str(mine)], ["run", "smoke", "--models", f"transformer,{mine}"]):
        assert bench.main(words) == 2
        assert capsys.readouterr().err == "bench.py: leaves.py fails to import, line 2: SystemExit: 0\n"


def test_a_package_s_key_follows_each_of_its_files_and_not_where_it_lies(tmp_path):
    keys = []
    for change in ("", "data", "code", "elsewhere"):
        folder = tmp_path / ("other" if change == "elsewhere" else "one") / "mine_package"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("from . import model\n")
        (folder / "model.py").write_text(MINE.format(name="mine", first="x = 1" if change == "code" else "pass"))
        (folder / "data.txt").write_text("2" if change == "data" else "1")
        registry._entries.pop("mine", None)
        user_file._brought.clear()
        user_file._forget("yours_mine_package")
        cell_key._code_hash.cache_clear()
        keys.append(identify(dataclasses.replace(CELL, model="mine", model_files=(str(folder),))).key)
    assert len(set(keys)) == 3 and keys[0] == keys[3]


def test_a_hybrid_names_the_files_of_its_mixers_and_its_key_covers_them(load):
    mine = load("mine")
    cell = dataclasses.replace(
        CELL, model="hybrid", settings={"layers": ["retnet", "mine"]}, size={"width": 16, "depth": 2, "heads": 2}
    )
    house = dataclasses.replace(cell, settings={"layers": "retnet*2"})
    assert [one.model_files for one in with_own_files([cell, house])] == [(mine,), ()]
    names = {path.name for path in cell_key._model_files(cell.model, cell.settings)}
    assert names == {"hybrid.py", "retnet.py", "mine_of_user_cells.py"}
    before, same = identify(cell).key, identify(house).key
    with open(mine, "a") as file:
        file.write("\nNEW = 1\n")
    cell_key._code_hash.cache_clear()
    assert identify(cell).key != before and identify(house).key == same
