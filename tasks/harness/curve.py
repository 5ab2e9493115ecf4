"""A training's losses, told while it goes on to whoever watches in this process; nothing of a training depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Tell = Callable[[Sequence[float]], None]
_watchers: list[Tell] = []


@contextmanager
def watch(tell: Tell) -> Iterator[None]:
    """While this lasts, `tell` is given the losses of all steps so far (nats per asked token), of every training here.

    That is where snapshots are kept, after each step (on a GPU each twentieth), and once for a trained model that is kept
    or taken from where it was.
    """
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def told(losses: Sequence[float]) -> None:
    """Tell the watchers the losses of all steps so far."""
    for tell in _watchers:
        tell(losses)
