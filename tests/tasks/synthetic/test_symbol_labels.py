"""What a text over symbols holds is what its settings and its rows' labels say."""

from __future__ import annotations

import pytest

import tasks
from tasks.task import IGNORE


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
