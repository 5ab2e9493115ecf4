"""Tables for a paper: they fit a page, by Computer Modern's widths and, where a TeX is, by TeX; they say what the rows say."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest

from results.report import evaluations
from results.report.tables import latex, paper_table, table, typesetting, wide_csv
from results.report.tables.columns import WIDEST, Column
from results.rows import metrics, store
from schema.places import ROOT
from tests.support import synthetic
from tests.support.synthetic import cell, rows_of

FEW = ("transformer", "retnet", "titans-mac")
TEXT_WIDTH = 345.0  # of article at 10 pt
PAPERS = {"titans-table2": "needle", "titans-fig6": "babilong"}
PDFLATEX = shutil.which("pdflatex")
tex = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex is installed here; widths are measured all the same")


@pytest.fixture(scope="module")
def exams():
    rows = synthetic.fails(synthetic.comparison(FEW, seeds=(0, 1)), "retnet", "babilong", "out of <memory>")
    return {exam.task: exam for exam in evaluations.grouped(rows)}


@pytest.fixture(scope="module")
def committed():
    """The committed evaluations of two papers' comparisons, by comparison."""
    folder = ROOT / "results" / "comparisons" / "papers"
    rows = {name: store.read(folder / name / "reference" / "rows.jsonl") for name in PAPERS}
    found = {name: evaluations.grouped(of_one) for name, of_one in rows.items()}
    assert {name: [exam.task for exam in of_one] for name, of_one in found.items()} == {
        n: [t] for n, t in PAPERS.items()
    }
    return {name: of_one[0] for name, of_one in found.items()}


def awkward():
    """An evaluation of models whose labels, reasons and settings are hard on LaTeX."""
    names = ["under_score & 100 % {of} $it$ #1 ~ ^ \\ | < >", "x" * 90, "α-ħ-Ω", "Göttinger-ÉTÉ"]
    rows = []
    for n in range(60):
        label = names[n] if n < len(names) else f"variant-{n}"
        one = synthetic.variant(cell("retnet", "needle"), variant=label)
        reason = f"no_{n % 30} {'way' * 40}" if n % 7 == 6 else ""
        values = [(None, "accuracy", n / 60, 40, {"length": length}) for length in (64, 128, 512, 1024)]
        rows += rows_of(one, [] if reason else values, reason=reason)
    return evaluations.grouped(rows)[0]


def compiled(folder, options: str, *parts: str) -> str:
    """What pdfLaTeX says of a document of `article` with these parts."""
    text = "\n\\clearpage\n".join(parts)
    head = rf"\documentclass[{options}]{{article}}" + "\n\\usepackage{booktabs}\n\\begin{document}\n"
    (folder / "paper.tex").write_text(f"{head}{text}\n\\end{{document}}\n", encoding="utf-8")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    said = done.stdout.decode("utf-8", errors="replace")
    assert done.returncode == 0, said[-2000:]
    return said


@pytest.mark.parametrize("name", PAPERS)
def test_committed_tables_fit_article_and_hold_few_columns(committed, name):
    for one in paper_table.tables(committed[name]):
        assert one.width <= paper_table.PAGE < TEXT_WIDTH
        assert 1 <= len(one.leaves) <= WIDEST
        assert typesetting.width(f"Table 100: {one.caption}", 10) <= TEXT_WIDTH


def test_whatever_labels_and_reasons_are_tables_fit():
    parts = paper_table.tables(awkward())
    assert len(parts) > 1 and all(one.width <= paper_table.PAGE for one in parts)
    assert [model.label for one in parts for model in one.models] == [model.label for model in awkward().learners]
    assert max(len(one.models) for one in parts) <= paper_table.TALLEST


@tex
@pytest.mark.parametrize("options", ["", "12pt,twocolumn"])
def test_they_compile_without_an_overfull_box(committed, tmp_path, options):
    said = compiled(tmp_path, options, *map(latex.document_part, [*committed.values(), awkward()]))
    assert "Output written" in said or "No pages" not in said
    assert [line for line in said.splitlines() if "Overfull" in line or "too large" in line] == []


@tex
def test_widths_are_those_of_tex(committed, tmp_path):
    """TeX's own width of each table lies below ours, and not far below."""
    ours, texts, size = [], [], rf"\fontsize{{8}}{{9.5}}\selectfont\setlength{{\tabcolsep}}{{{paper_table.GAP / 2}pt}}"
    for one in (part for exam in committed.values() for part in paper_table.tables(exam)):
        text = latex.floating(next(iter(committed.values())), one)
        inner = text[text.index(r"\begin{tabular}") : text.index(r"\par\vspace")]
        ours.append(one.width)
        texts.append(rf"\setbox0=\hbox{{{size}{inner}}}\typeout{{WIDE \the\wd0}}")
    said = compiled(tmp_path, "", latex.HEAD, *texts)
    theirs = [float(found) for found in re.findall(r"^WIDE ([\d.]+)pt", said, re.MULTILINE)]
    ratios = [tex / our for our, tex in zip(ours, theirs, strict=True)]
    assert 0.96 < min(ratios) and max(ratios) <= 1.0 + 1.0 / TEXT_WIDTH


