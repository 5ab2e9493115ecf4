"""Numbers printed in papers: data with a source, never mixed with what was measured here."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).resolve().parent / "published"
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
    import pandas as pd  # here, as a run that reads no printed number need not wait for it

    return pd.concat([_read(path) for path in sorted(folder.glob("*.csv"))], ignore_index=True)


def load(name: str | None = None) -> pd.DataFrame:
    """One table, or all: the CSV's columns as text, `number` (the value as a float, NaN for text), and `file`.

    Raises PublishedError for an unknown name, wrong columns, an unknown confidence, or a figure that is no number.
    """
    if name is None:
        return _everything(FOLDER).copy()
    if name not in names():
        raise PublishedError(f"There is no published table {name!r}; known: {', '.join(names())}.")
    return _read(FOLDER / f"{name}.csv")


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
    """The rows of a table whose columns have the values (or one of the values) of `where`; with a column `length`.

    Raises PublishedError for an unknown table or column, and where no row is left.
    """
    found = load(name)
    for column, value in where.items():
        if column not in COLUMNS:
            raise PublishedError(f"{name} has no column {column!r}; its columns are {', '.join(COLUMNS)}.")
        wanted = value if isinstance(value, list) else [value]
        if strange := [one for one in wanted if one not in set(found[column])]:
            raise PublishedError(f"{name} has no row whose {column} is {strange[0]!r}.")
        found = found[found[column].isin(wanted)]
    if found.empty:
        raise PublishedError(f"{name} has no row with {dict(where)}.")
    return found.assign(length=[length(setting) for setting in found.setting])


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


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        text = schema.read_text(path, error=PublishedError)
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except PublishedError:
        raise
    except (ValueError, csv.Error) as error:  # pandas' own are ValueErrors
        raise PublishedError(f"{path.name} is no table: {schema.shortened(str(error), 160)[1:-1]}.") from None
    if tuple(frame.columns) != COLUMNS:
        raise PublishedError(f"{path.name} must have the columns {', '.join(COLUMNS)}; it has {list(frame.columns)}.")
    if frame.isna().any(axis=None):
        raise PublishedError(f"{path.name} has a line with fewer than {len(COLUMNS)} columns.")
    frame["number"] = pd.to_numeric(frame.value, errors="coerce")
    frame["file"] = path.stem
    for line, row in enumerate(frame.itertuples(index=False), 2):
        problem = _problem(row)
        if problem:
            raise PublishedError(f"{path.name}, line {line}: {problem}.")
    return frame


def _problem(row: tuple) -> str:
    empty = [column for column in ("paper", "table", "metric", "value", "source") if not getattr(row, column).strip()]
    if empty:
        return f"{empty[0]} is empty"
    if row.confidence not in CONFIDENCES:
        return f"confidence {row.confidence!r} is unknown; known: {', '.join(CONFIDENCES)}"
    measured = "%" in row.metric or row.metric.split()[0] in ("acc", "ppl", "accuracy", "exact", "score", "MSE", "MAE")
    if measured and math.isnan(row.number):
        return f"{row.metric} must be a number, not {row.value!r}"
    if "%" in row.metric.split("(")[0] and not 0 <= row.number <= 100:
        return f"a percentage must lie between 0 and 100, not {row.value}"
    return ""
