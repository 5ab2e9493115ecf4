"""How a BABILong sample becomes a prompt: facts scattered in book text, and the words around them.

The construction is that of BABILong (Kuratov et al., arXiv 2406.10149), with lengths in the model's own tokens:
consecutive sentences of a book, the last one cut to fit, and every fact in a random gap between them, in story order.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np

from tasks.babilong.babi.story import Item
from tasks.babilong.babi.world import pick
from tasks.babilong.instructions import EXAMPLES, INSTRUCTIONS
from tasks.babilong.lm_eval_prompts import few_shot
from tasks.babilong.tokens import after, within
from tasks.text import corpus as corpora
from tasks.text.tokenizer import BYTES, Tokenizer

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SHORTEST_SENTENCE = 43  # characters: BABILong skips sentences below 10 GPT-2 tokens, and a token is 4.3 of them


class PromptTemplate(NamedTuple):
    """The words around a context: `before` and `after` it, with {question} to fill in.

    What parts the answer from them is `lead`, the answer's own first blank: where a prompt ends in a blank, models with
    tokens that begin with blanks must answer with rare ones.
    """

    before: str
    after: str
    line_breaks: bool  # whether book text keeps its line breaks
    lead: str = ""
    stripped: bool = False  # whether no blank stands around the context

    def ask(self, item: Item) -> str:
        """What follows the context, up to where the answer begins."""
        return self.after.format(question=item.question.strip())

    def suited(self, tokenizer: Tokenizer) -> PromptTemplate:
        """The same words, their last blank the answer's own where the tokenizer joins a blank to the word behind it."""
        if not self.after.endswith(" ") or after(tokenizer, self.after, "office") is not None:
            return self
        return self._replace(after=self.after[:-1], lead=" ")

    def read(self, prompt: str) -> tuple[str, str]:
        """Context and question of a prompt."""
        head, tail = (re.escape(part) for part in self.after.split("{question}"))
        context, question = re.fullmatch(f"(.*){head}([^\n]*){tail}", prompt[len(self.before) :], re.DOTALL).groups()
        return context, question


def words_around(name: str, question: str) -> PromptTemplate:
    """`compact` (a line break and the question), `instructed` (BABILong's order of parts, in our own words), or `harness`.

    The last is lm-evaluation-harness's two-shot prompt. Raises ValueError for another name, and where that is not installed.
    """
    if name == "compact":
        return PromptTemplate("", "\n{question} ", line_breaks=False)
    if name == "harness":
        instruction, shots = few_shot(question)
        before = instruction + "".join(f"{facts}\n{asked} {answer}\n\n" for facts, asked, answer in shots)
        return PromptTemplate(before, "\n{question}", line_breaks=True, lead=" ", stripped=True)
    if name != "instructed":
        raise ValueError(f"BABILong has no template '{name}': choose compact, instructed or harness.")
    instruction, form = INSTRUCTIONS[question]
    examples = "".join(
        f"<example>\n{facts}\n\nQuestion: {asked}\nAnswer: {answer}\n</example>\n"
        for facts, asked, answer in EXAMPLES[question]
    )
    before = f"{instruction}\n\n{examples}\n{form}\n\n<context>\n"
    return PromptTemplate(before, "\n</context>\n\nQuestion: {question}\nAnswer:", line_breaks=True, lead=" ")


class Book(NamedTuple):
    """A book's sentences in tokens, each with a blank before it."""

    tokens: np.ndarray
    starts: np.ndarray  # where each sentence begins


class Background:
    """The books of one split, as an endless supply of consecutive sentences.

    Raises ValueError for a corpus whose split has no sentence long enough.
    """

    def __init__(self, split: str, corpus: str, line_breaks: bool, tokenizer: Tokenizer = BYTES) -> None:
        self.books = _books(split, corpus, line_breaks, tokenizer, corpora.version(corpus))
        if not self.books:
            raise ValueError(
                f"The {split} split of the corpus '{corpus}' has no sentence of {SHORTEST_SENTENCE} characters: "
                "give longer texts."
            )

    def passage(self, random: Random, count: int) -> tuple[np.ndarray, list[int]]:
        """Exactly `count` tokens from a random sentence of a random book on, and where its sentences begin."""
        parts, starts, have = [], [], 0
        while have < count:
            book = pick(random, self.books)
            first = int(np.searchsorted(book.starts, int(random.random() * len(book.tokens))))
            begin = book.starts[first] if first < len(book.starts) else 0
            part = book.tokens[begin : begin + count - have]
            inside = book.starts[first if begin else 0 : np.searchsorted(book.starts, begin + len(part))]
            starts += (inside - begin + have).tolist()
            parts.append(part)
            have += len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64), starts


@lru_cache(maxsize=12)
def _books(split: str, corpus: str, line_breaks: bool, tokenizer: Tokenizer, _: tuple) -> tuple[Book, ...]:
    books = []
    for document in corpora.documents(split, corpus):
        sentences = [sentence.strip() for sentence in SENTENCE_END.split(document.text)]
        if not line_breaks:
            sentences = [" ".join(sentence.split()) for sentence in sentences]
        encoded = [
            within.__wrapped__(tokenizer, " " + sentence)
            for sentence in sentences
            if len(sentence) >= SHORTEST_SENTENCE
        ]
        if encoded:
            ends = np.cumsum([len(sentence) for sentence in encoded])
            books.append(Book(np.concatenate(encoded), np.concatenate([[0], ends[:-1]])))
    return tuple(books)


def scatter(random: Random, facts: list[np.ndarray], text: np.ndarray, starts: list[int]) -> list[np.ndarray]:
    """The pieces of a context: every fact in a gap drawn uniformly with replacement, the facts in story order.

    With n sentences there are n + 1 gaps: before each sentence, and after the last.
    """
    gaps = [*starts, len(text)]
    pieces, done = [], 0
    for gap, fact in zip(sorted(pick(random, gaps) for _ in facts), facts, strict=True):
        pieces += [text[done:gap], fact]
        done = gap
    return [*pieces, text[done:]]
