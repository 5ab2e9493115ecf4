"""Any task of text asked of models that were trained on running text alone: papers' zero-shot and few-shot protocols.

    tasks.create("needle", template="ruler", length=1024, train_on={"name": "language-modelling", "corpus": "embedded"})

Corpus, length and tokenizer that only one of both names are the other's too.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from schema import shortened
from schema.settings import construct, parameters
from schema.settings_check import check_settings
from tasks.language_modelling.task import LanguageModelling
from tasks.task import TRAIN_ON, Answers, Batch, EvaluationBatch, Measurement, Task
from tasks.text.tokenizer import Tokenizer

SHARED = ("corpus", "length", "tokenizer")
TEXT = {  # the settings of the text that is trained: its validation has the training length, its test is never asked
    name: parameter
    for name, parameter in parameters(LanguageModelling).items()
    if name not in ("test_lengths", "test_bytes")
}
Settings = dict[str, Any]


class AfterText(Task):
    """A task whose training and validation are those of `text`, and whose test is that of `asked`.

    Raises ValueError where the two are not of one tokenizer.
    """

    def __init__(self, text: LanguageModelling, asked: Task) -> None:
        self.text, self.asked = text, asked
        self.name = getattr(type(self), "name", asked.name)
        self.protocol = asked.untrained_protocol
        self.test_lengths = getattr(asked, "test_lengths", ())
        if text.tokenizer.fingerprint != asked.tokenizer.fingerprint:
            raise ValueError(
                f"{self.name} reads text and questions with one tokenizer: let both have one corpus, or choose a "
                "tokenizer that does not depend on the corpus (bytes, gpt2, a JSON's path)."
            )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of text and questions."""
        return self.text.tokenizer

    @property
    def vocab(self) -> int:
        """The text's vocabulary, which may have one token more than the questions'."""
        return self.text.vocab

    @property
    def exam_version(self) -> int:
        """The version of the questions: the text is no part of the test."""
        return self.asked.exam_version

    @property
    def training_task(self) -> Task:
        """The task that weights depend on: language modelling."""
        return self.text

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows of running text."""
        return self.text.training(seed, step, progress, tokens)

    def exams(self, split: str) -> Iterator[EvaluationBatch]:
        """The questions for the test; running text for validation."""
        if split == "test":
            return map(self.asked.open_ended, self.asked.exams(split))
        return self.text.exams(split)

    def mark(self, exam: EvaluationBatch, answers: Answers) -> Iterable[Measurement]:
        """Measurements as the questions are scored; of a validation evaluation as running text is."""
        return (self.text if _is_text(exam) else self.asked).mark(exam, answers)

    def finish(self, measurements: list[Measurement]) -> list[Measurement]:
        """The last step of the questions."""
        return self.asked.finish(measurements)

    def oracle(self, exam: EvaluationBatch) -> Answers:
        """The answers of somebody who knows."""
        return (self.text if _is_text(exam) else self.asked).oracle(exam)

    def evidence(self, exam: EvaluationBatch, row: int) -> tuple[str, ...]:
        """What of a row's prompt its answer follows from."""
        return () if _is_text(exam) else self.asked.evidence(exam, row)

    def floors(self) -> dict[str, list[Measurement]]:
        """The trivial baselines of the questions."""
        return self.asked.floors()

    def left_out(self) -> dict[tuple[str, int], str]:
        """Why a question is not asked at a length, for each (question, length) of which this holds."""
        return getattr(self.asked, "left_out", dict)()

    def data_hash(self) -> str:
        """A hash of what is read and what is asked."""
        return hashlib.sha256((self.text.data_hash() + self.asked.data_hash()).encode()).hexdigest()


def _is_text(exam: EvaluationBatch) -> bool:
    return exam.prompt is None and exam.bytes is not None


def after_text(cls: type[Task], settings: Settings) -> AfterText:
    """The task `cls` under `settings`, of which `train_on` says what text is trained before it is asked."""
    return AfterText(*_parts(cls, settings))


def _parts(cls: type[Task], settings: Settings) -> tuple[LanguageModelling, Task]:
    text, asked = parted(cls, settings)
    length = text.get("length", TEXT["length"].default)
    return construct(LanguageModelling, test_lengths=(length,), **text), cls.untrained(**asked)


def parted(cls: type[Task], settings: Settings) -> tuple[Settings, Settings]:
    """The settings of language modelling, and those of the questions, in the settings of a task with `train_on`."""
    text = {name: value for name, value in settings[TRAIN_ON].items() if name != "name"}
    asked = {name: value for name, value in settings.items() if name != TRAIN_ON}
    known = parameters(cls)
    for name in set(SHARED) & set(known):
        if name in text:
            asked.setdefault(name, text[name])
        elif asked.get(name, known[name].default) != TEXT[name].default:
            text[name] = asked.get(name, known[name].default)
    return {name: value for name, value in text.items() if name not in TEXT or value != TEXT[name].default}, asked


def check(name: str, cls: type[Task], settings: Settings) -> Settings:
    """The settings of the questions, where `train_on` makes sense. Raises ValueError, in one sentence; reads no data."""
    told, only = settings[TRAIN_ON], LanguageModelling.name
    if issubclass(cls, AfterText | LanguageModelling):
        raise ValueError(f"{name} is trained on language modelling as it is: leave {TRAIN_ON} out.")
    if "tokenizer" not in parameters(cls):
        raise ValueError(f"{name} is a task of symbols, of which a text says nothing: leave {TRAIN_ON} out.")
    if not isinstance(told, dict) or told.get("name") != only:
        raise ValueError(
            f"{name}.{TRAIN_ON} is a table that names {only}: {{ name = '{only}' }}, not {shortened(told)}."
        )
    text, asked = parted(cls, settings)
    check_settings("Task", f"{name}.{TRAIN_ON}", text, TEXT)
    one, other = (settings.get("tokenizer", TEXT["tokenizer"].default) for settings in (text, asked))
    if one != other:
        raise ValueError(
            f"{name} reads text and questions with one tokenizer, not with {shortened(one)} and {shortened(other)}: "
            "name it once."
        )
    return asked


class Alias(AfterText):
    """A name of its own for a task with `train_on`: one table of settings, in which `haystack` is the questions' corpus.

    A subclass says what it `asks` and which defaults are `changed`; its signature is made of the text's and the questions'.
    """

    asks: ClassVar[type[Task]]
    changed: ClassVar[Settings] = {}

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        asked = {name: one for name, one in parameters(cls.asks).items() if name not in SHARED}
        haystack = inspect.Parameter("haystack", inspect.Parameter.POSITIONAL_OR_KEYWORD, default="", annotation=str)
        every = [*TEXT.values(), *asked.values(), haystack]
        defaults = {"length": 1024, **cls.changed}
        cls.__signature__ = inspect.Signature(
            [one.replace(default=defaults.get(one.name, one.default)) for one in every]
        )
        cls.exam_settings = ("validation_bytes", *asked, "haystack")
        cls.protocol = cls.asks.untrained_protocol

    def __init__(self, **settings: Any) -> None:
        super().__init__(*_parts(self.asks, self.meant(settings)))

    @classmethod
    def meant(cls, settings: Settings) -> Settings:
        """The same question as settings of the task that is asked, with `train_on`."""
        given = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()} | settings
        haystack = given.pop("haystack") or given["corpus"]
        text = {name: given.pop(name) for name in TEXT}
        asked = {"corpus": haystack, "length": text["length"], "tokenizer": text["tokenizer"]}
        return given | asked | {TRAIN_ON: {"name": LanguageModelling.name, **text}}
