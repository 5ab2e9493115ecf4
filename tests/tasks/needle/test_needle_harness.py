"""Our RULER template and scorer against lm-evaluation-harness's: its samples and 200 outputs with its scores, recorded.

The recording holds what the harness's generator wrote with books of the public domain in place of essays.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tasks.needle.haystack import NOISE
from tasks.needle.ruler import Ruler
from tasks.needle.task import Needle
from tasks.needle.variants import VARIANTS
from tasks.task import Answers
from tasks.text.tokenizer import BYTES

RECORDED = json.loads((Path(__file__).parent / "data" / "ruler_of_lm_evaluation_harness.json").read_text())
LINE = re.compile(r"One of the special magic \w+ for \S+ is: \S+\.")
PARTS = re.compile(r"One of the special magic (\w+)s for (\S+) is: (\S+)\.")


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Needle(tuple(VARIANTS), template="ruler", length=8192).template


@pytest.mark.parametrize("number", range(len(RECORDED["samples"])))
def test_a_sample_of_the_harness_is_in_our_words(ruler, number):
    sample = RECORDED["samples"][number]
    shape, name = VARIANTS[sample["variant"]], sample["variant"]
    text = sample["input"] + " " + sample["gen_prefix"]
    context = text.split("\n", 1)[1].rsplit("\n", 1)[0]
    asked = re.fullmatch(
        r"The special magic \w+ for (.*) mentioned in the provided text (is|are)", sample["gen_prefix"]
    )[1]
    keys = asked.replace(", and ", ", ").split(", ")
    template = ruler.ONE if shape.asked == 1 else ruler.SOME
    kind = ruler.values[name].kind
    assert template.format(kind=kind, context=context, key=asked) == text
    needles = [PARTS.fullmatch(line).groups() for line in LINE.findall(context)]
    assert all(ruler.line(name, key, value) in context and kind == its for its, key, value in needles)
    hidden = {key: [value for _, other, value in needles if other == key] for key in keys}
    assert len(keys) == shape.queries
    assert sorted(value for key in keys for value in hidden[key]) == sorted(sample["outputs"])
    assert len(sample["outputs"]) == shape.asked
    for value in sample["outputs"]:
        assert re.fullmatch(ruler.values[name].pattern, value)
    if shape.haystack == "noise":
        assert set(context.split("\n")) - {ruler.line(name, *needles[0][1:])} == {NOISE}
    elif shape.haystack == "needles":
        assert all(LINE.fullmatch(line) for line in context.split("\n"))
    else:
        assert len(needles) == shape.keys * shape.values
    assert len(text.encode()) <= sample["max_length"]


def test_200_outputs_are_scored_as_the_harness_scores_them():
    task = Needle(("mq-niah",), template="ruler", length=4096, test_lengths=(4096,), depths=(0.5,), samples=1)
    (exam,) = task.exams("test")
    differing = []
    for record in RECORDED["scored"]:
        answer = BYTES.encode(task.template.spoken(tuple(record["references"])) + "\n").astype("int64")
        targets = torch.full((1, exam.prompt + len(answer) - 1), -100)
        targets[0, exam.prompt - 1 :] = torch.from_numpy(answer)
        tokens = torch.zeros_like(targets)
        batch = exam.batch._replace(tokens=tokens, targets=targets)
        said = Answers(torch.zeros(targets.shape), targets != -100, None, (tuple(record["output"].encode()),))
        marks = {m.metric: m.value for m in task.mark(exam._replace(batch=batch), said)}
        if abs(marks["string_match"] - record["score"]) > 1e-9:
            differing.append(record)
    assert len(RECORDED["scored"]) == 200 and not differing, differing[:3]
    assert {0.0, 0.25, 1.0} <= {record["score"] for record in RECORDED["scored"]}
