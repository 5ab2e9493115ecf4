"""Questions that several processes answer at once: what they find is remembered here, and what fails is left to the dry run."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from functools import partial

import pytest

import baselines  # noqa: F401  fills the registry
from runner import cell_key, costs
from runner.preflight import ahead, remembered
from runner.preflight.refusals import structure
from schema.places import CACHE
from tests.runner.test_costs import CELL


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def asked(number, find=os.getpid):
    return remembered.of_model("a number", "gru", {}, number, find)


def in_copies(monkeypatch, copies=2):
    monkeypatch.setattr(ahead, "_copies", lambda questions: copies)


def test_what_other_processes_answer_is_remembered_here(monkeypatch, folder):
    in_copies(monkeypatch)
    with remembered.kept():
        ahead.ask([partial(asked, number) for number in range(40)])
        found = {asked(number, lambda: pytest.fail("it was asked again")) for number in range(40)}
    assert os.getpid() not in found
    with remembered.kept():
        assert asked(0) in found  # it was written too


def test_few_questions_are_left_to_the_dry_run():
    with remembered.kept():
        ahead.ask([partial(asked, 0, lambda: pytest.fail("it was asked"))])


def test_what_fails_is_asked_again_where_it_is_told(monkeypatch):
    in_copies(monkeypatch)

    def refuse():
        raise ValueError("no such width")

    with remembered.kept():
        ahead.ask([partial(asked, 0, refuse), partial(asked, 1)])
        with pytest.raises(ValueError, match="no such width"):
            asked(0, refuse)


def test_what_warns_warns_where_it_is_told_alone(monkeypatch, recwarn):
    in_copies(monkeypatch)

    def doubtful():
        warnings.warn("two names, one model", stacklevel=1)
        return 0

    with remembered.kept():
        ahead.ask([partial(asked, 0, doubtful)])
        assert not recwarn
        with pytest.warns(UserWarning, match="two names"):
            asked(0, doubtful)


def test_a_copy_that_is_killed_costs_time_alone(monkeypatch):
    in_copies(monkeypatch)
    here = os.getpid()

    def dies():
        if os.getpid() != here:
            os.kill(os.getpid(), 9)
        return 1

    with remembered.kept():
        ahead.ask([partial(asked, number, dies) for number in range(8)])
        assert [asked(number, lambda: 1) for number in range(8)] == [1] * 8


def test_a_dry_run_of_cells_finds_its_answers(monkeypatch, tmp_path):
    in_copies(monkeypatch)
    costs._model.cache_clear()
    with remembered.kept():
        ahead.ask(ahead.questions([CELL], tmp_path, elsewhere=False))
        monkeypatch.setattr(costs, "unfilled", lambda *given: pytest.fail("a model was built"))
        monkeypatch.setattr(costs, "kept_per_token", lambda *given: pytest.fail("a model was run"))
        costs._model.cache_clear()
        assert structure(CELL) and costs.of_cell(CELL, None).operations
    costs._model.cache_clear()


def test_keys_of_cells_that_may_be_measured_are_found_too(monkeypatch, tmp_path):
    in_copies(monkeypatch)
    key = cell_key.keys_among([])
    expected = key(CELL)
    cell_key._code_hash.cache_clear()
    with remembered.kept():
        ahead.ask(ahead.questions([CELL], tmp_path, elsewhere=False, key=key))
        cell_key._code_hash.cache_clear()
        monkeypatch.setattr(cell_key, "_found_code_hash", lambda *given: pytest.fail("code was read"))
        assert key(CELL) == expected
    cell_key._code_hash.cache_clear()


def test_of_cells_that_no_machine_holds_nothing_is_asked(tmp_path):
    large = replace(CELL, size=CELL.size | {"width": 2**40, "depth": 2**20})
    assert ahead.questions([CELL, large], tmp_path, elsewhere=False) == []
