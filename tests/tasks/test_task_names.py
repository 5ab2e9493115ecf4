"""Tasks by name: found in their folder, built from their settings, refused in one sentence."""

from __future__ import annotations

import pytest

import tasks
from tasks.language_modelling.task import LanguageModelling
from tasks.needle.task import Needle


def test_tasks_are_found_by_name():
    assert {"language-modelling", "needle"} <= set(tasks.names())
    assert tasks.names() == sorted(tasks.names())
    assert isinstance(tasks.create("language-modelling", length=64), LanguageModelling)


def test_lists_are_taken_for_tuples_and_whole_numbers_for_fractions():
    task = tasks.create("needle", variants=["s-niah-2"], depths=[0, 1], test_lengths=[64])
    assert isinstance(task, Needle)
    assert (task.variants, task.depths, task.test_lengths) == (("s-niah-2",), (0.0, 1.0), (64,))


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("neddle", {}, "There is no task 'neddle' .did you mean needle..; the tasks are: .*needle"),
        (
            "needle",
            {"lenght": 64},
            "has no setting 'lenght' .did you mean length..; its settings are: variants.*length: int = 128",
        ),
        ("needle", {"length": "64"}, "needle.length='64' has the wrong type; its settings are: "),
        ("needle", {"length": True}, "needle.length=True has the wrong type"),
        ("needle", {"length": 64.5}, "needle.length=64.5 has the wrong type"),
        ("needle", {"test_lengths": [64, "x"]}, "needle.test_lengths=.* has the wrong type"),
        ("needle", {"depths": [True]}, "needle.depths=.True. has the wrong type"),
        ("needle", {"variants": "s-niah-1"}, "needle.variants='s-niah-1' has the wrong type"),
        ("needle", {"template": "long"}, "needle.template='long' has the wrong type"),
        ("needle", {"digits": "4"}, "needle.digits='4' has the wrong type"),
    ],
)
def test_unknown_names_settings_and_types_are_refused_with_the_signature(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tasks.create(name, **settings)
