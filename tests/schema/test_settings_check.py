"""What fits an annotation, and the sentences about what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from schema.settings import construct, parameters
from schema.settings_check import check_settings, fits


class Owned:
    """A class that pydantic does not know."""


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (int, (3, -1), (3.0, True, "3", None)),
        (float, (3, 0.5), (True, "3", None)),
        (bool, (True,), (1, "true")),
        (str, ("",), (1, None)),
        (int | None, (None, 3), ("3", False)),
        (Literal["own", "fla"], ("own",), ("ow", ["own"], None)),
        (Literal["words"] | None, ("words", None), ("word",)),
        (tuple[int, ...], ((), (1, 2)), ([1], (1, "x"), (True,), "12")),
        (dict[str, int], ({"a": 1},), ({"a": "1"}, [])),
        (Owned, (Owned(),), (3,)),
        (Path, (Path("a"),), ("a",)),
        (Any, (None, "x", [1]), ()),
        (("no", "type"), (None, 3), ()),
    ],
)
def test_what_fits_an_annotation(annotation, right, wrong):
    assert [fits(value, annotation) for value in (*right, *wrong)] == [True] * len(right) + [False] * len(wrong)


class Thing:
    def __init__(self, width: int, kinds: tuple[str, ...] = (), form: Literal["near", "far"] = "near", free=1):
        self.given = width, kinds, form, free


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widht": 3}, "Thing 'a' has no setting 'widht' (did you mean width?); its settings are: width: int, kinds: "),
        ({"width": "3"}, "Setting a.width='3' has the wrong type; its settings are: width: int, "),
        ({"form": "fra"}, "Setting a.form='fra' has the wrong type (did you mean far?); its settings are: "),
        ({"kinds": ["x", 1]}, "Setting a.kinds=['x', 1] has the wrong type; its settings are: "),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(settings, said):
    with pytest.raises(ValueError) as told:
        check_settings("Thing", "a", settings, parameters(Thing))
    assert str(told.value).startswith(said)


def test_a_list_is_taken_for_a_tuple_where_one_is_asked_for():
    check_settings("Thing", "a", {"kinds": ["x"], "free": [1]}, parameters(Thing))
    assert construct(Thing, 3, kinds=["x"], free=[1]).given == (3, ("x",), "near", [1])
