"""The RWKV authors' package `rwkv` as an oracle for the whole of RWKV-7: its inference on a CPU, which has no gradient."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import tempfile
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor
from torch.func import functional_call

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, leaves
from baselines.third_generation.rwkv7 import RWKV7
from models.shell.model import Size

PACKAGE = "rwkv"
SIZE, FEED, TIME = Size(vocab=16, width=64, depth=2, heads=2), 96, 70
CALLS = {"RWKV_V7_ON": "1", "RWKV_CUDA_ON": "0", "RWKV_JIT_ON": "0"}  # read when its file is imported
MIXED = "rwkvag"


def _package() -> ModuleType:
    """A fresh copy of its one file, as version 7 wants it. Raises PackageNotFoundError if it is absent."""
    path = importlib.metadata.distribution(PACKAGE).locate_file("rwkv/model.py")
    spec = importlib.util.spec_from_file_location("rwkv_version_7", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _named(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of its checkpoints."""
    named = {"emb.weight": ours["embedding.weight"], "head.weight": ours["embedding.weight"]}
    norms = {"norm": "ln_out", "blocks.0.enter": "blocks.0.ln0"}
    for index in range(SIZE.depth):
        own, att, ffn = f"blocks.{index}.", f"blocks.{index}.att.", f"blocks.{index}.ffn."
        norms |= {f"{own}mixer_norm": f"{own}ln1", f"{own}channel_norm": f"{own}ln2", f"{own}mixer.norm": f"{att}ln_x"}
        named |= {f"{att}x_{name}": ours[f"{own}mixer.mix"][row] for row, name in enumerate(MIXED)}
        named |= {f"{att}{name}": ours[f"{own}mixer.{name}"] for name in ("k_k", "k_a", "r_k")}
        for name, theirs in (("receptance",) * 2, ("key",) * 2, ("value",) * 2, ("out", "output")):
            named[f"{att}{theirs}.weight"] = ours[f"{own}mixer.{name}.weight"]
        for name, letter in (("decay", "w"), ("rate", "a"), ("keep", "v"), ("gate", "g")):
            for part, number in (("bias", 0), ("down", 1), ("up", 2)):
                if (key := f"{own}mixer.{name}.{part}") in ours:
                    named[f"{att}{letter}{number}"] = ours[key]
        named[f"{ffn}x_k"] = ours[f"{own}channels.mix"][0]
        named |= {f"{ffn}{name}.weight": ours[f"{own}channels.{name}.weight"] for name in ("key", "value")}
    for name, theirs in norms.items():
        named |= {f"{theirs}.{part}": ours[f"{name}.{part}"] for part in ("weight", "bias")}
    return named


@torch.no_grad()
def model() -> Errors:
    """Logits of a text and, behind it, those of a token from the carried state."""
    ours = RWKV7(SIZE, FEED)
    weights = leaves(ours)
    tokens = torch.randint(SIZE.vocab, (1, TIME), generator=Draw().generator)
    with (
        patch.dict(os.environ, CALLS),
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        torch.save(_named(weights), Path(folder) / "weights.pth")
        theirs = _package().RWKV_x070(str(Path(folder) / "weights"), "cpu fp32")
        whole, state = theirs.forward(tokens[0, :-1].tolist(), None, full_output=True)
        last, _ = theirs.forward([tokens[0, -1].item()], state)
    right = torch.cat([whole, last[None]])
    begin, state = functional_call(ours, weights, (tokens[:, :-1],))
    end, _ = functional_call(ours, weights, (tokens[:, -1:], state))
    got = torch.cat([begin, end], 1)[0]
    return Errors(((got - right).abs().max() / right.abs().max()).item(), None)


COMPARISONS = (Comparison("rwkv7", PACKAGE, "whole model and a token from its state: RWKV_x070, cpu fp32", model),)
