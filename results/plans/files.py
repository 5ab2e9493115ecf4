"""Where plans lie: a comparison's folder holds plan.toml, and beside it the same question at other scales.

The project's own lie in groups, `results/comparisons/<group>/<name>/`; a user's own may lie in `results/<name>/` as well. The
group is no part of a comparison's name.
"""

from __future__ import annotations

import re
from pathlib import Path

from results.plans.toml_reader import PlanError
from schema import shortened, suggestion

FILE_NAME = "plan.toml"
LAPTOP = "laptop"  # the scale of a plan.toml
GROUPS = "comparisons"  # the folder of the groups


def comparisons(root: Path) -> list[str]:
    """Names of the comparisons below `root`: its folders that hold a plan.toml, sorted."""
    return sorted(_folders(root))


def _folders(root: Path) -> dict[str, Path]:
    """The folder of every comparison by its name. Raises PlanError where two have one name."""
    root, found = Path(root), {}
    for path in sorted([*root.glob(f"*/{FILE_NAME}"), *root.glob(f"{GROUPS}/*/*/{FILE_NAME}")]):
        folder = path.parent
        if folder.name in found:
            raise PlanError(f"Two comparisons are called {folder.name}: {found[folder.name]} and {folder}; rename one.")
        found[folder.name] = folder
    return found


def folder_of(root: Path, name: str) -> Path:
    """The folder of the comparison, or of the scale of one, that is called `name`; PlanError for what is no name, as a path."""
    plain, known = name.rstrip("/"), _folders(root)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", plain):
        raise PlanError(
            f"A comparison is called by its name, with /SCALE behind it at most, not {shortened(name)}; "
            f"known comparisons: {', '.join(sorted(known)) or 'none'}."
        )
    comparison, _, scale = plain.partition("/")
    return known.get(comparison, Path(root) / comparison) / scale


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
    names = comparisons(root_of(folder))
    near, known = suggestion(folder.name, names), ", ".join(names)
    raise PlanError(f"There is no comparison {shortened(folder.name)}{near}; known comparisons: {known or 'none'}.")


def root_of(folder: Path) -> Path:
    """The folder that all comparisons lie below, of one of them."""
    above = folder.parent
    return above.parent.parent if above.parent.name == GROUPS else above


def scales(folder: Path) -> list[str]:
    """The scales of a comparison beside its plan.toml, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.toml") if path.name != FILE_NAME)
