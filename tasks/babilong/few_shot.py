"""BABILong asked with examples, of models that were trained on running text alone: its few-shot protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tasks.babilong.questions import SIMULATOR
from tasks.babilong.task import QUESTIONS, BABILong
from tasks.language_modelling.transfer import AfterText, check_tokenizers, running_text
from tasks.task import Exam, Task
from tasks.text import corpus as corpora
from tasks.text.tokenizer import DEFAULT


class FewShotBabilong(AfterText, Task):
    """BABILong after language modelling: no story is ever trained, two examples stand in every prompt.

    Training and validation are those of `language-modelling` over `corpus` in windows of `length`; the test is that of
    `babilong`, with its settings and metrics, in books of `haystack` (by default of `corpus`). All that a model may say
    in 20 tokens is marked: a line break ends no answer, as it ends none in BABILong. The prompts of `harness` ask qa1 to
    qa3 for a sentence (its 20 tokens are of GPT-2, 86 bytes), of which `generated_accuracy` alone can say whether it is right.
    """

    name = "few-shot-babilong"
    exam_version = 2  # as BABILong's; prompts of `harness` to the letter, and answers long enough for their sentences
    exam_settings = (
        "validation_bytes",
        "questions",
        "template",
        "test_lengths",
        "samples",
        "long_samples",
        "source",
        "haystack",
    )
    protocol = "few-shot"

    def __init__(
        self,
        corpus: str = corpora.EMBEDDED,
        length: int = 1024,
        tokenizer: str = DEFAULT,
        cross_documents: bool = False,
        validation_bytes: int = 16384,
        questions: tuple[str, ...] = QUESTIONS,
        template: Literal["instructed", "harness"] = "instructed",
        test_lengths: tuple[int, ...] = (),
        samples: int = 100,
        long_samples: int | None = None,
        source: str = SIMULATOR,
        haystack: str = "",
    ) -> None:
        self.text = running_text(corpus, length, tokenizer, cross_documents, validation_bytes)
        lengths = tuple(test_lengths) or (0, length, 2 * length, 4 * length)
        self.asked = BABILong(
            questions,
            max(length, *lengths),  # no story has to fit the windows of running text
            lengths,
            samples,
            haystack or corpus,
            template,
            tokenizer,
            source,
            long_samples=long_samples,
        )
        check_tokenizers(self.name, self.text.tokenizer, self.asked.tokenizer)

    def exams(self, split: str) -> Iterator[Exam]:
        """BABILong's questions, whose answers no line break ends; running text for validation."""
        for exam in super().exams(split):
            yield exam._replace(stop=None) if split == "test" else exam

    def left_out(self) -> dict[tuple[str, int], str]:
        """Why a question is not asked at a length, for each (question, length) of which this holds."""
        return self.asked.left_out()
