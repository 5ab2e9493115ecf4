"""Rows and the file that holds them: strict columns, a cell's rows together, torn ends, keys."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from results.rows import store
from schema import whole_file
from tests.support.fake_measure import cell, identify


def made(name="model", value=0.5, **settings):
    one = cell(name, **settings)
    measured = store.Measured(
        10, 20, "trained", "chunked", [(None, "accuracy", value, 4, {"length": n}) for n in (1, 2, 3)]
    )
    return store.rows(one, identify(one), measured)


def test_rows_have_exactly_the_columns_and_come_back_equal(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    path.parent.mkdir()
    rows = made()
    store.append(path, rows)
    assert store.read(path) == rows
    assert list(rows[0]) == list(store.COLUMNS)
    assert rows[0]["settings"] == {"model": {}, "task": {"length": 64}} and rows[0]["provider"] == "chunked"
    assert (tmp_path / "new" / ".locks" / ".gitignore").read_text() == "*\n"


def test_floors_carry_their_own_names_and_family():
    floors = dataclasses.replace(cell(""), kind="floors")
    measured = store.Measured(measurements=[("majority", "accuracy", 0.1, 5, {})])
    (row,) = store.rows(floors, identify(floors), measured)
    assert (row["model"], row["family"], row["parameters"]) == ("majority", "floor", None)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"value": float("nan")}, {"value": None}, {"status": "done"}, {"where": 3}, {"model": [1]},
        {"metric": ""}, {"status": "failed"}, {"schema": 0}, {"lr": float("inf")}, {"value": "0.5"}, {"value": True},
    ],
)  # fmt: skip
def test_a_malformed_row_is_refused_and_nothing_is_written(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    good, *_ = made()
    with pytest.raises(ValueError, match="row|Column"):
        store.append(path, [good, {**good, **change}])
    with pytest.raises(ValueError):
        store.append(path, [{name: good[name] for name in reversed(store.COLUMNS)}])
    assert not path.exists() or path.read_text() == ""


@pytest.mark.parametrize("tail", [b'{"schema": 1, "compar', b"not json at all\n", b"17\n"])
def test_a_torn_last_line_is_passed_over_and_cut_before_the_next_append(tmp_path, tail):
    path = tmp_path / "rows.jsonl"
    store.append(path, made("first"))
    with open(path, "ab") as file:
        file.write(tail)
    with pytest.warns(UserWarning, match="is torn"):
        assert [row["model"] for row in store.read(path)] == ["first"] * 3
    store.append(path, made("second"))
    assert [row["model"] for row in store.read(path)] == ["first"] * 3 + ["second"] * 3
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("where", "error", "raised"),
    [
        ("fsync", OSError(errno.ENOSPC, "No space left on device"), store.RecordError),
        ("replace", OSError(errno.ENOSPC, "No space left on device"), store.RecordError),
        ("fsync", KeyboardInterrupt(), KeyboardInterrupt),
        ("replace", KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_full_disk_or_a_death_while_writing_leaves_the_file_as_it_was(tmp_path, monkeypatch, where, error, raised):
    path = tmp_path / "rows.jsonl"
    store.append(path, made("first"))
    before = path.read_bytes()

    def fail(*told):
        raise error

    monkeypatch.setattr(*((whole_file.os, "fsync", fail) if where == "fsync" else (Path, "replace", fail)))
    with pytest.raises(raised, match="No space left on device" if raised is store.RecordError else None):
        store.append(path, made("second"))
    monkeypatch.undo()
    assert path.read_bytes() == before and {one.name for one in tmp_path.iterdir()} == {"rows.jsonl", ".locks"}
    store.append(path, made("third"))
    assert {row["model"] for row in store.read(path)} == {"first", "third"}


def test_what_a_killed_process_left_half_written_is_no_row_and_goes_with_the_next_append(tmp_path):
    path, left = tmp_path / "rows.jsonl", tmp_path / "unfinished-rows.jsonl"
    store.append(path, made("first"))
    left.write_bytes(path.read_bytes() * 2)
    assert [row["model"] for row in store.read(path)] == ["first"] * 3
    store.append(path, made("second"))
    assert [row["model"] for row in store.read(path)] == ["first"] * 3 + ["second"] * 3 and not left.exists()


def test_rows_behind_a_link_are_written_there_and_the_link_stays(tmp_path):
    there, link = tmp_path / "roomy" / "tiny.jsonl", tmp_path / "rows.jsonl"
    there.parent.mkdir()
    link.symlink_to(there)
    store.append(link, made("first"))
    store.append(link, made("second"))
    assert link.is_symlink() and len(store.read(there)) == 6


def test_corruption_elsewhere_names_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.append(path, made())
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{broken", lines[2]]) + "\n")
    with pytest.raises(store.RecordError, match=r"rows\.jsonl, line 2"):
        store.read(path)


def _append_many(path: str, name: str) -> None:
    for _ in range(10):
        store.append(Path(path), made(name))


def test_two_processes_appending_at_once_never_mix_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(str(path), name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    models = [row["model"] for row in store.read(path)]
    assert len(models) == 60
    assert all(len(set(models[i : i + 3])) == 1 for i in range(0, 60, 3))  # a cell's rows stay together


def test_the_last_attempt_that_measured_something_counts():
    early, late = made("m", 0.1), made("m", 0.2)
    failed = store.failure(cell("m"), identify(cell("m")), "out of memory")
    for order in ([*early, *late, *failed], [*failed, *late, *early]):
        assert [row["value"] for row in store.attempts(order)] == [0.2] * 3
    assert store.statuses(early + failed) == {early[0]["cell"]: "ok"}
    assert store.attempts(failed) == failed


def test_key_changes_with_what_decides_the_numbers_and_nothing_else():
    base = cell("m", rate=1)
    same = dataclasses.replace(base, settings=dict(base.settings), model_files=("/somewhere/mine.py",), threads=7)
    assert store.key(base, "d", "c") == store.key(same, "d", "c")
    assert store.key(base, "d", "c") == store.key(base, "d", "c", machine="another", threads=9)
    reordered = dataclasses.replace(base, size={"heads": 4, "depth": 2, "width": 64})
    assert store.key(reordered, "d", "c") == store.key(base, "d", "c")
    different = {
        "comparison": "x", "kind": "floors", "model": "n", "settings": {"rate": 2}, "task": "t", "lr": 0.1, "seed": 1,
        "task_settings": {}, "size": {}, "budget": {}, "dtype": "bfloat16", "provider": "chunked",
    }  # fmt: skip
    keys = {store.key(dataclasses.replace(base, **{name: value}), "d", "c") for name, value in different.items()}
    keys |= {store.key(base, "e", "c"), store.key(base, "d", "x"), store.key(base, "d", "c", "cuda:H100")}
    assert len(keys | {store.key(base, "d", "c")}) == len(different) + 4
    timing = dataclasses.replace(base, kind="timing")
    assert len({store.key(timing), store.key(timing, machine="x"), store.key(timing, threads=2)}) == 3
    assert store.key(cell("fixed"), "d", "c") == "e0e8e62d83f69e67"


def test_the_rows_of_some_metrics_are_read_without_the_others(tmp_path):
    """A name whose letters are written by their number is read too; what is wrong with another row does not hide it."""
    path = tmp_path / "rows.jsonl"
    (row, *_) = made()
    timed, marked = (json.dumps(row | {"metric": metric}) for metric in ("training_seconds", "accuracy"))
    path.write_text(
        "\n".join([timed, marked, timed.replace('"training_s', '"\\u0074raining_s'), "{broken}", marked, ""])
    )
    assert [row["metric"] for row in store.read(path, metrics=("training_seconds",))] == ["training_seconds"] * 2
    with pytest.raises(store.RecordError, match="line 4"):
        store.read(path)


def test_the_rows_of_several_metrics_are_those_of_their_names_alone(tmp_path):
    """A metric whose name only ends as they do is not read: what is wrong with its rows is not told."""
    path = tmp_path / "rows.jsonl"
    (row, *_) = made()
    lines = [json.dumps(row | {"metric": metric}) for metric in ("training_seconds", "timing_seconds", "accuracy")]
    path.write_text("\n".join(['{"metric": "other_seconds", broken}', *lines, ""]))
    found = store.read(path, metrics=("training_seconds", "timing_seconds"))
    assert [row["metric"] for row in found] == ["training_seconds", "timing_seconds"]
    assert store.read(path, metrics=()) == []


def test_the_rows_of_some_devices_are_read_without_the_others(tmp_path):
    """What is wrong with the rows of another device is not told; a file that has none of the device has no rows."""
    path = tmp_path / "rows.jsonl"
    (row, *_) = made()
    lines = [json.dumps(row | {"device": device}) for device in ("cpu", "cuda")]
    path.write_text("\n".join([*lines, '{"device": "mps", broken}', ""]))
    assert [row["device"] for row in store.read(path, devices=("cuda",))] == ["cuda"]
    assert [row["device"] for row in store.read(path, metrics=(row["metric"],), devices={"cpu", "cuda"})] == [
        "cpu",
        "cuda",
    ]
    assert store.read(path, devices=("xpu",)) == [] and store.read(path, metrics=("other",), devices=("cpu",)) == []
