"""Cells on a Ray cluster: its nodes measure; this process claims each cell, watches its time and writes its rows.

Every node needs the project at the same path with the same packages and data; before a node measures a cell it
identifies it, and other code, data or another device than here end the run. A cell with several processes has them all
on one node. A cell that is timed has a node to itself, after all others, and a machine like this one, since its key
names the machine.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType
from typing import Any

from filelock import AcquireReturnProxy, BaseFileLock, FileLock, Timeout

from results.cell import Cell
from results.report.curves import FOLDER, path_of
from results.rows import provenance, store
from results.rows.row import Identity
from runner.schedule import curves, worker
from runner.schedule.schedule import TICK, TIMING_LOCK, Job, RunEvent, Work, environment_of
from schema.words import warn_in_one_line

LOCAL = "local"
Outcome = tuple[list[dict[str, Any]], bytes | None, bytes | None]  # rows, and as files' bytes predictions and curve
OWN = "TITANOMACHY_"  # environment variables that nodes are given too
LIKE_HERE = "every node needs the project at the same path, with the same packages and data as here"


class RayCluster:
    """A connection to the cluster at `address` ("local": one started here), and what `schedule.run` takes as cluster.

    `at_once` cells are measured side by side, without it as many as the nodes have processors (or GPUs) for. Use as a
    context manager. Raises ImportError without ray, ConnectionError where no cluster answers.
    """

    def __init__(self, address: str | None = None, at_once: int | None = None) -> None:
        self.ray = _package()
        self.at_once = at_once
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        options["runtime_env"] = {"env_vars": _own_environment()}
        if address is None:
            processors = max(os.cpu_count() or 1, at_once or 1)
            options |= {"num_cpus": processors, "include_dashboard": False}
        try:
            self.ray.init(address=address or LOCAL, **options)
        except ConnectionError as error:
            raise ConnectionError(
                f"No Ray cluster at {address} lets this process in; see whether it runs (ray status --address {address}) "
                f"and whether RAY_AUTH_MODE is the same here as there: {error}."
            ) from error
        here = self._on(self.ray.get_runtime_context().get_node_id())
        self.mailbox = self.ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ray.shutdown()

    def drain(self, work: Work, jobs: list[Job], timed: bool) -> list[Job]:
        """Measure jobs and record them; returns those that another run has claimed. Raises RuntimeError for a wrong node."""
        like_here = self._nodes_like_here() if timed and jobs else []
        waiting, claimed, flights = deque(jobs), [], {}
        try:
            while waiting or flights:
                while waiting and (place := self._place(waiting[0].cell, flights, like_here, timed)):
                    job = waiting.popleft()
                    lock = worker.claim(work.rows_path, job.key)
                    try:
                        lock.acquire(blocking=False)
                    except Timeout:
                        claimed.append(job)
                        continue
                    if not self._skip(work, job, lock):
                        flights[self._send(work, job, place, timed)] = _Flight(job, lock, place.node)
                self._watch(work, flights)
        except BaseException:
            for task, flight in flights.items():
                self.ray.cancel(task, force=True)
                flight.lock.release()
            raise
        return claimed

    def _skip(self, work: Work, job: Job, lock: BaseFileLock) -> bool:
        """Pass over a cell that another run has recorded meanwhile."""
        standing = [row for row in store.read(work.rows_path) if row["cell"] == job.key]
        if not worker.stands(standing, work.retry_before):
            return False
        lock.release()
        work.finish("skipped", job, standing)
        return True

    def _place(self, cell: Cell, flights: dict[Any, _Flight], like_here: list[dict], timed: bool) -> _Place | None:
        """Where the next cell can be measured now; None while there is no room. Raises RuntimeError where there never is."""
        processes = cell.budget.get("processes", 1)
        need = {"CPU": processes * cell.threads, "GPU": processes * (cell.device == "cuda")}
        nodes = like_here if timed else self._nodes()
        room = [min(int(node["Resources"].get(kind, 0) // n) for kind, n in need.items() if n) for node in nodes]
        if not any(room):
            raise RuntimeError(
                f"No node of the cluster has the {need['CPU']} processors and {need['GPU']} GPUs of {cell.describe()}"
                + (f", on a machine like this one ({provenance.machine()})." if timed else ".")
            )
        if not timed:
            return _Place(need) if len(flights) < (self.at_once or sum(room)) else None
        taken = {flight.node for flight in flights.values()}
        free = [node for node, fits in zip(nodes, room, strict=True) if fits and node["NodeID"] not in taken]
        if not free:
            return None
        every = {kind: free[0]["Resources"].get(kind, 0) for kind, n in need.items() if n}
        return _Place({"CPU": 0, "GPU": 0} | every, free[0]["NodeID"])

    def _send(self, work: Work, job: Job, place: _Place, timed: bool) -> Any:
        """Start a cell's measuring; returns the reference of its outcome."""
        options = {
            "num_cpus": place.need["CPU"],
            "num_gpus": place.need["GPU"],
            "max_retries": 0,
            "runtime_env": {"env_vars": environment_of(job.cell.threads)},
            **({"scheduling_strategy": self._on(place.node)} if place.node else {}),
        }
        how = work.measure, work.identify, work.initializer, work.initargs
        # a process that has run a user's code measures no other cell
        remote = self.ray.remote(max_calls=1) if job.cell.model_files else self.ray.remote
        there = remote(_measure).options(**options)
        return there.remote(self.mailbox, job.cell, job.identity, *how, timed)

    def _watch(self, work: Work, flights: dict[Any, _Flight]) -> None:
        """Wait a moment; pass on what the nodes say, record what has ended, end what takes too long."""
        done = self.ray.wait(list(flights), num_returns=1, timeout=TICK)[0] if flights else []
        by_key = {flight.job.key: flight for flight in flights.values()}
        for key, kind, progress in self.ray.get(self.mailbox.take.remote()):
            if key in by_key:
                if kind == "started":
                    by_key[key].begun = time.monotonic()
                work.tell(RunEvent(kind, by_key[key].job.cell, key, progress=progress))
        for task in done:
            self._record(work, flights[task], *self._outcome(task, flights[task].job))
            flights.pop(task).lock.release()
        for task, flight in list(flights.items()):
            if work.timeout is not None and flight.begun and time.monotonic() - flight.begun > work.timeout:
                self.ray.cancel(task, force=True)
                reason = f"timed out after {work.timeout:g} s"
                self._record(work, flight, store.failure(flight.job.cell, flight.job.identity, reason))
                flights.pop(task).lock.release()

    def _outcome(self, task: Any, job: Job) -> Outcome:
        """Rows, predictions and training curve of a cell that ended, however it did."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # not of the model's making: that is a row
            cause = getattr(error, "cause", None) or error
            raise RuntimeError(f"A node of the cluster cannot measure: {cause}; {LIKE_HERE}.") from error
        except errors.OutOfMemoryError:
            reason = "out of memory"
        except errors.RayError as error:
            reason = f"worker died ({type(error).__name__})"
        return store.failure(job.cell, job.identity, reason), None, None

    def _record(
        self,
        work: Work,
        flight: _Flight,
        rows: list[dict[str, Any]],
        predictions: bytes | None = None,
        curve: bytes | None = None,
    ) -> None:
        curves.keep(path_of(work.rows_path.parent / FOLDER, flight.job.key), curve)
        worker.keep(work.rows_path, flight.job.key, rows, predictions)
        work.measured(flight.job, rows)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _nodes_like_here(self) -> list[dict[str, Any]]:
        """The nodes whose processors are named as this machine's."""
        ask = self.ray.remote(_machine_name)
        nodes = self._nodes()
        asked = [ask.options(num_cpus=0, scheduling_strategy=self._on(node["NodeID"])).remote() for node in nodes]
        return [node for node, m in zip(nodes, self.ray.get(asked), strict=True) if m == provenance.machine()]

    def _on(self, node: str) -> Any:
        return self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)


