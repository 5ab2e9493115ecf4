"""The conformance kit: what every model must hold, asked of any registered class.

`check("retnet")` returns one `Property` a line, each with the figure that was measured. A property is a function of a
`Subject` in one of the `check_*` modules; adding one is adding a line to `PROPERTIES`.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from models import registry
from models.conformance import causality, decay, family, modes, reference, state, training
from models.conformance.subject import Finding, Subject
from models.language_model import check_settings
from models.shell.model import Size, deep_enough

TINY = Size(vocab=256, width=32, depth=2, heads=2)


class Property(NamedTuple):
    """One property of one model: whether it holds, the figure measured, and what that is held against."""

    name: str
    passed: bool
    figure: float | str
    detail: str


PROPERTIES: dict[str, Callable[[Subject], Finding]] = {
    "parameters matched": training.matched,
    "split: single tokens": state.split_single,
    "split: pieces of 37": state.split_37,
    "split: around every period": state.split_period,
    "split: random places": state.split_random,
    "split: beyond 512 tokens": state.split_late,
    "empty piece": modes.empty,
    "eval mode": modes.evaluation,
    "short texts": state.short,
    "causality by perturbation": causality.perturbation,
    "causality by gradient": causality.gradient,
    "rows independent": causality.rows,
    "state untouched": state.untouched,
    "state batch-first": state.batch_first,
    "state of another dtype": modes.other_dtype,
    "state bounded": state.bounded,
    "state carries gradient": state.carries_gradient,
    "round trip": state.round_trip,
    "reference": reference.reference,
    "family": family.family,
    "determinism": causality.determinism,
    "initial statistics": training.initial_statistics,
    "loss at initialisation": training.start,
    "gradient to every parameter": training.gradients,
    "weight decay": decay.weight_decay,
    "bfloat16": training.half,
    "overfits one batch": training.overfit,
}

WITH_MEMORY = "with memory, "  # begins the name of a property that a memory added after training is asked for
OF_MEMORIES = (  # asked once more in evaluation, with the memory filled
    "split: single tokens",
    "split: pieces of 37",
    "split: around every period",
    "split: random places",
    "split: beyond 512 tokens",
    "empty piece",
    "short texts",
    "causality by perturbation",
    "causality by gradient",
    "rows independent",
    "state untouched",
    "state batch-first",
    "state of another dtype",
    "state bounded",
    "round trip",
    "bfloat16",
)


def check(
    name: str, size: Size = TINY, *, thorough: bool = False, only: Iterable[str] | None = None, **settings: Any
) -> list[Property]:
    """Ask a registered model every property, or those in `only`; `thorough` decodes 4,096 tokens.

    At the kit's own size a hybrid has as many layers as its pattern, where that is longer than two. A memory added after training
    is asked as its base, which it is in training, and those of OF_MEMORIES again with the memory acting.
    Raises UnknownModel; ValueError for an unknown setting, one of the wrong type, or an unknown property in `only`.
    """
    entry = registry.entry(name)
    check_settings(entry, settings)
    known = [*PROPERTIES, *(WITH_MEMORY + each for each in OF_MEMORIES if entry.adds_memory)]
    wanted = known if only is None else list(only)
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise ValueError(f"There is no property '{unknown[0]}'; choose from: {', '.join(known)}.")
    size = deep_enough(entry, size, settings) if size == TINY else size
    subject = Subject(name, size, settings, thorough)
    try:
        _ = subject.model
    except Exception as error:  # a model that cannot be built or trained has one failure to tell, not twenty
        return [Property("builds and trains", False, type(error).__name__, _told(error))]
    remembering = Subject(name, size, settings, thorough, with_memory=True)
    return [
        examine(remembering, each.removeprefix(WITH_MEMORY))._replace(name=each)
        if each.startswith(WITH_MEMORY)
        else examine(subject, each)
        for each in wanted
    ]


def examine(subject: Subject, name: str) -> Property:
    """Ask one property. A model that raises fails it, with the error as detail."""
    try:
        passed, figure, detail = PROPERTIES[name](subject)
    except Exception as error:  # the model's own code may raise anything
        return Property(name, False, type(error).__name__, _told(error))
    finite = not isinstance(figure, float) or math.isfinite(figure)
    return Property(name, bool(passed) and finite, figure, detail)


def _told(error: Exception) -> str:
    """An error in one line, with the place that raised it: the first, where another was raised from it."""
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{text[:300]} ({Path(last.filename).name}, line {last.lineno})"
