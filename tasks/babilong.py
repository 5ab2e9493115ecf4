"""BABILong (Kuratov et al., arXiv 2406.10149): bAbI's facts scattered in book text, and a question at the end."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from random import Random
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from tasks import babi_files
from tasks import corpus as corpora
from tasks.babi import TASKS
from tasks.babi_story import Item
from tasks.babi_world import pick
from tasks.babilong_scoring import in_order, last_mentioned, last_touchers_room, last_unasked_label, matches, same
from tasks.babilong_text import Background, scatter, words_around
from tasks.evaluate import average
from tasks.randomness import stream
from tasks.task import IGNORE, Answers, Batch, Exam, Measurement, Task
from tasks.tokenizer import BYTES, DEFAULT, Tokenizer, combined_hash, create, ended, reversible

END = "\n"  # closes every answer
EXAM_TOKENS = 65536  # at most about as many tokens in one exam
GENERATION = 20  # tokens that an answer may have, as in BABILong
CURRICULUM = 0.5  # share of the budget after which training has reached its full length
STEP = 8  # training lengths are multiples of it, so that few shapes occur
POLL = 500  # training items of each question that the majority answers are counted on
PADDING = 0
BARREN = 100_000  # stories in a row, none of which fits, after which a length is given up
SIMULATOR = "simulator"
DISAGREEMENT = "scorer_disagreement"
SHARES = {"train": range(0, 154), "validation": range(154, 205), "test": range(205, 256)}
QUESTIONS = ("qa1", "qa2", "qa3", "qa4", "qa5")  # those that leaderboards average


class Sample(NamedTuple):
    """One prompt in tokens, its answer with the terminator, and the item behind it."""

    prompt: np.ndarray
    answer: np.ndarray
    item: Item


class BABILong(Task):
    """BABILong, qa1 to qa20: accuracy by question and length, facts scattered in book text.

    Mary moved to the office. It is a truth uni\\nWhere is Mary? ->  office\\n

    Stories come from our own simulator of bAbI. Lengths are in tokens of `tokenizer` (bytes, bpe:SIZE, gpt2 or a
    JSON's path) and count everything fed: template, facts, book text, question and answer; 0 asks the facts alone, of
    stories that fit the training `length`. `test_lengths` defaults to 0 and 1, 2 and 4 times `length`; `samples` are
    asked for each question and length. `template="compact"`
    ends in the bare question; `instructed` has BABILong's order of parts (instruction, examples, context, question)
    in our own words, not in the official ones. `generated_accuracy` is BABILong's own comparison with all that it
    gets wrong: a right "none" of qa7 holds the label "one" and fails; `scorer_disagreement` is the share of answers on
    which it and the exact comparison differ. `source` names a folder or archive of the released bAbI files, whose own
    splits are then asked instead of the simulator's stories. Stories too long for a length are not drawn,
    as in BABILong; `left_out()`
    tells which questions cannot be asked at which length at all.
    """

    name = "babilong"
    exam_settings = ("test_lengths", "samples")
    protocol = "trained"

    def __init__(
        self,
        questions: tuple[str, ...] = QUESTIONS,
        length: int = 256,
        test_lengths: tuple[int, ...] = (),
        samples: int = 100,
        corpus: str = corpora.EMBEDDED,
        template: Literal["compact", "instructed"] = "compact",
        tokenizer: str = DEFAULT,
        source: str = SIMULATOR,
    ) -> None:
        unknown = [question for question in questions if question not in TASKS]
        if unknown or not questions or len(set(questions)) < len(questions):
            raise ValueError(f"BABILong's questions must be different ones of {', '.join(TASKS)}, not {questions}.")
        if samples < 1 or any(asked < 0 for asked in test_lengths):
            raise ValueError("BABILong needs samples of at least 1 and test_lengths of at least 0.")
        self.questions, self.length, self.samples, self.corpus = tuple(questions), length, samples, corpus
        self.source = source
        if source != SIMULATOR:
            lacking = [name for name in questions if not babi_files.items(source, name, "test")]
            if lacking:
                raise ValueError(f"'{source}' holds no test questions of {', '.join(lacking)}: ask others.")
        self.test_lengths = tuple(dict.fromkeys(test_lengths)) or (0, length, 2 * length, 4 * length)
        self.tokenizer = reversible(create(tokenizer, corpus), " Is it? yes\n John moved to the hall.", "BABILong")
        self.vocab = self.tokenizer.vocab
        self._longest = {  # tokens of the longest answer with its terminator
            question: max(len(ended(self.tokenizer, label)) for label in TASKS[question].answers)
            for question in questions
        }
        self._books: dict[str, Background] = {}
        self._kept: dict[tuple[str, str, int], list[Item]] = {}
        self.templates = {question: words_around(template, question) for question in self.questions}
        self.trained = tuple(question for question in self.questions if self.minimum(question) <= length)
        if not self.trained:
            least = min(map(self.minimum, self.questions))
            raise ValueError(f"BABILong's {template} template needs a length of at least {least}, not {length}.")
        self.shortest = max(map(self.minimum, self.trained))
        if not any(self._cells("test")):
            least = min(map(self.minimum, self.trained))
            raise ValueError(f"BABILong's test_lengths must hold 0 or a length of at least {least}: raise them.")

    def minimum(self, question: str) -> int:
        """The smallest length at which every story with the fewest facts that `question` can follow fits."""
        task, words = TASKS[question], self.templates[question]
        _, fact, asked = _extremes(question)
        parts = [words.before, *[" " + fact] * task.fewest, words.after.format(question=asked.strip())]
        return sum(len(self._encode(part)) for part in parts) + self._longest[question] - 1

    def left_out(self) -> dict[tuple[str, int], str]:
        """Why a question is neither trained nor asked at a length, for each (question, length) of which this holds."""
        reasons = {}
        for question in self.questions:
            least = self.minimum(question)
            for length in sorted({self.length, *self.test_lengths}):
                if question not in self.trained:
                    reasons[question, length] = f"{question} needs a training length of at least {least}."
                elif 0 < length < least:
                    reasons[question, length] = f"{question} needs a length of at least {least}."
        return reasons

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Samples of all questions in turn, at one length, log-uniform up to a limit that grows to `length`."""
        draws = stream(self.name, "train", seed, step)
        reach = min(1.0, progress / CURRICULUM) * draws.random()
        length = self.shortest * (self.length / self.shortest) ** reach
        length = min(self.length, STEP * math.ceil(length / STEP))
        rows = [self.trained[(step + row) % len(self.trained)] for row in range(max(1, tokens // length))]
        items = {name: self._items(draws, "train", name, length, rows.count(name)) for name in self.trained}
        samples = [self._write(draws, "train", name, length, items[name].pop()) for name in rows]
        return _batch(samples, length, {"length": length, "unit": self.tokenizer.name})

    def _write(self, random: Random, split: str, question: str, length: int, item: Item) -> Sample:
        """The item in book text of the split, so much that prompt and answer, without its terminator, have the length.

        In exams all prompts of a length are equally long, so the longest answer is counted there; at length 0 there is
        no book text.
        """
        words, end = self.templates[question], ended(self.tokenizer, item.answer)
        answer = len(end) if split == "train" else self._longest[question]
        room = length + 1 - self._written(item, question) - answer if length else 0
        if split not in self._books:
            self._books[split] = Background(split, self.corpus, words.line_breaks, self.tokenizer)
        text, starts = self._books[split].passage(random, room)
        pieces = scatter(random, [self._encode(" " + fact) for fact in item.facts], text, starts)
        return Sample(np.concatenate([self._encode(words.before), *pieces, self._encode(words.ask(item))]), end, item)

    def _written(self, item: Item, question: str) -> int:
        """Tokens of an item's prompt without book text."""
        words = self.templates[question]
        facts = sum(len(self._encode(" " + fact)) for fact in item.facts)
        return len(self._encode(words.before)) + facts + len(self._encode(words.ask(item)))

    def _items(self, random: Random, split: str, question: str, length: int, count: int) -> list[Item]:
        """`count` of the split's items that fit the length, uniformly, however many of them a story has.

        At length 0 they fit the training length, and only prompts of a multiple of `STEP` bytes are taken, so that
        more of them share an exam; in other tokens all prompts of a question may be equally long.
        """
        task, words = TASKS[question], self.templates[question]
        most = (length or self.length) - self._longest[question] + 1
        most_facts = (most - len(self._encode(words.before))) // len(self._encode(" " + _extremes(question)[0]))
        step = STEP if self.tokenizer is BYTES else 1

        def fits(item: Item) -> bool:
            written = self._written(item, question)
            return written <= most and bool(length or written % step == 0)

        if self.source != SIMULATOR:
            released = babi_files.fitting(self.source, question, split, fits)
            if split == "train":
                return [pick(random, released) for _ in range(count)]
            return _shuffled(random, released, min(count, len(released)))
        fitting: list[Item] = []
        stories = barren = 0
        while stories < count:
            barren += 1
            if barren > BARREN:
                raise ValueError(
                    f"No story of {question} was found that fits {length or self.length} tokens: raise it."
                )
            told = task.story(random, most_facts, lambda facts: split_of(facts) == split)
            new = [item for item in told if fits(item)]
            fitting += new
            if new:
                stories, barren = stories + 1, 0
        return _shuffled(random, fitting, count)

    def _exam_items(self, split: str, question: str, length: int) -> list[Item]:
        """The items of one cell, kept because they take longer to find than to write."""
        key = split, question, length
        if key not in self._kept:
            draws = stream(self.name, "stories", *key, self.length if not length else None)
            self._kept[key] = self._items(draws, split, question, length, self.samples)
        return self._kept[key]

    def _cells(self, split: str) -> Iterator[tuple[str, int]]:
        left_out = self.left_out()
        for question in self.questions:
            for length in self.test_lengths if split == "test" else (self.length,):
                if (question, length) not in left_out:
                    yield question, length

    def exams(self, split: str) -> Iterator[Exam]:
        """One cell for each question and length, the training length alone for validation; equal prompts together."""
        if split not in ("validation", "test"):
            raise ValueError(f"There is no exam '{split}': ask for validation or test.")
        for question, length in self._cells(split):
            draws = stream(self.name, "text", split, question, length)
            where = {"question": question, "length": length, "unit": self.tokenizer.name}
            choices = tuple(tuple(ended(self.tokenizer, label).tolist()) for label in TASKS[question].answers)
            longest = self._longest[question]
            by_prompt: dict[int, list[Sample]] = {}
            for item in self._exam_items(split, question, length):
                sample = self._write(draws, split, question, length, item)
                by_prompt.setdefault(len(sample.prompt), []).append(sample)
            for prompt, samples in sorted(by_prompt.items()):
                rows = max(1, EXAM_TOKENS // prompt)
                for first in range(0, len(samples), rows):
                    batch = _batch(samples[first : first + rows], prompt + longest - 1, where)
                    yield Exam(batch, prompt, choices, GENERATION, choices[0][-1])

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """The share of right choices, of answers right by BABILong's comparison, and of answers right to the letter."""
        right: dict[str, list[bool]] = {}
        targets = [self.tokenizer.decode(self.truth(exam, row)).strip() for row in range(len(exam.batch.tokens))]
        if answers.choice is not None:
            chosen = [self.tokenizer.decode(exam.choices[index]).strip() for index in answers.choice.tolist()]
            right["choice_accuracy"] = [same(target, choice) for target, choice in zip(targets, chosen, strict=True)]
        if answers.text is not None:
            question = exam.batch.where["question"]
            said = [self.tokenizer.decode(text) for text in answers.text]
            both = list(zip(said, targets, self._read(exam), strict=True))
            labels = TASKS[question].labels
            right["generated_accuracy"] = [matches(text, target, asked, labels) for text, target, (_, asked) in both]
            right["exact_accuracy"] = [text == target for text, target, _ in both]
            pairs = zip(right["generated_accuracy"], right["exact_accuracy"], strict=True)
            right[DISAGREEMENT] = [official != exact for official, exact in pairs]
        for metric, marks in right.items():
            yield Measurement(metric, sum(marks) / len(marks), len(marks), exam.batch.where)

    def _read(self, exam: Exam) -> Iterator[tuple[str, str]]:
        """Context and question of each row, read from its prompt."""
        words = self.templates[exam.batch.where["question"]]
        for prompt in exam.batch.tokens[:, : exam.prompt].numpy():
            yield words.read(self.tokenizer.decode(prompt))

    def floors(self) -> dict[str, list[Measurement]]:
        """Two guessers who never read the context, and cheats that read it without understanding, run on the test."""
        exams = list(self.exams("test"))
        majority = {question: self._majority(question) for question in self.trained}
        uniform = [m._replace(value=1 / len(e.choices)) for e in exams for m in self._shares(e, self.oracle(e))]

        def run(say: Callable[[str, str, str], str], only: tuple[str, ...] = tuple(TASKS)) -> list[Measurement]:
            sat = [exam for exam in exams if exam.batch.where["question"] in only]
            return average([m for exam in sat for m in self._shares(exam, self._answers(exam, say))])

        def cheat(way: Callable[[str, str, tuple[str, ...]], str], *only: str) -> list[Measurement]:
            return run(lambda name, context, asked: way(context, asked, TASKS[name].labels), only or tuple(TASKS))

        rows = {
            "floor: uniform choice": average(uniform),
            "floor: majority answer": run(lambda name, _, __: majority[name][""]),
            "floor: majority answer to the question": run(
                lambda name, _, asked: majority[name].get(asked, majority[name][""])
            ),
            "cheat: last mentioned label": cheat(last_mentioned),
            "cheat: last mentioned label not in the question": cheat(last_unasked_label),
            "cheat: last toucher's room": cheat(last_touchers_room, "qa2"),
        }
        return {name: measurements for name, measurements in rows.items() if measurements}

    def _shares(self, exam: Exam, answers: Answers) -> list[Measurement]:
        """Shares of right answers; whether two scorers agree on a cheat is of no interest."""
        return [m for m in self.mark(exam, answers) if m.metric != DISAGREEMENT]

    def _majority(self, question: str) -> dict[str, str]:
        """The most frequent training answer to each wording of the question, and, under "", to all of them."""
        draws = stream(self.name, "poll", question, self.length)
        counts: dict[str, Counter[str]] = {}
        for item in self._items(draws, "train", question, self.length, POLL):
            for key in ("", item.question.strip()):
                counts.setdefault(key, Counter())[item.answer] += 1
        # Ties go to the first in the alphabet.
        return {key: min(count, key=lambda answer: (-count[answer], answer)) for key, count in counts.items()}

    def _answers(self, exam: Exam, say: Callable[[str, str, str], str]) -> Answers:
        """What somebody answers who names one label for each (question's name, context, question)."""
        name = exam.batch.where["question"]
        said = [say(name, context, asked) for context, asked in self._read(exam)]
        choice = torch.tensor([TASKS[name].answers.index(label) for label in said])
        texts = tuple(tuple(self._encode(label).tolist()) for label in said)
        blank = exam.batch.targets != IGNORE
        return Answers(torch.zeros(blank.shape), torch.zeros_like(blank), choice, texts)

    def evidence(self, exam: Exam, row: int) -> tuple[str, ...]:
        """The supporting facts of a row."""
        where = exam.batch.where
        prompt = self.tokenizer.decode(exam.batch.tokens[row, : exam.prompt].tolist())
        context, question = self.templates[where["question"]].read(prompt)
        answer = self.tokenizer.decode(self.truth(exam, row)).removesuffix(END)
        for (_, name, length), items in self._kept.items():
            for item in items if (name, length) == (where["question"], where["length"]) else ():
                asked = item.question.strip() == question and item.answer == answer
                if asked and in_order(item.facts, context):
                    return tuple(dict.fromkeys(item.facts[index] for index in sorted(item.supports)))
        return ()

    def data_hash(self) -> str:
        """Of the corpus, of a tokenizer other than bytes, and of the source where stories are not made by code."""
        source = "" if self.source == SIMULATOR else babi_files.data_hash(self.source)
        return combined_hash(corpora.data_hash(self.corpus), self.tokenizer) + source[:16]

    def _encode(self, text: str) -> np.ndarray:
        return _encoded(self.tokenizer, text)


def split_of(beginning: tuple[str, ...]) -> str:
    """The one split that may tell stories with these first two facts: 60 % of them train, 20 % and 20 % examine."""
    first = hashlib.sha256("\n".join(beginning).encode()).digest()[0]
    return next(split for split, share in SHARES.items() if first in share)


def _shuffled(random: Random, items: list[Item], count: int) -> list[Item]:
    """`count` of the items, drawn without replacement."""
    for place in range(count):
        other = place + int(random.random() * (len(items) - place))
        items[place], items[other] = items[other], items[place]
    return items[:count]


@lru_cache(maxsize=16384)
def _encoded(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return tokenizer.encode(text)


@cache
def _extremes(question: str) -> tuple[str, str, str]:
    return TASKS[question].extremes()


def _batch(samples: list[Sample], width: int, where: dict[str, Any]) -> Batch:
    """Prompts and answers without terminator; the answer is asked, the padding right of short rows is not."""
    tokens = np.full((len(samples), width), PADDING, np.int64)
    targets = np.full((len(samples), width), IGNORE, np.int64)
    for row, (prompt, answer, _) in enumerate(samples):
        end = len(prompt) + len(answer) - 1
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : end] = answer[:-1]
        targets[row, len(prompt) - 1 : end] = answer
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), where)
