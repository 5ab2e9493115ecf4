"""The training curve of a cell: every step of it, whatever becomes of the cell, and no key or number that depends on it."""

from __future__ import annotations

import sys
from functools import partial

import pytest

import bench
from results.plans.reader import load
from results.report.curves import FOLDER, TRAINING, VALIDATION, CurvePoint, path_of, read
from results.rows import store
from runner.cell_key import MEASURED_BY, _closure
from runner.cell_key import identify as key_of
from runner.checkpoints.store import read_training
from runner.checkpoints.trained_model import CheckpointSettings
from runner.commands.shared.comparison import cells
from runner.measure import measure
from runner.schedule import worker
from runner.schedule.board import Board, folder_of
from runner.schedule.curves import EVERY, Recorder, keep, recorded
from runner.schedule.schedule import RunEvent
from schema.places import ROOT
from tasks.harness import snapshots
from tests.support import fake_measure
from tests.support.fake_measure import cell, identify
from tests.support.tiny_plan import tiny_plan


class Queue:
    """What a worker tells, kept."""

    def __init__(self):
        self.words = []

    def put(self, word):
        self.words.append(word)


@pytest.fixture
def queue(monkeypatch):
    found = Queue()
    monkeypatch.setattr(worker, "_queue", found)
    return found


def measured(measure, tmp_path, one=None):
    """The curve that stands beside the rows of a cell that `measure` measures."""
    one = one or cell("good")
    worker.work(one, identify(one), tmp_path / "rows.jsonl", measure, None)
    return read(path_of(tmp_path / FOLDER, identify(one).key))


def test_every_step_is_kept_and_what_is_told_beyond(queue, tmp_path):
    def trains(one, progress):
        losses = []
        for step in range(4):
            losses.append(4.0 - step)
            progress({EVERY: losses})
        progress({"step": 5, "steps": 5, "loss": 0.5})
        progress({"exam": 1, "length": 64})
        return fake_measure.measure(one, lambda news: None)

    assert measured(trains, tmp_path) == [
        CurvePoint(s, TRAINING, x) for s, x in enumerate([4.0, 3.0, 2.0, 1.0, 0.5], 1)
    ]


def test_a_training_that_diverges_leaves_its_curve(queue, tmp_path):
    def diverges(one, progress):
        progress({EVERY: [3.0, 30.0]})
        raise FloatingPointError("the loss is nan at step 3")

    assert [point.loss for point in measured(diverges, tmp_path)] == [3.0, 30.0]
    assert store.read(tmp_path / "rows.jsonl")[0]["status"] == "failed"


def test_a_cell_that_trains_nothing_leaves_no_file_nor_that_of_an_attempt_before(queue, tmp_path):
    path = path_of(tmp_path / FOLDER, identify(cell("good")).key)
    path.parent.mkdir()
    path.write_text("step,split,loss\n1,training,2.0\n")
    assert measured(lambda one, progress: fake_measure.measure(one, lambda news: None), tmp_path) == []
    assert not path.exists()


def test_it_is_written_while_it_grows(tmp_path):
    recorder = Recorder(tmp_path / "cell.csv", seconds=0.0)
    recorder.news({EVERY: [2.0]})
    assert [point.loss for point in read(recorder.path)] == [2.0]
    recorder.next = 0.0
    recorder.news({EVERY: [2.0, 1.0]})
    assert [point.loss for point in read(recorder.path)] == [2.0, 1.0]


def test_who_watches_is_told_until_it_ends():
    told = []
    with snapshots.watch_losses(told.append):
        snapshots.tell_losses([2.0])
    snapshots.tell_losses([2.0, 1.0])
    assert told == [[2.0]]


def test_the_list_of_losses_is_for_the_curve_and_not_for_the_terminal(queue, tmp_path):
    def trains(one, progress):
        progress({EVERY: [1.0]})
        return fake_measure.measure(one, lambda news: None)

    measured(trains, tmp_path)
    assert [kind for _, kind, _ in queue.words] == ["started"]


def test_a_full_disk_is_told_once_and_costs_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("results.report.curves.whole_file.write", full)
    with pytest.warns(UserWarning, match="could not be kept") as told, recorded(tmp_path / "cell.csv") as recorder:
        recorder.seconds = 0.0
        for _ in range(3):
            recorder.next = 0.0
            recorder.news({EVERY: [1.0]})
    assert len(told) == 1