def test_groups_stand_under_their_heads_and_are_cut_whole(committed):
    first, second = paper_table.tables(committed["titans-table2"])[:2]
    assert [group.head for group in first.groups] == ["s-niah-1, noise, by length"]
    assert [group.head for group in second.groups] == ["s-niah-2, austen-melville, by length"]
    assert [leaf.head for leaf in first.leaves] == ["64", "128", "256", "512"]
    assert first.caption.endswith("(1 of 2)") and second.caption.endswith("(2 of 2)")
    text = latex.floating(committed["titans-table2"], first)
    assert r"\multicolumn{8}{c@{}}{s-niah-1, noise, by length}" in text and r"\cmidrule(lr){3-10}" in text
    assert text.count(r"\caption{") == 1 and "Protocol" not in text.split(r"\begin{tabular}")[0]


def test_a_group_that_is_too_wide_is_cut_evenly():
    values = [(None, "accuracy", 0.5, 40, {"length": length}) for length in range(10)]
    exam = evaluations.grouped(rows_of(cell("retnet", "needle"), values))[0]
    assert [len(one.leaves) for one in paper_table.tables(exam)] == [5, 5]


def test_best_and_second_are_marked_floors_are_not_and_ties_share(exams):
    needle = exams["needle"]
    one = paper_table.tables(needle)[0]
    leaf = one.leaves[0]
    points = {m.label: needle.point(m.label, leaf.column.metric, leaf.column.where) for m in needle.learners}
    best = max(points, key=lambda label: points[label].value)
    tied = {n for n, point in points.items() if point.high >= points[best].value and not leaf.numbers[n].is_chance}
    assert {label for label, number in leaf.numbers.items() if number.rank == 1} == tied and best in tied
    text = latex.floating(needle, one)
    point, metric = points[best], leaf.column.metric
    half = metrics.number(metric, (point.high - point.low) / 2)
    bold = rf"\textbf{{{metrics.number(metric, point.value)}}} & \tmspread{{$\pm${half}}}"
    assert any(line.startswith(f"{best} &") and bold in line for line in text.splitlines())
    assert all(leaf.numbers[model.label].rank == 0 for model in one.models if model.is_floor)
    numbers = [paper_table._ranked(needle, Column("", "training_seconds", {}), one.models)]
    assert {rank for ranks in numbers for _, rank in ranks} == {0}


def test_what_may_be_chance_is_italic_and_takes_no_rank():
    rows = rows_of(cell("", "needle", "floors"), [("floor: guess", "accuracy", 0.5, 40, {})])
    for model, value in (("retnet", 0.9), ("mamba", 0.55), ("mamba2", 0.52)):
        rows += rows_of(cell(model, "needle"), [(None, "accuracy", value, 40, {})])
    exam = evaluations.grouped(rows)[0]
    (one,) = paper_table.tables(exam)
    numbers = one.leaves[0].numbers
    assert [(numbers[n].rank, numbers[n].is_chance) for n in ("retnet", "mamba", "mamba2", "guess")] == [
        (1, False), (0, True), (0, True), (0, False),
    ]  # fmt: skip
    text = latex.floating(exam, one)
    assert r"\textit{55.0}" in text and r"\underline" not in text
    assert "italic: not shown to be better than the best trivial baseline, and without a rank" in text


def test_a_missing_number_has_a_letter_and_its_reason_in_the_note(exams):
    text = latex.document_part(exams["babilong"])
    assert r"--\textsuperscript{a}" in text and r"a: failed: out of \textless{}memory\textgreater{}" in text
    assert [latex._letters(n) for n in (0, 25, 26, 701, 702)] == ["a", "z", "aa", "zz", "aaa"]


def test_text_is_made_plain():
    assert typesetting.escape("a_b & 5 % {x} ✓ é α") == r"a\_b \& 5 \% \{x\} $\surd$ é (U+03B1)"
    long = typesetting.escape("short-word transformers-gated-delta " + "y" * 45, breakable=True)
    assert long == "short-word transformers-\\allowbreak{}gated-\\allowbreak{}delta " + r"\allowbreak{}".join(
        ["y" * 8] * 5 + ["y" * 5]
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(97_600, "97.6K"), (999, "999"), (999_600, "1.00M"), (1_300_000_000, "1.30B"), (524_288, "524K"), (None, "")],
)
def test_parameters_have_three_figures(count, text):
    assert paper_table.parameters(evaluations.Model("m", "m", "f", 0, parameters=count)) == text


def test_the_csv_holds_what_latex_holds(exams):
    needle = exams["needle"]
    rows = list(csv.DictReader(io.StringIO(wide_csv.csv_text(needle))))
    assert [row["model"] for row in rows] == [m.label for m in table.lines(needle)]
    for leaf in (leaf for one in paper_table.tables(needle) for leaf in one.leaves):
        name = wide_csv._name(leaf)
        for label, number in leaf.numbers.items():
            row = next(row for row in rows if row["model"] == label)
            assert (row[name], row[f"{name}, spread"]) == wide_csv._cells(number)
    lost = list(csv.DictReader(io.StringIO(wide_csv.csv_text(exams["babilong"]))))
    assert set(next(row for row in lost if row["model"] == "retnet").values()) >= {"failed: out of <memory>"}
