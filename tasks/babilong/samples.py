"""How a bAbI item is written as one BABILong sample, in tokens: template, facts scattered in book text, question, answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.story import Item
from tasks.babilong.prompt import Background, PromptTemplate, scatter
from tasks.babilong.tokens import after, answered, within
from tasks.task import IGNORE, Batch
from tasks.text.tokenizer import Tokenizer

PADDING = 0
TRIES = 1000  # passages, until one stands between its question and its examples as it must
END = 8  # tokens by which the end of a context is judged
HALF = "\ufffd"  # what is shown for bytes that are no letter


class LongText(NamedTuple):
    """One prompt in tokens, its answer with the terminator, and the answers that stand inside the prompt."""

    prompt: np.ndarray
    answer: np.ndarray
    inside: tuple[tuple[int, int], ...] = ()  # (place, tokens) of each


class SampleWriter:
    """Writes items into the books of their split; `longest` are the tokens of each question's longest answer."""

    def __init__(self, tokenizer: Tokenizer, corpus: str, templates: Mapping[str, PromptTemplate]) -> None:
        self.tokenizer, self.corpus, self.templates = tokenizer, corpus, templates
        self.longest = {question: max(map(len, self.choices(question))) for question in templates}
        self.books: dict[str, Background] = {}

    def choices(self, question: str) -> tuple[tuple[int, ...], ...]:
        """The tokens of every answer, each with its terminator."""
        words, asked = self.templates[question], _extremes(question)[2].strip()
        asked = words.after.format(question=asked)
        said = (answered(self.tokenizer, asked, words.lead + label) for label in TASKS[question].answers)
        return tuple(tuple(tokens.tolist()) for tokens in said)

    def most(self, question: str, facts: int) -> int:
        """The most tokens that a prompt of so many facts and the longest answer take, without book text."""
        words, (_, fact, asked) = self.templates[question], _extremes(question)
        parts = [*[" " + fact] * facts, words.after.format(question=asked.strip())]
        written = len(self.tokenizer.encode(words.before)) + sum(len(self.encode(part)) for part in parts)
        return written + self.longest[question] - 1

    def most_facts(self, question: str, tokens: int) -> int:
        """How many of the shortest facts a prompt of so many tokens has room for."""
        fact = self.encode(" " + _extremes(question)[0])
        return (tokens - len(self.tokenizer.encode(self.templates[question].before))) // len(fact)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of one of the few texts that stories are made of."""
        return within(self.tokenizer, text)

    def least(self, item: Item, question: str) -> int:
        """Tokens of an item's prompt without book text."""
        words = self.templates[question]
        facts = sum(len(self.encode(" " + fact)) for fact in item.facts)
        return len(self.tokenizer.encode(words.before)) + facts + len(self.encode(words.ask(item)))

    def answer(self, item: Item, question: str) -> np.ndarray:
        """The tokens of an item's answer behind its question, with the line break that closes it."""
        words = self.templates[question]
        return answered(self.tokenizer, words.ask(item), words.lead + item.answer)

    def write(
        self, random: Random, split: str, question: str, length: int, item: Item, earlier: Sequence[Item] = ()
    ) -> LongText:
        """The item in book text of the split, so much that prompt and longest answer, without its terminator, have the length.

        The longest answer is counted whatever the item's is: the place where a question ends must not tell how long its
        answer is, as it would to any model that knows where its chunks begin. At length 0 there is no book text. Of the
        `earlier` questions of the story, the latest that fit stand answered where bAbI's files have them.
        """
        words = self.templates[question]
        room = length + 1 - self.least(item, question) - self.longest[question] if length else 0
        facts, answers = [self.encode(" " + fact) for fact in item.facts], {}
        for told in reversed(earlier):
            place, said = len(told.facts) - 1, self.answer(told, question)
            asked = np.concatenate([self.encode(words.ask(told)), said])
            if len(asked) > room or place in answers:
                break
            facts[place], answers[place] = np.concatenate([facts[place], asked]), len(said)
            room -= len(asked)
        if split not in self.books:
            self.books[split] = Background(split, self.corpus, words.line_breaks, self.tokenizer)
        if words.stripped:
            pieces = self._stripped(random, self.books[split], facts, words.before, room if length else None)
        else:
            pieces = scatter(random, facts, *self.books[split].passage(random, room))
        before = self.tokenizer.encode(words.before)
        ends = len(before) + np.cumsum([len(piece) for piece in pieces])[1::2]  # of the facts
        inside = tuple((int(ends[place]) - count, count) for place, count in sorted(answers.items()))
        prompt = np.concatenate([before, *pieces, self.encode(words.ask(item))])
        return LongText(prompt, self.answer(item, question), inside)

    def _stripped(
        self, random: Random, books: Background, facts: list[np.ndarray], before: str, room: int | None
    ) -> list[np.ndarray]:
        """The pieces of a context that neither begins nor ends with white space or with half a letter.

        The first piece is without its blank and may so be of other length, which book text makes up for; what ends otherwise
        is drawn again. Without `room` there is no book text.
        """
        wanted = sum(map(len, facts)) + (room or 0)
        more = 0
        for _ in range(TRIES):
            pieces = scatter(random, facts, *books.passage(random, max(0, (room or 0) + more)))
            first = next(place for place, piece in enumerate(pieces) if len(piece))
            text = self.tokenizer.decode(pieces[first]).lstrip()
            bare = after(self.tokenizer, before, text)
            pieces[first] = self.tokenizer.encode(text) if bare is None else bare
            found = sum(map(len, pieces))
            end = self.tokenizer.decode(np.concatenate(pieces)[-END:])
            if room is None or (found == wanted and end == end.rstrip() and not end.endswith(HALF)):
                return pieces
            more += wanted - found
        raise ValueError(f"No passage of {room} tokens without blanks around it was found: choose another corpus.")


def batch(samples: Sequence[LongText], width: int, where: dict[str, Any]) -> Batch:
    """Prompts and answers without terminator; the answers are asked, the padding right of short rows is not."""
    tokens = np.full((len(samples), width), PADDING, np.int64)
    targets = np.full((len(samples), width), IGNORE, np.int64)
    for row, (prompt, answer, inside) in enumerate(samples):
        end = len(prompt) + len(answer) - 1
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : end] = answer[:-1]
        targets[row, len(prompt) - 1 : end] = answer
        for place, count in inside:
            targets[row, place - 1 : place - 1 + count] = prompt[place : place + count]
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), where)


@cache
def _extremes(question: str) -> tuple[str, str, str]:
    return TASKS[question].extremes()
