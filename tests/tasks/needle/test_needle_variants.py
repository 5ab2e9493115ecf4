"""RULER's variants with many keys, values or queries: wording, haystacks, scoring, and where copying as a shortcut stops."""

from __future__ import annotations

import hashlib
import re
from random import Random

import pytest
import torch

from tasks.harness.floors import sit
from tasks.needle.ruler import Ruler
from tasks.needle.task import Needle
from tasks.needle.template import split_of
from tasks.needle.values import Uuid, Word
from tasks.needle.variants import SINGLE, VARIANTS
from tasks.needle.words import words

MANY = tuple(name for name in VARIANTS if name not in SINGLE)
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def tasks() -> dict[str, Needle]:
    ruler = Needle(tuple(VARIANTS), "ruler", 2048, (2048,), (0.0, 0.4, 1.0), samples=5, words="own")
    return {"compact": Needle(tuple(VARIANTS), "compact", 256, (256, 515), (0.0, 0.4, 1.0), 5), "ruler": ruler}


def _prompts(task: Needle, variant: str):
    """(where, prompt, answer without terminator) of every test row of a variant."""
    for exam in task.exams("test"):
        if exam.batch.where["variant"] == variant:
            for row, tokens in enumerate(exam.batch.tokens):
                prompt = bytes(tokens[: exam.prompt].tolist()).decode()
                yield exam.batch.where, prompt, bytes(task.truth(exam, row)).decode().removesuffix("\n")


def _needles(prompt: str, template: str) -> list[tuple[str, str]]:
    pattern = r"One of the special magic \w+ for (\S+) is: (\S+)\." if template == "ruler" else r"\n([\w-]+)=([\w-]+)"
    return re.findall(pattern, prompt)


@pytest.mark.parametrize("template", ["compact", "ruler"])
@pytest.mark.parametrize("variant", MANY)
def test_the_asked_values_are_those_of_the_asked_keys(tasks, template, variant):
    shape, seen = VARIANTS[variant], 0
    for where, prompt, answer in _prompts(tasks[template], variant):
        seen += 1
        needles = _needles(prompt, template)
        if template == "compact":
            keys, said = prompt.rsplit("\n", 1)[1].removesuffix("=").split(","), answer.split(",")
            assert len(prompt) + len(answer) == where["length"]
        else:
            verb = "is" if shape.asked == 1 else "are"
            keys = re.search(rf" for (\S+(?:, (?:and )?\S+)*) mentioned in the provided text {verb}$", prompt)[1]
            keys, said = re.split(", and |, ", keys), re.split(", and |, ", answer.strip())
        assert len(set(keys)) == len(keys) == shape.queries
        assert said == [value for key in keys for other, value in needles if other == key]
        assert len(said) == shape.asked
        if shape.haystack == "needles":
            assert len(needles) > 12 and len({key for key, _ in needles}) > 10
        else:
            assert len(needles) == shape.keys * shape.values and len({key for key, _ in needles}) == shape.keys
        values = {key: [value for other, value in needles if other == key] for key in keys}
        assert where["depth"] or shape.values > 1 or needles[0][0] in keys
        if shape.values == 1:
            assert all(split_of(key, value) == "test" for key, (value,) in values.items())
    assert seen == 15 * len(tasks[template].test_lengths)


@pytest.mark.parametrize("variant", MANY)
def test_ruler_words_are_rulers(tasks, variant):
    shape = VARIANTS[variant]
    kind = "uuid" if variant == "mk-niah-3" else "number"
    for where, prompt, answer in _prompts(tasks["ruler"], variant):
        if shape.asked == 1:
            head = f"A special magic {kind} is hidden within the following text. Make sure to memorize it. "
            head += f"I will quiz you about the {kind} afterwards.\n"
            ask = f"What is the special magic {kind} for KEY mentioned in the provided text? "
            ask += f"The special magic {kind} for KEY mentioned in the provided text is"
        else:
            head = "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
            head += "I will quiz you about the numbers afterwards.\n"
            ask = "What are all the special magic numbers for KEY mentioned in the provided text? "
            ask += "The special magic numbers for KEY mentioned in the provided text are"
        key = re.search(r"magic \w+ for ([^\n]+?) mentioned in the provided text\?", prompt)[1]
        assert prompt.startswith(head) and prompt.endswith("\n" + ask.replace("KEY", key))
        if variant == "mq-niah":
            assert re.fullmatch(r"\S+, \S+, \S+, and \S+", key)
            assert re.fullmatch(r" \d{7}, \d{7}, \d{7}, and \d{7}", answer)
        context = prompt[len(head) : prompt.rindex("\n")]
        if shape.haystack == "needles":
            name = UUID if variant == "mk-niah-3" else "[a-z]+-[a-z]+"
            value = UUID if variant == "mk-niah-3" else r"[1-9]\d{6}"
            line = re.compile(rf"One of the special magic {kind}s for {name} is: {value}\.")
            lines = context.split("\n")
            assert all(line.fullmatch(each) for each in lines)
            place = next(i for i, each in enumerate(lines) if f" for {key} is" in each)
            assert place == min(int(where["depth"] * (len(lines) - 1)), len(lines) - 2)
        assert 2048 - 128 - 180 < len(prompt) <= 2048 - 128


