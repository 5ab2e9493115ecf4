"""Whether the project lies here as it is cloned: some of its files lie beside the code and are in no wheel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

BESIDE = ("results/report/pages/page.html", "tasks/data")


def absent(root: Path, needed: Iterable[str] = BESIDE) -> str | None:
    """One sentence where what is needed is not beside the code in `root`; None where all of it is there."""
    missing = [name for name in needed if not (root / name).exists()]
    if not missing:
        return None
    return (
        f"{', '.join(missing)} is not beside the code in {root}: this project runs from its checkout, not from an "
        "installed wheel; clone it and run pip install -e . there."
    )
