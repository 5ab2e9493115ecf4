"""BABILong (Kuratov et al., arXiv 2406.10149): bAbI's facts scattered in book text, and a question at the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from random import Random
from typing import Any, Literal

from torch import Tensor

from schema.settings import construct
from tasks.babilong import lm_eval_prompts
from tasks.babilong.babi import released
from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.story import Item
from tasks.babilong.floors import floors
from tasks.babilong.prompt import words_around
from tasks.babilong.questions import SIMULATOR, StoryQuestion, check, draw, kind, least_length, official_most, untold
from tasks.babilong.samples import LongText, SampleWriter, batch
from tasks.babilong.scoring import DISAGREEMENT, generated, held, same, supporting
from tasks.babilong.tokens import as_many
from tasks.rng import stream
from tasks.task import Answers, Batch, EvaluationBatch, Measurement, Task
from tasks.text import corpus as corpora
from tasks.text.tokenizer import BYTES, DEFAULT, combined_hash, create, reversible

EXAM_TOKENS = 65536  # at most about as many tokens in one evaluation batch
GENERATION = 20  # tokens that an answer may have, as in BABILong; GPT-2's, where the template's answers are sentences
CURRICULUM = 0.5  # share of the budget after which training has reached its full length
STEP = 8  # at length 0, prompts in bytes are multiples of it, so that more of them share an evaluation batch
LONG = 100_000  # tokens from which on `long_samples` are asked
POLL = 500  # training items of each question that the majority answers are counted on
QUESTIONS = ("qa1", "qa2", "qa3", "qa4", "qa5")  # those that leaderboards average


class BABILong(Task):
    """BABILong, qa1 to qa20: accuracy by question and length, facts scattered in book text.

    Stories come from our own simulator of bAbI. Lengths are in tokens of `tokenizer` (bytes, bpe:SIZE, gpt2 or a
    JSON's path) and count everything fed: template, facts, book text, question and answer; 0 asks the facts alone, of
    stories that fit the training `length`. `test_lengths` defaults to 0 and 1, 2 and 4 times `length`; `samples` are
    asked for each question and length, `long_samples` from 100,000 tokens on.

    `template="compact"` ends in the bare question; `instructed` has BABILong's order of parts (instruction, examples,
    context, question) in our own words, not in the official ones; `harness` is lm-evaluation-harness's few-shot prompt,
    read from the installed package (extra `lm-eval`).

    `generated_accuracy` is BABILong's own comparison with all that it gets wrong: a right "none" of qa7 holds the label
    "one" and fails; `scorer_disagreement` is the share of answers on which it and the exact comparison differ. Under the
    template `harness` stands `harness_accuracy` too, lm-evaluation-harness's comparison: the target is a part of the answer.

    `source` names a folder or archive of the released bAbI files (or `$VARIABLE`, which names one), whose own splits are
    then asked instead of the simulator's stories; `test_sources` are those of the test alone: `("simulator", "FOLDER")`
    asks both of one model, and `stories` tells the rows apart; of the other source than the training's are asked only those that
    training cannot have told, a fifth of the released ones. Stories too long for a length are not drawn: under the
    templates other than `compact` by BABILong's own rule, facts + 1 <= (length - 300) // 8 (its "1k" is 1,000 tokens),
    and always those that would not fit. No evaluation asks a question about the same facts twice. `left_out()` tells which
    questions cannot be asked at which length at all. `lessons="all"` trains on every
    question of a story where bAbI's files have it, between the facts; evaluations ask the last alone.

    >>> print(aligned(create("babilong", questions=("qa1",), test_lengths=(0,)), last=80))
     Mary moved to the hallway. Sandra moved to the hallway.|Where is Mary? hallway~
    _______________________________________________________________________hallway|_
    """

    name = "babilong"
    # other splits of qa4 and qa20, gifts of qa7, doubt of qa10; no question twice; answers told as in a text
    exam_version = 2
    exam_settings = ("test_lengths", "samples", "long_samples", "test_sources")
    protocol = "trained"
    untrained_protocol = "few-shot"

    @classmethod
    def untrained(
        cls, *, length: int = 256, test_lengths: tuple[int, ...] = (), template: str = "instructed", **others: Any
    ) -> BABILong:
        """BABILong with two examples in every prompt; no story has to fit the windows that were trained."""
        if template == "compact":
            raise ValueError(
                "BABILong after another training has examples in its prompts: choose instructed or harness."
            )
        lengths = tuple(test_lengths) or _lengths(length)
        return construct(cls, length=max(length, *lengths), test_lengths=lengths, template=template, **others)

    def open_ended(self, exam: EvaluationBatch) -> EvaluationBatch:
        """The evaluation without its stop: a line break ends no answer, as it ends none in BABILong."""
        return exam._replace(stop=None)

    def __init__(
        self,
        questions: tuple[str, ...] = QUESTIONS,
        length: int = 256,
        test_lengths: tuple[int, ...] = (),
        samples: int = 100,
        corpus: str = corpora.EMBEDDED,
        template: Literal["compact", "instructed", "harness"] = "compact",
        tokenizer: str = DEFAULT,
        source: str = SIMULATOR,
        test_sources: tuple[str, ...] = (),
        lessons: Literal["last", "all"] = "last",
        long_samples: int | None = None,
    ) -> None:
        unknown = [question for question in questions if question not in TASKS]
        if unknown or not questions or len(set(questions)) < len(questions):
            raise ValueError(f"BABILong's questions must be different ones of {', '.join(TASKS)}, not {questions}.")
        self.samples, self.long_samples = samples, samples if long_samples is None else long_samples
        if min(self.samples, self.long_samples) < 1 or any(asked < 0 for asked in test_lengths):
            raise ValueError("BABILong needs samples of at least 1 and test_lengths of at least 0.")
        if lessons == "all" and template != "compact":
            raise ValueError("BABILong's lessons='all' ask between the facts, which only template='compact' can.")
        self.questions, self.length, self.corpus = tuple(questions), length, corpus
        self.source, self.test_sources, self.template = source, tuple(test_sources) or (source,), template
        if len({kind(each) for each in self.test_sources}) < len(self.test_sources):
            raise ValueError(f"BABILong's test_sources may name '{SIMULATOR}' and one source of files, each once.")
        for each in self.test_sources:
            check(each, self.questions, "test")
        self.test_lengths = tuple(dict.fromkeys(test_lengths)) or _lengths(length)
        self.tokenizer = reversible(create(tokenizer, corpus), " Is it? yes\n John moved to the hall.", "BABILong")
        self.vocab = self.tokenizer.vocab
        self._kept: dict[tuple[str, str, str, int], list[Item]] = {}
        self._read: tuple[Tensor, list[tuple[str, str]]] | None = None
        self.templates = {name: words_around(template, name).suited(self.tokenizer) for name in self.questions}
        self.lessons, self._writer = lessons, SampleWriter(self.tokenizer, corpus, self.templates)
        self.trained = tuple(question for question in self.questions if self.minimum(question) <= length)
        if not self.trained:
            least = min(map(self.minimum, self.questions))
            raise ValueError(f"BABILong's {template} template needs a length of at least {least}, not {length}.")
        self.shortest = max(map(self.minimum, self.trained))
        if not any(self._cells("test")):
            least = min(map(self.minimum, self.trained))
            raise ValueError(f"BABILong's test_lengths must hold 0 or a length of at least {least}: raise them.")

    def _may_say(self, question: str, count: int) -> int:
        """How many tokens stand for `count` of BABILong's: `harness` asks for sentences, which bytes could not say else."""
        if self.template != "harness":
            return count
        return as_many(self.tokenizer, self.templates[question].before, count)

    def minimum(self, question: str) -> int:
        """The smallest length at which every story with the fewest facts that `question` can follow fits."""
        fewest = TASKS[question].fewest
        written = self._writer.most(question, fewest)
        return written if self.template == "compact" else max(written, least_length(fewest))

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
        """Samples of all questions in turn, at one length, log-uniform up to a limit that grows to `length`.

        Every length occurs, so that questions end at every place of a chunk or segment, as they do in an evaluation.
        """
        draws = stream(self.name, "train", seed, step)
        reach = min(1.0, progress / CURRICULUM) * draws.random()
        length = min(self.length, math.ceil(self.shortest * (self.length / self.shortest) ** reach))
        rows = [self.trained[(step + row) % len(self.trained)] for row in range(max(1, tokens // length))]
        told = {name: self._items(draws, self.source, "train", name, length, rows.count(name)) for name in self.trained}
        samples = []
        for name in rows:
            item, earlier = told[name].pop()
            earlier = earlier if self.lessons == "all" else ()
            samples.append(self._writer.write(draws, "train", name, length, item, earlier))
        return batch(samples, length, {"length": length, "unit": self.tokenizer.name})

    def _items(
        self, random: Random, source: str, split: str, question: str, length: int, count: int
    ) -> list[StoryQuestion]:
        """`count` of the split's items that fit the length.

        At length 0 they fit the training length, and of our own stories only prompts of a multiple of `STEP` bytes are
        taken, so that more of them share an evaluation batch; in other tokens all prompts of a question may be equally long.
        """
        most = (length or self.length) - self._writer.longest[question] + 1
        most_facts = self._writer.most_facts(question, most)
        if length and self.template != "compact":
            most_facts = min(most_facts, official_most(length))
        step = STEP if self.tokenizer is BYTES and source == SIMULATOR else 1

        may_ask = untold(self.source, source, question)

        def fits(item: Item) -> bool:
            written = self._writer.least(item, question)
            fitting = len(item.facts) <= most_facts and written <= most and bool(length or written % step == 0)
            return fitting and may_ask(item)

        return draw(random, source, split, question, count, most_facts, fits)

    def _exam_items(self, source: str, split: str, question: str, length: int) -> list[Item]:
        """The items of one cell, kept because they take longer to find than to write."""
        key = source, split, question, length
        if key not in self._kept:
            draws = stream(self.name, "stories", *key[1:], self.length if not length else None)
            count = self.samples if length < LONG else self.long_samples
            self._kept[key] = [told.item for told in self._items(draws, *key, count)]
        return self._kept[key]

    def _cells(self, split: str) -> Iterator[tuple[str, str, int]]:
        """Source, question and length of each."""
        left_out = self.left_out()
        for source in self.test_sources if split == "test" else (self.source,):
            for question in self.questions:
                for length in self.test_lengths if split == "test" else (self.length,):
                    if (question, length) not in left_out:
                        yield source, question, length

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """One cell for each question and length, the training length alone for validation; equal prompts together."""
        if split not in ("validation", "test"):
            raise ValueError(f"There is no evaluation '{split}': ask for validation or test.")
        for source, question, length in self._cells(split):
            draws = stream(self.name, "text", split, question, length)
            where = {"question": question, "length": length, "unit": self.tokenizer.name}
            if len(self.test_sources) > 1 and split == "test":
                where["stories"] = kind(source)
            choices = self._writer.choices(question)
            for samples in self._written(draws, source, split, question, length):
                prompt = len(samples[0].prompt)
                asked = batch(samples, prompt + self._writer.longest[question] - 1, where)
                yield EvaluationBatch(asked, prompt, choices, self._may_say(question, GENERATION), choices[0][-1])

    def _written(
        self, draws: Random, source: str, split: str, question: str, length: int
    ) -> Iterator[tuple[LongText, ...]]:
        """A cell's samples, those of one batch at a time: their prompts are equally long, and long texts are not all held."""
        items = self._exam_items(source, split, question, length)
        samples = (self._writer.write(draws, split, question, length, item) for item in items)
        if length:  # one prompt is as long as another
            groups = [(length + 1 - self._writer.longest[question], samples)]
        else:
            groups = groupby(sorted(samples, key=_prompt_length), _prompt_length)
        for prompt, equally_long in groups:
            rows = max(1, EXAM_TOKENS // prompt)
            while some := tuple(islice(equally_long, rows)):
                yield some

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """The share of right choices, of answers right by BABILong's comparison, and of answers right to the letter."""
        question, decode = exam.batch.where["question"], self.tokenizer.decode
        targets = [decode(self.truth(exam, row)).strip() for row in range(len(exam.batch.tokens))]
        right: dict[str, list[bool]] = {}
        if answers.choice is not None:
            chosen = [decode(exam.choices[index]).strip() for index in answers.choice.tolist()]
            right["choice_accuracy"] = [same(target, choice) for target, choice in zip(targets, chosen, strict=True)]
        if answers.text is not None:
            asked, lead = [asked for _, asked in self.read(exam)], self.templates[question].lead
            right |= generated(list(map(decode, answers.text)), targets, asked, TASKS[question].labels, lead)
            if self.template == "harness":
                most = self._may_say(question, lm_eval_prompts.GENERATION)
                right["harness_accuracy"] = held([decode(text[:most]) for text in answers.text], targets)
            right[DISAGREEMENT] = right.pop(DISAGREEMENT)  # the last of all
        for metric, hits in right.items():
            yield Measurement(metric, sum(hits) / len(hits), len(hits), exam.batch.where)

    def read(self, exam: EvaluationBatch) -> list[tuple[str, str]]:
        """Context and question of each row, read from its prompt; kept for one evaluation, as many readers ask for the same."""
        if self._read is None or self._read[0] is not exam.batch.tokens:
            words = self.templates[exam.batch.where["question"]]
            prompts = exam.batch.tokens[:, : exam.prompt].numpy()
            self._read = exam.batch.tokens, [words.read(self.tokenizer.decode(prompt)) for prompt in prompts]
        return self._read[1]

    def floors(self) -> dict[str, list[Measurement]]:
        """Two guessers who never read the context, and shortcut heuristics that read without understanding, run on the test."""
        return floors(self)

    def poll(self, question: str, count: int = POLL) -> list[Item]:
        """Training items of a question, on which majorities are counted and shortcut heuristics are fitted."""
        draws = stream(self.name, "poll", question, self.length)
        return [told.item for told in self._items(draws, self.source, "train", question, self.length, count)]

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        """The supporting facts of a row."""
        where = exam.batch.where
        prompt = self.tokenizer.decode(exam.batch.tokens[row, : exam.prompt].tolist())
        context, question = self.templates[where["question"]].read(prompt)
        answer = self.tokenizer.decode(self.truth(exam, row)).strip()
        asked = (where["question"], where["length"])
        kept = [item for (*_, name, length), items in self._kept.items() if (name, length) == asked for item in items]
        return supporting(kept, context, question, answer)

    def data_hash(self) -> str:
        """Of the corpus, of a tokenizer other than bytes, and of sources and prompts that are not made by code."""
        read = dict.fromkeys((self.source, *self.test_sources))
        files = [released.data_hash(source)[:16] for source in read if source != SIMULATOR]
        if self.template == "harness":
            files.append(hashlib.sha256(repr(self.templates).encode()).hexdigest()[:16])
        return combined_hash(corpora.data_hash(self.corpus), self.tokenizer) + "".join(files)


def _lengths(length: int) -> tuple[int, ...]:
    """The lengths that are asked where nobody says others."""
    return 0, length, 2 * length, 4 * length


def _prompt_length(sample: LongText) -> int:
    return len(sample.prompt)
