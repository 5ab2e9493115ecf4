"""The report: equal rows give equal bytes, colours hold under filters, and what cannot be drawn says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import baselines  # noqa: F401 - registers every model
from models import registry
from results.plans.method.claims import Claim
from results.report import evaluations, report
from results.report.evaluations import Model
from results.report.families import Families, ShownFamily
from results.report.figures import cast, style
from results.report.report import in_colour
from results.report.tables import printed
from results.rows import store
from schema.places import ROOT
from tests.support import synthetic

FEW = ("transformer", "titans-lmm", "titans-mac")
COMMITTED = sorted(path for path in (ROOT / "results").rglob("reference") if path.is_dir())  # of other scales too


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("report")
    page = report.report(synthetic.comparison(FEW), folder, title="Made up", question="Which?")
    assert page == folder / "report.md"
    return folder, files(folder)


def test_equal_rows_in_any_order_give_equal_bytes_in_another_process_whatever_lay_there(drawn, tmp_path):
    for name in drawn[1]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"spoilt")
    code = (
        "import random, sys; sys.path[:0] = sys.argv[2:]; "
        "from tests.support import synthetic; from results.report import report; "
        f"rows = synthetic.comparison({FEW!r}); random.Random(3).shuffle(rows); "
        "report.report(rows, sys.argv[1], title='Made up', question='Which?')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", code, str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, env=environment)
    again = files(tmp_path)
    assert again.keys() == drawn[1].keys()
    assert [name for name in again if again[name] != drawn[1][name]] == []


def test_every_kind_of_figure_is_drawn_and_linked(drawn):
    _, found = drawn
    figures = {name for name in found if name.startswith("figures/")}
    assert {Path(name).stem for name in figures} == {
        "language-modelling-loss", "language-modelling-loss-by-position", "needle-compact-exact-match-by-length",
        "needle-compact-answer-token-accuracy-by-length", "needle-compact-exact-match-map-s-niah-1",
        "needle-compact-exact-match-map-s-niah-2", "babilong-choice-accuracy-by-length",
        "babilong-choice-accuracy-map", "throughput-speed", "needle-accuracy-by-state", "babilong-accuracy-by-state",
    }  # fmt: skip
    assert all(f"{name[:-4]}.{ending}" in figures for name in figures for ending in ("png", "svg", "pdf"))
    page = found["report.md"].decode()
    assert all(name in page for name in found if not name.startswith("report."))
    assert "Figures not drawn" not in page
    assert all(b"Matplotlib" not in found[name] and b"<dc:date>" not in found[name] for name in figures)
    assert not any(b"CreationDate" in found[name] or b"Producer" in found[name] for name in figures)


def test_printed_numbers_are_labelled_and_stand_apart(drawn):
    page = drawn[1]["report.md"].decode()
    assert page.count("Printed elsewhere (not measured here)") == 2
    needle = page[page.index("## needle") : page.index("## babilong")]
    assert needle.index("### needle") < needle.index("Printed elsewhere")
    assert "| Titans (MAC) | Titans (arXiv 2501.00663v1) | not stated for this table |" in needle
    assert "its numbers do not compare with these" in needle
    assert all("(printed" in line for line in needle.splitlines() if line.startswith("**s-niah"))
    assert "compare orderings, not levels" in printed.section("needle", {"exact_match"})
    assert printed.section("counting", {"exact_match"}) == "" == printed.csv_text("counting")


def test_what_has_no_rows_is_not_drawn_and_says_why(tmp_path, light_fonts):
    rows = [row for row in synthetic.comparison(FEW[:1]) if row["task"] == "throughput"]
    page = report.report(rows, tmp_path).read_text()
    assert {name for name in files(tmp_path) if "figures" in name} == {
        "figures/throughput-speed.pdf",
        "figures/throughput-speed.png",
        "figures/throughput-speed.svg",
    }
    missing = page[page.index("## Figures not drawn") :].splitlines()
    assert len([line for line in missing if line.startswith("- ")]) == 6
    assert "- loss by model: no rows give bits per byte" in missing and "Printed" not in page
    with pytest.raises(ValueError, match="no rows to report"):
        report.report([], tmp_path)


def test_a_task_where_everything_failed_is_still_reported(tmp_path, light_fonts):
    rows = synthetic.fails([], "retnet", "needle", "out of memory")
    page = report.report(rows, tmp_path).read_text()
    assert "nothing was measured" in page and "- retnet: failed: out of memory" in page
    floors = synthetic.rows_of(synthetic.cell("", "needle", "floors"), [], reason="ValueError: no data")
    assert "floors: failed: ValueError: no data" in report.report(floors, tmp_path).read_text()
    beside = report.report(floors + synthetic.comparison(FEW[:1]), tmp_path, with_printed=False).read_text()
    assert "| *floors* |  |  | failed: ValueError: no data |" in beside


def test_colours_do_not_depend_on_what_is_shown(tmp_path, light_fonts):
    rows = synthetic.comparison(("transformer", "titans-lmm", "titans-mac", "titans-mal"))
    page = report.report([r for r in rows if r["task"] == "babilong"], tmp_path, only=["titans-mac"])
    assert page.exists()
    colours = {model.label: style.colour(model) for model in evaluations.grouped(synthetic.comparison())[0].everyone}
    svg = (tmp_path / "figures" / "babilong-accuracy-by-state.svg").read_text()
    assert colours["titans-mac"] in svg
    assert not any(colour in svg for colour in set(colours.values()) - {colours["titans-mac"]})


def test_each_family_has_a_hue_of_its_own_also_beyond_the_known_ones():
    rows = [{"family": f"family_{order}", "family_order": order} for order in range(12)]
    hues = [Families().of(row).hue % 360 for row in rows]
    gaps = [abs((a - b + 180) % 360 - 180) for i, a in enumerate(hues) for b in hues[:i]]
    assert min(gaps) > 4 and len(set(hues)) == 12


def test_figures_ignore_the_users_own_style(drawn, tmp_path):
    import matplotlib

    rows = [row for row in synthetic.comparison(FEW) if row["task"] == "throughput"]
    with matplotlib.rc_context(
        {"font.size": 30, "axes.grid": False, "axes.facecolor": "black", "xtick.major.size": 12}
    ):
        report.report(rows, tmp_path)
    clean = tmp_path / "clean"
    report.report(rows, clean)
    assert files(tmp_path / "figures") == files(clean / "figures")


def test_what_an_earlier_report_left_is_removed(tmp_path, light_fonts):
    rows = [row for row in synthetic.comparison() if row["task"] == "language-modelling"]
    before = report.report(rows, tmp_path).parent
    kept = {path for path in before.rglob("*.*")}
    stale = [tmp_path / "figures" / "old-map.png", tmp_path / "tables" / "old.csv"]
    for path in stale:
        path.write_text("old")
    report.report(rows, tmp_path)
    assert {path for path in tmp_path.rglob("*.*")} == kept


def test_tables_that_the_rows_do_not_give_are_told(drawn, tmp_path):
    for name, content in drawn[1].items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert report.stale_tables(synthetic.comparison(FEW), tmp_path) == []
    (tmp_path / "tables" / "needle.tex").write_text("another table")
    (tmp_path / "tables" / "babilong.csv").unlink()
    assert report.stale_tables(synthetic.comparison(FEW), tmp_path) == [
        "tables/needle.tex is not what the rows give.",
        "tables/babilong.csv is missing; redraw the report.",
    ]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.parent.relative_to(ROOT / "results").as_posix())
def test_committed_tables_are_what_the_committed_rows_give(folder):
    families = [
        ShownFamily(one.name, one.title, one.place, one.hue, one.marker, one.looks) for one in registry.families()
    ]
    assert report.stale_tables(store.read(folder / "rows.jsonl"), folder, families=families) == []


def test_numbers_in_names_are_ordered_by_their_size():
    names = ["mamba2-64", "mamba2-4", "mamba2", "mamba", "mamba2-16", "16-heads"]
    models = [Model(label=name, name=name, family="second_generation", order=20) for name in names]
    ordered = [model.label for model in sorted(models, key=lambda model: model.rank)]
    assert ordered == ["16-heads", "mamba", "mamba2", "mamba2-4", "mamba2-16", "mamba2-64"]


def test_what_claims_ask_about_is_drawn_in_colour():
    claims = [
        Claim("c", "a paper", better, "lmm", "needle", "accuracy")
        for better in ("a", "b", "c", "d", "e", "f", "g", "h")
    ]
    kept = in_colour({"transformer"}, claims)
    assert {"transformer", "lmm", "a"} <= kept and len(kept) == cast.FEW
    assert in_colour({"transformer"}, []) == {"transformer"}
