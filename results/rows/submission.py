"""Packing a comparison for others: its plan, its rows, its raw predictions, and a manifest of their hashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

import schema
from results.rows import predictions, store
from results.rows.columns import Name
from results.rows.predictions import ENDING, FOLDER

MANIFEST = "manifest.json"
LARGEST = 2 * 1024 * 1024  # bytes of a cell's packed predictions that are taken along
HASHED = ("plan.toml", "rows.jsonl.xz")
REDRAWN = (".html", ".pdf")  # not committed: the rows give them again
PAGES, DRAWN = ("report.md", "report.html"), ("tables", "figures")


class Manifest(TypedDict):
    """Hashes by file: of what was packed, and of what was drawn from it; cells whose predictions stayed behind, and why."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    sha256: dict[Name, Name]
    left_out: NotRequired[dict[Name, Name]]
    drawn: NotRequired[dict[Name, Name]]


class SubmissionError(ValueError):
    """A comparison that cannot be packed, or a pack that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Packed:
    """What was packed: rows, cells with predictions, and those without, with the reason."""

    rows: int
    cells: int
    left_out: dict[str, str] = field(default_factory=dict)


def pack(comparison: Path, plan: Path, rows: Iterable[dict[str, Any]]) -> Packed:
    """Put `rows` (of a comparison's folder) with the file of its plan and its cells' predictions into its `reference/`.

    A row that stands twice is packed once; predictions of more than LARGEST bytes stay behind and are named. Raises
    SubmissionError where there are no rows or a file of predictions is damaged, RecordError for two numbers of one thing,
    before anything of the reference is touched.
    """
    rows, reference = list(rows), Path(comparison) / "reference"
    if not rows:
        raise SubmissionError(f"There are no rows of {Path(comparison).name} to submit; run the comparison first.")
    store.attempts(rows)
    rows = store.distinct(rows)
    sources, left_out = _predictions(Path(comparison) / FOLDER, rows)
    store.pack(reference / "rows.jsonl", rows)
    shutil.copyfile(plan, reference / "plan.toml")
    folder = reference / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if sources:
        folder.mkdir(parents=True)
    taken = [Path(shutil.copyfile(source, folder / source.name)) for source in sources]
    hashes = {path.relative_to(reference).as_posix(): predictions.digest(path) for path in taken}
    hashes |= {name: predictions.digest(reference / name) for name in HASHED}
    _write(reference, {"sha256": dict(sorted(hashes.items())), "left_out": left_out})
    return Packed(len(rows), len(taken), left_out)


def _predictions(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[Path], dict[str, str]]:
    """The files of predictions that are packed, and the cells without one, with the reason."""
    sources: list[Path] = []
    left_out: dict[str, str] = {}
    for cell in sorted({row["cell"] for row in rows if row["status"] == "ok"}):
        source = predictions.path_of(folder, cell)
        if not source.exists():
            left_out[cell] = "no predictions were kept"
            continue
        if source.stat().st_size > LARGEST:
            left_out[cell] = f"its predictions take {source.stat().st_size:,} bytes, more than {LARGEST:,}"
            continue
        try:
            predictions.read(folder, cell)
        except predictions.PredictionFileError as error:
            raise SubmissionError(f"{error} Delete it to submit the cell without, or measure the cell again.") from None
        sources.append(source)
    return sources, left_out


def seal(reference: Path) -> None:
    """Note the hashes of a reference's pages, tables and figures, which were just drawn, in its manifest, if it has one."""
    if (Path(reference) / MANIFEST).exists():
        pages = {path.relative_to(reference).as_posix(): predictions.digest(path) for path in _drawn(reference)}
        _write(reference, {**_manifest(reference), "drawn": pages})


def _drawn(reference: Path) -> list[Path]:
    folders = [path for name in DRAWN for path in (Path(reference) / name).rglob("*") if path.is_file()]
    return sorted([*(path for name in PAGES if (path := Path(reference) / name).is_file()), *folders])


def _write(reference: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (Path(reference) / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _manifest(reference: Path) -> dict[str, Any]:
    path = Path(reference) / MANIFEST
    try:
        return schema.read_json(path, Manifest, error=SubmissionError)
    except SubmissionError as error:
        raise SubmissionError(f"{error} {MANIFEST} is no manifest; submit the comparison again.") from None


def differences(reference: Path) -> list[str]:
    """One sentence for each packed or drawn file that is missing, was added or is not what the manifest says.

    Raises SubmissionError for a manifest that cannot be read.
    """
    reference = Path(reference)
    if not (reference / MANIFEST).exists():
        return [f"{MANIFEST} is missing; take it again from where it came, or submit the comparison again."]
    manifest = _manifest(reference)
    found = []
    for kind, done in (("sha256", "packed"), ("drawn", "drawn")):
        for name, digest in sorted(manifest.get(kind, {}).items()):
            path = reference / name
            if not path.resolve().is_relative_to(reference.resolve()):
                found.append(f"{name} is in the manifest but lies elsewhere.")
            elif not path.is_file() and path.suffix in REDRAWN:
                continue
            elif not path.is_file():
                found.append(f"{name} is in the manifest but missing.")
            elif predictions.digest(path) != digest:
                found.append(f"{name} is not the file that was {done}: its hash differs from the manifest's.")
    found += [f"{name} is not in the manifest." for name in HASHED if name not in manifest["sha256"]]
    here = {path.relative_to(reference).as_posix() for path in (reference / FOLDER).glob(f"*{ENDING}")}
    return found + [f"{name} is not in the manifest." for name in sorted(here - set(manifest["sha256"]))]