def test_a_curve_of_another_machine_is_kept_and_none_takes_the_place_of_an_earlier_one(tmp_path):
    there, here = tmp_path / "there.csv", path_of(tmp_path / FOLDER, "cell")
    with recorded(there) as recorder:
        recorder.news({"step": 1, "loss": 3.0})
    keep(here, there.read_bytes())
    assert read(here) == [CurvePoint(1, TRAINING, 3.0)]
    keep(here, None)
    assert not here.exists()
    with pytest.warns(UserWarning, match="could not be kept"):
        keep(there / "below-a-file", b"step,split,loss")


def test_measured_cells_keep_the_losses_of_their_checkpoints_and_a_trial_its_validation(queue, results):
    rates = "learning_rates = [1e-3, 2e-3]\nsearch = { fraction = 0.5 }"
    plan_file = results / "tiny" / "plan.toml"
    plan_file.write_text(tiny_plan(models=["retnet"], seeds=[0], rates=rates, budget="steps = 6, batch_tokens = 128"))
    rows, checkpoints = results / "tiny" / "rows.jsonl", CheckpointSettings(results / "cache" / "checkpoints")
    for kind in ("trial", "training"):
        for one in [one for one in cells(load(plan_file.parent), store.read(rows)) if one.kind == kind]:
            found, _ = worker.work(one, key_of(one), rows, partial(measure, checkpoints=checkpoints), None)
            assert found == "measured"
    known = store.read(rows)
    curves = {path.stem: read(path) for path in (results / "tiny" / FOLDER).glob("*.csv")}
    (kept,) = [path.parent for path in checkpoints.folder.glob("*/losses.safetensors")]
    (trained,) = {row["cell"] for row in known if row["metric"] == "training_loss"}
    assert [point.loss for point in curves.pop(trained)] == read_training(kept).losses
    judged = {row["cell"]: row["value"] for row in known if row["metric"] == "validation_loss"}
    assert len(curves) == 2 and judged.keys() == curves.keys()
    for key, points in curves.items():
        assert [point.step for point in points] == [1, 2, 3, 3]
        assert points[-1] == CurvePoint(3, VALIDATION, judged[key])
    path = path_of(results / "tiny" / FOLDER, trained)
    before = path.read_bytes()
    path.unlink()
    rows.unlink()
    worker.work(one, key_of(one), rows, partial(measure, checkpoints=checkpoints), None)  # examined again, not trained
    assert path.read_bytes() == before


def test_no_cell_key_covers_what_keeps_curves():
    keeps = {
        "tasks/harness/snapshots.py",
        "runner/schedule/curves.py",
        "runner/schedule/worker.py",
    }
    for kind in ("trial", "training"):
        covered = {path.relative_to(ROOT).as_posix() for path in _closure(frozenset(), MEASURED_BY[kind])}
        assert "tasks/harness/train.py" in covered and not covered & keeps


class Writer:
    """Stands in for a SummaryWriter."""

    made: dict[str, Writer] = {}

    def __init__(self, folder: str):
        self.said, self.open, self.made[folder] = [], True, self

    def add_scalar(self, name, value, step):
        self.said.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.open = False


def test_the_board_writes_each_cell_that_trains_to_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Writer, "made", {})
    one, other = cell("good"), cell("last", seed=3)
    row = {"metric": "validation_loss", "status": "ok", "value": 1.5}
    with Board(tmp_path, Writer) as board:
        for step in (1, 9):
            news = {"step": step, "steps": 9, "loss": 3.0 / step, "tokens_per_second": 100.0}
            board.tell(RunEvent("progress", one, "key-of-one", progress=news))
        board.tell(RunEvent("progress", one, "key-of-one", progress={"exam": 1, "length": 64}))
        board.tell(RunEvent("progress", other, "key-of-other", progress={"step": 2, "loss": 2.0}))
        board.tell(RunEvent("finished", one, "key-of-one", rows=[row]))
        board.tell(RunEvent("finished", cell("timed"), "no-training", rows=[row]))
        first, second = (
            Writer.made[str(tmp_path / folder_of(c, k))] for c, k in [(one, "key-of-one"), (other, "key-of-other")]
        )
        assert not first.open and second.open
    assert not second.open and len(Writer.made) == 2
    assert [said for said in first.said if said[0].endswith("loss")] == [
        ("training/loss", 3.0, 1), ("training/loss", 3.0 / 9, 9), ("validation/loss", 1.5, 9),
    ]  # fmt: skip
    assert folder_of(other, "key-of-other") == "last-needle-seed3-lr0.003-key-of-o"


def test_without_the_package_a_run_is_refused_before_it_measures(results, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert bench.main(["run", "tiny", "--log", "tensorboard"]) == 2
    assert "pip install tensorboard, or leave --log out" in capsys.readouterr().err
    assert not (results / "tiny" / "rows.jsonl").exists()
