"""Words of the command line and of plans that say nothing, or something else than they seem to."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bench
from models import registry
from results.plans import reader as plans
from results.plans.reader import PlanError
from results.plans.toml_reader import TableReader
from runner.commands.shared import terminal
from schema import parse_toml
from schema.words import LONGEST_LINE
from tests.support.tiny_plan import tiny_plan

LONG = "y" * 100_000
CLAIM = """
[[claims]]
text = "A beats B"
source = "nobody"
better = "transformer"
worse = "deltanet"
task = "needle"
metric = "exact_match"
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "tny"], "did you mean tiny?"),
        (["run", "../../x/tiny"], "called by its name"),
        (["rn", "tiny"], "did you mean run?"),
        (["run", "tiny", "--modles", "x"], "did you mean --models?"),
        *(
            (["run", "tiny", flag, word], f"{flag} is empty")
            for flag in ("--models", "--tasks", "--seeds")
            for word in ("", ",,,")
        ),
        (["run", "tiny", "--scale", ""], "--scale is empty"),
        (["report", ""], "comparison is empty"),
        (["export", "checkpoint", ""], "bench.py: folder is empty"),
        (["list", ""], "bench.py: models is empty"),
        (["run", "tiny", "--set", "retnet.no_such=1"], "no model or task of this run"),
        (["run", "tiny", "--dtype", "bfloat17"], "did you mean bfloat16?"),
        (["run", "tiny", "--provider", "chunkd"], "did you mean chunked?"),
        (["run", "tiny", "--set", "deltanet.kernal=3"], "did you mean kernel?"),
        (["run", "tiny", "--set", "needle.template=rulr"], "did you mean ruler?"),
        (["run", "tiny", "--set", "needle.variants=['s-niah-1','s-niah-1']"], "names 's-niah-1' twice"),
        (["show", "nedle"], "did you mean needle?"),
        (["run", "tiny", "--set", "x" * 100_000], "NAME.SETTING=VALUE"),
    ],
)
def test_a_word_that_says_nothing_or_is_misspelt_is_refused(results, capsys, arguments, says):
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and len(error) < 2_000


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("[variants]\nx = 3", "x must be a table"),
        ("[[variants]]\nx = 3", "variants must be a table"),
        ("[[timings]]\nname = 'thruput'", "no timing 'thruput' .did you mean throughput"),
        (CLAIM.replace('"deltanet"', '"deltanett"'), "did you mean deltanet"),
        (CLAIM.replace('"needle"', '"nedle"'), "did you mean needle"),
        (CLAIM + "where = { length = [[1]] }", "where"),
    ],
)
def test_a_plan_is_held_to_its_types_and_names_one_level_down(tmp_path, more, says):
    (tmp_path / "plan.toml").write_text("\ufeff" + tiny_plan() + more, encoding="utf-8")
    with pytest.raises(PlanError, match=says) as caught:
        plans.load(tmp_path)
    assert "plan.toml" in str(caught.value) and "\n" not in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


def _places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


SOUND = tiny_plan() + CLAIM
PLACES = [path for path in _places(parse_toml(SOUND)) if path]


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), ANYTHING)
def test_a_plan_changed_anywhere_is_a_plan_or_one_sentence(place, value):
    table = parse_toml(SOUND)
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        plan = plans._plan("fuzz", table, TableReader("plan.toml"))
        plans.check(plan, "plan.toml")
        plans.cells(plan, registry.names())
    except PlanError as error:
        assert len(" ".join(str(error).split())) < LONGEST_LINE


def test_a_fault_is_told_in_one_line_with_its_place():
    try:
        [].no_such  # noqa: B018
    except AttributeError as error:
        said = terminal.told(error)
    assert "tests/runner/commands/test_command_words.py:" in said and "TITANOMACHY_TRACE=1" in said
    assert len(terminal.told(ValueError("line one\n" + "x" * 100_000))) <= LONGEST_LINE
    assert "not enough memory" in terminal.told(MemoryError()) and "too large" in terminal.told(OverflowError("x"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(number):
    said = terminal.told(OSError(number, os.strerror(number)))
    assert said.startswith(f"The disk takes no more ({os.strerror(number)})") and "make room" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", LONG], "File name too long"),
        (["check", LONG], "Unknown model"),
        (["check", f"{LONG}.py"], "File name too long"),
        (["ask", LONG, "needle"], "File name too long"),
        (["list", LONG], "with --costs alone"),
        (["run", "tiny", "--steps", LONG], "--steps: must be a whole number, not 'yyy"),
        (["report", "tiny", "--scale", LONG], "File name too long"),
    ],
)
def test_a_long_word_is_cut_wherever_it_stands(results, capsys, arguments, says):
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and "Errno" not in error and error.count("y") < 400
