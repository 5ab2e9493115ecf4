"""Tasks over symbols refuse what cannot be asked, in one sentence."""

from __future__ import annotations

import pytest

import tasks

IMPOSSIBLE = [
    ("mqar", {"pairs": (32,), "length": 64}, "every length must be at least 128"),
    ("mqar", {"pairs": (8,), "vocab": 16}, "vocab must be at least 18"),
    ("mqar", {"pairs": (0,)}, "pairs and samples of at least 1"),
    ("mqar", {"power": 0.0}, "power must be above 0"),
    ("variable-tracking", {"chains": (1,)}, "chains of at least 2"),
    ("variable-tracking", {"hops": (0,)}, "hops and samples of at least 1"),
    ("variable-tracking", {"length": 64}, "at a length of at least 80"),
    ("variable-tracking", {"test_hops": (20,)}, "test_lengths of at least 170"),
    ("variable-tracking", {"vocab": 20}, "a vocab of at least 42"),
    ("common-words", {"often": 2}, "often above seldom"),
    ("common-words", {"rare": (0,)}, "rare words, at least 1"),
    ("common-words", {"vocab": 20}, "a vocab of at least 36"),
    ("frequent-words", {"alpha": 0.0}, "an alpha above 0"),
    ("frequent-words", {"alpha": 10.0}, "bring alpha nearer to 1"),
    ("frequent-words", {"alpha": 0.01, "asked": 12, "length": 640}, "raise the length"),
    ("frequent-words", {"asked": 0}, "asked and samples of at least 1"),
    ("frequent-words", {"length": 32}, "lengths of at least 48"),
    ("frequent-words", {"vocab": 4}, "a vocab of at least 5"),
    ("phone-book", {"entries": (1,)}, "entries of at least 2"),
    ("phone-book", {"vocab": 20}, "a vocab of at least 27"),
    ("selective-copying", {"length": 10, "copied": 8}, "lengths of at least 16"),
    ("selective-copying", {"vocab": 3}, "a vocab of at least 4"),
    ("state-tracking", {"length": 4}, "lengths of at least 8"),
    ("state-tracking", {"inputs": "swaps"}, "Only the groups s3, s4 and s5"),
    ("state-tracking", {"group": "a5", "inputs": "swaps"}, "Only the groups s3, s4 and s5"),
    ("state-tracking", {"group": "modular-addition", "modulus": 1}, "a modulus of at least 2"),
    ("state-tracking", {"group": "s6"}, "has the wrong type"),
    ("forgetting", {"facts": (4,), "overwrites": (5,)}, "choose overwrites from 0 to 4"),
    ("forgetting", {"facts": (40,), "vocab": 60}, "a vocab of at least 82"),
    ("forgetting", {"distances": (-1,)}, "distances of at least 0"),
    ("flip-flop", {"length": 8}, "lengths of at least 16"),
    ("flip-flop", {"length": 33}, "even lengths"),
    ("flip-flop", {"ignored": 1.0}, "from 0 to below 1"),
    ("flip-flop", {"values": 1}, "at least 2 values"),
    ("overflow", {"facts": (200,)}, "a vocab of at least 801"),
    ("overflow", {"facts": (4,), "ages": (8,)}, "an age of 1 to 4"),
    ("overflow", {"questions": 0}, "questions and samples of at least 1"),
    ("flow", {"facts": 15}, "twice its longest span: 16"),
    ("flow", {"spans": (0,)}, "spans and samples of at least 1"),
    ("flow", {"spans": (10,), "vocab": 20}, "a vocab of at least 22"),
    ("nonlinear-recall", {"sides": (3,)}, "multiples of 2"),
    ("nonlinear-recall", {"sides": (20,)}, "a vocab of at least 61"),
    ("nonlinear-recall", {"values": 1}, "at least 2 values"),
    ("modular-arithmetic", {"length": 12}, "lengths of at least 16"),
    ("modular-arithmetic", {"modulus": 1}, "a modulus of at least 2"),
    ("mad-in-context-recall", {"length": 127}, "even lengths"),
    ("mad-in-context-recall", {"vocab": 3}, "a vocab of at least 4"),
    ("mad-noisy-recall", {"noise": 1.0}, "from 0 to below 1"),
    ("mad-noisy-recall", {"vocab": 18}, "a vocab of at least 20"),
    ("mad-fuzzy-recall", {"key_motif": 9}, "a vocab of at least 19"),
    ("mad-selective-copying", {"copied": 200}, "lengths of at least 402"),
    ("mad-compression", {"vocab": 2}, "a vocab of at least 3"),
    ("mad-memorisation", {"length": 31}, "even lengths"),
    ("mad-memorisation", {"examples": -1}, "at least 0 examples"),
]


@pytest.mark.parametrize(("name", "settings", "sentence"), IMPOSSIBLE)
def test_impossible_sizes_are_refused_in_one_sentence(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tasks.create(name, **settings)


def test_a_split_without_texts_is_told():
    task = tasks.create("mad-memorisation", vocab=5, length=2, samples=2)
    with pytest.raises(ValueError, match="too few different texts at vocab 5, length 2 for a .* split"):
        for split in ("validation", "test"):
            list(task.exams(split))


def test_an_unknown_split_is_refused(task):
    with pytest.raises(ValueError, match="There is no evaluation 'train'"):
        next(task.exams("train"))
