"""Where plans lie: a comparison's folder holds plan.toml, and beside it the same question at other scales."""

from __future__ import annotations

import re
from pathlib import Path

from results.plans.toml_reader import PlanError
from schema import shortened, suggestion

FILE_NAME = "plan.toml"
LAPTOP = "laptop"  # the scale of a plan.toml


def comparisons(root: Path) -> list[str]:
    """Names of the comparisons below `root`: its folders that hold a plan.toml, sorted."""
    return sorted(path.parent.name for path in Path(root).glob(f"*/{FILE_NAME}"))


def folder_of(root: Path, name: str) -> Path:
    """The folder of the comparison, or of the scale of one, that is called `name`; PlanError for what is no name, as a path."""
    plain = name.rstrip("/")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", plain):
        raise PlanError(
            f"A comparison is called by its name, with /SCALE behind it at most, not {shortened(name)}; "
            f"known comparisons: {', '.join(comparisons(root)) or 'none'}."
        )
    return Path(root) / plain


def file_of(folder: Path) -> Path:
    """The plan of a comparison's folder; of a scale of it, the file beside plan.toml.

    `titans-table2` has titans-table2/plan.toml, `titans-table2/paper` titans-table2/paper.toml; a scale's rows and reports
    live in the folder of its name. Raises PlanError where there is neither.
    """
    folder = Path(folder)
    own, scale = folder / FILE_NAME, folder.with_name(folder.name + ".toml")
    if own.is_file():
        return own
    if (folder.parent / FILE_NAME).is_file():
        if scale.is_file():
            return scale
        known = ", ".join([LAPTOP, *scales(folder.parent)])
        word = f"{shortened(folder.name)}{suggestion(folder.name, [LAPTOP, *scales(folder.parent)])}"
        raise PlanError(f"{folder.parent.name} has no scale {word}; it has: {known}.")
    known = ", ".join(comparisons(folder.parent))
    near = suggestion(folder.name, comparisons(folder.parent))
    raise PlanError(f"There is no comparison {shortened(folder.name)}{near}; known comparisons: {known or 'none'}.")


def scales(folder: Path) -> list[str]:
    """The scales of a comparison beside its plan.toml, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.toml") if path.name != FILE_NAME)
