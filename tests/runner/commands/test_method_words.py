"""What commands say of how a plan decides: looks, controls, margins, and which difficulty of a pilot passes."""

from __future__ import annotations

import bench
from models import registry
from results.plans import reader
from results.rows import store
from runner.cell_key import identify
from tests.support import synthetic
from tests.support.tiny_plan import tiny_plan

CLAIMS = """
[[claims]]
text = "DeltaNet beats attention"
source = "nobody"
better = "deltanet"
worse = "transformer"
control = "transformer"
margin = 0.05
task = "needle"
metric = "compact_exact_match"
[[claims]]
text = "Attention beats DeltaNet"
source = "nobody"
better = "transformer"
worse = "deltanet"
task = "needle"
metric = "compact_exact_match"
"""


def test_a_dry_run_and_the_list_of_plans_say_what_claims_lack(results, capsys):
    looks = "learning_rate = 1e-3\nlooks = { most_seeds = 6 }"
    (results / "tiny" / "plan.toml").write_text(tiny_plan(rates=looks) + CLAIMS)
    (results / "broken").mkdir()
    (results / "broken" / "plan.toml").write_text("title = 3")
    assert bench.main(["run", "tiny", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 claims has no control: Attention beats DeltaNet" in said
    assert "1 of 2 claims name no margin" in said and "looked at with 2, 4, 6 seeds" in said
    assert bench.main(["list", "--plans"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2, 4, 6" in said and "not readable" in said


def test_a_pilots_report_says_which_difficulty_passes(results, capsys):
    plan = results / "tiny" / "plan.toml"
    plan.write_text(tiny_plan(rates="learning_rate = 1e-3\nis_pilot = true"))
    rows = []
    for cell in reader.cells(reader.load(plan), registry.names()):
        if cell.kind == "training":
            told = {"comparison": "tiny", "cell": identify(cell).key}
            measured = [(None, "compact_exact_match", 0.5, 10, {"length": 64})]
            rows += [row | told for row in synthetic.rows_of(cell, measured)]
    store.append(results / "tiny" / "rows.jsonl", rows)
    assert bench.main(["report", "tiny"]) == 0
    assert "needle, compact exact match: passes (best: deltanet 50.0, transformer 50.0)" in capsys.readouterr().out
    page = (results / "tiny" / "report" / "report.md").read_text()
    assert "## Which difficulty passes" in page


def test_seeds_of_the_pilot_are_refused_on_the_command_line_too(results, capsys):
    (results / "before").mkdir()
    pilot = tiny_plan(seeds=[100], rates="learning_rate = 1e-3\nis_pilot = true")
    (results / "before" / "plan.toml").write_text(pilot)
    (results / "tiny" / "plan.toml").write_text(tiny_plan(rates="learning_rate = 1e-3\npilot = 'before'"))
    assert bench.main(["run", "tiny", "--dry-run", "--seeds", "7"]) == 0
    assert bench.main(["run", "tiny", "--dry-run", "--seeds", "7,100"]) == 2
    assert "the pilot 'before' uses seeds of the comparison (100)" in capsys.readouterr().err
