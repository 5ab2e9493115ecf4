"""`bench.py artifact`: printed or written, refused in one sentence."""

from __future__ import annotations

import bench
from results.rows import store
from tests.support.synthetic import cell, rows_of, variant


def test_it_is_printed_or_written_and_refused_in_one_sentence(results, tmp_path, capsys):
    assert bench.main(["artifact", "tiny"]) == 2
    assert "There are no rows in" in (error := capsys.readouterr().err) and error.count("\n") == 1
    measured = rows_of(variant(cell("retnet", "needle"), comparison="tiny"), [(None, "accuracy", 0.5, 9, {})])
    store.append(results / "tiny" / "rows.jsonl", measured)
    assert bench.main(["artifact", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Artifact appendix: Tiny\n") and "python bench.py run tiny`" in printed
    out = tmp_path / "appendix.md"
    assert bench.main(["artifact", "tiny", "--output", str(out)]) == 0 and out.read_text() == printed
    capsys.readouterr()
    assert bench.main(["artifact", "tiny", "--output", str(tmp_path / "none" / "appendix.md")]) == 2
    assert "a folder that is there" in capsys.readouterr().err and not (tmp_path / "none").exists()
