"""What a forward pass keeps is told alike each time, and as training keeps it, without what training takes long to begin."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import baselines  # noqa: F401  fills the registry
from models.ops.neural_memory import activation_checkpointing
from models.shell.model import Size
from runner.preflight.kept_memory import kept_per_token
from schema.places import ROOT

SIZE = Size(2, 32, 2, 2)
SETTINGS = json.dumps({"store_every": 32})


@pytest.mark.parametrize("name", ["titans-lmm", "titans-mac"])
def test_states_stored_now_and_then_keep_what_they_keep_in_training(name, monkeypatch):
    found = kept_per_token.__wrapped__(name, SIZE, SETTINGS)
    monkeypatch.setattr(activation_checkpointing, "is_probing", lambda: False)
    assert found == kept_per_token.__wrapped__(name, SIZE, SETTINGS)


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
    assert (
        found.passes == kept_per_token.__wrapped__("transformer-window", SIZE, '{"window": 64}', longest=texts).passes
    )
    assert found.passes < 0.9 * kept_per_token.__wrapped__("transformer-window", SIZE, wide).passes
