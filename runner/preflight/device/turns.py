"""Every provider's turn at the calls of all models: the rows of `check --device`, whatever becomes of one of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from models.ops import providers
from results.rows import provenance
from runner.preflight.device import calls, laws, worker
from schema.places import ROOT

DTYPES = ("float32", "bfloat16")
MOST_DEATHS = 5  # of one provider's process, before the rest of its calls is left

Row = dict[str, Any]


def rows(names: Sequence[str], device: str, until: float, told: Callable[[str], None]) -> Iterator[Row]:
    """A row for every provider of every call that these models make, as soon as its provider's turn is over.

    `until` is the time (of `time.monotonic`) after which no call is begun; `told` hears what is being done.
    """
    with tempfile.TemporaryDirectory(prefix="titanomachy-device-") as temporary:
        folder = Path(temporary)
        found, broken = _prepared(folder, names, until, told)
        yield from (_row(call, laws.LAW, "cpu", {"status": "failed", "reason": why}) for call, why in broken)
        for provider in (name for name in providers.PROVIDERS if name != laws.LAW):
            mine = {
                key: call for key, call in found.items() if provider in providers.operations()[call.operation].forms
            }
            if not mine:
                continue
            told(f"{provider}: {len(mine)} calls on {device}")
            yield from _turn(folder, provider, mine, device, until)


def _prepared(
    folder: Path, names: Sequence[str], until: float, told: Callable[[str], None]
) -> tuple[dict[str, calls.Call], list[tuple[calls.Call, str]]]:
    """Every call by the name that it is kept under, with the law's answer if there is time; and those whose law raises."""
    found: dict[str, calls.Call] = {}
    broken: list[tuple[calls.Call, str]] = []
    for dtype in DTYPES:
        lost: dict[str, str] = {}
        made = calls.of(names, dtype, lambda name, dtype=dtype: told(f"what {name} calls in {dtype}"), lost)
        broken += [(calls.Call("a whole model", (), {}, dtype, False, (name,)), why) for name, why in lost.items()]
        for call in made:
            key = f"{len(found):04d}"
            try:
                if time.monotonic() < until:
                    told(f"the law of {call.operation} in float64")
                    torch.save((call, laws.law(call, "cpu")), folder / f"{key}.pt")
            except Exception as error:  # one law that cannot be computed is a row, and the others go on
                broken.append((call, f"{type(error).__name__}: {error}"))
                continue
            found[key] = call
    return found, broken


def _turn(folder: Path, provider: str, mine: dict[str, calls.Call], device: str, until: float) -> Iterator[Row]:
    try:
        providers.check_provider(provider)
    except providers.ProviderAbsent as error:
        for call in mine.values():
            yield _row(call, provider, device, {"status": "absent", "reason": str(error)})
        return
    ended = _worked(folder, provider, device, until)
    known = {line["call"]: line["found"] for line in worker.told(folder, provider) if "found" in line}
    begun = {line["call"] for line in worker.told(folder, provider)}
    for key, call in mine.items():
        lost = {"status": "failed", "reason": ended} if key in begun else {"status": "not reached", "reason": ended}
        yield _row(call, provider, device, known.get(key, lost))


def _worked(folder: Path, provider: str, device: str, until: float) -> str:
    """Run the provider's process until it has done all, anew where it died; returns why it ended, "" if it is done."""
    why = ""
    for _ in range(MOST_DEATHS):
        left = until - time.monotonic()
        if left <= 0:
            return "the time was over"
        command = [sys.executable, "-m", "runner.preflight.device.worker", str(folder), provider, device]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return "the time was over"
        if done.returncode == 0:
            return why
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        why = f"the process ended with {done.returncode}: {last}"
    return why


def _row(call: calls.Call, provider: str, device: str, found: dict[str, Any]) -> Row:
    row = {"operation": call.operation, "call": call.what, "decodes": call.decodes, "models": list(call.models)}
    row |= {"provider": provider, "dtype": call.dtype, "device": device_name(device)}
    row |= {"forward": None, "backward": None, "seconds": None, **found}
    facts = {"when": datetime.now(UTC).isoformat(), "commit": provenance.commit(), "versions": provenance.versions()}
    return row | facts


def device_name(device: str) -> str:
    """What the device is called: a GPU's name, or "cpu"."""
    return torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else device
