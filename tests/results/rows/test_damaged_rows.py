"""Rows, manifests and packed files that somebody else may have written: read whole, or refused in one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.report import report
from results.rows import predictions as prediction_files
from results.rows import row as identity
from results.rows import store, submission, verification
from runner.schedule import worker
from tests.support.fake_measure import cell, identify, measure


def made(name: str = "model", value: float = 0.5, **asked) -> list[dict]:
    one = cell(name, **asked)
    numbers = [(None, "accuracy", value, 4, {"length": n}) for n in (1, 2, 3)]
    return store.rows(one, identify(one), store.Measured(10, 20, "trained", "chunked", numbers))


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": None}, "seed must be a whole number"), ({"count": "many"}, "count must be a whole number"),
        ({"parameters": "few"}, "parameters must be"), ({"family_order": "x"}, "family_order must be a whole number"),
        ({"threads": "x"}, "threads must be"), ({"model": None}, "model must be text"), ({"when": None}, "when must be"),
        ({"where": {"length": "long"}}, "length must be a number"), ({"where": {"depth": [1]}}, "where.depth"),
        ({"value": 10**400}, "value must be a number"), ({"settings": {}}, "settings.model is missing"),
        ({"settings": {"task": {}}}, "settings.model is missing"), ({"lr": "fast"}, "lr must be a number"),
        ({"lr": float("nan")}, "NaN is no number of JSON"), ({"cell": "../../elsewhere"}, "cell"),
        ({"budget": {"steps": 3}}, "budget: lacks batch_tokens"), ({"model": "\ud800"}, "model"),
        ({"settings": {"model": {"deep": [[[{"x": 10**30}]]]}, "task": {}}}, "settings.model.deep"),
        ({"settings": {"model": {}, "task": {"level": "layer", "reference": 5}}}, "reference must be text"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_file_line_and_column(tmp_path, change, says):
    rows = made()
    path = written(tmp_path / "rows.jsonl", [rows[0], {**rows[1], **change}, rows[2]])
    with pytest.raises(store.RecordError) as told:
        store.read(path)
    assert "rows.jsonl, line 2" in str(told.value) and says in str(told.value)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def test_rows_of_another_comparison_are_refused_with_their_line(tmp_path):
    rows = made()
    path = written(tmp_path / "rows.jsonl", [rows[0], {**rows[1], "comparison": "other"}])
    with pytest.raises(store.RecordError, match="line 2 is a row of the comparison 'other', not of 'fake'"):
        store.read(path, "fake")
    assert len(store.read(path)) == 2


def test_a_whole_last_row_counts_without_its_newline_which_the_next_append_puts_back(tmp_path):
    path, rows = tmp_path / "rows.jsonl", made("first")
    store.append(path, rows)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read(path) == rows
    store.append(path, made("second"))
    assert [row["model"] for row in store.read(path)] == ["first"] * 3 + ["second"] * 3


def test_a_torn_last_row_makes_its_whole_cell_missing(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.append(path, made("first"))
    store.append(path, made("second"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match=r"The last row of .*rows.jsonl is torn, and its cell does not count"):
        assert {row["model"] for row in store.read(path)} == {"first"}
    store.append(path, made("third"))
    assert [row["model"] for row in store.read(path)] == ["first"] * 3 + ["third"] * 3


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b"", lambda b: b"no xz", lambda b: b + b"more"])
def test_a_damaged_packed_file_is_one_sentence(tmp_path, damage):
    store.pack(tmp_path / "rows.jsonl", made())
    packed = tmp_path / "rows.jsonl.xz"
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(store.RecordError, match=r"rows\.jsonl\.xz is damaged"):
        store.read(tmp_path / "rows.jsonl")
    prediction_files.write(tmp_path, "cell", [{"exam": 0}])
    path = prediction_files.path_of(tmp_path, "cell")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(prediction_files.PredictionFileError, match="is damaged"):
        prediction_files.read(tmp_path, "cell")


def test_a_packed_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("schema.packed.LARGEST", 1000)
    store.pack(tmp_path / "rows.jsonl", made())
    with pytest.raises(store.RecordError, match="more than 1,000 bytes when unpacked"):
        store.read(tmp_path / "rows.jsonl")


def test_rows_that_stand_twice_count_once_and_verify_tells_them(tmp_path):
    rows = made()
    assert store.attempts(rows * 2) == rows and store.doubled(rows * 2) == rows and store.doubled(rows) == []
    told = verification.verify(rows * 2, tmp_path, lambda rows, kept: verification.Again([], "")).differences
    assert sum("stands more than once" in one for one in told) == 3
    with pytest.raises(store.RecordError, match="two numbers of one thing, 0.5 and 0.75"):
        store.attempts([*rows, {**rows[0], "value": 0.75}])


@pytest.mark.parametrize("predictions", [[{"exam": object()}], [{"exam": float("nan")}], [{"exam": {1, 2}}]])
def test_what_no_file_can_hold_is_its_cells_failed_row(tmp_path, predictions, monkeypatch):
    monkeypatch.setattr(worker, "_send", lambda *told: None)
    who = identity.Identity("0123")

    def broken(cell, progress):
        return store.Measured(measurements=[(None, "accuracy", 0.5, 1, {})], predictions=predictions)

    plain = cell("model")
    rows, kept = worker.measured(plain, who, broken)
    assert kept is None and [row["status"] for row in rows] == ["failed"] and "JSON" in rows[0]["reason"]
    strange = store.Measured(measurements=[(None, "accuracy", 0.5, 1, {"length": object()})])
    rows, _ = worker.measured(plain, who, lambda cell, progress: strange)
    worker.keep(tmp_path / "rows.jsonl", "0123", rows, None)
    assert [row["status"] for row in store.read(tmp_path / "rows.jsonl")] == ["failed"]


def test_a_submission_takes_rows_that_stand_twice_once_and_touches_nothing_where_it_refuses(tmp_path):
    plan, rows = tmp_path / "plan.toml", made()
    plan.write_text("title = 'x'\n")
    prediction_files.write(tmp_path / "predictions", rows[0]["cell"], [{"exam": 0}])
    packed = submission.pack(tmp_path, plan, rows * 2)
    assert (packed.rows, packed.cells) == (3, 1) and store.read(tmp_path / "reference" / "rows.jsonl") == rows
    before = {path: path.read_bytes() for path in (tmp_path / "reference").rglob("*") if path.is_file()}
    with pytest.raises(store.RecordError, match="two numbers of one thing, 0.5 and 0.75"):
        submission.pack(tmp_path, plan, [*rows, {**rows[0], "value": 0.75}])
    kept = prediction_files.path_of(tmp_path / "predictions", rows[0]["cell"])
    kept.write_bytes(kept.read_bytes()[:-20])
    with pytest.raises(submission.SubmissionError, match=f"{kept.name} is damaged .* Delete it"):
        submission.pack(tmp_path, plan, rows)
    assert before == {path: path.read_bytes() for path in (tmp_path / "reference").rglob("*") if path.is_file()}


def test_a_manifest_that_is_missing_or_none_is_told(tmp_path):
    (tmp_path / "plan.toml").write_text("title = 'x'\n")
    submission.pack(tmp_path, tmp_path / "plan.toml", made())
    reference = tmp_path / "reference"
    assert submission.differences(reference) == []
    (reference / "report.md").write_text("drawn")
    (reference / "report.html").write_text("drawn")
    submission.seal(reference)
    (reference / "report.html").unlink()  # as in a clone
    assert submission.differences(reference) == []
    (reference / "report.md").write_text("edited")
    assert any("report.md is not the file that was drawn" in one for one in submission.differences(reference))
    for text in ('{"sha256": [1]}', '{"sha256": {"a": 1}}', "[]", "{}", '{"sha256": {}, "left_out": 3}', "\xff"):
        (reference / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(submission.SubmissionError):
            submission.differences(reference)
    (reference / "manifest.json").unlink()
    assert "manifest.json is missing" in submission.differences(reference)[0]


ROWS = made() + made("other", 0.25)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5), st.just("\ud800"),
    st.just([]), st.just({}), st.just([[1]]), st.just({"a": {"b": None}}), st.just({"length": "x"}),
)  # fmt: skip


@st.composite
def spoiled(draw, sound):
    """A copy of a JSON value with one place, at any depth, changed, taken out or added."""
    value = copy.deepcopy(sound)
    inner, key = value, None
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(inner[key], dict | list) or draw(st.integers(0, 3)) == 0:
            break
        inner = inner[key]
    how = draw(st.integers(0, 5))
    if how == 0 and key is not None and inner:
        del inner[key]
    elif how == 1 and isinstance(inner, dict):
        inner[draw(st.sampled_from(["x", "exam", "length", "", "stage"]))] = draw(ODD)
    elif key is not None and inner:
        inner[key] = draw(ODD)
    return value


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(rows=spoiled(ROWS))
def test_spoiled_rows_are_read_and_reported_or_refused_in_a_sentence(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("spoiled")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    try:
        read = store.read(folder / "rows.jsonl", "fake")
        report.stale_tables(read, folder)
        verification.verify(read, folder, lambda rows, kept: verification.Again([], ""))
        assert all(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() for row in read)  # can be packed
    except store.RecordError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 1000


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(manifest=spoiled({"sha256": {"plan.toml": "ab", "rows.jsonl.xz": "cd"}, "left_out": {"ef": "too large"}}))
def test_a_spoiled_manifest_is_told_or_refused_in_a_sentence(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("spoiled")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        found = submission.differences(folder)
        assert all("\n" not in one for one in found)
    except submission.SubmissionError as error:
        assert str(error) and "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.binary(max_size=60))
@pytest.mark.filterwarnings("ignore:The last row of")
def test_any_bytes_for_rows_are_read_or_refused_in_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "rows.jsonl"
    path.write_bytes(data)
    try:
        assert store.read(path) == []
    except store.RecordError as error:
        assert "\n" not in str(error)


def test_a_cell_measured_by_a_fake_is_kept_with_its_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_send", lambda *told: None)
    one = cell("model", predictions=[{"exam": 0}])
    rows, packed = worker.measured(one, identify(one), measure)
    worker.keep(tmp_path / "rows.jsonl", identify(one).key, rows, packed)
    assert prediction_files.read(tmp_path / "predictions", identify(one).key) == [{"exam": 0}]
    assert store.read(tmp_path / "rows.jsonl") == rows
