"""What all tasks over symbols must hold: solvable from the text alone, splits apart, equal bytes, honest trivial baselines."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from rich.console import Console

import tasks
from tasks.harness.floors import sit
from tasks.show import render
from tasks.synthetic.symbol_task import length_of_lesson, runs, split_of
from tasks.task import IGNORE

SMALL = {
    "mqar": {"pairs": (2, 4), "length": 32, "vocab": 32, "samples": 40, "filler": "random"},
    "selective-copying": {"length": 24, "copied": 5, "vocab": 8, "samples": 40},
    "state-tracking": {"group": "s3", "length": 16, "samples": 40},
    "forgetting": {"facts": (4, 6), "overwrites": (1, 4), "distances": (0, 16), "vocab": 34, "samples": 40},
    "flip-flop": {"length": 24, "values": 4, "samples": 40},
    "overflow": {"facts": (4, 8), "ages": (1, 4, 8), "vocab": 65, "samples": 40},
    "flow": {"spans": (1, 4), "facts": 10, "vocab": 34, "samples": 40},
    "nonlinear-recall": {"sides": (4, 8), "values": 4, "vocab": 25, "samples": 40},
    "modular-arithmetic": {"length": 24, "samples": 40},
    "variable-tracking": {"chains": (5, 6), "hops": (1, 3), "length": 96, "test_lengths": (50, 96), "samples": 40},
    "common-words": {"common": 2, "often": 5, "seldom": 2, "rare": (4, 6), "vocab": 17, "samples": 40},
    "frequent-words": {"asked": 2, "length": 32, "vocab": 17, "samples": 40},
    "phone-book": {"entries": (4, 6), "digits": 3, "vocab": 35, "samples": 40},
    "mad-in-context-recall": {"length": 48, "samples": 40},
    "mad-noisy-recall": {"length": 48, "samples": 40},
    "mad-fuzzy-recall": {"length": 64, "samples": 40},
    "mad-selective-copying": {"length": 64, "samples": 40},
    "mad-compression": {"length": 16, "samples": 40},
    "mad-memorisation": {"length": 16, "samples": 40},
}
PINNED = {
    "mqar": "b783f76c7005553a",
    "selective-copying": "68db89ef88cd19f2",
    "state-tracking": "e603868019f64980",
    "forgetting": "9668285b838dc6a5",
    "flip-flop": "aea8b49841257b18",
    "overflow": "b32eb8502675b417",
    "flow": "7c664a07214e7132",
    "nonlinear-recall": "ee59c1a077e4ee95",
    "modular-arithmetic": "feaa13241511d86a",
    "variable-tracking": "1ab4d12a9dcdc2f7",
    "common-words": "ad145df34a8a44df",
    "frequent-words": "80d2f6b406618200",
    "phone-book": "185ad5acd8bf692c",
    "mad-in-context-recall": "ceb4d5f1eef0ecd6",
    "mad-noisy-recall": "a4425db155d454b1",
    "mad-fuzzy-recall": "db4e90d5d1c587ec",
    "mad-selective-copying": "f93f99b847b8388f",
    "mad-compression": "0ee1039083b87be7",
    "mad-memorisation": "4a4e6fc7fafe7391",
}


@pytest.fixture(scope="module", params=SMALL)
def task(request):
    return tasks.create(request.param, **SMALL[request.param])


def _solved(name: str, task, tokens: list[int]) -> list[int | None]:
    """The answers that follow from a text's spelling, by a reader who shares no code with the task; None: not asked."""
    words = task.spell(tokens).split()
    if name in SOLVERS:
        return SOLVERS[name](words)
    if name.endswith(("copying", "compression")):
        data = [word for word in words if word.startswith("s")]
        begin = words.index("?") + (name.startswith("mad"))
        return [None] * begin + data
    if name == "mad-memorisation":
        return [
            f"v{task.facts[int(words[i - 1][1:])] - task.values}" if w == "?" else None for i, w in enumerate(words)
        ]
    return _recalled(name, words)


def _walk(words: list[str]) -> list[str]:
    """Things change places: what lies at place i goes to place word[i]."""
    at, said = {thing: thing for thing in "123"}, []
    for word in words:
        at = {thing: word[int(place) - 1] for thing, place in at.items()}
        said.append("".join(at[thing] for thing in "123"))
    return said


