"""`bench.py export-data`: sets with cards in a new folder, equal at every call, refused in one sentence."""

from __future__ import annotations

import hashlib
import json

import pytest

import bench
from tests.support.tiny_plan import tiny_plan

URL = ("--url", "https://example.org/tiny")


def test_a_set_is_written_with_its_card_and_is_equal_again(results, tmp_path, capsys):
    for name in ("one", "two"):
        assert bench.main(["export-data", "tiny", str(tmp_path / name), *URL]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "one" / "tiny-needle"
    data = (folder / "questions.jsonl").read_bytes()
    card = json.loads((folder / "croissant.json").read_text())
    assert card["distribution"][0]["sha256"] == hashlib.sha256(data).hexdigest() and card["url"] == URL[1]
    assert card["distribution"][0]["sha256"] in said and card["version"] == "1.0.0"
    assert card["license"].endswith("mit") and len(data.splitlines()) == 5
    again = tmp_path / "two" / "tiny-needle"
    assert [(again / file).read_bytes() for file in ("questions.jsonl", "croissant.json")] == [
        data, (folder / "croissant.json").read_bytes(),
    ]  # fmt: skip


def test_what_is_not_this_projects_needs_a_licence(results, tmp_path, capsys):
    own = tmp_path / "mine.jsonl"
    texts = (f"Document {number}. " + "The quick brown fox jumps over the lazy dog. " * 40 for number in range(60))
    own.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (results / "tiny" / "plan.toml").write_text(tiny_plan() + f'corpus = "{own}"\n')
    assert bench.main(["export-data", "tiny", str(tmp_path / "out"), *URL]) == 2
    assert "add --license URL" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert bench.main(["export-data", "tiny", str(tmp_path / "out"), *URL, "--license", "https://example.org/l"]) == 0
    assert (
        json.loads(next((tmp_path / "out").rglob("croissant.json")).read_text())["license"] == "https://example.org/l"
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["out"], "required: --url"),
        (["tiny", *URL], "is not empty"),
        (["out", *URL, "--published", "today"], "a day such as 2026-01-31, not 'today'"),
    ],
)
def test_what_is_refused(results, capsys, monkeypatch, more, says):
    monkeypatch.chdir(results)
    assert bench.main(["export-data", "tiny", *more]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (results / "out").exists()
