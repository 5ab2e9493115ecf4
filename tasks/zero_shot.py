"""The needle asked of models that were trained on running text alone: papers' protocol for retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from tasks import corpus as corpora
from tasks.language_modelling import LanguageModelling
from tasks.needle import Needle
from tasks.needle_variants import SINGLE
from tasks.task import Answers, Batch, Exam, Measurement, Task
from tasks.tokenizer import DEFAULT


class ZeroShotNeedle(Task):
    """Needle in a haystack after language modelling: no needle is ever trained (S-NIAH as papers ask it).

    Training and validation are those of `language-modelling` over `corpus` in windows of `length`; the test is that of
    `needle`, with its settings and metrics, and books of `haystack` (by default of `corpus`).
    """

    name = "zero-shot-needle"
    exam_settings = (
        "validation_bytes",
        "variants",
        "template",
        "test_lengths",
        "depths",
        "samples",
        "haystack",
        "words",
        "values",
    )
    protocol = "zero-shot"

    def __init__(
        self,
        corpus: str = corpora.EMBEDDED,
        length: int = 1024,
        tokenizer: str = DEFAULT,
        cross_documents: bool = False,
        validation_bytes: int = 16384,
        variants: tuple[str, ...] = SINGLE,
        template: Literal["compact", "ruler"] = "ruler",
        test_lengths: tuple[int, ...] = (),
        depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
        samples: int = 20,
        haystack: str = "",
        words: Literal["own", "wonderwords"] = "own",
        values: Literal["words", "numbers", "uuids"] | None = None,
    ) -> None:
        self.text = LanguageModelling(
            corpus,
            length,
            (length,),
            validation_bytes=validation_bytes,
            tokenizer=tokenizer,
            cross_documents=cross_documents,
        )
        self.asked = Needle(
            variants,
            template,
            length,
            test_lengths,
            depths,
            samples,
            corpus=haystack or corpus,
            words=words,
            values=values,
            tokenizer=tokenizer,
        )
        if self.text.tokenizer.fingerprint != self.asked.tokenizer.fingerprint:
            raise ValueError(
                "zero-shot-needle reads text and needles with one tokenizer: leave haystack out, or choose a tokenizer "
                "that does not depend on the corpus (bytes, gpt2, a JSON's path)."
            )
        self.vocab, self.test_lengths = self.text.vocab, self.asked.test_lengths

    def training(self, seed: int, step: int, progress: float, tokens: int) -> Batch:
        """Windows of running text."""
        return self.text.training(seed, step, progress, tokens)

    def exams(self, split: str) -> Iterator[Exam]:
        """The needle's test; running text for validation."""
        yield from self.asked.exams(split) if split == "test" else self.text.exams(split)

    def mark(self, exam: Exam, answers: Answers) -> Iterable[Measurement]:
        """As the needle marks; a validation exam as running text."""
        return (self.text if exam.prompt is None else self.asked).mark(exam, answers)

    def evidence(self, exam: Exam, row: int) -> tuple[str, ...]:
        """The needles of a row's prompt that hold its answer."""
        return () if exam.prompt is None else self.asked.evidence(exam, row)

    def floors(self) -> dict[str, list[Measurement]]:
        """The needle's."""
        return self.asked.floors()

    def data_hash(self) -> str:
        """Of what is read and what is asked."""
        return hashlib.sha256((self.text.data_hash() + self.asked.data_hash()).encode()).hexdigest()
