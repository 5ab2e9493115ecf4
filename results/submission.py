"""Packing a comparison for others: its plan, its rows, its raw predictions, and a manifest of their hashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import plan_files, prediction_files, record
from results.prediction_files import ENDING, FOLDER

MANIFEST = "manifest.json"
LARGEST = 2 * 1024 * 1024  # bytes of a cell's packed predictions that are taken along
HASHED = ("plan.toml", "rows.jsonl.xz")


class SubmissionError(ValueError):
    """A comparison that cannot be packed, or a pack that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Packed:
    """What was packed: cells with predictions, and those without, with the reason."""

    cells: int
    left_out: dict[str, str] = field(default_factory=dict)


def pack(comparison: Path, rows: Iterable[dict[str, Any]]) -> Packed:
    """Put `rows` (of a comparison's folder) with its plan and its cells' predictions into its `reference/`.

    Predictions of more than LARGEST bytes stay behind and are named. Raises SubmissionError where there are no rows.
    """
    rows, reference = list(rows), Path(comparison) / "reference"
    if not rows:
        raise SubmissionError(f"There are no rows of {Path(comparison).name} to submit; run the comparison first.")
    record.pack(reference / "rows.jsonl", rows)
    shutil.copyfile(plan_files.file_of(comparison), reference / "plan.toml")
    folder = reference / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    left_out: dict[str, str] = {}
    taken: list[Path] = []
    for cell in sorted({row["cell"] for row in rows if row["status"] == "ok"}):
        source = prediction_files.path_of(Path(comparison) / FOLDER, cell)
        if not source.exists():
            left_out[cell] = "no predictions were kept"
        elif source.stat().st_size > LARGEST:
            left_out[cell] = f"its predictions take {source.stat().st_size:,} bytes, more than {LARGEST:,}"
        else:
            folder.mkdir(parents=True, exist_ok=True)
            taken.append(Path(shutil.copyfile(source, folder / source.name)))
    hashes = {path.relative_to(reference).as_posix(): prediction_files.digest(path) for path in taken}
    hashes |= {name: prediction_files.digest(reference / name) for name in HASHED}
    text = json.dumps({"sha256": dict(sorted(hashes.items())), "left_out": left_out}, indent=1, sort_keys=True)
    (reference / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Packed(len(taken), left_out)


def differences(reference: Path) -> list[str]:
    """One sentence for each packed file that is missing, was added or is not what the manifest says; no manifest: none.

    Raises SubmissionError for a manifest that cannot be read.
    """
    manifest = Path(reference) / MANIFEST
    if not manifest.exists():
        return []
    try:
        hashes = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise SubmissionError(f"{MANIFEST} is no manifest; submit the comparison again.") from None
    found = []
    for name, digest in sorted(hashes.items()):
        path = Path(reference) / name
        if not path.exists():
            found.append(f"{name} is in the manifest but missing.")
        elif prediction_files.digest(path) != digest:
            found.append(f"{name} is not the file that was packed: its hash differs from the manifest's.")
    here = {path.relative_to(reference).as_posix() for path in (Path(reference) / FOLDER).glob(f"*{ENDING}")}
    return found + [f"{name} is not in the manifest." for name in sorted(here - set(hashes))]
