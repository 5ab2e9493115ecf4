"""Printed numbers: complete, well-formed, and read with the right task and length."""

from __future__ import annotations

import tomllib

import pytest

from results.rows import published


def test_every_table_loads_with_the_counts_that_its_readme_states():
    everything = published.load()
    assert len(published.names()) == 40 and len(everything) == 3546
    counts = everything.confidence.value_counts()
    assert counts.to_dict() == {"exact-from-table": 2580, "quoted-by-secondary": 668, "digitised-from-figure": 298}
    assert list(published.load("titans_v1_table2_sniah").columns) == [*published.COLUMNS, "number", "file"]
    assert set(tomllib.loads((published.FOLDER / published.PROTOCOLS).read_text())) <= set(published.names())
    assert published.protocol("rmt_readme") == "not stated"
    assert sum(path.stat().st_size for path in published.FOLDER.iterdir()) < 1_200_000


def test_single_needles_have_rulers_names_and_lengths_in_tokens():
    found = published.sniah()

    def value(paper, model, task, length):
        rows = found[found.paper.str.startswith(paper) & (found.model == model)]
        return rows[(rows.task == task) & (rows.length == length)].value.item()

    assert value("Titans (arXiv", "Titans (MAC)", "s-niah-3", 16384) == 95.2
    assert value("Titans (arXiv", "TTT", "s-niah-2", 16384) == 4.4
    assert value("Gated DeltaNet (", "Mamba2", "s-niah-3", 4096) == 4.6
    assert value("Gated DeltaNet (", "DeltaNet", "s-niah-1", 1024) == 97.4
    assert set(found.task) == {"s-niah-1", "s-niah-2", "s-niah-3"} and found.value.between(0, 100).all()
    assert not found.model.str.contains("MK").any() and len(found) == 248


def test_babilong_has_lengths_and_leaves_averages_over_lengths_out():
    found = published.babilong()
    few_shot = found[(found.model == "Titans (MAC)") & (found.length == 1024)]
    assert few_shot.value.tolist() == [76.0]
    assert set(found.task) == {"qa1", "qa2", "qa3", "qa4", "qa5", "qa1-qa5 average"}
    assert {0, 1024, 10 * 1024**2} <= set(found.length)
    assert set(found.confidence) <= set(published.CONFIDENCES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("confidence\n", "sure\n", "must have the columns"),
        ("exact-from-table", "from-memory", "line 2: confidence 'from-memory' is unknown"),
        ("98.4", "high", "line 2: accuracy % must be a number"),
        ("98.4", "198.4", "line 2: a percentage must lie between 0 and 100"),
        ("Table 2", "", "line 2: table is empty"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path, monkeypatch, old, new, message):
    text = (published.FOLDER / "titans_v1_table2_sniah.csv").read_text()
    assert old in text
    (tmp_path / "bad.csv").write_text(text.replace(old, new, 1))
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    with pytest.raises(published.PublishedError, match=message):
        published.load("bad")
    with pytest.raises(published.PublishedError, match="no published table 'none'; known: bad"):
        published.load("none")


def test_length_reads_the_printed_context():
    assert [published.length(s) for s in ("context 4K, zero-shot", "context 1M", "context 0K", "avg row")] == [
        4096, 1024**2, 0, None,
    ]  # fmt: skip
