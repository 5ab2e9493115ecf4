"""What dry runs remember of models: no answer outlives the code or the file that it came from, and none is a user's model's."""

from __future__ import annotations

import os
import warnings
from itertools import count

import pytest

import baselines  # noqa: F401  fills the registry
from models import user_file
from runner import costs
from runner.preflight import remembered
from schema.places import CACHE
from tests.runner.test_costs import CELL

USERS = """
from torch import nn
from models.registry import register

@register("remembers-nothing", paper="none", equation="y = W x")
class Mine(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, state=None):
        return self.linear(x), None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def asked_twice(model="gru", find=None):
    """What two dry runs answer, the second of which would find something else."""
    numbers, answers = count(), []
    for _ in range(2):
        with remembered.kept():
            answers.append(remembered.of_model("a number", model, {}, 3, find or (lambda: next(numbers))))
    return answers


def test_what_one_dry_run_found_the_next_one_knows():
    assert asked_twice() == [0, 0]


def test_outside_of_dry_runs_all_is_asked_anew():
    numbers = count()
    assert [remembered.of_model("a number", "gru", {}, 3, lambda: next(numbers)) for _ in range(2)] == [0, 1]


def test_other_code_is_asked_anew(monkeypatch):
    states = iter(["one", "other"])
    monkeypatch.setattr(remembered, "_code", lambda: next(states))
    assert asked_twice() == [0, 1]


@pytest.mark.parametrize("name", ["one.py", "one.c", "one.h"])
def test_a_file_of_code_that_was_touched_is_other_code(name, tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "CODE", (tmp_path / "models",))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).write_text("1")
    before = remembered._code.__wrapped__()
    (tmp_path / "models" / name).write_text("22")
    assert remembered._code.__wrapped__() != before


def test_other_settings_are_another_question():
    with remembered.kept():
        found = [remembered.of_model("n", "gla", {"kernel": k}, 3, lambda k=k: k) for k in (1, 2)]
    assert found == [1, 2]


def test_nothing_is_kept_of_a_users_model(tmp_path, no_user_files):
    path = tmp_path / "mine.py"
    path.write_text(USERS)
    user_file.load_files([str(path)])
    assert asked_twice("remembers-nothing") == [0, 1]


def test_what_warns_warns_again():
    def find():
        warnings.warn("two names, one model", stacklevel=1)
        return 0

    for _ in range(2):
        with pytest.warns(UserWarning, match="two names"):
            asked_twice(find=find)


def test_a_refusal_is_no_answer():
    def refuse():
        raise ValueError("no such width")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such width"):
            asked_twice(find=refuse)


@pytest.mark.parametrize("written", ["", "[1]", '{"a": 1}', "\x00"])
def test_a_damaged_file_is_as_none(folder, written):
    folder.mkdir()
    (folder / remembered.FILE).write_text(written)
    assert asked_twice() == [0, 0]


def test_a_folder_that_cannot_be_written_costs_time_alone(folder):
    folder.write_text("a file where a folder should be")
    assert asked_twice() == [0, 1]


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path, read = tmp_path / "rows.jsonl", []

    def known() -> str:
        with remembered.kept():
            return remembered.of_file("text", path, lambda: read.append(1) or path.read_text())

    path.write_text("one")
    assert [known(), known(), len(read)] == ["one", "one", 1]
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert [known(), len(read)] == ["two", 2]


def test_a_forecast_from_memory_is_the_forecast(monkeypatch):
    costs._model.cache_clear()  # whatever asked it before
    with remembered.kept():
        first = costs.of_cell(CELL, None)
    costs._model.cache_clear()
    monkeypatch.setattr(costs, "unfilled", lambda *asked: pytest.fail("a model was built"))
    monkeypatch.setattr(costs, "kept_per_token", lambda *asked: pytest.fail("a model was run"))
    with remembered.kept():
        again = costs.of_cell(CELL, None)
    assert (again.operations, again.memory, again.has_vocab) == (first.operations, first.memory, first.has_vocab)
    costs._model.cache_clear()
