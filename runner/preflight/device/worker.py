"""One provider's turn, in a process of its own, so that a kernel that ends the process ends nobody else's turn.

    python -m runner.preflight.device.worker FOLDER PROVIDER DEVICE

FOLDER holds the calls with the law's answers, and takes a line for each call that is begun and a line for each that is done.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import baselines  # noqa: F401, registers the models whose settings stand in calls
from runner.preflight.device import laws


def done_file(folder: Path, provider: str) -> Path:
    """Where a provider's turn writes what it has done."""
    return folder / f"{provider}.jsonl"


def told(folder: Path, provider: str) -> list[dict[str, Any]]:
    """What a provider's turn has written; a last line that the process did not end is left out."""
    path = done_file(folder, provider)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def turn(folder: Path, provider: str, device: str) -> None:
    """Hold each call that is not begun yet, in order."""
    begun = {line["call"] for line in told(folder, provider)}
    with done_file(folder, provider).open("a", encoding="utf-8") as out:
        for path in sorted(folder.glob("*.pt")):
            if path.stem in begun:
                continue
            call, expected = torch.load(path, weights_only=False)  # of our own making, a moment ago
            if provider not in laws.operations()[call.operation].forms:
                continue
            print(json.dumps({"call": path.stem}), file=out, flush=True)
            start = time.perf_counter()
            found = laws.held(call, provider, expected, device)
            found["seconds"] = round(time.perf_counter() - start, 3)
            print(json.dumps({"call": path.stem, "found": found}), file=out, flush=True)


if __name__ == "__main__":
    turn(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