@pytest.mark.parametrize("variant", MANY)
def test_compact_needles_cut_no_word_and_no_needle(tasks, variant):
    for where, prompt, _ in _prompts(tasks["compact"], variant):
        lines = prompt.split("\n")[:-1]
        if VARIANTS[variant].haystack == "needles":
            assert all(re.fullmatch(r"[\w-]{5}=[\w-]{4,5}", line) for line in lines[1:]) and len(lines[0]) < 12
            key = prompt.rsplit("\n", 1)[1]
            assert abs(prompt.index("\n" + key) - where["depth"] * where["length"]) < 40
        else:
            text = [line for line in lines if not re.fullmatch(r"[a-z]{5}=\d{4}", line)]
            assert all(line.endswith(" ") for i, line in enumerate(text) if line and any(text[i + 1 :]))


@pytest.mark.parametrize(("template", "variant"), [(t, v) for t in ("compact", "ruler") for v in MANY])
def test_the_minimum_holds_every_sample_and_less_is_refused(template, variant):
    least = Needle((variant,), template, length=4096).template.minimum(variant)
    for kind in (None, "words", "uuids"):
        template_now = Needle((variant,), template, length=8192, values=kind).template
        lowest = template_now.minimum(variant)
        for length in (lowest, lowest + 1, lowest + 7):
            for seed in range(10):
                sample = template_now.draw(Random(seed), "test", variant, length, seed / 9)
                spare = 128 if template == "ruler" else len(sample.answer) - 1
                assert len(sample.prompt) + spare <= length
                assert template == "ruler" or len(sample.prompt) + spare == length
                prompt = bytes(sample.prompt).decode()
                if kind is None and VARIANTS[variant].haystack == "needles":
                    assert len(_needles(prompt, template)) >= 2
    with pytest.raises(ValueError, match=f"{variant} needs a length of at least {least}, not {least - 1}"):
        Needle((variant,), template, length=least - 1)


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_the_oracle_scores_everything_and_the_copy_cheat_only_single_keys(tasks, template):
    task = tasks[template]
    perfect = sit(task, task.oracle)
    assert perfect and all(m.value == 1.0 for m in perfect)
    floors = task.floors()
    only = [m for m in floors["reference: copy the only number"] if m.metric.endswith("exact_match")]
    assert all(m.value == 1.0 for m in only) and {m.where["variant"] for m in only} == set(SINGLE)
    copied = [m for m in floors["cheat: copy the last number"] if m.metric.endswith("exact_match")]
    for variant in MANY:
        marks = [m.value for m in copied if m.where["variant"] == variant]
        # The last needle is the one asked in a quarter of the cells with four keys; a list is never right.
        assert sum(marks) / len(marks) <= {"mk-niah-1": 0.67, "mk-niah-2": 0.4, "mk-niah-3": 0.4}.get(variant, 0), (
            variant
        )
    every = floors["reference: copy every number"]
    assert {m.where["variant"] for m in every} == {"mv-niah", "mq-niah"}
    matched = {m.where["variant"]: m.value for m in every if m.metric.endswith("string_match")}
    assert matched == {"mv-niah": 1.0, "mq-niah": 1.0}  # RULER's score asks for no order and forgives every addition
    exact = [m.value for m in every if m.metric.endswith("exact_match") and m.where["variant"] == "mq-niah"]
    assert sum(exact) / len(exact) < 0.3


def test_the_copy_cheat_fails_on_many_keys_at_every_depth_but_the_last():
    task = Needle(("mk-niah-1", "mk-niah-2", "mk-niah-3"), length=256, test_lengths=(256,), depths=(0.0,), samples=20)
    copied = task.floors()["cheat: copy the last number"]
    assert all(m.value <= 0.1 for m in copied if m.metric != "compact_answer_token_accuracy")


def test_string_match_is_the_fraction_of_the_references(tasks):
    task = tasks["ruler"]
    exam = next(exam for exam in task.exams("test") if exam.batch.where["variant"] == "mq-niah")
    oracle = task.oracle(exam)
    values = task.template.references(bytes(task.truth(exam, 0)).decode())
    assert len(values) == 4
    said = (tuple(f"{values[3]} or {values[1].upper()}\nor {values[0][:-1]}".encode()), *oracle.text[1:])
    (match,) = (m for m in task.mark(exam, oracle._replace(text=said)) if m.metric == "string_match")
    rows = len(exam.batch.tokens)
    assert match.value == pytest.approx((rows - 0.5) / rows) and match.count == rows