def _flipped(words: list[str]) -> list[str | None]:
    """The word behind the last w, wherever an r asks."""
    return [words[len(words[:i]) - words[:i][::-1].index("w")] if w == "r" else None for i, w in enumerate(words)]


def _told(words: list[str], facts: str) -> list[str | None]:
    """What stands behind the asked key where `facts`, the words as one text, first name it."""
    said: list[str | None] = [None] * len(words)
    for place, word in enumerate(words):
        if words[max(0, place - 1)] == "?":
            said[place] = facts.split(f" {word} ")[1].split()[0]
    return said


def _streamed(words: list[str]) -> list[str | None]:
    return _told(words, " " + " ".join(words))


def _announced(words: list[str]) -> list[str | None]:
    return _told(words, " ".join(words).split("!")[1])


def _looked_up(words: list[str]) -> list[str | None]:
    """What stood behind the same two words at the beginning."""
    text = " " + " ".join(words)
    asked = [place > 1 and words[place - 2] == "?" for place in range(len(words))]
    return [
        text.split(f" {words[place - 1]} {words[place]} ")[1].split()[0] if asks else None
        for place, asks in enumerate(asked)
    ]


def _calculated(words: list[str]) -> list[str | None]:
    """Python's own value of each bracket that closes, and of all before the equals sign, where the last one is asked."""
    said: list[str | None] = [None] * len(words)
    opened = []
    for place, word in enumerate(words):
        if word == "(":
            opened.append(place)
        if word == ")":
            said[place] = str(eval("".join(words[opened.pop() : place + 1])) % 5)
    said[-1], said[-2] = said[-2], None
    return said


def _traced(words: list[str]) -> list[str | None]:
    """What each variable holds once its statement is read; said where a question mark asks."""
    said: list[str | None] = [None] * len(words)
    holds: dict[str, str] = {}
    left = [word for word in words[: words.index("?")] if word != "."]
    for name, given in zip(left[::2], left[1::2], strict=True):
        holds[name] = holds.get(given, given)
    for place in range(1, len(words)):
        if words[place - 1] == "?":
            said[place] = holds[words[place]]
    return said


def _common(words: list[str]) -> list[str | None]:
    """The words of the list that fill more than their share of it."""
    end = words.index("?")
    listed = words[:end]
    often = [word for word in dict.fromkeys(listed) if listed.count(word) > end / len(set(listed))]
    return [None] * end + often


def _frequent(words: list[str]) -> list[str | None]:
    end = words.index("?")
    listed = words[:end]
    return [None] * end + sorted(set(listed), key=listed.count)[: -1 - (len(words) - end) : -1]


def _dialled(words: list[str]) -> list[str | None]:
    """The book as text: what stands behind both halves of the name."""
    said: list[str | None] = [None] * len(words)
    book, _, _ = " ".join(words).partition(" ?")
    for place, word in enumerate(words):
        if word == "?":
            number = book.split(f"{words[place + 1]} {words[place + 2]} ")[1].split()
            number = number[: next((i for i, digit in enumerate(number) if not digit.isdigit()), len(number))]
            said[place + 2 : place + 2 + len(number)] = number
    return said


SOLVERS = {
    "variable-tracking": _traced,
    "common-words": _common,
    "frequent-words": _frequent,
    "phone-book": _dialled,
    "state-tracking": _walk,
    "flip-flop": _flipped,
    "overflow": _streamed,
    "flow": _announced,
    "nonlinear-recall": _looked_up,
    "modular-arithmetic": _calculated,
}


def _recalled(name: str, words: list[str]) -> list[str | None]:
    """What stood behind the key before: in forgetting the latest value, and only where a question mark asks."""
    said, held = [None] * len(words), {}
    for place, key, value in _pairs(words, joined=name == "mad-fuzzy-recall"):
        question = place > 0 and words[place - len(key)] == "?"
        if key in held and (name != "forgetting" or question):
            said[place : place + len(held[key])] = held[key]
        if value and (name == "forgetting" or key not in held):
            held[key] = value
    return said


def _pairs(words: list[str], joined: bool):
    """(place of the key's last word, key, value): neighbouring words of a kind make one key, one value, if `joined`."""
    place = 0
    while place < len(words):
        begin = place
        while place < len(words) and words[place][0] == "k" and (joined or place == begin):
            place += 1
        middle = place
        while place < len(words) and words[place][0] == "v" and (joined or place == middle):
            place += 1
        if middle > begin:
            yield middle - 1, tuple(words[begin:middle]), words[middle:place]
        place = max(place, begin + 1)


