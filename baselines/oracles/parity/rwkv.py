"""The package rwkv, by RWKV's authors, as an oracle for RWKV-6: one block with gradients, and a whole model in pieces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.second_generation.rwkv6 import RWKV6

PACKAGE = "rwkv"
WIDTH, HEADS, TIME, VOCAB = 64, 2, 150, 40
MAPS = ("key", "value", "receptance", "gate", "output")
MIXED = ("x", "w", "k", "v", "r", "g")


@contextmanager
def package() -> Iterator[ModuleType]:
    """rwkv.model, without its compiler and its CUDA kernels, inside the block. Raises ImportError if the package is absent."""
    with patch.dict(os.environ, {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": "0"}):
        yield import_module("rwkv.model")  # it asks the environment while it runs, too


def as_theirs(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of one of our blocks under their names and in the shapes of their checkpoints."""
    renamed = {"norm_embedding": "ln0", "norm_time": "ln1", "norm_channels": "ln2", "norm": "att.ln_x"}
    renamed |= {"query": "att.receptance", "gate": "att.gate", "out": "att.output"}
    renamed |= {name: f"att.{name}" for name in ("key", "value")}
    renamed |= {"channels.key": "ffn.key", "channels.value": "ffn.value", "channels.gate": "ffn.receptance"}
    found = {}
    for name, tensor in ours.items():
        module, _, kind = name.rpartition(".")
        if module in renamed:
            found[f"{renamed[module]}.{kind}"] = tensor
    shares = [ours["mix_first"], *ours["mix"]]
    found |= {f"att.time_maa_{name}": share for name, share in zip(MIXED, shares, strict=True)}
    found |= {f"ffn.time_maa_{name}": share for name, share in zip("kr", ours["channels.mix"], strict=True)}
    found |= {"att.time_maa_w1": ours["mix_down"], "att.time_maa_w2": ours["mix_up"]}
    found |= {"att.time_decay_w1": ours["decay_down"], "att.time_decay_w2": ours["decay_up"]}
    return found | {"att.time_decay": ours["decay"].view(HEADS, -1), "att.time_faaaa": ours["bonus"]}


def block() -> Errors:
    """One block from a state, with the gradients of everything, against `att_seq_v6_0` and `ffn_seq_v6`."""
    layer, draw = RWKV6(WIDTH, HEADS, index=1, depth=2), Draw()
    inputs = leaves(layer) | {
        "x": draw.normal(1, TIME, WIDTH),
        "matrix": draw.normal(1, HEADS, WIDTH // HEADS, WIDTH // HEADS),
    }
    inputs |= {name: draw.normal(1, WIDTH) for name in ("token", "between")}

    def ours(x: Tensor, token: Tensor, matrix: Tensor, between: Tensor, **given: Tensor):
        y, state = functional_call(layer, given, (x, (token, matrix, between)), strict=True)
        return x + y, *state

    def theirs(x: Tensor, token: Tensor, matrix: Tensor, between: Tensor, **given: Tensor):
        w, unused = as_theirs(given), [None] * 20
        mixes = [w[f"att.time_maa_{name}"] for name in MIXED]
        low = [w[f"att.time_{name}"] for name in ("maa_w1", "maa_w2", "decay_w1", "decay_w2")]
        decay, bonus = (w[f"att.time_{name}"].reshape(HEADS, -1, 1) for name in ("decay", "faaaa"))
        norms = [w[f"{norm}.{kind}"] for norm in ("ln1", "att.ln_x") for kind in ("weight", "bias")]
        maps = [w[f"att.{name}.weight"].T for name in MAPS]
        y, token, matrix = cls.att_seq_v6_0(
            None, x[0], token[0], matrix[0], *norms, *mixes, *low, decay, bonus, *maps, *unused
        )
        norms = [w["ln2.weight"], w["ln2.bias"]]
        maps = [w[f"ffn.{name}.weight"].T for name in ("key", "value", "receptance")]
        shares = [w["ffn.time_maa_k"], w["ffn.time_maa_r"]]
        y, between = cls.ffn_seq_v6(None, y, between[0], *norms, *shares, *maps, *unused[:12])
        return tuple(one[None] for one in (y, token, matrix, between))

    with package() as module:
        cls = module.RWKV
        return compare(ours, theirs, inputs)


def whole() -> Errors:
    """A checkpoint of two blocks, run with the strategy "cpu fp32" in pieces, one of them a single token; without gradients."""
    draw = Draw(3)
    blocks = [RWKV6(WIDTH, HEADS, index=index, depth=2) for index in range(2)]
    weights = [leaves(one, seed=index) for index, one in enumerate(blocks)]
    embedding, head = draw.normal(VOCAB, WIDTH), draw.normal(VOCAB, WIDTH)
    norm = {"ln_out.weight": 1 + 0.1 * draw.normal(WIDTH), "ln_out.bias": 0.1 * draw.normal(WIDTH)}
    checkpoint = {"emb.weight": embedding, "head.weight": head, **norm}
    for index, given in enumerate(weights):
        checkpoint |= {f"blocks.{index}.{name}": x.clone() for name, x in as_theirs(given).items()}
    tokens = torch.randint(VOCAB, (TIME,), generator=draw.generator)
    x = embedding[tokens][None]
    with torch.no_grad():
        for one, given in zip(blocks, weights, strict=True):
            x = x + functional_call(one, given, (x,), strict=True)[0]
        ours = F.layer_norm(x, (WIDTH,), *norm.values())[0] @ head.T
    right = _their_logits(checkpoint, tokens)
    return Errors(((ours - right).abs().max() / right.abs().max()).item(), None)


def _their_logits(checkpoint: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """[t, vocab], the text read in three pieces."""
    found, state = [], None
    with package() as module, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pth"
        torch.save(checkpoint, file)
        model = module.RWKV(str(file), "cpu fp32", verbose=False)
        for piece in tokens.split([70, 1, TIME - 71]):
            logits, state = model.forward(piece.tolist(), state, full_output=True)
            found.append(logits.view(-1, VOCAB))
    return torch.cat(found)


COMPARISONS = (
    Comparison("rwkv6", PACKAGE, "block and its state: att_seq_v6_0, ffn_seq_v6", block),
    Comparison("rwkv6", PACKAGE, "two blocks in pieces: RWKV, strategy cpu fp32", whole),
)
