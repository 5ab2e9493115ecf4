"""`bench.py show`: a sample on the terminal, and bad input in one sentence."""

from __future__ import annotations

import pytest

import bench


def test_a_sample_is_printed_with_its_settings(capsys: pytest.CaptureFixture) -> None:
    settings = ["--set", "needle.variants=['mk-niah-2']", "--set", "needle.test_lengths=[128]", "--number", "3"]
    assert bench.main(["show", "needle", *settings]) == 0
    said = capsys.readouterr().out
    assert "mk-niah-2" in said and "answer: '" in said and "follows from: " in said and "test question 3" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "neddle"], "There is no task 'neddle'"),
        (["show", "needle", "--set", "babilong.length=128"], "--set names babilong, but needle is shown"),
        (["show", "needle", "--number", "100000"], "ask for one from 0 on"),
        (["show", "needle", "--set", "needle.variants=['mk-niah-9']"], "no variant"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert bench.main(arguments) == 2
    assert sentence in capsys.readouterr().err