def test_every_answer_follows_from_the_text(task):
    batches = [task.training(0, step, step / 6, 400) for step in range(6)] + [e.batch for e in task.exams("test")]
    for batch in batches:
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            asked = [None if target == IGNORE else task.symbol(target) for target in targets]
            solved = _solved(task.name, task, tokens)
            assert any(asked) and len(solved) == len(asked)
            assert [s if a else None for s, a in zip(solved, asked, strict=True)] == asked
            if task.name not in ("forgetting", "mqar"):  # these ask some of what could be asked
                assert solved == asked


def test_who_knows_scores_everything(task):
    marks = sit(task, task.oracle)
    assert {m.metric for m in marks} >= {"accuracy"} and {
        m.where["length"] for m in marks if "length" in m.where
    }.issuperset(getattr(task, "test_lengths", ()))
    assert all(m.value == (0 if m.metric == "stale_error" else 1) for m in marks)


def test_no_row_is_in_two_splits(task):
    drawn = {
        "train": [task.training(seed, step, 1.0, 800).tokens for seed in range(2) for step in range(20)],
        "validation": [exam.batch.tokens for exam in task.exams("validation")],
        "test": [exam.batch.tokens for exam in task.exams("test")],
    }
    hashes = {
        split: {hashlib.sha256(repr(row).encode()).hexdigest() for tokens in found for row in tokens.tolist()}
        for split, found in drawn.items()
    }
    assert all(split_of(row) == split for split, found in drawn.items() for tokens in found for row in tokens.tolist())
    assert all(len(found) > 20 for found in hashes.values())
    assert not (hashes["train"] & hashes["test"] or hashes["train"] & hashes["validation"])
    assert not hashes["validation"] & hashes["test"]


def test_equal_seeds_give_equal_bytes_on_any_platform(task):
    batches = [task.training(0, 3, 0.7, 512), *(exam.batch for exam in task.exams("test"))]
    written = b"".join(t.numpy().astype("<i8").tobytes() for batch in batches for t in (batch.tokens, batch.targets))
    assert hashlib.sha256(written).hexdigest()[:16] == PINNED[task.name]
    other = task.training(1, 3, 0.7, 512).tokens
    assert not torch.equal(other[:1, :8], batches[0].tokens[:1, :8]) or not torch.equal(
        other[1:2], batches[0].tokens[1:2]
    )


def test_symbols_are_of_the_vocabulary_and_differ_in_writing(task):
    assert len({task.symbol(token) for token in range(task.vocab)}) == task.vocab
    for batch in (task.training(0, 0, 1.0, 600), *(exam.batch for exam in task.exams("test"))):
        assert 0 <= batch.tokens.min() and batch.tokens.max() < task.vocab
        assert batch.targets.max() < task.vocab


def _seen(task, tokens: list[int], targets: list[int]) -> dict[str, object]:
    """What a text holds of the settings that its batch was drawn under."""
    words, asked = task.spell(tokens).split(), [target for target in targets if target != IGNORE]
    keys = [word for word, follows in zip(words, words[1:], strict=False) if word[0] == "k" and follows[0] == "v"]
    found = {"length": len(tokens), "pairs": len(asked), "copied": len(asked), "vocab": task.vocab}
    if task.name == "mad-compression":
        found["length"] = words.index("?") + 1
    if task.name == "forgetting":
        facts = words[: words.index("?")]
        found |= {"facts": len(set(keys)), "overwrites": len(keys) - len(set(keys)), "distance": facts.count(".")}
        kind = "overwritten" if keys.count(words[-1]) > 1 else "untouched"
        found["asked"] = kind if len(asked) == 1 else "all"
    if task.name in ("overflow", "flow", "nonlinear-recall"):
        facts = words[: words.index("?")]
        found["facts"] = len(facts) // 2
        found["age"] = (len(facts) - facts.index(words[-1])) // 2 if len(asked) == 1 else "any"
        found["span"], found["side"] = len(set(keys)), len(set(facts[::3]))
        found["asked"] = "one" if len(asked) == 1 else "all" if task.name == "flow" else "several"
    if task.name in ("variable-tracking", "common-words", "phone-book"):
        found |= _listed(words, task.name)
    if task.name == "modular-arithmetic":
        found["brackets"] = "with" if "(" in words else "without"
    if task.name == "mad-fuzzy-recall":
        found["key_motif"] = max(len(key) for *_, key in task._pairs(tokens))
    return found


