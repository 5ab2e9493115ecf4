"""What is trained on running text alone and then asked something else: papers' protocols for retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from tasks.language_modelling.task import LanguageModelling
from tasks.task import Answers, Batch, Exam, Measurement, Task
from tasks.text.tokenizer import Tokenizer


class AfterText:
    """A task whose training and validation are those of `text`, and whose test is that of `asked`."""

    text: LanguageModelling
    asked: Task

    @property
    def tokenizer(self) -> Tokenizer:
        """Of both."""
        return self.text.tokenizer

    @property
    def vocab(self) -> int:
        """The text's, which may have one token more."""
        return self.text.vocab

    @property
    def exam_version(self) -> int:
        """Of the questions: the text is no part of the test."""
        return self.asked.exam_version

    @property
    def test_lengths(self) -> tuple[int, ...]:
        """Of the questions."""
        return self.asked.test_lengths

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows of running text."""
        return self.text.training(seed, step, progress, tokens)

    def exams(self, split: str) -> Iterator[Exam]:
        """The questions for the test; running text for validation."""
        return self.asked.exams(split) if split == "test" else self.text.exams(split)

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """As the questions are marked; a validation exam as running text."""
        return (self.text if exam.prompt is None else self.asked).mark(exam, answers)

    def evidence(self, exam: Exam, row: int) -> tuple[str, ...]:
        """What of a row's prompt its answer follows from."""
        return () if exam.prompt is None else self.asked.evidence(exam, row)

    def floors(self) -> dict[str, list[Measurement]]:
        """Those of the questions."""
        return self.asked.floors()

    def data_hash(self) -> str:
        """Of what is read and what is asked."""
        return hashlib.sha256((self.text.data_hash() + self.asked.data_hash()).encode()).hexdigest()


def running_text(
    corpus: str, length: int, tokenizer: str, cross_documents: bool, validation_bytes: int
) -> LanguageModelling:
    """What is trained: windows of `length` tokens, which validation has too."""
    return LanguageModelling(
        corpus,
        length,
        (length,),
        validation_bytes=validation_bytes,
        tokenizer=tokenizer,
        cross_documents=cross_documents,
    )


def check_tokenizers(name: str, text: Tokenizer, asked: Tokenizer) -> None:
    """ValueError where the text that is trained and the questions are not of one tokenizer."""
    if text.fingerprint != asked.fingerprint:
        raise ValueError(
            f"{name} reads text and questions with one tokenizer: leave haystack out, or choose a tokenizer "
            "that does not depend on the corpus (bytes, gpt2, a JSON's path)."
        )