def test_evidence_is_the_asked_needles(tasks):
    for template, task in tasks.items():
        for exam in task.exams("test"):
            shape = VARIANTS[exam.batch.where["variant"]]
            prompt = bytes(exam.batch.tokens[0, : exam.prompt].tolist()).decode()
            pieces = task.evidence(exam, 0)
            assert len(pieces) == shape.asked and all(piece in prompt for piece in pieces)
            pairs = [_needles("\n" + piece, template)[0] for piece in pieces]
            asked = task.template.references(bytes(task.truth(exam, 0)).decode())
            assert {value for _, value in pairs} == set(asked)


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_the_kind_of_value_can_be_chosen(template):
    forms = {"words": "[a-z]{5}", "numbers": r"\d{4}", "uuids": "[0-9a-f]{2}-[0-9a-f]{2}"}
    if template == "ruler":
        forms = {"words": " [a-z]+-[a-z]+", "numbers": r" \d{7}", "uuids": f" {UUID}"}
    for kind, form in forms.items():
        task = Needle(("s-niah-3",), template, 1024, (1024,), (0.0, 0.5), 4, values=kind)
        for _, prompt, answer in _prompts(task, "s-niah-3"):
            assert re.fullmatch(form, answer) and prompt.count(answer.strip()) >= 1
            assert template == "compact" or f"A special magic {kind[:-1]} is hidden" in prompt
        assert all(m.value == 1.0 for m in sit(task, task.oracle))
        floors = task.floors()
        assert list(floors)[0] == ("floor: uniform words" if kind == "words" else "floor: uniform digits")
        assert all(0 <= m.value < 0.7 for m in floors[list(floors)[0]])
        assert all(m.value == 1.0 for m in floors["reference: copy the only number"])


def test_compact_needles_begin_at_the_lengths_that_the_task_names():
    template = Needle(tuple(VARIANTS), length=128).template
    least = {variant: template.minimum(variant) for variant in VARIANTS}
    assert (least.pop("mv-niah"), least.pop("mq-niah")) == (74, 92) and max(least.values()) <= 64


@pytest.mark.parametrize("kind", ["words", "numbers", "uuids"])
def test_compact_prompts_of_bytes_are_equally_long_whatever_they_hide(kind):
    template = Needle(("s-niah-2",), length=128, values=kind).template
    assert len({len(template.draw(Random(seed), "train", "s-niah-2", 128).prompt) for seed in range(60)}) == 1


def test_chances_of_words_are_those_of_a_guesser_who_counts():
    value = Word((("ab", "ac", "b"), ("x", "xy")))
    assert value.longest == 5 and value.chances("ab-x") == [1.0, 1.0, 1.0, 1.0]
    assert value.chances("ac-xy") == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert value.chances("b-x")[:2] == [0.0, 1.0]
    for seed in range(20):
        drawn = Word(tuple(words())).draw(Random(seed))
        assert re.fullmatch(Word(tuple(words())).pattern, drawn)


def test_default_variants_are_the_single_ones_and_keys_of_uuids_are_uuids():
    assert Needle().variants == SINGLE
    sample = Ruler("austen-melville", words()).draw(Random(0), "train", "mk-niah-3", 2048)
    assert re.fullmatch(Uuid.pattern, sample.keys[0]) and re.fullmatch(Uuid.pattern, sample.values[0])


def test_training_asks_all_variants_of_the_training_split_and_the_same_bytes_again():
    task = Needle(MANY, length=256)
    batch = task.training(0, 0, 1.0, 256 * 10)
    again = Needle(MANY, length=256).training(0, 0, 1.0, 256 * 10)
    assert torch.equal(batch.tokens, again.tokens) and torch.equal(batch.targets, again.targets)
    queries = [bytes(row.tolist()).decode().rsplit("\n", 1)[1] for row in batch.tokens]
    assert sum(query.count(",") == 6 for query in queries) == 2 * len(queries) // 10
    single = [query.split("=") for query in queries if "," not in query]
    assert single and all(split_of(*pair) == "train" for pair in single)
    digest = hashlib.sha256(b"".join(t.numpy().astype("<i8").tobytes() for t in batch[:2])).hexdigest()
    assert digest == "3e5fddc831cf927384d2a4374c4c6a3cf4dfbf29648b326269c4f21b819e2178"


def test_a_haystack_of_needles_may_be_long():
    (exam,) = Needle(("mk-niah-2",), "compact", 256, (500_000,), (0.5,), 1).exams("test")
    assert exam.batch.tokens.shape == (1, 500_000)
    (exam,) = Needle(("mk-niah-3",), "ruler", 1024, (100_000,), (0.5,), 1).exams("test")
    assert 99_800 < exam.prompt + 128 <= 100_000


def test_with_short_keys_and_values_every_compact_variant_fits_64_bytes():
    task = Needle(
        tuple(VARIANTS), length=64, test_lengths=(64,), samples=2, depths=(0.5,), digits=1, uuid_groups=1, key_letters=4
    )
    exams = list(task.exams("test"))
    assert {exam.batch.where["variant"] for exam in exams} == set(VARIANTS)
    assert all(exam.batch.tokens.shape[1] == 64 for exam in exams)
    with pytest.raises(ValueError, match="keys of 3 letters, too few: choose another key_letters"):
        Needle(key_letters=3)
    with pytest.raises(ValueError, match="leave out digits, uuid_groups and key_letters"):
        Needle(template="ruler", length=4096, key_letters=4)
