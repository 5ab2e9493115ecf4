"""BABILong asked with examples, of models that were trained on running text alone: its few-shot protocol."""

from __future__ import annotations

from tasks.babilong.task import BABILong
from tasks.language_modelling.transfer import Alias


class FewShotBabilong(Alias):
    """BABILong after language modelling: no story is ever trained, two examples stand in every prompt.

    It is `babilong` with `train_on = { name = "language-modelling" }`: training and validation are those of
    `language-modelling` over `corpus` in windows of `length`; the test is that of `babilong`, with its settings and metrics, in
    books of `haystack` (by default of `corpus`). All that a model may say
    in 20 tokens is scored: a line break ends no answer, as it ends none in BABILong. The prompts of `harness` ask qa1 to
    qa3 for a sentence (its 20 tokens are of GPT-2, 86 bytes), of which `generated_accuracy` alone can say whether it is right.

    >>> print(aligned(create("few-shot-babilong", questions=("qa1",), test_lengths=(0, 1024)), last=64))
    e hallway.|</context>||Question: Where is John?|Answer: hallway~
    ______________________________________________________ hallway|_
    """

    name = "few-shot-babilong"
    asks = BABILong
    changed = {"template": "instructed"}
