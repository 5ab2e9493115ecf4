"""Who answers about a needle without looking for it: guesses, copies, and readers of a part."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from tasks.needle.template import NeedleTemplate
from tasks.needle.variants import VARIANTS
from tasks.rng import stream
from tasks.task import Answers, EvaluationBatch, Task
from tasks.text.tokenizer import ended

TAIL = 0.9  # of the text; the needles behind it are in its last tenth
LESSONS = 4096  # training questions whose pairs the guesser of untrained values remembers, and who has read no text
TRIES = 64  # values drawn to find one that was never trained with a key


def answering(template: NeedleTemplate, exam: EvaluationBatch, said: Sequence[str]) -> Answers:
    """The answers of somebody who says this text in each row; "" says nothing."""
    targets = exam.batch.targets
    hit, texts = torch.zeros(targets.shape, dtype=torch.bool), []
    for row, answer in enumerate(said):
        tokens = torch.from_numpy(ended(template.tokenizer, answer).astype(np.int64))
        aligned = tokens[: targets.shape[1] - exam.prompt + 1]
        places = slice(exam.prompt - 1, exam.prompt - 1 + len(aligned))
        hit[row, places] = targets[row, places] == aligned
        texts.append(tuple(tokens[:-1][: exam.generate].tolist()))
    return Answers(torch.zeros(targets.shape), hit, None, tuple(texts))


def copies(template: NeedleTemplate, exam: EvaluationBatch, most: int | None) -> Answers:
    """Somebody who copies what stands where values stand, the last `most`, without reading the key."""
    pattern = re.compile(f"(?<={template.sign}){template.values[exam.batch.where['variant']].pattern}")
    said = []
    for prompt in _prompts(template, exam):
        found = pattern.findall(prompt)
        found = found[-most:] if most else found
        said.append(template.spoken(tuple(found)) if found else "")
    return answering(template, exam, said)


def reads_the_last_tenth(template: NeedleTemplate, exam: EvaluationBatch) -> Answers:
    """Somebody who reads the question and the last tenth of the text before it, and answers where the needle is there."""
    variant, said = exam.batch.where["variant"], []
    for row, prompt in enumerate(_prompts(template, exam)):
        keys, found = asked_keys(prompt), []
        for value in template.references(template.tokenizer.decode(Task.truth(exam, row))):
            places = [place_of(template, variant, prompt, key, value) for key in keys]
            found += [value] if max((place for place in places if place is not None), default=0.0) >= TAIL else []
        said.append(template.spoken(tuple(found)) if found else "")
    return answering(template, exam, said)


def says_what_was_never_trained(template: NeedleTemplate, exam: EvaluationBatch) -> Answers:
    """Somebody who knows the key and which values were trained with it, and says another one, without reading the text."""
    variant = exam.batch.where["variant"]
    kind, trained, draws = template.values[variant], _trained(template, variant), stream("never trained", variant)
    said = []
    for prompt in _prompts(template, exam):
        values: list[str] = []
        for key in sorted(asked_keys(prompt) & trained.keys()) or [""]:
            for _ in range(VARIANTS[variant].values):
                drawn = [kind.draw(draws) for _ in range(TRIES)]
                values.append(min(drawn, key=lambda value, key=key: trained[key][value]))
        said.append(template.spoken(tuple(values[: VARIANTS[variant].asked])))
    return answering(template, exam, said)


@lru_cache(maxsize=16)
def _trained(template: NeedleTemplate, variant: str) -> dict[str, Counter[str]]:
    """How often each value was trained with each key."""
    draws, found = stream("never trained", "train", variant), defaultdict(Counter)
    for _ in range(LESSONS):
        for key, value in template.pairs(draws, "train", variant):
            found[key][value] += 1
    return found


def asked_keys(prompt: str) -> set[str]:
    """The words of the question, the keys among them."""
    return set(re.findall(r"[\w'-]+", prompt.rsplit("\n", 1)[1]))


def place_of(template: NeedleTemplate, variant: str, prompt: str, key: str, value: str) -> float | None:
    """Where in the haystack, from 0 to 1, a needle lies, measured without the needle; None where there is none."""
    context = prompt.rsplit("\n", 1)[0]
    begin = context.index("\n") + 1 if template.metric_prefix == "" else 0  # what stands before RULER's haystack
    line = template.line(variant, key, value).rstrip("\n")
    place = context.find(line)
    return None if place < 0 else (place - begin) / max(1, len(context) - begin - len(line))


def _prompts(template: NeedleTemplate, exam: EvaluationBatch) -> list[str]:
    return [template.tokenizer.decode(row) for row in exam.batch.tokens[:, : exam.prompt].numpy()]
