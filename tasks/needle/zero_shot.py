"""The needle asked of models that were trained on running text alone: papers' protocol for retrieval."""

from __future__ import annotations

from typing import Literal

from tasks.language_modelling.transfer import AfterText, check_tokenizers, running_text
from tasks.needle.task import Needle
from tasks.needle.variants import SINGLE
from tasks.task import Task
from tasks.text import corpus as corpora
from tasks.text.tokenizer import DEFAULT


class ZeroShotNeedle(AfterText, Task):
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
        depths: tuple[float, ...] = (),
        samples: int = 20,
        haystack: str = "",
        words: Literal["", "own", "wonderwords"] = "",
        values: Literal["words", "numbers", "uuids"] | None = None,
    ) -> None:
        self.text = running_text(corpus, length, tokenizer, cross_documents, validation_bytes)
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
        check_tokenizers(self.name, self.text.tokenizer, self.asked.tokenizer)
