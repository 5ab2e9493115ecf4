"""The report of a side-by-side benchmark and of variants, from made-up rows."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from results.cell import Cell
from results.report import evaluations, report
from results.report.tables import contest_table
from results.rows import row as identity
from tests.support import synthetic

SIZE = {"width": 32, "depth": 1, "heads": 2}
SPECS = [
    {"name": "linear, b = 1", "model": "titans-lmm", "opponent": "", "settings": {"chunk": 1}},
    {"name": "linear, b = 64", "model": "titans-lmm", "opponent": "", "settings": {"chunk": 64}},
    {"name": "theirs", "model": "", "opponent": "fast", "settings": {}},
    {"name": "gone", "model": "", "opponent": "gone", "settings": {}},
]


def contest_cell(length: int, dtype: str = "float32") -> Cell:
    settings = {"level": "layer", "reference": "theirs", "batch": 2, "limit": 9.0}
    return Cell(
        "made-up", "contest", "", {}, "layers", settings, SIZE, {}, 0, 0.0, dtype, "auto", "cpu", 2,
        where={"length": length}, entrants=SPECS,
    )  # fmt: skip


def rows_at(length: int, dtype: str = "float32", finite: float = 1.0):
    cell = contest_cell(length, dtype)
    families = {"linear, b = 1": ("titans", 5), "linear, b = 64": ("titans", 5)}
    others = {name: ("other_people's_code", 7) for name in ("theirs", "gone")}
    who = identity.Identity(identity.key(cell), families={**families, **others})
    rows = []
    for place, spec in enumerate(SPECS):
        own, mine = cell.of(spec), who.of(spec["name"])
        if spec["name"] == "gone":
            rows += identity.failure(own, mine, "gone is not installed; pip install gone", "absent")
            continue
        found = [
            (None, metric + end, (1.0 + place) * factor, 9, cell.where)
            for metric in ("training_step_seconds", "time_ratio", "cpu_time_ratio")
            for end, factor in (("", 1.0), ("_quantile_10", 0.9), ("_quantile_90", 1.1))
        ]
        found += [(None, "training_step_seconds_sample", 1.0, 1, {**cell.where, "round": n}) for n in range(3)]
        found += [(None, "peak_memory_bytes", 2048.0, 2, cell.where), (None, "finite_output", finite, 1, cell.where)]
        found += [(None, "matrix_product_flops_per_second", 9e10, 9, cell.where)] if place == 0 else []
        rows += identity.rows(own, mine, identity.Measured(100, protocol="contest", measurements=found))
    return identity.one_attempt(rows)


@pytest.fixture
def rows():
    return rows_at(64) + rows_at(256) + rows_at(64, "bfloat16")


def test_lengths_share_an_exam_and_dtypes_do_not(rows):
    exams = evaluations.grouped(rows)
    assert [(e.setup["dtype"], len(contest_table.tables(e))) for e in exams] == [("bfloat16", 1), ("float32", 2)]
    assert all(e.is_contest and e.main for e in exams) and len({e.slug for e in exams}) == 2
    assert [m.label for m in exams[0].learners] == ["linear, b = 1", "linear, b = 64", "gone", "theirs"]


def test_a_repeated_contest_replaces_the_same_length_only(rows):
    again = [{**row, "when": "2999-01-01", "cell": "again", "code_hash": "new"} for row in rows_at(256)]
    exam = next(e for e in evaluations.grouped(rows + again) if e.setup["dtype"] == "float32")
    assert {r["cell"] for r in exam.measured() if r["where"]["length"] == 256} == {"again"}
    assert exam.point("theirs", "time_ratio", {"length": 64}) is not None


def test_the_page_shows_every_length_and_who_is_missing(rows, tmp_path, light_fonts):
    page = report.report(rows, tmp_path, title="Race").read_text()
    assert "(dtype=float32): length 64" in page and "(dtype=float32): length 256" in page
    assert "gone: absent: gone is not installed; pip install gone" in page and "(90 GFLOP/s)" in page
    assert "| theirs | 100 |" in page and "3.000 (2.700 to 3.300)" in page
    assert "| gone |  |  |  | absent |" in page
    assert len(list((tmp_path / "figures").glob("*-ratio.svg"))) == 2
    long = next(path for path in (tmp_path / "tables").glob("*.csv") if not path.name.endswith("-wide.csv"))
    assert "training_step_seconds_sample" in long.read_text()


def test_an_output_that_is_not_finite_is_named(tmp_path, light_fonts):
    page = report.report(rows_at(64, finite=0.0), tmp_path).read_text()
    assert "theirs: its output was not finite" in page


def test_the_terminal_shows_the_same(rows):
    console = Console(width=100, file=io.StringIO())
    for part in contest_table.terminal(rows):
        console.print(part)
    text = console.file.getvalue()
    assert "layers" in text and "linear, b = 64" in text and "gone: absent: gone is not installed" in text
    assert contest_table.terminal(synthetic.comparison()) == []


def test_a_cell_that_was_lost_is_a_failed_row_for_every_entrant():
    cell = contest_cell(64)
    lost = identity.failure(cell, identity.Identity("key", families={"theirs": ("other", 7)}), "timed out after 5 s")
    assert [row["settings"]["variant"] for row in lost] == [spec["name"] for spec in SPECS]
    assert {row["status"] for row in lost} == {"failed"} and {row["where"]["length"] for row in lost} == {64}
    assert len({row["when"] for row in lost}) == 1
    for row in lost:
        identity.check(row)


def test_variants_are_shown_by_their_names_and_a_plain_model_by_its_own():
    plain = synthetic.cell("titans-lmm", "needle")
    variants = [dataclasses.replace(plain, settings={"chunk": n}, variant=f"chunk {n}") for n in (1, 64)]
    found = [(None, "exact_match", 0.5, 10, {"length": 64})]
    rows = [row for cell in (plain, *variants) for row in synthetic.rows_of(cell, found)]
    exam = evaluations.grouped(rows)[0]
    assert [m.label for m in exam.learners] == ["chunk 1", "chunk 64", "titans-lmm"]
    assert {m.name for m in exam.learners} == {"titans-lmm"}
