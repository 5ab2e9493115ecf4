"""`train_on`: a task of text asked after language modelling, under its own name or an alias."""

from __future__ import annotations

import pytest
import torch

import tasks
from tasks.task import Answers, Batch, EvaluationBatch, Measurement, Task
from tasks.text.tokenizer import BYTES, DEFAULT, create

TEXT = {"name": "language-modelling"}
FORMS = [  # an alias with its settings, and the same question by train_on
    (
        ("zero-shot-needle", {"length": 64, "template": "compact", "depths": [0.5], "validation_bytes": 512}),
        (
            "needle",
            {"length": 64, "depths": [0.5], "train_on": TEXT | {"validation_bytes": 512}},
        ),
    ),
    (
        ("few-shot-babilong", {"length": 64, "questions": ["qa1"], "test_lengths": [0, 1024], "samples": 3}),
        (
            "babilong",
            {"questions": ["qa1"], "test_lengths": [0, 1024], "samples": 3, "train_on": TEXT | {"length": 64}},
        ),
    ),
]


@pytest.mark.parametrize(("alias", "form"), FORMS, ids=["needle", "babilong"])
def test_an_alias_is_its_task_after_language_modelling(alias, form):
    one, other = (tasks.create(name, **settings) for name, settings in (alias, form))
    assert (one.name, other.name) == (alias[0], form[0])
    for name in ("protocol", "vocab", "test_lengths", "exam_version"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.data_hash() == other.data_hash() and one.protocol != "trained"
    for step in (0, 7):
        batches = one.training(1, step, 0.5, 512), other.training(1, step, 0.5, 512)
        assert torch.equal(batches[0].tokens, batches[1].tokens)
        assert torch.equal(batches[0].targets, batches[1].targets)
    for split in ("validation", "test"):
        for a, b in zip(one.exams(split), other.exams(split), strict=True):
            assert torch.equal(a.batch.tokens, b.batch.tokens) and torch.equal(a.batch.targets, b.batch.targets)
            assert a[1:5] == b[1:5] and a.batch.where == b.batch.where
    assert tasks.trained(*alias) == tasks.trained(*form)
    assert tasks.trained(*form)[0] == "language-modelling"


def test_what_only_one_of_both_names_is_the_others_too():
    settings = {"corpus": "mine", "train_on": TEXT | {"length": 300, "tokenizer": "gpt2"}}
    assert tasks.trained("needle", settings) == (
        "language-modelling",
        {"corpus": "mine", "length": 300, "tokenizer": "gpt2"},
    )
    assert tasks.trained("needle", {"train_on": TEXT})[1] == {"length": 128}  # the needle's own
    assert tasks.trained("needle", {"length": 64}) == ("needle", {"length": 64})


class MadeUp(Task):
    """A task of text that nobody prepared for this."""

    name = "made-up"

    def __init__(self, words: int = 2, tokenizer: str = DEFAULT) -> None:
        self.words, self.tokenizer = words, create(tokenizer, "embedded")

    def training(self, seed, step, progress, tokens):
        raise AssertionError("it is never trained")

    def exams(self, split):
        text = torch.tensor([BYTES.encode("a" * self.words + "?b").tolist()])
        yield EvaluationBatch(
            Batch(text, torch.full_like(text, -100).index_fill(1, torch.tensor([3]), 98), {}), prompt=3
        )

    def mark(self, exam, answers):
        yield Measurement("right", answers.hit.double().sum().item(), 1, {})

    def finish(self, measurements):
        return [m._replace(metric="finished") for m in measurements]

    def floors(self):
        return {}


def test_a_task_of_text_has_its_form_for_nothing(monkeypatch):
    monkeypatch.setitem(tasks.classes(), "made-up", MadeUp)
    task = tasks.create("made-up", words=3, train_on=TEXT | {"length": 32})
    text = tasks.create("language-modelling", length=32, test_lengths=[32])
    assert torch.equal(task.training(0, 1, 0.0, 64).tokens, text.training(0, 1, 0.0, 64).tokens)
    (exam,) = task.exams("test")
    assert exam.batch.tokens.tolist() == [BYTES.encode("aaa?b").tolist()]
    hit = Answers(torch.zeros(1, 5), torch.ones(1, 5, dtype=torch.bool))
    assert [m.metric for m in task.finish(list(task.mark(exam, hit)))] == ["finished"]
    assert (task.protocol, task.floors(), task.left_out(), task.test_lengths) == ("zero-shot", {}, {}, ())
    with pytest.raises(ValueError, match="Task 'made-up' has no setting 'wrods' .did you mean words"):
        tasks.create("made-up", wrods=3, train_on=TEXT)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mqar", {"train_on": TEXT}, "mqar is a task of symbols, of which a text says nothing: leave train_on out"),
        ("mad-compression", {"train_on": TEXT}, "mad-compression is a task of symbols"),
        ("language-modelling", {"train_on": TEXT}, "is trained on language modelling as it is: leave train_on out"),
        ("zero-shot-needle", {"train_on": TEXT}, "is trained on language modelling as it is: leave train_on out"),
        ("needle", {"train_on": "language-modelling"}, "is a table that names language-modelling: . name = 'langu"),
        ("needle", {"train_on": {"name": "mqar"}}, "is a table that names language-modelling"),
        ("needle", {"train_on": TEXT | {"lenght": 64}}, "Task 'needle.train_on' has no setting 'lenght' .did you mean"),
        ("needle", {"train_on": TEXT | {"length": "64"}}, "needle.train_on.length='64' has the wrong type"),
        ("needle", {"lenght": 64, "train_on": TEXT}, "Task 'needle' has no setting 'lenght'"),
        (
            "needle",
            {"tokenizer": "gpt2", "train_on": TEXT | {"tokenizer": "bytes"}},
            "needle reads text and questions with one tokenizer, not with 'bytes' and 'gpt2': name it once",
        ),
        (
            "babilong",
            {"template": "compact", "train_on": TEXT},
            "has examples in its prompts: choose instructed or har",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(name, settings, said):
    with pytest.raises(ValueError, match=said):
        tasks.create(name, **settings)
