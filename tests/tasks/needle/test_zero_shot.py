"""The needle and BABILong after language modelling: text is trained, questions are only asked."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

import tasks
from tasks.show import render
from tasks.task import IGNORE

SETTINGS = {"length": 128, "template": "compact", "variants": ["s-niah-1"], "test_lengths": [128], "samples": 2}


@pytest.fixture(scope="module")
def task():
    return tasks.create("zero-shot-needle", **SETTINGS, depths=[0.0, 1.0])


def test_training_is_running_text(task):
    text = tasks.create("language-modelling", length=128, test_lengths=[128])
    for step in (0, 5):
        ours, theirs = task.training(1, step, 0.5, 512), text.training(1, step, 0.5, 512)
        assert torch.equal(ours.tokens, theirs.tokens) and torch.equal(ours.targets, theirs.targets)
    assert (ours.targets != IGNORE).all()


def test_the_test_is_the_needles_and_validation_is_text(task):
    needle = tasks.create("needle", **SETTINGS, depths=[0.0, 1.0])
    ours, theirs = list(task.exams("test")), list(needle.exams("test"))
    assert len(ours) == len(theirs) >= 2
    assert all(torch.equal(a.batch.tokens, b.batch.tokens) for a, b in zip(ours, theirs, strict=True))
    marks = [m for exam in ours for m in task.mark(exam, task.oracle(exam))]
    assert {m.metric for m in marks} >= {"compact_exact_match"} and all(m.value == 1 for m in marks)
    assert all(task.evidence(exam, 0) for exam in ours)
    assert all(exam.prompt is None for exam in task.exams("validation"))
    assert task.protocol == "zero-shot" and task.floors().keys() == needle.floors().keys()
    assert task.data_hash() != needle.data_hash()


STORIES = {"length": 64, "questions": ["qa1"], "test_lengths": [0, 1024], "samples": 3, "validation_bytes": 256}


@pytest.fixture(scope="module")
def stories():
    return tasks.create("few-shot-babilong", **STORIES)


def test_babilong_is_asked_with_examples_and_no_story_is_trained(stories):
    text = tasks.create("language-modelling", length=64, test_lengths=[64])
    assert torch.equal(stories.training(1, 3, 0.5, 512).tokens, text.training(1, 3, 0.5, 512).tokens)
    assert all(exam.prompt is None for exam in stories.exams("validation"))
    exams = list(stories.exams("test"))
    assert {exam.batch.where["length"] for exam in exams} == {0, 1024} and stories.protocol == "few-shot"
    for exam in exams:
        assert exam.stop is None and bytes(exam.batch.tokens[0].tolist()).count(b"</example>") == 2
        assert stories.evidence(exam, 0)


def test_what_follows_a_line_break_counts_for_babilongs_comparison_and_not_for_the_exact_one(stories):
    exam = next(stories.exams("test"))
    oracle = stories.oracle(exam)
    assert all(m.value == (m.metric != "scorer_disagreement") for m in stories.mark(exam, oracle))
    right = [bytes(text).decode().rstrip("\n") for text in oracle.text]
    assert all(text[0] == " " for text in right)
    for between, official in (("\n", 0), (".\n", 1)):
        said = [f"{text}{between}{'office' if 'garden' in text else 'garden'}" for text in right]
        answers = oracle._replace(text=tuple(tuple(text.encode()) for text in said))
        marks = {m.metric: m.value for m in stories.mark(exam, answers)}
        assert (marks["generated_accuracy"], marks["exact_accuracy"]) == (official, 1 - official)


@pytest.mark.parametrize(("name", "settings"), [("zero-shot-needle", SETTINGS), ("few-shot-babilong", STORIES)])
def test_a_question_in_tokens_is_shown_as_text(name, settings):
    pytest.importorskip("tokenizers", reason="tokenizers other than bytes are an extra")
    task = tasks.create(name, **settings, tokenizer="bpe:1000")
    assert task.tokenizer.name == "bpe:1000"  # with which a trained model is kept
    console = Console(width=200, file=io.StringIO())
    console.print(render(task, settings), soft_wrap=True)
    said = console.file.getvalue()
    assert "follows from: " in said and " is " in said


def test_text_and_questions_have_one_tokenizer(tmp_path):
    pytest.importorskip("tokenizers", reason="tokenizers other than bytes are an extra")
    other = tmp_path / "other.txt"
    other.write_text(
        "\n<|endoftext|>\n".join(f"{word} is another text than that of the novels. " * 40 for word in "abcd")
    )
    for name, settings in (("zero-shot-needle", SETTINGS), ("few-shot-babilong", STORIES)):
        with pytest.raises(ValueError, match=f"{name} reads text and questions with one tokenizer"):
            tasks.create(name, **settings, tokenizer="bpe:300", haystack=str(other))
