"""What a forward pass keeps is told alike each time, and as training keeps it, without what training takes long to begin."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import baselines  # noqa: F401  fills the registry
from models import registry
from models.matching.solver import solve
from models.ops.dense import training
from models.shell.model import Size, assemble, deep_enough
from runner.preflight import kept_memory
from runner.preflight.kept_memory import kept_per_token
from schema.places import ROOT

SIZE = Size(2, 32, 2, 2)
SETTINGS = json.dumps({"store_every": 32})


@pytest.mark.parametrize("name", ["s4", "armt"])
def test_twice_the_same(name):
    assert len({kept_per_token.__wrapped__(name, SIZE, "{}") for _ in range(3)}) == 1


def test_no_compiler_of_torch_is_imported():
    code = (
        "import sys, baselines\nfrom models.shell.model import Size\n"
        "from runner.preflight.kept_memory import kept_per_token\n"
        f"kept_per_token('titans-lmm', Size(2, 32, 2, 2), {SETTINGS!r})\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_window_that_no_text_fills_is_not_counted_as_full():
    wide, texts = json.dumps({"window": 512}), 64
    found = kept_per_token.__wrapped__("transformer-window", SIZE, wide, longest=texts)
    filled = kept_per_token.__wrapped__("transformer-window", SIZE, '{"window": 64}', longest=texts)
    assert found.passes == filled.passes
    assert found.of(texts) < 0.9 * kept_per_token.__wrapped__("transformer-window", SIZE, wide).of(texts)


@pytest.mark.parametrize("name", ["titans-mag", "titans-mal", "transformer-window"])
@pytest.mark.parametrize("texts", [128, 192, 320])
def test_a_wide_window_is_run_narrower_and_its_masks_grow_with_its_square(name, texts, monkeypatch):
    settings = json.dumps({"window": 128})
    monkeypatch.setattr(kept_memory, "SHORTEST", 32)
    exact = kept_per_token.__wrapped__(name, SIZE, settings, longest=texts)
    monkeypatch.setattr(kept_memory, "NARROW", 64)
    found = kept_per_token.__wrapped__(name, SIZE, settings, longest=texts)
    assert found.passes == pytest.approx(exact.passes, rel=0.1)  # a memory's last chunk may be filled up
    assert found.masks == pytest.approx(exact.masks, rel=0.1)


@pytest.mark.parametrize("window", [32, 512])
def test_masks_are_counted_once_however_many_rows_and_heads_share_them(window, monkeypatch):
    monkeypatch.setattr(training, "_is_covered", lambda *_: False)  # compiled norms and gates keep less than is counted
    size, settings, rows, length = Size(2, 512, 2, 16), {"window": window, "provider": "sdpa"}, 5, 2 * window
    found = kept_per_token.__wrapped__("transformer-window", size, json.dumps(settings), longest=length)
    assert found.of(rows * length) == pytest.approx(_kept_of(size, settings, rows, length), rel=0.05)


def _kept_of(size: Size, settings: dict, rows: int, length: int) -> int:
    """Bytes that the model itself keeps of so many rows."""
    entry, kept = registry.entry("transformer-window"), {}
    model = assemble(entry, size, solve(entry, size, settings), settings)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held):
        model(torch.zeros(rows, length, dtype=torch.long))
    return sum(storage.nbytes() for one, storage in kept.items() if one not in weights)


def test_states_stored_now_and_then_and_a_wide_window_are_counted_together(monkeypatch):
    settings = json.dumps({"window": 128, "store_every": 128})
    exact = kept_per_token.__wrapped__("titans-mag", SIZE, settings, longest=512)
    monkeypatch.setattr(kept_memory, "NARROW", 32)
    found = kept_per_token.__wrapped__("titans-mag", SIZE, settings, longest=512)
    assert found.of(5120) == pytest.approx(exact.of(5120), rel=0.1)


def test_a_window_of_the_model_itself_is_counted_as_one_that_is_asked_for():
    found, asked = (kept_per_token.__wrapped__("transformer-window", SIZE, own) for own in ("{}", '{"window": 64}'))
    assert found == asked and found.masks


@pytest.mark.parametrize("name", registry.names())
def test_every_model_is_counted(name):
    kept = kept_per_token.__wrapped__(name, deep_enough(registry.entry(name), Size(40, 32, 1, 2)), "{}")
    assert kept.passes > 0 and kept.state >= 0 and kept.masks >= 0
