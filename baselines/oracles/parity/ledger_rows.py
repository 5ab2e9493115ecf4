"""The ledger's rows in a file: some packages break one another, so its page is drawn from runs in several environments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class LedgerRow:
    """One comparison with its figures, or the reason why there are none."""

    model: str
    oracle: str = ""
    version: str = ""
    compared: str = ""
    forward: float | None = None
    backward: float | None = None
    bound: float | None = None
    reason: str = ""

    @property
    def failed(self) -> bool:
        """True if it was compared and an error is not below the bound (NaN is not)."""
        if self.forward is None or self.bound is None:
            return False
        return not all(error < self.bound for error in (self.forward, self.backward) if error is not None)


def read(path: Path) -> list[LedgerRow]:
    """The rows of a file, one JSON object a line; none where there is no file. Raises ValueError if it holds something else."""
    if not path.exists():
        return []
    try:
        return [LedgerRow(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold rows of the ledger ({error}); give another file to --rows.") from error


def filled(rows: Sequence[LedgerRow], stored: Sequence[LedgerRow]) -> list[LedgerRow]:
    """`rows`, with the stored figures of every comparison that could not be made here."""
    known = {_what(row): row for row in stored if row.forward is not None}
    return [row if row.forward is not None else known.get(_what(row), row) for row in rows]


def keep(path: Path, rows: Sequence[LedgerRow], whole: bool) -> None:
    """Write `rows`: as all that the file holds if they are the whole ledger, else in the place of the same comparisons."""
    if not whole:
        fresh = {_what(row): row for row in rows}
        rows = [fresh.pop(_what(row), row) for row in read(path)] + list(fresh.values())
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")


def _what(row: LedgerRow) -> tuple[str, str, str]:
    return row.model, row.oracle, row.compared
