"""Samples as they are shown: what is marked, what is cut, and what stands beside the text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

import tasks
from tasks.show import AROUND, ASKED, MARKED, render


def _parts(group, style: str) -> list[str]:
    texts = [part for part in group.renderables if isinstance(part, Text)]
    return [text.plain[span.start : span.end] for text in texts for span in text.spans if span.style == style]


def _plain(group) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(group, soft_wrap=True)
    return console.file.getvalue()


def test_a_needle_is_marked_and_its_answer_stands_below():
    for template, length in (("compact", 4096), ("ruler", 4096)):
        settings = {"template": template, "length": length, "samples": 1, "depths": (0.5,)}
        task = tasks.create("needle", variants=("s-niah-2", "mq-niah"), **settings)
        for number, count in ((0, 1), (len(task.test_lengths), 4)):
            group = render(task, settings, number=number)
            marked, (answer,) = _parts(group, MARKED), _parts(group, ASKED)
            assert len(marked) == count
            assert all(piece.rstrip(".").split("=")[-1].split(" ")[-1] in answer for piece in marked)
            text = _plain(group)
            assert "characters ...]" in text and len(text) < 4096 and "depth" in text
            assert f"template {template}" in " ".join(text.split())
            assert len(_plain(render(task, settings, number=number, whole=True))) > 3900


@pytest.mark.parametrize("question", ["qa2", "qa8", "qa19"])
def test_supporting_facts_are_marked(question):
    task = tasks.create("babilong", questions=(question,), length=2048, samples=2, test_lengths=(2048,))
    group = render(task, {"length": 2048}, number=1)
    (answer,) = _parts(group, ASKED)
    items = task._exam_items("simulator", "test", question, 2048)
    supports = [[item.facts[i] for i in sorted(item.supports)] for item in items if repr(item.answer + "\n") == answer]
    assert _parts(group, MARKED) in supports and "choices: " in _plain(group)


def test_running_text_is_shown_as_asked():
    task = tasks.create("language-modelling", length=64)
    text = _plain(render(task, {}))
    assert "64 tokens are asked" in text and "question 0, protocol" in text


def test_texts_that_fit_are_not_cut():
    task = tasks.create("needle", length=2 * AROUND, samples=1, test_lengths=(2 * AROUND,))
    assert "characters ...]" not in _plain(render(task, {}))


def test_a_question_that_is_not_there_is_refused():
    task = tasks.create("needle", length=64, samples=1, test_lengths=(64,))
    for number in (15, 99, -1):
        with pytest.raises(ValueError, match="The test split of needle has 15 questions"):
            render(task, {}, number=number)
