"""The table of docs/speed.md, drawn from committed rows: `python -m tests.support.table_of_speed --write`.

Each line: what, its floor, ours, the best form of others in the same rounds, and the command that measures it again. A floor is
what matrix products alone would take at the speed of large ones in the same rounds: of a recurrence the multiply-adds of its law
on every number of its states, of a layer its products outside of C. All are milliseconds, medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch

from results.plans.files import folder_of
from results.rows import store
from results.rows.labels import newest
from schema.places import ROOT
from tests.support.time_of_recurrences import LAW, alone_of, contests, size_of

PAGE, BEGIN, END = ROOT / "docs" / "speed.md", "<!-- table of speed -->\n", "<!-- end of the table -->\n"
FORMS = ("gated-deltanet", "deltanet", "retnet", "gla", "mamba", "mamba2")
TITANS = {  # and packages of the same
    "linear, b = 1": ["titans-pytorch, depth 1, exact"],
    "linear, b = 64": ["titans-pytorch, depth 1"],
    "two layers, hidden 1x, b = 64": ["titans-pytorch, depth 2, hidden 1x, exact"],
    "two layers, hidden 4x, b = 64": ["titans-pytorch, depth 2, hidden 4x"],
}
YARDSTICK = "gated delta rule (transformers)"
DECODED = ("gated-deltanet", "mamba", "titans-lmm", "titans-mac", "titans-mag", "titans-mal")
READ = {"reading-gated-delta-rule-64": "gated delta rule, heads of 64", "reading-state-space-dual": "Mamba-2's scan"}
ONE_TOKEN = {
    "decoding-gated-delta-rule-16": "gated delta rule, heads of 16",
    "decoding-gated-delta-rule-64": "gated delta rule, heads of 64",
    "decoding-state-space-dual": "Mamba-2's scan",
    "decoding-mlstm": "mLSTM's memory",
}
RECORDED = "native, from a record"
OURS = (RECORDED, "native", "chunked")
Row = dict[str, Any]


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Line(NamedTuple):
    """A line of the table; a floor or another's form may be missing."""

    what: str
    floor: float | None
    ours: float
    other: str
    again: str

    def __str__(self) -> str:
        floor = "-" if self.floor is None else number(self.floor)
        return f"| {self.what} | {floor} | {number(self.ours)} | {self.other} | `{self.again}` |"


class Measured:
    """The newest rows of one comparison."""

    def __init__(self, comparison: str) -> None:
        folder = folder_of(ROOT / "results", comparison) / "reference" / "rows.jsonl"
        self.rows = [row for row in newest(store.read(folder)) if row["status"] == "ok"]

    def values(self, metric: str, task: str, length: int, **size: int) -> dict[str, float]:
        """The metric of each candidate at one length and size, in float32."""
        return {
            row["settings"].get("variant") or row["model"]: row["value"]
            for row in self.rows
            if (row["metric"], row["task"], row["dtype"]) == (metric, task, "float32")
            and row["where"].get("length") == length
            and all(row["size"].get(name) == value for name, value in size.items())
        }


def best(found: dict[str, float]) -> str:
    """The fastest of other people's forms, in milliseconds, with its name."""
    if not found:
        return "-"
    name = min(found, key=found.__getitem__)
    return f"{number(found[name] * 1e3)} ({name})"


@cache
def multiply_adds(task: str, width: int, length: int) -> int:
    """Of a recurrence's law, forward and backward; 0 where it is not counted. Tokens are alike: few are asked."""
    (contest,) = contests([task])
    with torch.no_grad():
        numbers, _ = size_of(alone_of(contest, "chunked", width, 16))
    return 3 * LAW.get(task, 0) * numbers * length // 16


def operations(width: int = 256, length: int = 512) -> Iterator[Line]:
    """Recurrences alone, in training."""
    found, again = Measured("operation-speed"), "python bench.py run operation-speed"
    for task in (one.name for one in contests([])):
        took = found.values("training_step_seconds", task, length, width=width)
        if not took:  # asked by the plan since
            continue
        (rate,) = found.values("matrix_product_flops_per_second", task, length, width=width).values()
        work = multiply_adds(task, width, length)
        others = {name: seconds for name, seconds in took.items() if name not in OURS}
        floor = 2e3 * work / rate if work else None
        yield Line(f"{task.replace('-', ' ')}, 1 x {length}", floor, took["native"] * 1e3, best(others), again)


def reading() -> Iterator[Line]:
    """A text read without a gradient."""
    found, again = Measured("operation-speed"), "python bench.py run operation-speed"
    for task, name in READ.items():
        for length in (512, 4096):
            took = found.values("reading_seconds", task, length)
            others = {one: seconds for one, seconds in took.items() if one not in OURS}
            ours = min(took[one] for one in OURS if one in took)
            yield Line(f"reading: {name}, {length:,}", None, ours * 1e3, best(others), again)


def one_token(length: int = 64) -> Iterator[Line]:
    """One token of a recurrence alone, behind others."""
    found, again = Measured("operation-speed"), "python bench.py run operation-speed"
    for task, name in ONE_TOKEN.items():
        took = found.values("decoding_microseconds_per_token", task, length)
        others = {one: microseconds / 1e6 for one, microseconds in took.items() if one not in OURS}
        yield Line(f"one token: {name}", None, took[RECORDED] / 1e3, best(others), again)


def layers(length: int = 512) -> Iterator[Line]:
    """Layers of width 256 in training, beside others' form of the same."""
    took, times, again = _layers("cpu-speed", "forms", length)
    for name in FORMS:
        others = {one: seconds for one, seconds in took.items() if one.startswith(f"{name}, ")}
        yield Line(
            f"layer: {name}, 2 x {length}", took[name] / times[name] * 1e3, took[name] * 1e3, best(others), again
        )


def titans(length: int = 1024) -> Iterator[Line]:
    """Titans' layer of width 256 in training, beside packages of it and the gated delta rule."""
    took, times, again = _layers("titans-speed", "titans-layer", length)
    for name, packages in TITANS.items():
        others = {one: took[one] for one in (*packages, YARDSTICK) if one in took}
        what = f"layer: Titans, {name}, 2 x {length:,}"
        yield Line(
            what,
            took[name] / times[name] * 1e3,
            took[name] * 1e3,
            "; ".join(best({n: s}) for n, s in others.items()),
            again,
        )


def _layers(comparison: str, task: str, length: int) -> tuple[dict[str, float], dict[str, float], str]:
    """Seconds of each layer's step, times its floor, and the command."""
    found = Measured(comparison)
    metrics = ("training_step_seconds", "times_the_floor")
    return *(found.values(metric, task, length) for metric in metrics), f"python bench.py run {comparison}"


def decoding(length: int = 1024) -> Iterator[Line]:
    """A token of models of 0.4M parameters; no other's was timed."""
    took = Measured("decoding").values("decoding_milliseconds_per_token", "throughput", length)
    for name in DECODED:
        yield Line(f"a token: {name}, behind {length:,}", None, took[name], "-", "python bench.py run decoding")


def table() -> str:
    """The whole table, in Markdown."""
    head = "| milliseconds | floor | ours | best of others | measured by |\n|---|---:|---:|---|---|\n"
    parts = (operations(), reading(), one_token(), layers(), titans(), decoding())
    return head + "".join(f"{line}\n" for part in parts for line in part)


def on_page(text: str) -> str:
    """What stands between the marks of a page."""
    return text.split(BEGIN)[1].split(END)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into docs/speed.md, between its marks")
    drawn = table()
    if not parser.parse_args().write:
        print(drawn, end="")
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{drawn}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
