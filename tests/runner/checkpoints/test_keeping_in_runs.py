"""`bench.py run` with checkpoints: another evaluation asks no training, --no-checkpoints keeps none, --cache says where."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from results.rows import store as record
from runner.checkpoints import store
from runner.commands import run as command
from runner.schedule import schedule
from tests.support.tiny_plan import tiny_plan


@pytest.fixture
def tiny(results) -> Path:
    """The folder `tiny`, whose plan has one model and one seed."""
    (results / "tiny" / "plan.toml").write_text(tiny_plan(models=["deltanet"], seeds=[0]))
    return results


@pytest.fixture
def in_this_process(monkeypatch):
    """Cells are measured here, which starts no workers, and nothing is drawn."""

    def run(cells, measure, identify, rows_path, **_):
        for cell in cells:
            record.append(rows_path, record.rows(cell, identify(cell), measure(cell, lambda news: None)))
        return schedule.Summary(measured=len(cells))

    monkeypatch.setattr(schedule, "run", run)
    monkeypatch.setattr(command, "draw", lambda *_: None)


def kept(cache: Path) -> list[Path]:
    return list(cache.glob(f"checkpoints/*/{store.FACTS}"))


def test_a_run_keeps_its_models_where_it_is_told_and_uses_them(tiny, in_this_process, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cache = ["--cache", str(tiny / "elsewhere")]
    assert bench.main(["run", "tiny", "--no-checkpoints", *cache]) == 0
    assert not kept(tiny / "elsewhere")
    more = ["run", "tiny", "--set", "needle.samples=2", *cache]
    assert bench.main(more) == 0
    assert len(kept(tiny / "elsewhere")) == 1 and not (tiny / "cache" / "checkpoints").exists()
    longer = ["run", "tiny", "--set", "needle.test_lengths=[64,128]", *cache]
    capsys.readouterr()
    assert bench.main([*longer, "--dry-run"]) == 0
    assert "examined only" in capsys.readouterr().out
    assert bench.main(longer) == 0
    rows = record.read(tiny / "tiny" / "rows.jsonl")
    seconds = [row["value"] for row in rows if row["metric"] == "training_seconds"]
    assert len(seconds) == 3 and seconds[1] == seconds[2] != seconds[0]
    old = {row["cell"] for row in rows if row["metric"] == "weights_age_seconds"}
    assert old == {[row["cell"] for row in rows if row["metric"] == "training_seconds"][2]}
