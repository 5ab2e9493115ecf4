"""No reader without understanding beats the trivial baselines and shortcut heuristics that a task over symbols ships."""

from __future__ import annotations

import pytest

import tasks
from tests.support.symbol_readers import scores

SMALL = {
    "mqar": {"pairs": (4, 8), "length": 40, "vocab": 34, "test_lengths": (40,), "samples": 120},
    "selective-copying": {"length": 40, "copied": 6, "test_lengths": (40,), "samples": 120},
    "state-tracking": {"group": "s3", "length": 24, "test_lengths": (24,), "samples": 100},
    "forgetting": {"facts": (8,), "overwrites": (2,), "distances": (0,), "vocab": 34, "samples": 240},
    "flip-flop": {"length": 32, "test_lengths": (32,), "test_ignored": (0.5,), "samples": 120},
    "overflow": {"facts": (8,), "test_facts": (8,), "ages": (1, 8), "vocab": 33, "samples": 240},
    "flow": {"spans": (1, 4), "facts": 10, "vocab": 34, "samples": 240},
    "nonlinear-recall": {"sides": (4,), "vocab": 25, "samples": 240},
    "modular-arithmetic": {"length": 24, "test_lengths": (24,), "samples": 120},
    "variable-tracking": {"chains": (3,), "hops": (1, 2), "length": 48, "test_lengths": (48,), "samples": 240},
    "common-words": {"rare": (8,), "test_rare": (8,), "samples": 160},
    "frequent-words": {"length": 64, "test_lengths": (64,), "samples": 160},
    "phone-book": {"entries": (8,), "test_entries": (8,), "samples": 160},
    "mad-in-context-recall": {"length": 64, "samples": 100},
    "mad-noisy-recall": {"length": 64, "samples": 100},
    "mad-fuzzy-recall": {"length": 96, "samples": 160},
    "mad-selective-copying": {"length": 96, "copied": 8, "samples": 160},
    "mad-compression": {"length": 16, "samples": 160},
    "mad-memorisation": {"length": 16, "samples": 100},
}
LOOK_UP = ("+1 from the",)  # what stands behind the asked key is what is asked for
COUNT = ("i-th question, i-th",)  # so is the symbol whose turn it is
SOLVES = {
    "mqar": LOOK_UP,
    "forgetting": LOOK_UP,
    "overflow": LOOK_UP,
    "phone-book": ("+1 from the first 2", "+1 from the last 2"),  # both halves of a name, or two digits
    "nonlinear-recall": ("+1 from the first 2", "+1 from the last 2"),
    "mad-in-context-recall": LOOK_UP,
    "mad-noisy-recall": LOOK_UP,
    "mad-fuzzy-recall": ("+1 from the first 2", "+1 from the last 2"),  # two of a key's three symbols
    "selective-copying": COUNT,
    "mad-selective-copying": COUNT,
    "mad-compression": (*COUNT, "at the usual place"),  # which of its text is the place itself
    "mad-memorisation": ("a bag of", "the last four", "the commonest in training behind"),  # facts learned in training
}
SIGMA = 4.0  # some 700 comparisons are made


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SMALL)
def test_no_reader_without_understanding_beats_the_floors_and_cheats(name):
    task = tasks.create(name, **SMALL[name])
    floors = {label: marks for label, marks in task.floors().items() if not label.startswith("reference: ")}
    for cell, found in scores(task).items():
        best = max(
            m.value for marks in floors.values() for m in marks if m.metric == "accuracy" and m.where == dict(cell)
        )
        better = {
            reader: score.value
            for reader, score in found.items()
            if score.value - SIGMA * score.error > best and not reader.startswith(SOLVES.get(name, ()))
        }
        assert not better, f"{cell}: the best of floors and cheats scores {best:.3f}"


def test_the_search_finds_what_floors_of_old_missed():
    """Against guesses and the last value alone it tells the commonest, the repeated and the ones left over."""
    found = {
        "mqar": "behind a symbol that came once, the first",
        "forgetting": "behind a repeated symbol, the last",
        "mad-compression": "commonest answer so far",
    }
    for name, reader in found.items():
        task = tasks.create(name, **SMALL[name])
        floors = {label: marks for label, marks in task.floors().items() if label.startswith("floor: ")}
        cell, scored = next(iter(scores(task, fitted=False).items()))
        best = max(
            m.value for marks in floors.values() for m in marks if m.metric == "accuracy" and m.where == dict(cell)
        )
        assert scored[reader].value - SIGMA * scored[reader].error > best, name
