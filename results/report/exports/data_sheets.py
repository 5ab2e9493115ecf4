"""What a reader of a generated set must know of it, by task: how it is made, what it is biased to, what it cannot show."""

from __future__ import annotations

from typing import NamedTuple


class DataSheet(NamedTuple):
    """The parts of a card that differ between tasks; the same names as in Croissant's vocabulary of responsible AI."""

    collection: str
    biases: str
    limitations: str
    use_cases: str


HAYSTACK = "The text around is taken from six novels by Jane Austen and from Moby-Dick, which are in the public domain"
NEEDLE = DataSheet(
    "A program hides one or several keys with random values (digits, words or groups of hexadecimal digits) in a text and asks "
    f"for a value at the end. {HAYSTACK}, or is a few sentences repeated; keys come from word lists.",
    "English alone; prose of the nineteenth century; the compact wording puts a fifth of its needles at the very end, which "
    "any window reaches. Novels hold the views of their time.",
    "One fact, verbatim, is looked up: it shows recall, not understanding. The compact wording is no RULER: its numbers do not "
    "compare with printed ones.",
    "Whether a model recalls a fact over a given distance, by length and depth.",
)
BABILONG = DataSheet(
    "A program tells stories of people, places and things by the rules of bAbI, asks a question whose answer follows from one to "
    f"three facts, and scatters the facts in a text. {HAYSTACK}.",
    "English alone, with a handful of first names, places and things; answers are not equally frequent, which the trivial "
    "baselines of the comparison measure. Novels hold the views of their time.",
    "The stories are our simulator's: like the released bAbI in their rules, not in their draws; a question may be answered by a "
    "shortcut (the last place named), which the comparison's shortcut heuristics measure.",
    "Whether a model keeps and joins facts over a long text.",
)
SYMBOLS = DataSheet(
    "A program draws symbols from a rule with a seeded generator and asks at known places for what the rule says. No text, no "
    "person, no file is read.",
    "None of people or language. Symbols are drawn by the distributions that the settings name, which are not those of language.",
    "A rule of symbols shows one ability by itself; how far it tells something of language is open.",
    "Whether a model binds, picks out, overwrites, tracks or copies, as the task's name says.",
)
SHEETS = {
    "needle": NEEDLE, "zero-shot-needle": NEEDLE, "babilong": BABILONG, "few-shot-babilong": BABILONG,
}  # fmt: skip


def of(task: str) -> DataSheet:
    """A task's sheet: that of symbols for every task that reads no text."""
    return SHEETS.get(task, SYMBOLS)
