"""Every metric that a task emits or a committed row holds says its name, direction and unit; others are refused."""

from __future__ import annotations

import ast
import json
import lzma

import pytest

from results.report import report
from results.rows import metrics
from schema.places import ROOT
from tests.support import synthetic

CALLS = ("Measurement", "_measurement", "_kept")
COMMITTED = sorted((ROOT / "results").rglob("reference/rows.jsonl.xz"))


def emitted() -> set[str]:
    """Metrics that the files of tasks and of the runner name where they measure."""
    found = set()
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "runner").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values = []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in CALLS:
                values = node.args[:1]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 5 and getattr(node.elts[0], "value", 0) is None:
                values = node.elts[1:2]  # (nobody's, metric, value, count, where)
            elif isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "right":
                values = [node.slice]
            if isinstance(node, ast.Call):
                values += [one.value for one in node.keywords if one.arg == "metric"]
            found |= {one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_metric_of_every_task_is_known():
    names = emitted()
    assert {"accuracy", "choice_accuracy", "exact_match", "state_bytes", "training_seconds", "perplexity"} <= names
    for name in names | {f"bits_per_{unit}{end}" for unit in ("byte", "token") for end in ("", "_at_position")}:
        assert metrics.metric(name).title
        assert metrics.direction(name) in (metrics.HIGHER, metrics.LOWER, metrics.NEITHER)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.parent.name)
def test_every_metric_of_committed_rows_is_known(path):
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        names = {json.loads(line)["metric"] for line in lines} - {""}  # of a cell that failed
    assert names and all(metrics.metric(name) for name in names)


def test_an_axis_says_name_unit_and_direction():
    assert metrics.axis("bits_per_byte") == "loss (bits per byte), lower is better"
    assert metrics.axis("choice_accuracy") == "accuracy among the choices (%), higher is better"
    assert metrics.axis("finite_output") == "finite output"
    assert metrics.metric("prefill_tokens_per_second_quantile_10").title == "prefill throughput, 10 % quantile"
    assert metrics.direction("matrix_product_flops_per_second") == metrics.HIGHER  # once guessed from "flops"


def test_an_unknown_metric_is_one_sentence(tmp_path):
    rows = synthetic.rows_of(synthetic.cell("retnet", "needle"), [(None, "acuracy", 0.5, 9, {"length": 64})])
    with pytest.raises(metrics.UnknownMetricError, match=r"no metric 'acuracy' \(did you mean accuracy\?\)"):
        report.report(rows, tmp_path)
    assert not metrics.is_ranked("acuracy") and not metrics.is_ranked("machine_load") and metrics.is_ranked("accuracy")


def test_an_error_is_printed_by_its_power_of_ten():
    """With three decimals every right form of a recurrence would have none."""
    assert metrics.number("law_error", 2.8e-7) == "2.8e-07" and metrics.number("time_ratio", 2.8e-7) == "0.000"
