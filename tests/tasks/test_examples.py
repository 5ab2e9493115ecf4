"""The worked example in every task's docstring is what the task draws."""

from __future__ import annotations

import doctest
import inspect

import pytest

import tasks
from tasks.show import aligned


@pytest.mark.parametrize("name", tasks.names())
def test_the_example_in_a_tasks_docstring_is_drawn_by_the_task(name):
    text = inspect.getdoc(tasks.class_of(name))
    known = {"aligned": aligned, "create": tasks.create}
    test = doctest.DocTestParser().get_doctest(text, known, name, None, 0)
    assert [name in one.source for one in test.examples] == [True]
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)
