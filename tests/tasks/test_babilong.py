"""BABILong: how samples are built, kept apart, marked and cheated at."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from tasks import create
from tasks.babi import TASKS
from tasks.babilong import QUESTIONS, STEP, BABILong
from tasks.babilong_examples import EXAMPLES
from tasks.babilong_floors import majorities
from tasks.babilong_items import SIMULATOR, split_of
from tasks.babilong_scoring import last_mentioned, last_touchers_room, last_unasked_label, matches
from tasks.babilong_text import SENTENCE_END, SHORTEST_SENTENCE, Background, scatter, words_around
from tasks.corpus import documents
from tasks.task import IGNORE, Exam
from tasks.tokenizer import BYTES

SPOKEN = ["generated_accuracy", "exact_accuracy", "scorer_disagreement"]
SMALL = BABILong(length=256, test_lengths=(0, 256, 512), samples=12)
LABELS = TASKS["qa1"].labels
SPLITS = ("train", "validation", "test", "train")
NAMES = "|".join((*TASKS["qa1"].world.actors, *TASKS["qa5"].world.actors))
VERBS = (
    "went to|journeyed to|travelled to|moved to|went back to|got|took|grabbed|picked up|"
    "left|dropped|discarded|put down|passed|gave|handed"
)
EVENT = re.compile(rf" (?:{NAMES}) (?:{VERBS}) the \w+(?: there| to (?:{NAMES}))?\.")
RELATION = re.compile(r" The \w+ is (?:north|south|east|west) of the \w+\.")


def digest(batches: list) -> str:
    parts = [part.numpy().tobytes() for batch in batches for part in (batch.tokens, batch.targets)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def rows(exam: Exam) -> list[tuple[str, str, str]]:
    """Context, question and answer of every row."""
    words = SMALL.templates[exam.batch.where["question"]]
    prompts = [words.read(BYTES.decode(row[: exam.prompt])) for row in exam.batch.tokens.numpy()]
    return [(*prompt, BYTES.decode(SMALL.truth(exam, row))) for row, prompt in enumerate(prompts)]


def told(context: str, name: str) -> list[str]:
    """The facts that stand in a context, in order."""
    return [fact[1:] for fact in (RELATION if name == "qa4" else EVENT).findall(context)]


# Building


def test_training_rows_ask_the_answer_alone_and_are_filled_by_the_longest() -> None:
    batch = SMALL.training(seed=1, step=3, progress=1.0, tokens=8192)
    length = batch.where["length"]
    assert batch.tokens.shape == batch.targets.shape == (8192 // length, length)
    assert batch.where == {"length": length, "unit": "byte"} and batch.tokens.dtype == torch.int64
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        (asked,) = (targets != IGNORE).nonzero(as_tuple=True)
        answer = BYTES.decode(targets[asked].tolist())
        begin, end = int(asked[0]), int(asked[-1]) + 1
        assert asked.tolist() == list(range(begin, end))
        assert answer.endswith("\n") and answer[:-1] in LABELS + TASKS["qa5"].labels
        assert BYTES.decode(tokens[begin + 1 : end].tolist()) == answer[:-1] and not tokens[end:].any()
        assert BYTES.decode(tokens[: begin + 1].tolist()).endswith("? ")


def test_where_a_question_ends_does_not_tell_the_answers_length() -> None:
    task = BABILong(questions=("qa1",), length=256)
    lengths, modulo_16 = set(), set()
    for step in range(60):
        batch = task.training(0, step, 1.0, 4096)
        asked = batch.targets != IGNORE
        begins = asked.int().argmax(1)
        assert len(set(begins.tolist())) == 1  # one place in a batch, whatever its rows answer
        lengths |= set(asked.sum(1).tolist())
        modulo_16.add(int(begins[0]) % 16)
    assert lengths == {7, 8, 9} and modulo_16 == set(range(16))


def test_training_mixes_the_questions_evenly() -> None:
    starts = {"Where is (?!the)": "qa1", "Where is the": "qa2", "Where was": "qa3", "What is": "qa4"}
    starts |= {"What did|Who": "qa5"}
    counts: Counter[str] = Counter()
    for step in range(5):
        batch = SMALL.training(0, step, 1.0, 256 * 7)
        for row in batch.tokens.numpy():
            question = BYTES.decode(row).rsplit("\n", 1)[1]
            counts[next(name for start, name in starts.items() if re.match(start, question))] += 1
    assert set(counts) == set(SMALL.questions) and max(counts.values()) - min(counts.values()) <= 5


def test_training_lengths_grow_with_progress_and_are_log_uniform_at_last() -> None:
    task = BABILong(questions=("qa1", "qa4"), length=1024)
    first = {task.training(0, step, 0.0, 1).where["length"] for step in range(20)}
    assert first == {task.shortest}
    half = [task.training(0, step, 0.25, 1).where["length"] for step in range(100)]
    assert max(half) <= 1 + (task.shortest * 1024) ** 0.5
    last = [task.training(0, step, 0.5, 1).where["length"] for step in range(300)]
    assert len(set(last)) > 150 and 900 < max(last) <= 1024
    middle = (task.shortest * 1024) ** 0.5
    assert 110 <= sum(length < middle for length in last) <= 190


def test_prompts_of_a_cell_have_one_length_and_the_longest_answer_fills_it() -> None:
    for exam in SMALL.exams("test"):
        length, width = exam.batch.where["length"], exam.batch.tokens.shape[1]
        longest = max(map(len, exam.choices))
        assert exam.generate == 20 and exam.stop == ord("\n") and width == exam.prompt + longest - 1
        assert width == length if length else exam.prompt % STEP == 0
        targets = exam.batch.targets
        assert (targets[:, : exam.prompt - 1] == IGNORE).all() and (targets[:, exam.prompt - 1] != IGNORE).all()


def test_every_cell_has_its_samples_and_its_labels() -> None:
    counts: Counter[tuple] = Counter()
    for exam in SMALL.exams("test"):
        where = exam.batch.where
        counts[where["question"], where["length"]] += len(exam.batch.tokens)
        choices = tuple(BYTES.decode(choice) for choice in exam.choices)
        assert choices == tuple(label + "\n" for label in TASKS[where["question"]].labels) and where["unit"] == "byte"
    assert counts == {(question, length): 12 for question in SMALL.questions for length in (0, 256, 512)}
    validation = {tuple(exam.batch.where.values()) for exam in SMALL.exams("validation")}
    assert validation == {(question, 256, "byte") for question in SMALL.questions}


def test_fewer_samples_are_asked_of_very_long_texts() -> None:
    task = BABILong(questions=("qa1",), length=128, test_lengths=(0, 99_999, 100_000), samples=5, long_samples=2)
    counts = Counter(
        length for exam in task.exams("test") for length in [exam.batch.where["length"]] * len(exam.batch.tokens)
    )
    assert counts == {0: 5, 99_999: 5, 100_000: 2}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_context_without_its_facts_is_consecutive_text_of_the_splits_own_books(split: str) -> None:
    books = []
    for document in documents(split):
        sentences = [" ".join(sentence.split()) for sentence in SENTENCE_END.split(document.text)]
        books.append("".join(f" {sentence}" for sentence in sentences if len(sentence) >= SHORTEST_SENTENCE))
    for exam in SMALL.exams(split):
        name = exam.batch.where["question"]
        for context, _, _ in rows(exam):
            facts = told(context, name)
            rest = context
            for fact in facts:
                rest = rest.replace(" " + fact, "", 1)
            assert any(rest in book for book in books), rest
            assert split_of(tuple(facts[:2])) == split
            if exam.batch.where["length"] == 0:
                assert rest == "" and len(context) < 256


def test_answers_follow_from_the_facts_in_the_context() -> None:
    for exam in SMALL.exams("test"):
        name = exam.batch.where["question"]
        for context, question, answer in rows(exam):
            facts = told(context, name)
            assert len(facts) >= TASKS[name].fewest and answer[:-1] in " ".join(facts)
            if name == "qa1":
                moves = [fact for fact in facts if fact.startswith(question.split()[-1].rstrip("?"))]
                assert moves[-1].rstrip(".").split()[-1] + "\n" == answer
            if name == "qa5" and question.startswith("What"):
                giver, receiver = re.fullmatch(r"What did (\w+) give to (\w+)\?", question).groups()
                gifts = [fact for fact in facts if re.match(rf"{giver} \w+ the \w+ to {receiver}\.", fact)]
                assert gifts[-1].split()[3] + "\n" == answer


def test_items_are_uniform_over_all_that_fit() -> None:
    task = BABILong(questions=("qa1",), length=256)
    items = [told.item for told in task._items(Random(0), SIMULATOR, "train", "qa1", 256, 4000)]
    shares = Counter(len(item.facts) for item in items)
    # All stories of 2 and 4 facts fit 256 bytes, and each story has one of either.
    assert abs(shares[2] - shares[4]) < 4 * (2 * shares[2]) ** 0.5
    assert shares[2] > 4000 / 5 and max(shares) <= 10
    assert len({(item.facts, item.question) for item in items}) > 3000
    first = Counter(
        len(task._items(Random(seed), SIMULATOR, "train", "qa1", 256, 1)[0].item.facts) for seed in range(200)
    )
    assert first[2] > 40 and first[4] > 40


def test_facts_fall_into_uniform_gaps_in_story_order() -> None:
    random, counts = Random(0), Counter()
    text = np.frombuffer(b" aa bb cc", np.uint8)
    for _ in range(4000):
        pieces = scatter(random, [BYTES.encode(" X"), BYTES.encode(" Y")], text, [0, 3, 6])
        whole = BYTES.decode(np.concatenate(pieces))
        assert whole.replace(" X", "").replace(" Y", "") == " aa bb cc" and whole.index("X") < whole.index("Y")
        counts[whole] += 1
    # Two draws from four gaps, sorted: 4 outcomes of 1/16 and 6 of 2/16.
    assert len(counts) == 10
    together = [count for whole, count in counts.items() if " X Y" in whole]
    assert len(together) == 4 and all(190 < count < 310 for count in together)
    assert all(410 < count < 590 for whole, count in counts.items() if " X Y" not in whole)


def test_passages_have_their_length_and_begin_with_sentences() -> None:
    background = Background("test", "austen-melville", line_breaks=False)
    for count in (1, 50, 2000):
        tokens, starts = background.passage(Random(count), count)
        assert len(tokens) == count and starts[0] == 0 and all(tokens[start] == ord(" ") for start in starts)
        assert len(starts) == 1 or min(np.diff(starts)) > SHORTEST_SENTENCE
    assert len(background.passage(Random(0), 0)[0]) == 0


def test_passages_go_on_in_another_book_when_one_ends(tmp_path: Path) -> None:
    long = "This sentence has more than forty-three characters, as it must have."
    lines = [{"id": str(i), "text": f"Short. {long} No! {i} {long}", "split": split} for i, split in enumerate(SPLITS)]
    path = tmp_path / "books.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    tokens, starts = Background("train", str(path), line_breaks=False).passage(Random(1), 1000)
    text = BYTES.decode(tokens)
    assert len(text) == 1000 and "Short" not in text and "No!" not in text
    assert text.count(f" {long}") >= 6 and all(re.match(" (?:0 |3 )?T", text[start:]) for start in starts[:-1])
    path.write_text("\n".join(json.dumps(line | {"text": "Short. No!"}) for line in lines))
    with pytest.raises(ValueError, match="no sentence of 43 characters"):
        Background("train", str(path), line_breaks=False)


# Keeping apart


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    again = BABILong(length=256, test_lengths=(0, 256, 512), samples=12)
    for step in (7, 8, 7):
        assert digest([SMALL.training(3, step, 0.7, 4096)]) == digest([again.training(3, step, 0.7, 4096)])
    assert digest([SMALL.training(3, 7, 0.7, 4096)]) != digest([SMALL.training(4, 7, 0.7, 4096)])
    assert digest([SMALL.training(3, 7, 0.7, 4096)]) != digest([SMALL.training(3, 8, 0.7, 4096)])
    for split in ("validation", "test"):
        assert digest([e.batch for e in SMALL.exams(split)]) == digest([e.batch for e in again.exams(split)])


def test_golden_bytes() -> None:
    assert (
        digest([SMALL.training(0, step, step / 4, 2048) for step in range(4)])
        == "40fcf76df7dc716ac359c626d05a5dad4fbc6a35660b0a9a57c7a5f0a2f52b7b"
    )
    assert (
        digest([exam.batch for exam in SMALL.exams("test")])
        == "1d4d3678523e66f2371477a4ac44aab233d47dd272f1b316c10e8a4431e07170"
    )


def test_training_never_shows_an_exams_story_nor_its_text() -> None:
    seen_stories, seen_contexts = set(), set()
    for step in range(60):
        for row in SMALL.training(0, step, 1.0, 8192).tokens.numpy():
            context, question = BYTES.decode(row).rsplit("\n", 1)
            question = question[: question.index("?") + 1]
            facts = tuple(told(context, "qa4" if question.startswith("What is") else ""))
            assert split_of(facts[:2]) == "train"
            seen_stories.add((facts, question))
            seen_contexts.add(context)
    exams = [*SMALL.exams("validation"), *SMALL.exams("test")]
    asked = [(told(c, exam.batch.where["question"]), q, c) for exam in exams for c, q, _ in rows(exam)]
    assert len(seen_stories) > 1500 and len(asked) == 12 * 5 * 4
    for facts, question, context in asked:
        assert (tuple(facts), question) not in seen_stories and context not in seen_contexts


def test_splits_share_the_beginnings_as_they_say() -> None:
    shares = Counter(split_of(("A.", str(number))) for number in range(5000))
    assert abs(shares["train"] / 5000 - 0.6) < 0.03 and abs(shares["test"] / 5000 - 0.2) < 0.03
    assert shares.total() == 5000 and set(shares) == {"train", "validation", "test"}


# What does not fit


def test_a_question_that_does_not_fit_is_left_out_with_its_reason() -> None:
    task = BABILong(length=128, test_lengths=(0, 100, 128, 256), samples=3)
    least = task.minimum("qa3")
    assert 128 < least <= 256
    left_out = task.left_out()
    assert left_out["qa3", 128] == left_out["qa3", 256] == f"qa3 needs a training length of at least {least}."
    assert ("qa3", 0) in left_out and left_out["qa4", 100] == f"qa4 needs a length of at least {task.minimum('qa4')}."
    assert ("qa1", 100) not in left_out and not any(key[1] != 100 for key in left_out if key[0] != "qa3")
    cells = {(exam.batch.where["question"], exam.batch.where["length"]) for exam in task.exams("test")}
    everything = {(question, length) for question in task.questions for length in task.test_lengths}
    assert cells == everything - set(left_out)
    texts = [BYTES.decode(row) for step in range(10) for row in task.training(0, step, 1.0, 2048).tokens.numpy()]
    assert not any("Where was" in text for text in texts) and SMALL.left_out() == {}


def test_minimum_is_reached_by_the_longest_of_the_shortest_stories() -> None:
    for name in SMALL.questions:
        fact, question = TASKS[name].extremes()[1:]
        prompt = (" " + fact) * TASKS[name].fewest + "\n" + question.strip() + " "
        assert SMALL.minimum(name) == len(prompt) + max(len(label) for label in TASKS[name].labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 64}, "at least 94, not 64"),
        ({"length": 128, "questions": ("qa3",)}, "at least 201, not 128"),
        ({"length": 512, "template": "instructed"}, "at least 569"),
        ({"test_lengths": (64,)}, "0 or a length of at least 94"),
        ({"questions": ("qa21",)}, "qa1, qa2, qa3, .*qa20, not"),
        ({"questions": ()}, "qa1, qa2"),
        ({"questions": ("qa1", "qa1")}, "different"),
        ({"samples": 0}, "samples of at least 1"),
        ({"test_lengths": (-1,)}, "test_lengths of at least 0"),
        ({"template": "official"}, "compact, instructed or harness"),
    ],
)
def test_impossible_settings_say_what_to_do(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BABILong(**settings)


def test_unknown_split_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="validation or test"):
        next(SMALL.exams("train"))


def test_registry_creates_it_from_lists() -> None:
    task = create("babilong", questions=["qa1", "qa2"], length=128, test_lengths=[0, 128])
    assert task.questions == ("qa1", "qa2") and task.test_lengths == (0, 128)
    assert BABILong(length=128).test_lengths == (0, 128, 256, 512)
    assert SMALL.data_hash() and SMALL.vocab == 256 and SMALL.protocol == "trained"


# The instructed template


def test_instructed_prompts_have_all_parts_in_order_and_the_length_counts_them() -> None:
    task = BABILong(length=1024, test_lengths=(0, 1024), samples=2, template="instructed")
    for exam in task.exams("test"):
        name = exam.batch.where["question"]
        words = task.templates[name]
        assert exam.batch.tokens.shape[1] == (exam.batch.where["length"] or exam.batch.tokens.shape[1]) <= 1024
        for row in exam.batch.tokens.numpy():
            prompt = BYTES.decode(row[: exam.prompt])
            marks = ["<example>", "Answer: ", "</example>", "<context>\n", "\n</context>\n\nQuestion: ", "?\nAnswer:"]
            places = [prompt.index(mark) for mark in marks[:4]] + [prompt.rindex(mark) for mark in marks[4:]]
            assert places == sorted(places) and prompt.endswith(marks[-1])
            context, question = words.read(prompt)
            assert prompt == words.before + context + words.after.format(question=question)
            assert len(told(context, name)) >= TASKS[name].fewest
        assert all(BYTES.decode(choice).startswith(" ") for choice in exam.choices)  # no prompt ends in a blank
    marks = [m for exam in task.exams("test") for m in task.mark(exam, task.oracle(exam))]
    assert all(m.value == (m.metric != "scorer_disagreement") for m in marks)


@pytest.mark.parametrize("name", TASKS)
def test_instructed_prompts_have_the_fields_of_the_official_ones(name: str) -> None:
    """Instruction, blank line, examples each in its tags with an answer line, blank line, form, blank line, context."""
    words = words_around("instructed", name)
    example = r"<example>\n[^\n]+\.\n\nQuestion: [^\n]+\?\nAnswer: [a-zA-Z,]+\n</example>\n"
    parts = re.fullmatch(rf"([^\n]+)\n\n((?:{example}){{2,3}})\n([^\n]+)\n\n<context>\n", words.before)
    assert parts, words.before
    instruction, examples, form = parts.groups()
    assert instruction.endswith(".") and form.startswith("Answer with ") and form.endswith("nothing else.")
    for answer in re.findall(r"Answer: (.+)\n", examples):
        assert answer in TASKS[name].answers
    assert words.after + words.lead == "\n</context>\n\nQuestion: {question}\nAnswer: " and words.line_breaks


@pytest.mark.parametrize("name", QUESTIONS)
def test_examples_are_right_and_speak_the_tasks_language(name: str) -> None:
    for facts, question, answer in EXAMPLES[name]:
        assert " ".join(told(" " + facts, name)) == facts
        words = words_around("compact", name)
        assert words.read(f"{facts}\n{question} ") == (facts, question)
        assert answer in TASKS[name].labels and answer not in question
        assert answer in facts


# Marking


def test_oracle_is_always_right() -> None:
    for split in ("validation", "test"):
        for exam in SMALL.exams(split):
            marks = list(SMALL.mark(exam, SMALL.oracle(exam)))
            assert [m.metric for m in marks] == ["choice_accuracy", *SPOKEN]
            assert all(
                m.value == (m.metric != "scorer_disagreement") and m.count == len(exam.batch.tokens) for m in marks
            )
            assert all(m.where == exam.batch.where for m in marks)


def test_wrong_answers_are_marked_wrong_one_by_one() -> None:
    exam = next(exam for exam in SMALL.exams("test") if exam.batch.where["length"] == 256)
    assert exam.batch.where["question"] == "qa1"
    good = SMALL.oracle(exam)
    choice = good.choice.clone()
    choice[0] = (choice[0] + 1) % 6
    said = (tuple(b"in the " + bytes(good.text[0]) + b". not the office"), tuple(b"who knows"), *good.text[2:])
    marks = {m.metric: m.value * 12 for m in SMALL.mark(exam, good._replace(choice=choice, text=said))}
    assert marks == pytest.approx(
        {"choice_accuracy": 11, "generated_accuracy": 11, "exact_accuracy": 10, "scorer_disagreement": 1}
    )
    assert [m.metric for m in SMALL.mark(exam, good._replace(choice=None))] == SPOKEN
    assert [m.metric for m in SMALL.mark(exam, good._replace(text=None))] == ["choice_accuracy"]


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("kitchen", True),
        ("Kitchen", True),
        ("The milk is in the kitchen. It was in the office.", True),
        ("kitchen<example>office", True),
        ("kitchen <context> garden", True),
        ("before the office it was in the kitchen", True),
        ("kitchen or garden", False),
        ("garden", False),
        ("office", False),
        ("", False),
        (". kitchen", False),
    ],
)
def test_comparison_is_babilongs(output: str, right: bool) -> None:
    assert matches(output, "kitchen", "Where was the milk before the Office? ", LABELS) is right


def test_cheats_read_what_they_say() -> None:
    context = " John got the milk there. Mary went to the garden. John moved to the office. A kitchen. Mary left."
    assert last_mentioned(context, "", LABELS) == "kitchen"
    assert last_unasked_label(context, "Where was it before the kitchen?", LABELS) == "office"
    assert last_mentioned("nothing", "", LABELS) == LABELS[0]
    assert last_touchers_room(context, "Where is the milk?", LABELS) == "office"
    assert last_touchers_room(context + " Mary picked up the milk there.", "Where is the milk?", LABELS) == "garden"
    assert last_touchers_room(context, "Where is the apple?", LABELS) == "kitchen"


def test_floors_have_the_marks_of_the_exam_and_tell_guesses_from_cheats() -> None:
    floors = SMALL.floors()
    assert list(floors) == [
        "floor: uniform choice",
        "floor: majority answer",
        "floor: majority answer to the question",
        "cheat: last mentioned label",
        "cheat: last mentioned label not in the question",
        "cheat: last toucher's room",
    ]
    metrics = {"choice_accuracy", "generated_accuracy", "exact_accuracy"}
    everything = {(metric, name, length) for metric in metrics for name in SMALL.questions for length in (0, 256, 512)}
    for floor, measurements in floors.items():
        keys = [(m.metric, m.where["question"], m.where["length"]) for m in measurements]
        expected = {key for key in everything if key[1] == "qa2"} if floor.endswith("room") else everything
        assert set(keys) == expected and len(keys) == len(expected) and all(m.count == 12 for m in measurements)
    uniform = {m.where["question"]: m.value for m in floors["floor: uniform choice"]}
    assert uniform == pytest.approx({"qa1": 1 / 6, "qa2": 1 / 6, "qa3": 1 / 6, "qa4": 1 / 6, "qa5": 1 / 7})
    for exam in SMALL.exams("test"):
        if exam.batch.where == {"question": "qa2", "length": 256, "unit": "byte"}:
            right = [last_touchers_room(c, q, LABELS) + "\n" == a for c, q, a in rows(exam)]
    room = {(m.metric, m.where["length"]): m.value for m in floors["cheat: last toucher's room"]}
    assert room["choice_accuracy", 256] == room["exact_accuracy", 256] == pytest.approx(sum(right) / 12)
    assert sum(right) > 6


def test_majority_is_counted_on_training_stories() -> None:
    items = BABILong(questions=("qa5",), length=256).poll("qa5")
    assert len(items) == 500 and all(split_of(item.facts[:2]) == "train" for item in items)
    counts = Counter(item.answer for item in items)
    majority = majorities(items)
    assert counts[majority[""]] == max(counts.values())
    question = Counter(item.question for item in items).most_common(1)[0][0]
    answers = Counter(item.answer for item in items if item.question == question)
    assert answers[majority[question.strip()]] == max(answers.values())
