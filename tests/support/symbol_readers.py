"""Readers without understanding, for any task over symbols: each says something by a rule that knows no key, order or state.

They know only which symbols are ever answers, from training texts. A task's trivial baselines and shortcut heuristics must be as
good as the best of them, or "better than the best trivial baseline" would mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from tasks.babilong import bag_of_words
from tasks.synthetic.symbol_task import SymbolTask
from tasks.task import IGNORE, EvaluationBatch

TAUGHT = 1200  # asked places of training texts that a fitted reader learns from


class Asked(NamedTuple):
    """One question: the text up to it, how many were asked before it, and the symbols that are ever answers."""

    text: list[int]
    number: int
    answers: frozenset[int]

    def said(self) -> list[int]:
        """The text's symbols that could be answers, in order."""
        return [token for token in self.text if token in self.answers]


Reader = Callable[[Asked], int | None]  # None: nothing to say, which is wrong


def asked(tokens: Sequence[int], targets: Sequence[int], answers: frozenset[int]) -> Iterator[tuple[Asked, int]]:
    """The questions of a text with their answers."""
    places = [place for place, target in enumerate(targets) if target != IGNORE]
    for number, place in enumerate(places):
        yield Asked(list(tokens[: place + 1]), number, answers), targets[place]


def lessons(task: SymbolTask) -> list[tuple[Asked, int]]:
    """Questions of training texts."""
    batches = [task.training(0, step, 1.0, 2048) for step in range(6)]
    rows = [pair for b in batches for pair in zip(b.tokens.tolist(), b.targets.tolist(), strict=True)]
    answers = frozenset(target for _, targets in rows for target in targets) - {IGNORE}
    found = [one for tokens, targets in rows for one in asked(tokens, targets, answers)]
    return found[:: max(1, len(found) // TAUGHT)]


def _at(symbols: Sequence[int], place: int) -> int | None:
    return symbols[place] if -len(symbols) <= place < len(symbols) else None


def _commonest(symbols: Iterable[int], latest: bool = False) -> int | None:
    """The most frequent symbol; of equally frequent ones the first, or the last, that stands in the text."""
    symbols = list(symbols)[:: -1 if latest else 1]
    return Counter(symbols).most_common(1)[0][0] if symbols else None


def _rarest(symbols: Sequence[int]) -> int | None:
    return min(reversed(symbols), key=Counter(symbols).__getitem__) if symbols else None


def _repeats(one: Asked, repeated: bool) -> list[int]:
    """Answers that stand behind a symbol that has, or has not, come before or again before the question."""
    times = Counter(one.text[:-1])
    return [
        b for a, b in zip(one.text, one.text[1:-1], strict=False) if b in one.answers and (times[a] > 1) == repeated
    ]


def _behind(one: Asked, suffix: int, offset: int, last: bool) -> int | None:
    """What stood `offset` places behind the first or last earlier place that ended in the text's last `suffix` symbols."""
    end, tail = len(one.text), one.text[-suffix:]
    places = range(suffix - 1, end - 1)
    for place in reversed(places) if last else places:
        if one.text[place - suffix + 1 : place + 1] == tail:
            return _at(one.text, place + offset) if place + offset >= 0 else None
    return None


def _nearest(one: Asked, share: float) -> int | None:
    """The answer that stands nearest to a share of the way through the text."""
    places = [place for place, token in enumerate(one.text) if token in one.answers]
    wanted = share * len(one.text)
    return one.text[min(places, key=lambda place: abs(place - wanted))] if places else None


RULES: dict[str, Reader] = {
    "commonest answer so far": lambda one: _commonest(one.said()),
    "commonest so far, the latest": lambda one: _commonest(one.said(), latest=True),
    "rarest so far": lambda one: _rarest(one.said()),
    "first": lambda one: _at(one.said(), 0),
    "last": lambda one: _at(one.said(), -1),
    "last but one": lambda one: _at(one.said(), -2),
    "last but two": lambda one: _at(one.said(), -3),
    "the question itself": lambda one: one.text[-1],
    "the symbol before": lambda one: _at(one.text, -2),
    "i-th question, i-th answer": lambda one: _at(one.said(), one.number),
    "i-th question, i-th different answer": lambda one: _at(list(dict.fromkeys(one.said())), one.number),
    "i-th question, i-th answer from behind": lambda one: _at(one.said(), -1 - one.number),
    "i-th question, next answer": lambda one: _at(one.said(), one.number + 1),
    "i-th question, previous answer": lambda one: _at(one.said(), max(0, one.number - 1)),
    "behind a repeated symbol, the last": lambda one: _at(_repeats(one, True), -1),
    "behind a repeated symbol, the commonest": lambda one: _commonest(_repeats(one, True)),
    "behind a symbol that came once, the last": lambda one: _at(_repeats(one, False), -1),
    "behind a symbol that came once, the first": lambda one: _at(_repeats(one, False), 0),
    "in the middle of the text": lambda one: _nearest(one, 0.5),
    "at the beginning of the text's last tenth": lambda one: _nearest(one, 0.9),
    **{
        f"{offset:+d} from the {'last' if last else 'first'} {suffix} of these symbols": (
            lambda one, s=suffix, o=offset, n=last: _behind(one, s, o, n)
        )
        for suffix in (1, 2)
        for offset in (-2, -1, 1, 2, 3)
        for last in (True, False)
    },
}


def _bag(one: Asked) -> list:
    return [*one.text, ("asked", one.text[-1])]


def _crossed(one: Asked) -> list:
    return [("asked", one.text[-1]), *((one.text[-1], token) for token in one.said())]


def _recent(one: Asked) -> list:
    return [("number", one.number), *((place, token) for place, token in enumerate(one.text[:-5:-1]))]


def _tables(taught: Sequence[tuple[Asked, int]]) -> dict[str, Reader]:
    """Readers that learned from training texts which answer goes with the last symbols, the place or the number."""
    keys: dict[str, Callable[[Asked], tuple]] = {
        "the commonest in training": lambda one: (),
        "the commonest in training behind this symbol": lambda one: (one.text[-1],),
        "the commonest in training behind these two": lambda one: tuple(one.text[-2:]),
        "the commonest in training at this place": lambda one: (len(one.text),),
        "the commonest in training to this question's number": lambda one: (one.number,),
    }
    found = {}
    for name, key in keys.items():
        counts: dict[tuple, Counter[int]] = {}
        for one, answer in taught:
            counts.setdefault(key(one), Counter())[answer] += 1
        table = {place: count.most_common(1)[0][0] for place, count in counts.items()}
        found[name] = lambda one, table=table, key=key: table.get(key(one))
    return found


def _usual_place(taught: Sequence[tuple[Asked, int]]) -> dict[str, Reader]:
    """Says what stands nearest to the share of the text at which it would most often have been right in training."""
    right: dict[int, Counter[int]] = {}
    for one, answer in taught:
        found = right.setdefault(one.number, Counter())
        found.update(tenth for tenth in range(21) if _nearest(one, tenth / 20) == answer)
    best = {number: found.most_common(1)[0][0] / 20 if found else 0.5 for number, found in right.items()}
    return {"at the usual place": lambda one: _nearest(one, best.get(one.number, 0.5))}


def _fitted(taught: Sequence[tuple[Asked, int]]) -> dict[str, Callable[[Sequence[Asked]], list[int]]]:
    """Logistic regressions on bags of symbols."""
    found = {}
    bags = {"a bag of symbols": _bag, "a bag of answers with the question": _crossed, "the last four symbols": _recent}
    for name, bag in bags.items():
        fitted = bag_of_words.fit([bag(one) for one, _ in taught], [answer for _, answer in taught], words=800)
        found[name] = lambda every, fitted=fitted, bag=bag: fitted.predict([bag(one) for one in every])
    return found


class Score(NamedTuple):
    """A reader's accuracy in a cell, and what sampling may have added to it."""

    value: float
    error: float


def scores(task: SymbolTask, fitted: bool = True) -> dict[tuple, dict[str, Score]]:
    """What every reader scores on the test split, by cell and by reader's name."""
    taught = lessons(task)
    answers = taught[0][0].answers
    one_by_one = {**RULES, **_tables(taught), **_usual_place(taught[::2])}
    ways = {name: (lambda every, rule=rule: [rule(one) for one in every]) for name, rule in one_by_one.items()}
    ways |= _fitted(taught) if fitted else {}
    cells: dict[tuple, list[list[tuple[Asked, int]]]] = {}
    for exam in task.exams("test"):
        cells.setdefault(tuple(exam.batch.where.items()), []).extend(_rows(exam, answers))
    return {cell: {name: _score(rows, way) for name, way in ways.items()} for cell, rows in cells.items()}


def _rows(exam: EvaluationBatch, answers: frozenset[int]) -> list[list[tuple[Asked, int]]]:
    rows = zip(exam.batch.tokens.tolist(), exam.batch.targets.tolist(), strict=True)
    return [list(asked(tokens, targets, answers)) for tokens, targets in rows]


def _score(rows: Sequence[Sequence[tuple[Asked, int]]], way: Callable[[Sequence[Asked]], list]) -> Score:
    """Pooled over questions; the error is that of the mean over texts, whose questions are not independent."""
    said = iter(way([one for row in rows for one, _ in row]))
    right = [[answer == next(said) for _, answer in row] for row in rows]
    questions = sum(map(len, right))
    shares = [sum(row) * len(right) / questions for row in right]
    return Score(fmean(shares), stdev(shares) / sqrt(len(shares)))