def _listed(words: list[str], name: str) -> dict[str, object]:
    """What a list of statements, words or entries holds."""
    listed = [word for word in words[: words.index("?")] if word != "."]
    if name == "variable-tracking":
        chains = sum(word[0] == "v" for word in listed)
        asked = "all" if words.count("?") > 1 else "last" if words[-1] not in listed[1::2] else "another"
        return {"chains": chains, "hops": len(listed) // 2 // chains - 1, "asked": asked}
    if name == "common-words":
        counts = sorted(listed.count(word) for word in set(listed))
        assert counts[-2:] == [5, 5] and set(counts[:-2]) == {2}
        return {"rare": len(counts) - 2}
    names = [word for word in listed if not word.isdigit()]
    return {"entries": len(names) // 2, "asked": "one" if words.count("?") == 1 else "several"}


def test_half_a_name_stands_in_several_entries():
    task = tasks.create("phone-book", entries=(8,), test_entries=(8, 32), samples=60)
    for exam in task.exams("test"):
        for tokens in exam.batch.tokens.tolist():
            words = task.spell(tokens).split()
            names = [word for word in words[: words.index("?")] if not word.isdigit()]
            assert len(set(names[::2])) < len(names[::2]) and len(set(names[1::2])) < len(names[1::2])
            assert len(set(zip(names[::2], names[1::2], strict=True))) == exam.batch.where["entries"]


def test_a_text_has_what_its_settings_say(task):
    """Every label that a row will carry, held against each text of the test and of training."""
    same = {"group": getattr(task, "group", None), "noise": getattr(task, "noise", None), "keys": "of any length"}
    drawn = ("ignored",)  # a chance, held by a test of its own
    batches = [task.training(0, step, step / 6, 600) for step in range(6)] + [e.batch for e in task.exams("test")]
    for batch in batches:
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            found = {**same, **_seen(task, tokens, targets)}
            told = {
                key: value
                for key, value in batch.where.items()
                if not (key == "key_motif" and "keys" in batch.where) and key not in drawn
            }
            assert told == {key: found[key] for key in told}


def test_as_many_instructions_are_ignored_as_the_label_says():
    task = tasks.create("flip-flop", length=64, test_lengths=(256,), samples=40)
    for exam in task.exams("test"):
        between = exam.batch.tokens[:, 2:-2:2]  # the first is a writing, the last a reading
        assert (between == 1).double().mean().item() == pytest.approx(exam.batch.where["ignored"], abs=0.02)


def test_expressions_without_brackets_follow_the_order_of_operations():
    task = tasks.create("modular-arithmetic", brackets=False, length=24, test_lengths=(24, 25), samples=20, modulus=7)
    for exam in task.exams("test"):
        for tokens, targets in zip(exam.batch.tokens.tolist(), exam.batch.targets.tolist(), strict=True):
            words = task.spell(tokens).split()
            begin = words.index(next(word for word in words if word.isdigit()))
            assert len(words) == exam.batch.where["length"] and begin == (len(words) % 2)
            for place, target in enumerate(targets):
                if target != IGNORE:
                    assert target == eval("".join(words[begin : place + 1]).rstrip("=")) % 7
            assert [i for i, t in enumerate(targets) if t != IGNORE] == [
                *range(begin, len(words) - 3, 2),
                len(words) - 1,
            ]


def test_brackets_nest_as_deep_as_chance_takes_them():
    """Half of what closes is more than a bracket of two digits, which no window of five symbols reads."""
    task = tasks.create("modular-arithmetic", length=64, test_lengths=(64,), samples=60)
    local = task.floors()["cheat: last operation"]
    value = next(m.value for m in local if m.metric == "accuracy")
    assert 0.3 < value < 0.6


def test_a_table_of_sums_leaves_every_value_equally_likely_to_one_half_of_the_key():
    task = tasks.create("nonlinear-recall", sides=(4, 8), samples=200)
    for name, marks in task.floors().items():
        if name.endswith("symbol"):
            assert all(abs(m.value - 0.5) < 0.12 for m in marks), (name, marks)


def test_what_was_announced_differs_from_every_other_value_of_its_key():
    task = tasks.create("flow", spans=(4,), samples=50)
    for exam in task.exams("test"):
        for tokens, targets in zip(exam.batch.tokens.tolist(), exam.batch.targets.tolist(), strict=True):
            values = [tokens[i + 1] for i in range(len(tokens) - 2) if tokens[i] == tokens[-1]]
            assert values.count(targets[-1]) == 1


def test_no_text_is_asked_twice(task):
    for split in ("validation", "test"):
        texts = [(*exam.batch.where.items(), *row) for exam in task.exams(split) for row in exam.batch.tokens.tolist()]
        assert len(texts) == len(set(texts))


def test_an_exam_is_shorter_where_there_are_no_more_texts():
    task = tasks.create("state-tracking", length=8, test_lengths=(8,))  # 256 words, a quarter of them of the test
    texts = [tuple(row) for exam in task.exams("test") for row in exam.batch.tokens.tolist()]
    assert 40 < len(texts) == len(set(texts)) < 90
    assert {m.count for m in task.floors()["floor: last symbol"] if m.metric == "final_accuracy"} == {len(texts)}


CHANCES = {  # of guessing one asked symbol, from the settings above
    "mqar": 1 / 16,
    "selective-copying": 1 / 6,
    "state-tracking": 1 / 6,
    "forgetting": 1 / 16,
    "flip-flop": 1 / 4,
    "overflow": 1 / 32,
    "flow": 1 / 16,
    "nonlinear-recall": 1 / 8,
    "modular-arithmetic": 1 / 5,
    "variable-tracking": 1 / 64,
    "common-words": 1 / 16,
    "frequent-words": 1 / 16,
    "phone-book": 1 / 10,
    "mad-in-context-recall": 1 / 8,
    "mad-noisy-recall": 1 / 8,
    "mad-selective-copying": 1 / 14,
    "mad-compression": 1 / 15,
    "mad-memorisation": 1 / 127,
}


def test_guesses_score_what_guesses_can(task):
    """A blind guess is right by chance, and nobody who does not know the key, the order or the state does well."""
    floors = task.floors()
    kinds = {(m.metric, tuple(m.where.items())) for m in sit(task, task.oracle)}
    for name, marks in floors.items():
        assert {(m.metric, tuple(m.where.items())) for m in marks} == kinds
        if name.startswith("floor: "):
            assert all(0 <= m.value < 0.7 for m in marks if m.metric == "accuracy"), marks
            assert all(m.value < 0.3 for m in marks if m.metric == "exact_match"), marks
    blind = next(iter(floors.values()))
    low, high = (1 / 8, 1 / 6) if task.name == "mad-fuzzy-recall" else 2 * (CHANCES[task.name],)
    assert all(low - 1e-9 <= m.value <= high + 1e-9 for m in blind if m.metric == "accuracy")


def test_whole_texts_are_guessed_by_the_product_of_chances():
    task = tasks.create("selective-copying", length=8, copied=2, vocab=4, samples=3)
    exact = [m.value for m in task.floors()["floor: uniform symbols"] if m.metric == "exact_match"]
    assert exact == pytest.approx([0.25] * len(exact))


def test_a_question_is_shown_with_what_it_follows_from(task):
    console = Console(width=200, file=io.StringIO())
    console.print(render(task, {}, number=3), soft_wrap=True)
    said = console.file.getvalue()
    answer = said.split("answer: '")[1].split("'")[0]
    evidence = said.split("follows from: ")[1].split("\n")[0]
    assert "question: " in said and "test question 3, protocol trained" in said
    assert answer in evidence.split() or task.name in ("state-tracking", "modular-arithmetic", "mad-memorisation")


def test_a_batch_has_about_the_tokens_that_it_is_asked_for(task):
    for asked in (1, 500, 2000):
        tokens = task.training(0, 9, 0.5, asked).tokens
        assert len(tokens) == max(1, asked // tokens.shape[1])


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


def test_lengths_of_lessons_grow_to_the_whole():
    class Last:
        def random(self) -> float:
            return 1.0

    assert [length_of_lesson(Last(), p, 8, 128) for p in (0.0, 0.45, 1.0)] == [8, 32, 128]


def test_neighbours_are_joined():
    assert runs([3, 1, 2, 7]) == [(1, 4), (7, 8)] and runs([]) == []
