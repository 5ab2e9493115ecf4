"""Data from outside: right values pass, each wrong one is one sentence that names its place."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

import schema


class Row(TypedDict):
    __pydantic_config__ = {"extra": "forbid"}
    seed: int
    rate: float
    kind: Literal["one", "two"]
    where: dict[str, float | str | None]


SOUND = {"seed": 1, "rate": 2, "kind": "one", "where": {"length": 64, "split": "test", "depth": None}}


def test_sound_values_pass_and_a_whole_number_is_a_number():
    assert schema.conform(SOUND, Row, "rows") == SOUND


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": None}, "rows, line 3: seed must be a whole number, not None."),
        ({"seed": True}, "rows, line 3: seed must be a whole number, not True."),
        ({"seed": 1.5}, "rows, line 3: seed must be a whole number, not 1.5."),
        ({"rate": "fast"}, "rows, line 3: rate must be a number, not 'fast'."),
        ({"kind": "three"}, "rows, line 3: kind must be one of 'one' or 'two', not 'three'."),
        ({"where": []}, "rows, line 3: where must be a table, not []."),
        ({"where": {"depth": [1]}}, "rows, line 3: where.depth must be a number, not [1]."),
        ({"colour": 1}, "rows, line 3: unknown key 'colour'; take it out."),
    ],
)
def test_wrong_values_are_one_sentence(change, sentence):
    with pytest.raises(schema.DataError) as caught:
        schema.conform(SOUND | change, Row, "rows, line 3")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        (-1, Annotated[int, Field(ge=0)], "at least 0"), (0, Annotated[int, Field(gt=0)], "more than 0"),
        (10**50, Annotated[int, Field(le=9)], "at most 9"), (9, Annotated[int, Field(lt=9)], "less than 9"),
        ([1], Annotated[list[int], Field(min_length=2)], "at least 2 long"), ("b", schema.formed("^a$", "an a"), "an a"),
        ("\ud800", schema.formed("^.$", "one letter"), "whole letters"),
        ("", Annotated[str, Field(min_length=2)], "at least 2 letters long"),
        ("b", Annotated[str, Field(pattern="^c$")], "text of the form ^c$"),
    ],
)  # fmt: skip
def test_bounds_and_forms_are_told_in_the_house_s_words(value, kind, wanted):
    with pytest.raises(schema.DataError, match=re.escape(f"count must be {wanted}")) as caught:
        schema.conform(value, kind, "count")
    assert "should" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_missing_key_is_named():
    with pytest.raises(schema.DataError, match=r"^rows: seed is missing; add it\.$"):
        schema.conform({name: value for name, value in SOUND.items() if name != "seed"}, Row, "rows")


@pytest.mark.parametrize("text", ['{"a": NaN}', "[Infinity]", "[", "[" * 200_000, "1" * 5000, b"\xff{}", ""])
def test_what_is_no_json_is_one_short_sentence(text):
    with pytest.raises(schema.DataError) as caught:
        schema.parse_json(text, source="facts.json")
    assert str(caught.value).startswith("facts.json") and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["a = [", "a = " + "[" * 200_000, "a = 1\na = 2", "\x00"])
def test_what_is_no_toml_is_one_short_sentence(text):
    with pytest.raises(schema.DataError) as caught:
        schema.parse_toml(text, source="plan.toml")
    assert str(caught.value).startswith("plan.toml") and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_byte_order_marks_are_no_part_of_the_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1")
    assert schema.read_json(tmp_path / "a.json") == [1] and schema.read_toml(tmp_path / "a.toml") == {"a": 1}


def test_the_callers_error_is_raised():
    class MyError(ValueError):
        pass

    with pytest.raises(MyError):
        schema.conform(1, str, "x", error=MyError)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_value_passes_or_is_one_sentence(value):
    try:
        schema.conform(value, Row, "rows")
    except schema.DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 400


def test_long_values_are_cut_in_the_middle():
    assert schema.shortened("a" * 100, 20) == "'aaaaaaaa...aaaaaaa'"
    assert len(schema.shortened(10**5000)) <= 80


def test_the_nearest_known_name_is_suggested():
    assert schema.suggestion("mamab2", ["mamba2", "retnet"]) == " (did you mean mamba2?)"
    assert schema.suggestion("xyz", ["mamba2", "retnet"]) == ""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("line one\nline two"), "ValueError: line one line two"),
        (SystemExit(0), "SystemExit: 0"),
        (AssertionError(), "AssertionError"),
        (Mute(), "Mute"),
        (Leaving(), "Leaving"),
        (ValueError("\x1b[31mred"), "ValueError: ?[31mred"),
    ],
)
def test_an_exception_of_other_people_s_code_is_one_line(error, said):
    assert schema.fault(error) == said


def test_a_long_exception_is_cut_in_the_middle():
    told = schema.message(ValueError("a" * 5000 + "z"), 100)
    assert len(told) == 100 and told.startswith("aaa") and told.endswith("az") and "..." in told


def test_a_key_that_cannot_be_printed_is_told_as_a_quoted_text():
    with pytest.raises(schema.DataError) as caught:
        schema.conform({"\x1b[31m": 1, "k" * 500: 2}, dict[str, str], "facts")
    assert str(caught.value).isprintable() and r"\x1b[31m" in str(caught.value)
