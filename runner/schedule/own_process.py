"""A cell of a user's code in a process of its own, which ends with the cell, whatever the code does there.

The process tells of itself in JSON over a pipe and writes its rows itself, as a worker of the house does. Nothing that it
imported or changed outlives it, and neither do processes that it started.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLong
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any, Literal

from pebble import ProcessExpired

import schema
from results.rows import store
from runner.schedule import worker

Word = (
    tuple[Literal["begun"]]
    | tuple[Literal["news"], str, str, dict[str, Any]]
    | tuple[Literal["done"], str, list[dict[str, Any]]]
    | tuple[Literal["unwritten"], str]
)
LEAVE = 1.0  # seconds that a process has to end by itself once its cell is done
TICK = 0.2


class OwnProcess:
    """`worker.work(*arguments)` in a fresh process; `future` gives what it returns.

    `tell` is given what the cell reports, from another thread. The future raises TimeoutError where the cell takes longer
    than `timeout` seconds from its start, ProcessExpired where the process ends without a word.
    """

    def __init__(
        self,
        arguments: Sequence[Any],
        environment: dict[str, str],
        initializer: Callable[..., None] | None,
        initargs: Sequence[Any],
        tell: Callable[[tuple[str, str, dict]], None],
        timeout: float | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.future: Future = Future()
        self.timeout, self.tell, self.stopped = timeout, tell, threading.Event()
        self.reader, writer = context.Pipe(duplex=False)
        how = (writer, os.getpid(), environment, initializer, tuple(initargs), tuple(arguments))
        self.process = context.Process(target=_work, args=how)
        self.process.start()
        writer.close()
        self.thread = threading.Thread(target=self._attend, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the process and all that it started, now."""
        self.stopped.set()
        self.thread.join()

    def _attend(self) -> None:
        try:
            found = self._outcome()
        except (TooLong, ProcessExpired, store.RecordError) as error:
            self._end(0.0 if isinstance(error, TooLong) or self.stopped.is_set() else LEAVE)
            if isinstance(error, ProcessExpired):
                error.exitcode = self.process.exitcode
            self.future.set_exception(error)
        else:
            self._end(LEAVE)
            self.future.set_result(found)

    def _outcome(self) -> tuple[str, list]:
        begun = None
        while not self.stopped.is_set():
            left = TICK if begun is None or self.timeout is None else begun + self.timeout - time.monotonic()
            if left <= 0:
                raise TooLong
            ready = connection.wait([self.reader, self.process.sentinel], min(left, TICK))
            if self.reader in ready:
                kind, *said = self._word()
                if kind == "done":
                    return said[0], said[1]
                if kind == "unwritten":
                    raise store.RecordError(said[0])
                begun = time.monotonic() if kind == "begun" else begun
                if kind == "news":
                    self.tell(tuple(said))
            elif ready:
                break
        raise ProcessExpired("the process ended without a word")

    def _word(self) -> tuple:
        """The next word; a pipe that is closed or holds what we did not write says as little as a dead process."""
        try:
            return schema.conform(tuple(json.loads(self.reader.recv_bytes())), Word, "a word")  # a loss may be NaN
        except (EOFError, OSError, ValueError, TypeError, RecursionError) as error:
            raise ProcessExpired("the process says nothing that can be read") from error

    def _end(self, leave: float) -> None:
        last = time.monotonic() + leave
        while self.process.is_alive() and time.monotonic() < last:
            time.sleep(0.01)  # join(leave) would take the closing of all files for the end
        with suppress(OSError):  # the group is gone, or was never made
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.reader.close()


@contextmanager
def processes(**shared: Any) -> Iterator[Callable[[Sequence[Any], dict[str, str]], Future]]:
    """What starts a process of its own with arguments and environment; those that still run at the end are stopped."""
    started: list[OwnProcess] = []

    def start(arguments: Sequence[Any], environment: dict[str, str]) -> Future:
        started.append(OwnProcess(arguments, environment, **shared))
        return started[-1].future

    try:
        yield start
    finally:
        for process in started:
            process.stop()


class _Words:
    """What a cell reports, put where the parent reads it; stands in for a queue."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def put(self, word: tuple[str, str, dict]) -> None:
        self.say("news", *word)

    def say(self, *words: Any) -> None:
        self.writer.send_bytes(json.dumps(words).encode())

    def cancel_join_thread(self) -> None:
        """Nothing is left in a thread here."""


def _work(
    writer: Any,
    parent: int,
    environment: dict[str, str],
    initializer: Callable[..., None] | None,
    initargs: Sequence[Any],
    arguments: Sequence[Any],
) -> None:
    """The whole life of the process."""
    os.setpgid(0, 0)  # so that what the code starts can be ended with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    words = _Words(writer)
    worker.start(words, parent, environment, initializer, initargs)
    words.say("begun")
    try:
        words.say("done", *worker.work(*arguments))
    except store.RecordError as error:
        words.say("unwritten", str(error))
    os._exit(0)  # threads and exit handlers of the user's code are not waited for
