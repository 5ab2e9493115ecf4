"""A dry run that is printed again says what it said, without torch; whatever its text rests on makes it be asked anew."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from runner.preflight import said
from schema.places import CACHE, ROOT

WORDS = ["run", "smoke", "--dry-run"]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A cache and a house of one file."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(said, "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one.py").write_text("1")
    yield tmp_path
    said._begun.clear()


def test_what_was_kept_is_said_again():
    assert said.before(WORDS) is None
    said.keep("so many cells\n")
    assert said.before(WORDS) == "so many cells\n"
    assert said.before([*WORDS, "--seeds", "1"]) is None


def changed_code(folder):
    (folder / "models" / "one.py").write_text("22")


def further_rows(folder):
    (folder / "results" / "mine").mkdir(parents=True)
    (folder / "results" / "mine" / "rows.jsonl").write_text("{}")


def another_checkpoint(folder):
    (folder / "cache" / "checkpoints" / "abc").mkdir(parents=True)
    (folder / "cache" / "checkpoints" / "abc" / "checkpoint.json").write_text("{}")


def damaged(folder):
    next((folder / "cache" / said.FOLDER).iterdir()).write_text("[1]")


@pytest.mark.parametrize("change", [changed_code, further_rows, another_checkpoint, damaged])
def test_it_is_asked_anew_after(change, places):
    said.before(WORDS)
    said.keep("before\n")
    change(places)
    assert said.before(WORDS) is None


def test_another_environment_is_asked_anew(monkeypatch):
    said.before(WORDS)
    said.keep("before\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert said.before(WORDS) is None


def test_only_a_dry_run_that_asked_is_kept(places):
    for words in (["run", "smoke"], ["check", "--dry-run"]):
        assert said.before(words) is None
        said.keep("measured\n")
    assert not (places / "cache" / said.FOLDER).exists()


@pytest.mark.parametrize("settings, is_plain", [
    ({"tokenizer": "bpe:32000", "length": 512, "pattern": ["gru", "lstm"]}, True),
    ({"tokenizer": "mine.json"}, False),
    ({"train_on": {"tokenizer": "some"}}, False),
    ({"corpus": "a/folder"}, False),
])  # fmt: skip
def test_settings_that_may_name_a_file_are_told(settings, is_plain):
    assert said.of_the_house([settings]) is is_plain


def test_a_warning_is_noticed_and_shown():
    with pytest.warns(UserWarning, match="alike"), said.silence() as told:
        warnings.warn("built alike", stacklevel=1)
    assert told == ["built alike"]


def test_the_second_dry_run_of_a_process_of_its_own_imports_no_torch_and_the_first_compiles_nothing(places):
    code = (
        "import sys, bench; status = bench.program(['run', 'smoke', '--dry-run'])\n"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(status)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout and " cells, " in first.stdout
    assert (first.stderr.strip(), second.stderr.strip()) == ("True", "False")
    assert not (places / "cache" / "native").exists()