@dataclass(frozen=True)
class _Place:
    need: dict[str, float]
    node: str = ""  # any, if empty


@dataclass
class _Flight:
    """A cell that a node was given, and the claim that this process holds on it."""

    job: Job
    lock: BaseFileLock
    node: str
    begun: float = 0.0  # 0 until the node says so


class _Mailbox:
    """What cells report, held until the driver takes it."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str, dict[str, Any]]] = []

    def put(self, word: tuple[str, str, dict[str, Any]]) -> None:
        self.words.append(word)

    def take(self) -> list[tuple[str, str, dict[str, Any]]]:
        words, self.words = self.words, []
        return words


class _Post:
    """The way from a node to the mailbox; a start arrives before the cell goes on."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def put(self, word: tuple[str, str, dict[str, Any]]) -> None:
        sent = self.mailbox.put.remote(word)
        if word[1] != "progress":
            _package().get(sent)


def _measure(
    mailbox: Any,
    cell: Cell,
    identity: Identity,
    measure: worker.Measure,
    identify: Callable[[Cell], Identity],
    initializer: Callable[..., None] | None,
    initargs: Sequence[Any],
    timed: bool,
) -> Outcome:
    """On a node: measure one cell, a timed one while no other is timed on the machine."""
    post = _Post(mailbox)
    worker.listen(post)
    warn_in_one_line()
    if initializer is not None:
        initializer(*initargs)
    if identify(cell).key != identity.key:
        raise RuntimeError(f"its code, data or device for {cell.describe()} differ from those of the run")
    with _machine_alone(post, identity.key) if timed else nullcontext():
        post.put((identity.key, "started", {}))
        with TemporaryDirectory() as folder:
            path = path_of(Path(folder), identity.key)
            with curves.recorded(path) as recorder:
                rows, predictions = worker.measured(cell, identity, measure, recorder.news)
                recorder.rows(rows)
            return rows, predictions, path.read_bytes() if path.exists() else None


def _machine_alone(post: _Post, key: str) -> AcquireReturnProxy:
    """The machine's lock for timing, held until the context ends."""
    lock = FileLock(TIMING_LOCK, mode=0o666)
    with suppress(Timeout):
        return lock.acquire(blocking=False)
    post.put((key, "waiting", {}))
    return lock.acquire()


def _machine_name() -> str:
    return provenance.machine()


def _own_environment() -> dict[str, str]:
    """What every process on a node is given: our variables, and where the project lies."""
    own = {name: value for name, value in os.environ.items() if name.startswith(OWN)}
    paths = (path or os.getcwd() for path in sys.path)
    own["PYTHONPATH"] = os.pathsep.join(p for p in paths if not p.startswith((sys.prefix, sys.base_prefix)))
    return own


def _package() -> ModuleType:
    """ray, which is optional; it is asked not to report its use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ImportError('The launcher ray needs the package ray: pip install -e ".[ray]".') from error
    return ray
