"""`check --device`: every call that models make of operations, held to the law; a part's fault leaves the others' rows."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import bench
from models.ops.providers import NotCovered, operations
from models.ops.scan import scan
from runner.preflight.device import calls, hour, laws, summary, turns, worker


@pytest.fixture(scope="module")
def made():
    return calls.of(["retnet", "rmt", "transformer"], "float32")


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=10_000)


def one(made, operation, decodes=False):
    return next(call for call in made if call.operation == operation and call.decodes == decodes)


def test_calls_are_those_of_training_and_of_decoding_and_equal_ones_are_one(made):
    assert {(call.operation, call.decodes) for call in made} == {
        ("scan", False), ("scan", True), ("softmax attention", False), ("softmax attention", True)
    }  # fmt: skip
    assert one(made, "scan").models == ("retnet",) and "state None" in one(made, "scan").what
    assert one(made, "scan", True).inputs[0].shape[1] == 1 and "state 2x2x" in one(made, "scan", True).what
    assert len({(call.operation, call.decodes, call.what) for call in made}) == len(made)
    rules = [call for call in calls.of(["gated-deltanet", "kda"], "bfloat16") if call.operation == "short convolution"]
    assert {call.models for call in rules} == {("gated-deltanet", "kda")}


def test_under_autocast_inputs_have_the_digits_that_training_gives_them():
    scans = [call for call in calls.of(["gated-deltanet"], "bfloat16") if call.operation == "scan"]
    assert {call.inputs[0].dtype for call in scans} == {torch.bfloat16}
    assert {call.named["log_forget"].dtype for call in scans} == {torch.float32}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["atlas", "deltaproduct", "gru", "mamba", "routing", "s4", "titans-mag", "ttt-mlp"])
def test_every_form_that_runs_here_holds(name):
    for call in calls.of([name], "float32"):
        expected = laws.law(call, "cpu")
        for provider in operations()[call.operation].forms:
            found = laws.held(call, provider, expected, "cpu")
            assert found["status"] in ("holds", "not covered", "absent"), (call.operation, provider, found)
            assert call.decodes or found["status"] != "holds" or found["backward"] is not None


def test_a_form_that_is_wrong_is_seen_in_its_values_and_in_its_gradients_alone(made, monkeypatch):
    call = one(made, "scan")
    expected = laws.law(call, "cpu")
    whole = scan.form("chunked")

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    def larger(*inputs, **named):
        y, state = whole(*inputs, **named)
        return 1.1 * y, state

    def unheard(*inputs, **named):
        y, state = whole(*inputs, **named)
        return y, state * math.nan  # behind a right output

    def steeper(q, *inputs, **named):
        return whole(Doubled.apply(q), *inputs, **named)

    def raising(*inputs, **named):
        raise ZeroDivisionError("no kernel\nfor this")

    def refusing(*inputs, **named):
        raise NotCovered("not this row")

    for form, status, reason in (
        (larger, "is off", "forward 1"),
        (unheard, "is off", "forward inf, bound"), (steeper, "is off", "backward 1.0e+00, bound 0.001"),
        (raising, "failed", "ZeroDivisionError: no kernel"), (refusing, "not covered", "not this row"),
    ):  # fmt: skip
        monkeypatch.setattr(scan, "_imported", lambda provider, form=form: form)
        found = laws.held(call, "chunked", expected, "cpu")
        assert found["status"] == status and found["reason"].startswith(reason), found


def test_every_provider_has_a_row_and_absent_ones_say_what_to_install():
    found = list(turns.rows(["retnet"], "cpu", time.monotonic() + 300, lambda text: None))
    assert {row["provider"] for row in found} >= {"chunked", "fla"}
    chunked = [row for row in found if row["provider"] == "chunked"]
    assert {row["status"] for row in chunked} == {"holds"} and {row["dtype"] for row in chunked} == {
        "float32",
        "bfloat16",
    }
    assert all(row["versions"]["torch"] and row["device"] == "cpu" and row["seconds"] > 0 for row in chunked)
    assert any("pip install" in reason for reason in summary.absent(found)) or {
        row["status"] for row in found if row["provider"] == "fla"
    } <= {"not covered", "holds", "failed"}
    page = summary.markdown(found)
    assert "| scan | chunked | bfloat16 | 2 | 2 | 0 | 0 | 0 |" in page and not summary.wrong(found)


def test_a_kernel_that_ends_the_process_is_one_failed_row(made, tmp_path, monkeypatch):
    """The first process dies over its second call; the next goes on behind it."""
    mine = {f"{place:04d}": call for place, call in enumerate(made)}
    script = [
        (["0000"], "0001", -11, "CUDA error: an illegal memory access"), (sorted(mine)[2:], None, 0, ""),
    ]  # fmt: skip

    def run(command, **named):
        finished, begun, status, last = script.pop(0)
        with worker.done_file(tmp_path, "triton").open("a") as out:
            for key in [*finished, *([begun] if begun else [])]:
                print(json.dumps({"call": key}), file=out)
                if key != begun:
                    print(json.dumps({"call": key, "found": {"status": "holds", "reason": ""}}), file=out)
        return SimpleNamespace(returncode=status, stderr=f"Traceback\n{last}\n")

    monkeypatch.setattr(turns.providers, "check_provider", lambda name: None)
    monkeypatch.setattr(turns, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    found = list(turns._turn(tmp_path, "triton", mine, "cpu", time.monotonic() + 60))
    assert [row["status"] for row in found] == ["holds", "failed", *["holds"] * (len(mine) - 2)]
    assert found[1]["reason"] == "the process ended with -11: CUDA error: an illegal memory access"
    assert len(summary.wrong(found)) == 1 and "CUDA error" in summary.wrong(found)[0]


def test_what_there_was_no_time_for_is_said(made, tmp_path, monkeypatch):
    monkeypatch.setattr(turns.providers, "check_provider", lambda name: None)
    found = list(turns._turn(tmp_path, "chunked", {"0000": made[0]}, "cpu", time.monotonic() - 1))
    assert [(row["status"], row["reason"]) for row in found] == [("not reached", "the time was over")]


def test_a_part_that_breaks_leaves_the_others(console, monkeypatch):
    ran = []
    monkeypatch.setattr(hour, "_laws", lambda *given: 1 / 0)
    monkeypatch.setattr(hour, "_timed", lambda part, *given: ran.append(part.tasks) or False)
    assert hour.run(["retnet"], "cpu", 1.0, console) == 1
    assert ran == ["titans-kernels", "throughput"] and "ZeroDivisionError" in console.file.getvalue()
    monkeypatch.setattr(hour, "_laws", lambda *given: False)
    assert hour.run(["retnet"], "cpu", 1.0, console) == 0


@pytest.mark.parametrize("here", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_part_whose_time_is_over_is_stopped_as_ctrl_c_does(console, monkeypatch, here):
    before = signal.signal(signal.SIGINT, here)
    try:
        stopped_within_half_a_minute(console, monkeypatch)
    finally:
        signal.signal(signal.SIGINT, before)


def stopped_within_half_a_minute(console, monkeypatch):
    program = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('kept', flush=True)"
    begun = time.monotonic()
    stand_in = SimpleNamespace(
        Popen=lambda command, **named: subprocess.Popen([sys.executable, "-c", program], **named),
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    monkeypatch.setattr(hour, "subprocess", stand_in)
    assert hour._timed(hour.PARTS[2], ["retnet"], "cpu", time.monotonic() + 2, console) is False
    assert time.monotonic() - begun < 30
    assert "run device --tasks throughput --device cpu --no-checkpoints --models retnet" in console.file.getvalue()


def test_the_command_says_what_it_would_do_and_refuses_what_it_cannot(capsys):
    assert bench.main(["check", "--device", "cuda", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert all(part.what in told for part in hour.PARTS) and "laws.jsonl" in told
    assert sum(part.share for part in hour.PARTS) == pytest.approx(1)
    for words, reason in (
        (["--dry-run"], "go with --device"), (["--minutes", "3"], "go with --device"),
        (["--device", "cpu", "--parity"], "at sizes of its own"), (["--device", "cpu", "--minutes", "0"], "must be positive"),
        (["--device", "cpu", "--minutes", "nan"], "must be positive"), (["retnett", "--device", "cpu"], "Did you mean 'retnet'"),
    ):  # fmt: skip
        assert bench.main(["check", *words]) == 2
        assert reason in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert bench.main(["check", "--device", "cuda"]) == 2
        assert "sees no CUDA device" in capsys.readouterr().err


def test_the_table_keeps_every_word_in_80_columns():
    facts = {"decodes": False, "models": ["a"], "call": "x", "reason": "", "forward": 1e-7, "backward": 2e-7}
    kinds = ["holds"] * 107 + ["not covered"] * 10 + ["not reached"] * 3
    rows = [
        {"operation": "window and kernel attention", "provider": "causal-conv1d", "dtype": "bfloat16", "status": kind}
        | facts
        for kind in kinds
    ]
    narrow = Console(file=io.StringIO(), width=80)
    summary.show(rows, narrow)
    told = narrow.file.getvalue()
    assert "\u2026" not in told and max(map(len, told.splitlines())) <= 80
    assert all(word in told for word in ("causal-conv1d", "bfloat16", "107 of 120", "1.0e-07", "2.0e-07"))
    assert "10 not" in told and "3 not" in told


def test_an_added_memory_decodes_from_the_state_of_its_own_reading():
    """In training such a model is its base, whose state its reading in evaluation does not go on from."""
    assert {call.decodes for call in calls.of(["knn-lm"], "float32")} == {True, False}
    assert calls.of(["camelot", "memoryllm"], "float32")


def test_a_model_that_breaks_is_one_failed_row(monkeypatch):
    made = calls._made

    def breaking(name, dtype):
        if name == "retnet":
            raise RuntimeError("no such kernel")
        return made(name, dtype)

    monkeypatch.setattr(calls, "_made", breaking)
    found = list(turns.rows(["retnet"], "cpu", time.monotonic() + 60, lambda text: None))
    assert [(row["models"], row["status"], row["reason"]) for row in found] == [
        (["retnet"], "failed", "RuntimeError: no such kernel")
    ] * 2
