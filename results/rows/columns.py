"""What a row is: its columns in their order, the type and the bounds of each, and what holds between them.

Rows are read back from files that somebody else may have written, so the one declaration below is what every reader and
writer holds them to, at any depth.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

import schema

SCHEMA = 1
# absent: other people's code that is not installed here; left out: by the plan, at this length
NO_NUMBER = ("failed", "absent", "left out")
LARGEST = 2**63 - 1  # of whole numbers: what every library below can hold
DEEPEST = 16  # levels of a setting's value
NUMERIC = ("length", "depth", "from", "to", "round", "tokens", "tenth", "full_steps", "aim")  # `where` values in sums

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = schema.formed(r"^[^\x00-\x1f\x7f]*$", "text on one line, without control characters")
Key = schema.formed(r"^[0-9A-Za-z_-]{1,64}$", "1 to 64 letters, digits, - or _")
Time = schema.formed(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "a time such as 2026-01-31T12:00:00")


def _scalar(value: Any) -> Any:
    """A number, text, a truth or nothing, as JSON has them."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("must be a finite number")
    elif isinstance(value, int):
        if not -LARGEST <= value <= LARGEST:
            raise ValueError("is too large a whole number")
    elif isinstance(value, str):
        _encoded(value)
    elif value is not None:
        raise ValueError("must be a number, text, true, false or null")
    return value


def _encoded(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None


def _plain(value: Any, depth: int = DEEPEST) -> Any:
    """A value that JSON can hold: scalars, lists and tables of them, not deeper than DEEPEST."""
    if not isinstance(value, dict | list | tuple):
        return _scalar(value)
    if not depth:
        raise ValueError("is nested too deeply")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ValueError("must have text as keys")
            _encoded(name)
    for inner in value.values() if isinstance(value, dict) else value:
        _plain(inner, depth - 1)
    return value


def _placed(where: dict[str, Any]) -> dict[str, Any]:
    for name in NUMERIC:
        if name in where and (isinstance(where[name], bool) or not isinstance(where[name], int | float)):
            raise ValueError(f"{name} must be a number, not {schema.shortened(where[name])}")
    return where


def _whole(names: tuple[str, ...]) -> AfterValidator:
    """All of `names` or nothing."""

    def check(table: dict[str, Any]) -> dict[str, Any]:
        if table and (missing := [name for name in names if name not in table]):
            raise ValueError(f"lacks {', '.join(missing)}")
        return table

    return AfterValidator(check)


Scalar = Annotated[Any, BeforeValidator(_scalar)]
Plain = Annotated[Any, BeforeValidator(_plain)]
Where = Annotated[dict[Name, Scalar], AfterValidator(_placed)]


class Settings(TypedDict):
    """What a cell was asked under; `exam` is the version of the task's evaluation, 1 where it is absent."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    model: dict[Name, Plain]
    task: dict[Name, Plain]
    variant: NotRequired[Name]
    stage: NotRequired[Literal["trial", "chosen"]]
    exam: NotRequired[Annotated[int, Field(ge=1, le=LARGEST)]]


class SizeColumns(TypedDict, total=False):
    """A model's size and what it matches; empty for trivial baselines."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    width: Count
    depth: Count
    heads: Count
    match: Name
    state_bytes: Count
    flops_length: Count


class Budget(TypedDict, total=False):
    """What a training took; empty where nothing is trained."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    steps: Count
    batch_tokens: Count
    micro_batch_tokens: Count
    activation_checkpointing: bool
    parallel: Name
    processes: Count
    compile: bool


class Row(TypedDict):
    schema: int
    comparison: Name
    cell: Key
    model: Name
    family: Name
    family_order: Count
    settings: Settings
    parameters: Count | None
    state_bytes: Count | None
    task: Name
    protocol: Name
    metric: Name
    value: Finite | None
    count: Count
    where: Where
    status: Literal["ok", *NO_NUMBER]
    reason: Name
    size: Annotated[SizeColumns, _whole(("width", "depth", "heads"))]
    budget: Annotated[Budget, _whole(("steps", "batch_tokens"))]
    seed: Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    lr: Finite
    dtype: Name
    provider: Name
    provider_requested: Name
    device: Name
    threads: Count
    versions: dict[Name, Name]
    commit: Name
    dirty: bool
    code_hash: Name
    data_hash: Name
    when: Time  # fmt: skip


COLUMNS = tuple(Row.__annotations__)


def check(row: dict[str, Any], source: str = "row") -> None:
    """Raise ValueError, saying which column of `source` is wrong and what it must be, unless `row` is a well-formed row."""
    if tuple(row) != COLUMNS:
        missing, unknown = [c for c in COLUMNS if c not in row], [c for c in row if c not in COLUMNS]
        detail = f"missing {missing}, unknown {unknown}" if missing or unknown else "their order differs"
        raise ValueError(
            f"{source}: a row has exactly the columns of results.rows.columns.COLUMNS in that order; {detail}."
        )
    if row["schema"] != SCHEMA or isinstance(row["schema"], bool):
        told = schema.shortened(row["schema"])
        raise ValueError(f"{source}: the row has schema {told}, this version reads {SCHEMA}; measure the cell again.")
    schema.conform(row, Row, source)
    value, ok = row["value"], row["status"] == "ok"
    if ok and (value is None or not row["metric"]):
        raise ValueError(f"{source}: an ok row needs a metric and a finite value, not {row['metric']!r} and {value!r}.")
    if not ok and not (value is None and row["metric"] == "" and row["count"] == 0 and row["reason"]):
        raise ValueError(f"{source}: a row without a number has metric '', value null, count 0 and a reason.")
    asked = row["settings"]["task"]
    if {"level", "reference"} <= set(asked) and not isinstance(asked["reference"], str):
        told = schema.shortened(asked["reference"])
        raise ValueError(f"{source}: settings.task.reference must be text, as it names a candidate, not {told}.")
