"""Numbers printed in papers: data with a source, never mixed with what was measured here."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from schema.places import ROOT

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: plans know this module, and most commands read no table

FOLDER = ROOT / "results" / "published"
COLUMNS = ("paper", "table", "model", "params", "tokens", "task", "setting", "metric", "value", "source", "confidence")
PROTOCOLS = "protocols.toml"
CONFIDENCES = ("exact-from-table", "digitised-from-figure", "quoted-by-secondary")
TIDY = ["paper", "table", "model", "task", "length", "value", "params", "tokens", "source", "confidence"]
# Titans prints PK, N and W (pass-key, number, word) for RULER's single needles 1, 2 and 3.
_SNIAH = {"S-NIAH-PK": "s-niah-1", "S-NIAH-N": "s-niah-2", "S-NIAH-W": "s-niah-3"}
_UNITS = {"": 1, "K": 1024, "M": 1024**2}


class PublishedError(ValueError):
    """A published table that is missing or not as its README says."""


def names() -> list[str]:
    """The tables there are: the files' names without ending."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


@lru_cache(maxsize=2)
def _everything(folder: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([_read(path) for path in sorted(folder.glob("*.csv"))], ignore_index=True)


def load(name: str | None = None) -> pd.DataFrame:
    """One table, or all: the CSV's columns as text, `number` (the value as a float, NaN for text), and `file`.

    Raises PublishedError for an unknown name, wrong columns, an unknown confidence, or a figure that is no number.
    """
    if name is None:
        return _everything(FOLDER).copy()
    return _read(_path(name))


def protocol(name: str) -> str:
    """How the models of a table were trained and asked, in words; "not stated" where `protocols.toml` says nothing."""
    return schema.read_toml(FOLDER / PROTOCOLS, dict[str, str], error=PublishedError).get(name, "not stated")


def sniah() -> pd.DataFrame:
    """Single needle in a haystack as printed, tidy: task "s-niah-1" to "s-niah-3", nominal length, value in percent."""
    everything = load()
    rule = everything.task.str.extract(r"^(S-NIAH-(?:PK|N|W|1|2|3))\b(?! average)", expand=False)
    chosen = everything[rule.notna()].copy()
    chosen["task"] = [_SNIAH.get(task, task.lower()) for task in rule[rule.notna()]]
    return _tidy(chosen)


def babilong() -> pd.DataFrame:
    """BABILong as printed, tidy: task "qa1" to "qa5" or "qa1-qa5 average", nominal length, value in percent.

    The benchmark's own "avg row" over lengths is left out.
    """
    everything = load()
    chosen = everything[everything.task.str.startswith("BABILong") & (everything.setting != "avg row")].copy()
    single = chosen.task.str.extract(r"QA(\d)$", expand=False)
    chosen["task"] = [f"qa{number}" if isinstance(number, str) else "qa1-qa5 average" for number in single]
    return _tidy(chosen)


def select(name: str, where: Mapping[str, Any]) -> pd.DataFrame:
    """`lines` as a table."""
    import pandas as pd

    return pd.DataFrame(lines(name, where))


def lines(name: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table whose columns have the values (or one of the values) of `where`, each with its `length`.

    Raises PublishedError for an unknown table or column, and where no row is left.
    """
    found = list(_lines(_path(name)))
    for column, value in where.items():
        if column not in COLUMNS:
            raise PublishedError(f"{name} has no column {column!r}; its columns are {', '.join(COLUMNS)}.")
        wanted = value if isinstance(value, list) else [value]
        printed = {row[column] for row in found}
        if strange := [one for one in wanted if one not in printed]:
            raise PublishedError(f"{name} has no row whose {column} is {strange[0]!r}.")
        found = [row for row in found if row[column] in wanted]
    if not found:
        raise PublishedError(f"{name} has no row with {dict(where)}.")
    return [row | {"length": length(row["setting"])} for row in found]


def length(setting: str) -> int | None:
    """The nominal length of a setting in tokens, K and M taken as powers of 1024.

    "context 4K, ..." -> 4096, "sequence length 2000" -> 2000, "2Kx16 (length x batch)" -> 2048.
    """
    found = re.search(r"\b(?:context|sequence length) (\d+)([KM]?)\b", setting)
    found = found or re.match(r"(\d+)([KM]?)x\d+\b", setting)
    return int(found.group(1)) * _UNITS[found.group(2)] if found else None


def _tidy(chosen: pd.DataFrame) -> pd.DataFrame:
    chosen["length"] = [length(setting) for setting in chosen.setting]
    chosen["value"] = chosen["number"]
    chosen = chosen[chosen.length.notna() & chosen.value.notna()]
    tidy = chosen[TIDY].astype({"length": int})
    return tidy.sort_values(["paper", "table", "model", "task", "length"], kind="stable", ignore_index=True)


def _path(name: str) -> Path:
    if name not in names():
        raise PublishedError(f"There is no published table {name!r}; known: {', '.join(names())}.")
    return FOLDER / f"{name}.csv"


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(_lines(path), columns=[*COLUMNS, "number", "file"])


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    return _checked(path.name, schema.read_text(path, error=PublishedError))


@lru_cache(maxsize=64)
def _checked(file: str, text: str) -> tuple[dict[str, Any], ...]:
    """A file's rows, held against the README's rules once; whoever changes one takes a copy."""
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header, *rows = [row for row in table if row] or [[]]
    except csv.Error as error:
        raise PublishedError(f"{file} is no table: {schema.shortened(str(error), 160)[1:-1]}.") from None
    if tuple(header) != COLUMNS:
        raise PublishedError(f"{file} must have the columns {', '.join(COLUMNS)}; it has {header}.")
    found = []
    for line, row in enumerate(rows, 2):
        if len(row) != len(COLUMNS):
            amount = "fewer" if len(row) < len(COLUMNS) else "more"
            raise PublishedError(f"{file} has a line with {amount} than {len(COLUMNS)} columns, line {line}.")
        found.append(dict(zip(COLUMNS, row, strict=True)) | {"number": _number(row), "file": file.removesuffix(".csv")})
        if problem := _problem(found[-1]):
            raise PublishedError(f"{file}, line {line}: {problem}.")
    return tuple(found)


def _number(row: Sequence[str]) -> float:
    """The value of a row as a number, NaN for text."""
    try:
        return float(row[COLUMNS.index("value")])
    except ValueError:
        return math.nan


def _problem(row: dict[str, Any]) -> str:
    empty = [column for column in ("paper", "table", "metric", "value", "source") if not row[column].strip()]
    if empty:
        return f"{empty[0]} is empty"
    if row["confidence"] not in CONFIDENCES:
        return f"confidence {row['confidence']!r} is unknown; known: {', '.join(CONFIDENCES)}"
    metric = row["metric"]
    measured = "%" in metric or metric.split()[0] in ("acc", "ppl", "accuracy", "exact", "score", "MSE", "MAE")
    if measured and math.isnan(row["number"]):
        return f"{metric} must be a number, not {row['value']!r}"
    if "%" in metric.split("(")[0] and not 0 <= row["number"] <= 100:
        return f"a percentage must lie between 0 and 100, not {row['value']}"
    return ""
