"""BABILong's texts: facts scattered over background, consecutive sentences of books, and the instructed prompts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.instructions import EXAMPLES
from tasks.babilong.prompt import SHORTEST_SENTENCE, Background, scatter, words_around
from tasks.babilong.task import QUESTIONS, BABILong
from tasks.text.tokenizer import BYTES
from tests.support.babilong_rows import told

SPLITS = ("train", "validation", "test", "train")


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
    path.write_text("\n".join(json.dumps(line | {"text": f"Short. No! {line['id']}"}) for line in lines))
    with pytest.raises(ValueError, match="no sentence of 43 characters"):
        Background("train", str(path), line_breaks=False)


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
