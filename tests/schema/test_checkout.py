"""Where files that lie beside the code are not there, as in an installed wheel, one sentence says so at once."""

from __future__ import annotations

from pathlib import Path

import bench
from schema import checkout


def test_a_checkout_has_all(capsys):
    assert checkout.absent(Path(bench.__file__).parent) is None


def test_an_installed_wheel_is_told_before_anything_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert bench.main(["no such command"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench.py: results/report/pages/page.html, tasks/data is not beside the code in {tmp_path}")
    assert line.endswith("clone it and run pip install -e . there.")
