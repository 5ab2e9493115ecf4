"""Tables: every cell a number or a reason, trivial baselines and marks right, templates apart, equal rows equal bytes."""

from __future__ import annotations

import csv
import io
import random

import pytest

from results.report import evaluations, statistics
from results.report.tables import csv_file, summary, table
from results.rows import metrics, store
from tests.support import synthetic
from tests.support.synthetic import cell, rows_of

FEW = ("transformer", "retnet", "titans-mac")


def exam_of(rows, task="needle"):
    return next(exam for exam in evaluations.grouped(rows) if exam.task == task)


def lines(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by the line's first cell."""
    found = [[c.strip() for c in line.strip("|").split(" | ")] for line in text.splitlines()]
    return {cells[0].strip("|* "): cells[1:] for cells in found}


def small(
    values: dict[str, list[float]], floor: float, count: int = 100, metric: str = "accuracy"
) -> evaluations.EvaluationBatch:
    """An evaluation with one number for each model and seed."""
    rows = rows_of(cell("", "needle", "floors"), [("floor: guess", metric, floor, count, {})])
    for model, numbers in values.items():
        for seed, value in enumerate(numbers):
            rows += rows_of(cell(model, "needle", seed=seed), [(None, metric, value, count, {})])
    return exam_of(rows)


def test_models_stand_by_family_in_historical_order_and_floors_below():
    exam = exam_of(synthetic.comparison())
    text = table.markdown(exam, table.layout(exam)[0])
    heads = [line.split("**")[1] for line in text.splitlines() if "**" in line]
    assert heads == [
        "attention", "first generation", "second generation", "third generation", "segment recurrent", "titans",
        "trivial baselines guess, shortcut heuristics read without understanding, references are only shown",
    ]  # fmt: skip
    names = [line.split("|")[1].strip() for line in text.splitlines()[2:] if "**" not in line]
    assert names[:14] == sorted(synthetic.FAMILIES, key=lambda m: (synthetic.FAMILIES[m][1], m))
    assert names[14:] == ["*copy*", "*guess*"]


def test_every_cell_holds_a_number_or_a_reason():
    rows = synthetic.fails(synthetic.comparison(FEW), "retnet", "needle", "out of memory")
    rows = [row for row in rows if (row["model"], row["task"]) != ("titans-mac", "needle")]
    exam = exam_of(rows)
    for one in table.layout(exam):
        found = lines(table.markdown(exam, one))
        width = len(one.columns)
        assert found["retnet"][-width:] == ["failed: out of memory"] * width
        assert found["titans-mac"][-width:] == ["not run"] * width
        assert all(text.split()[0].replace(".", "").isdigit() for text in found["transformer"][-width:])
        assert all(all(cells[-width:]) for name, cells in found.items() if name in {*FEW, "copy", "guess"})
    in_csv = list(csv.DictReader(io.StringIO(csv_file.csv_text(exam))))
    status = {(row["model"], row["status"], row["reason"]) for row in in_csv if row["model"] in FEW}
    assert status == {
        ("transformer", "ok", ""), ("retnet", "failed", "failed: out of memory"), ("titans-mac", "not run", "not run"),
    }  # fmt: skip
    assert all(row["value"] for row in in_csv if row["status"] == "ok")


def test_a_question_that_does_not_suit_a_model_says_so_in_two_words_and_why_below():
    rows = synthetic.fails(
        synthetic.comparison(FEW), "retnet", "needle", "not applicable: it reads nothing of the kind"
    )
    rows = [row | {"status": "left out"} if row["status"] == "failed" else row for row in rows]
    exam = exam_of(rows)
    for one in table.layout(exam):
        found = lines(table.markdown(exam, one))
        assert found["retnet"][-len(one.columns) :] == ["not applicable"] * len(one.columns)
        assert table.notes(exam, one).endswith("retnet not applicable: it reads nothing of the kind.")


def test_a_number_that_is_not_finite_is_a_reason_in_its_own_cell():
    rows = rows_of(
        cell("retnet", "needle"),
        [(None, "accuracy", 0.5, 9, {"length": 1}), (None, "accuracy", float("nan"), 9, {"length": 2})],
    ) + rows_of(cell("mamba", "needle"), [(None, "accuracy", 0.5, 9, {"length": n}) for n in (1, 2)])
    exam = exam_of(rows)
    found = lines(table.markdown(exam, table.layout(exam)[0]))
    assert found["retnet"][-2:] == ["50.0", "failed: diverged: accuracy is nan"]


def test_templates_never_share_a_table_and_only_ruler_reads_as_comparable():
    rows = synthetic.comparison(FEW)
    both = rows + synthetic.as_ruler(rows)
    exams = [exam for exam in evaluations.grouped(both) if exam.task == "needle"]
    assert [exam.slug for exam in exams] == ["needle-compact", "needle-ruler"]
    for exam in exams:
        compact = {metric.startswith("compact_") for metric in exam.metrics}
        assert compact == {exam.slug == "needle-compact"}
        for one in table.layout(exam):
            assert len({column.metric.startswith("compact_") for column in one.columns}) == 1
    mixed = rows_of(cell("retnet", "needle"), [(None, m, 0.5, 9, {}) for m in ("exact_match", "compact_exact_match")])
    columns = table.layout(exam_of(mixed))[0].columns
    assert [column.metric for column in columns] == ["compact_exact_match", "exact_match"]
    assert [column.header for column in columns] == ["compact exact match", "exact match"]


def test_learned_means_above_the_best_floor_by_the_interval():
    exam = small({"transformer": [0.45], "retnet": [0.32], "mamba": [0.1]}, floor=0.3)
    low, _ = statistics.wilson(0.45, 100)
    assert low > 0.3 > statistics.wilson(0.32, 100)[0]
    found = lines(table.markdown(exam, table.layout(exam)[0]))
    assert [found[name][-1] for name in ("transformer", "retnet", "mamba")] == ["45.0 ✓", "32.0", "10.0"]
    assert found["guess"][-1] == "30.0"
    loss = small({"transformer": [3.0], "retnet": [3.6], "mamba": [3.0, 3.1, 3.05]}, 3.5, metric="bits_per_byte")
    found = lines(table.markdown(loss, table.layout(loss)[0]))
    assert found["transformer"][-1] == "3.000 (✓)" and found["retnet"][-1] == "3.600"
    assert found["mamba"][-1] == "3.050 ± 0.124 ✓"


def test_two_equal_seeds_do_not_make_a_lucky_guess_learned():
    exam = small({"retnet": [0.35, 0.35]}, floor=0.3, count=40)
    assert exam.learned("retnet", "accuracy", {}) == "no"
    point = exam.point("retnet", "accuracy", {})
    assert (point.low, point.high) == statistics.wilson(0.35, 80) and point.seeds == 2


def test_a_mean_that_shows_nothing_says_how_many_seeds_learned():
    """A task that some seeds learn and others do not has a wide interval, which is no sign that nothing was learned."""
    exam = small({"retnet": [0.9, 0.9, 0.1], "mamba": [0.36, 0.1, 0.1], "transformer": [0.9, 0.9, 0.9]}, floor=0.3)
    names = ("transformer", "retnet", "mamba")
    assert [exam.learned(name, "accuracy", {}) for name in names] == ["yes", "some", "no"]
    assert [exam.seeds_above(name, "accuracy", {}, 0.3) for name in names] == [(3, 3), (2, 3), (0, 3)]
    page = summary.markdown([exam])
    assert "<br>learned by 2 of 3 seeds" in page and page.count("did not learn") == 1
    assert statistics.wilson(0.36, 100)[0] < 0.3 < statistics.wilson(0.4, 100)[0]
    level = 0.05 / 3
    assert statistics.wilson(0.4, 100, level)[0] < 0.3, "of three seeds one that is lucky by itself is none"
    assert small({"retnet": [0.4, 0.1, 0.1]}, floor=0.3).learned("retnet", "accuracy", {}) == "no"


def test_an_interval_of_shares_is_printed_and_ends_at_0_and_1():
    exam = small({"retnet": [0.0, 0.9, 0.9], "mamba": [0.5, 0.6, 0.7]}, floor=0.1)
    point = exam.point("retnet", "accuracy", {})
    assert point.value == pytest.approx(0.6) and (point.low, point.high) == (0.0, 1.0)
    one = table.layout(exam)[0]
    found = lines(table.markdown(exam, one))
    assert found["retnet"][-1] == "60.0 (0.0 to 100.0)" and found["mamba"][-1] == "60.0 (35.2 to 84.8) ✓"
    assert "mean (95 % confidence interval) over 3 seeds" in table.notes(exam, one) and "±" not in table.notes(
        exam, one
    )


def test_intervals_agree_with_published_values():
    assert statistics.wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert statistics.wilson(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-4)
    assert statistics.wilson(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert statistics.student([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.48414), abs=1e-4)


def test_depths_are_pooled_by_count_and_kept_in_the_csv():
    where = [{"length": 64, "depth": 0.0}, {"length": 64, "depth": 1.0}, {"length": 128, "depth": 0.0}]
    numbers = [(None, "accuracy", v, c, w) for v, c, w in zip((0.2, 0.8, 0.5), (10, 30, 20), where, strict=True)]
    exam = exam_of(rows_of(cell("retnet", "needle"), numbers))
    one, _ = table.layout(exam)
    assert [column.where for column in one.columns] == [{"length": 64}, {"length": 128}]
    assert lines(table.markdown(exam, one))["retnet"][-2:] == ["65.0", "50.0"]
    assert "mean over depth 0.0, 1.0" in table.notes(exam, one)
    rows = list(csv.DictReader(io.StringIO(csv_file.csv_text(exam))))
    assert [row["value"] for row in rows] == ["0.65", "0.5", "0.2", "0.5", "0.8"]


def test_conditions_name_what_the_numbers_rest_on():
    rows = [{**row, "dirty": row["model"] == "retnet"} for row in synthetic.comparison(FEW)]
    text = table.conditions(exam_of(rows))
    for part in (
        "Protocol: trained", "width 64, depth 2, heads 4", "200 steps of 4,096 tokens", "seed 0", "learning rate 0.003",
        "float32, cpu, 1 thread", "provider chunked (requested: auto)", "commit 0123456789, 0123456789+changes",
        "2026-01-02", "A CPU, 2 cores", "parameters against transformer: +0.0 % to +5.9 %",
    ):  # fmt: skip
        assert part in text
    shared = [{**row, "budget": {**row["budget"], "parallel": "ddp", "processes": 2}} for row in rows if row["budget"]]
    assert "200 steps of 4,096 tokens, ddp with processes=2" in table.conditions(exam_of(shared))
    timing = exam_of(rows, "throughput")
    head = table.markdown(timing, table.layout(timing)[0]).splitlines()[0]
    assert timing.is_timing and "provider" in head and "2 threads" in table.conditions(timing)


def test_quantiles_stand_in_their_medians_cell():
    names = ("prefill_tokens_per_second", *(f"prefill_tokens_per_second{end}" for end in metrics.QUANTILES))
    rows = rows_of(
        cell("retnet", "throughput", "timing"), [(None, n, v, 5, {}) for n, v in zip(names, (9, 8, 10), strict=True)]
    )
    exam = exam_of(rows, "throughput")
    (one,) = table.layout(exam)
    assert [column.metric for column in one.columns] == [names[0]]
    assert lines(table.markdown(exam, one))["retnet"][-1] == "9.000 (8.000 to 10.000)"


def test_of_several_attempts_and_code_versions_the_right_one_counts():
    ok = rows_of(cell("retnet", "needle"), [(None, "accuracy", 0.4, 9, {})], when="2026-01-02T00:00:00.000000+00:00")
    failed = rows_of(cell("retnet", "needle"), [], when="2026-01-03T00:00:00.000000+00:00", reason="out of memory")
    newer = [{**ok[0], "cell": "other", "code_hash": "new", "value": 0.6, "when": "2026-01-04T00:00:00.000000+00:00"}]
    assert exam_of(ok + failed).point("retnet", "accuracy", {}).value == 0.4
    assert exam_of(newer + failed + ok).point("retnet", "accuracy", {}).value == 0.6
    assert store.attempts(ok + failed) == ok


def test_other_settings_and_setups_are_never_averaged_together():
    base = cell("mamba2", "needle")
    wide = synthetic.variant(base, settings={"state": 64})
    longer = synthetic.variant(base, budget={"steps": 900, "batch_tokens": 4096})
    rows = [r for c, v in ((base, 0.1), (wide, 0.2), (longer, 0.9)) for r in rows_of(c, [(None, "accuracy", v, 9, {})])]
    exams = evaluations.grouped(rows)
    assert len(exams) == 2 and [exam.main for exam in exams] == [True, False]
    assert {m.label for m in exams[0].learners} == {"mamba2 (default)", "mamba2 (state=64)"}
    assert exams[0].point("mamba2 (state=64)", "accuracy", {}).value == 0.2
    assert "budget=steps 900" in exams[1].title and exams[0].slug != exams[1].slug


def test_a_new_task_with_settings_of_its_own_gets_a_table():
    rows = rows_of(
        synthetic.variant(cell("retnet", "needle"), task="counting", task_settings={}),
        [
            (None, "perplexity", v, 9, {"base": b, "digits": d})
            for v, (b, d) in enumerate([(2, 4), (2, 8), (10, 4), (10, 8)])
        ],
    )
    exam = exam_of(rows, "counting")
    (one,) = table.layout(exam)
    assert [column.header for column in one.columns] == [f"base {b}, digits {d}" for b in (2, 10) for d in (4, 8)]
    assert lines(table.markdown(exam, one))["retnet"][-4:] == ["0.000", "1.000", "2.000", "3.000"]


def test_the_reference_stands_in_brackets_beside_ours():
    ours, theirs = small({"retnet": [0.5]}, 0.1), small({"retnet": [0.25]}, 0.1)
    found = lines(table.markdown(ours, table.layout(ours)[0], beside=theirs))
    assert found["retnet"][-1] == "50.0 ✓ [25.0]" and found["guess"][-1] == "10.0 [10.0]"
    assert "in brackets: the committed reference" in table.conditions(ours, beside=theirs)


def test_tables_do_not_depend_on_the_order_of_rows():
    rows = synthetic.comparison(FEW, seeds=(0, 1))
    shuffled = random.Random(1).sample(rows, len(rows))
    for one, other in zip(evaluations.grouped(rows), evaluations.grouped(shuffled), strict=True):
        assert csv_file.csv_text(one) == csv_file.csv_text(other)
        texts = [
            [table.markdown(e, t) + table.notes(e, t) + table.conditions(e) for t in table.layout(e)]
            for e in (one, other)
        ]
        assert texts[0] == texts[1]


def test_the_last_depth_stands_apart():
    exam = exam_of(synthetic.comparison())
    apart = [one for one in table.layout(exam) if "very end" in one.title]
    assert apart and all(column.where["depth"] == 1.0 for one in apart for column in one.columns)
    assert "mean over depth" not in table.notes(exam, apart[0])
