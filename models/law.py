"""The law of a linear recurrence in four words: what a model forgets, compares, writes and reads at every token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Law(NamedTuple):
    """A row of the law that every generation varies; a class says its own as `law = Law(...)`.

        S <- forget(S);  S <- S + write(v - compare(S));  y = read(S)

    Each is a few words or a short formula in the paper's letters, "-" where the model has no such step: Gated DeltaNet is
    `Law(forget="a, per head, from x", compare="S^T k", write="b k (v - S^T k)^T", read="S^T q")`.
    """

    forget: str
    compare: str
    write: str
    read: str

    @classmethod
    def of(cls, laws: Iterable[Law]) -> Law:
        """The law of layers that differ: word by word what each of them says, in their order and once."""
        return cls(*("; then ".join(dict.fromkeys(words)) for words in zip(*laws, strict=True)))


NONE = Law("-", "-", "-", "-")  # of a class that says nothing, such as a user's own
