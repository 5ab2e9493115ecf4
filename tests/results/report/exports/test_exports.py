"""Rows in the forms of other projects: whole, true to the rows, and, where these projects are installed, valid by them."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

import pytest

from results.report import evaluations
from results.report.exports import every_eval_ever, hugging_face, scores
from results.rows import metrics
from tests.support import synthetic

FEW = ("transformer", "retnet", "titans-mac")
MADE = 1_790_000_000.5
BOARD = hugging_face.Board("owner/needles", "0123abcd", "https://example.org/rows")


@pytest.fixture(scope="module")
def exams():
    return evaluations.grouped(
        synthetic.fails(synthetic.comparison(FEW, seeds=(0, 1)), "retnet", "needle", "out of memory")
    )


@pytest.fixture(scope="module")
def records(exams):
    return every_eval_ever.files("made-up", exams, MADE)


def test_there_is_a_record_for_each_model_with_a_score(exams, records):
    places = {tuple(PurePosixPath(path).parts[:4]) for path in records}
    assert places == {
        ("data", f"made-up-{exam.slug}", "titanomachy", model.label)
        for exam in exams
        for model in exam.learners
        if any(True for _ in scores.of_model(exam, model))
    }
    assert ("data", "made-up-needle-compact", "titanomachy", "retnet") not in places and len(records) == len(places)
    assert records == every_eval_ever.files("made-up", list(exams), MADE)


def test_a_record_says_what_the_rows_say(exams, records):
    for path, text in records.items():
        record = json.loads(text)
        exam = next(one for one in exams if f"made-up-{one.slug}" == PurePosixPath(path).parts[1])
        label = record["model_info"]["name"]
        assert record["evaluation_id"] == f"made-up-{exam.slug}/titanomachy/{label}/{MADE}"
        for result in record["evaluation_results"]:
            where = result["metric_config"]["metric_parameters"]
            name = result["metric_config"]["metric_id"].removeprefix("titanomachy.")
            point = exam.point(label, name, where)
            assert result["score_details"]["score"] == point.value and name not in metrics.ABOUT_TRAINING
            assert result["metric_config"]["lower_is_better"] == (metrics.direction(name) < 0)
            interval = result["score_details"].get("uncertainty", {}).get("confidence_interval")
            assert (interval is None) == (point.low is None)
            if interval:
                assert (interval["lower"], interval["upper"]) == (point.low, point.high)


def test_their_own_validator_finds_nothing(records, tmp_path):
    """Needs Python 3.12 and `pip install every-eval-ever==0.3.0`."""
    core = pytest.importorskip("every_eval_ever.validator.validation_core", reason="every-eval-ever is not installed")
    for name, text in records.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        report = core.validate_aggregate(path)
        assert (report.valid, report.errors, report.warnings) == (True, [], [])
        assert core.check_path_structure(name) == []


def test_a_hub_file_holds_each_score_with_its_interval(exams):
    found = hugging_face.files("made-up", exams, BOARD)
    needle = next(exam for exam in exams if exam.task == "needle")
    text = found[f"titans-mac/.eval_results/made-up-{needle.slug}.yaml"]
    model = next(model for model in needle.learners if model.label == "titans-mac")
    asked = list(scores.of_model(needle, model))
    values = [float(value) for value in re.findall(r"^  value: (.+)$", text, re.MULTILINE)]
    assert values == [100 * score.point.value for score in asked]
    names = re.findall(r'^    task_id: "(.+)"$', text, re.MULTILINE)
    assert names == [hugging_face.task_id(needle, score) for score in asked] and len(set(names)) == len(names)
    assert text.count('    id: "owner/needles"\n') == len(asked) == text.count("95 % interval")
    with pytest.raises(ValueError, match="OWNER/NAME"):
        hugging_face.files("made-up", exams, hugging_face.Board("needles"))


def test_the_hubs_own_library_reads_them(exams):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub knows no .eval_results")
    for text in hugging_face.files("made-up", exams, BOARD).values():
        entries = hub.parse_eval_result_entries(yaml.safe_load(text))
        assert entries and {entry.dataset_id for entry in entries} == {"owner/needles"}
        assert {entry.source_url for entry in entries} == {"https://example.org/rows"}
        assert all(isinstance(entry.value, float) and entry.date.startswith("2026") for entry in entries)
