"""Other people's code as candidates in speed comparisons: each a layer x [b, t, width] -> y [b, t, width].

A scan is put into a layer of ours, so that both sides share projections, convolutions, norms and gates; whole layers come as
their packages make them. Nothing is imported before it is built; an absent package is `Absent`, with what to install.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from unittest.mock import patch

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.first_generation.retnet import RetNet
from baselines.oracles.adapters import associative_scan, one_token, textbook, whole_layers
from baselines.oracles.adapters.operation_alone import Given, OtherForm, Token, place
from baselines.oracles.parity import comparison, hugging_face
from baselines.oracles.parity.fla.naive import naive, turned
from baselines.second_generation.mamba import Mamba
from baselines.second_generation.mamba2 import Mamba2
from baselines.second_generation.mlstm import MLSTM
from baselines.third_generation.deltanet import DeltaNet
from baselines.third_generation.gated_deltanet import GatedDeltaNet
from models.ops import vllm_library
from models.ops.scan import vllm_cpu
from models.titans.lmm import TitansLMM
from models.titans.memory_settings import MemorySettings
from schema.settings_check import check_settings

CHUNK = 64
Layer = Literal["titans-lmm", "gated-deltanet"]  # that a gated delta rule is put into


class Absent(ImportError):
    """An external implementation whose package is not installed here; the message says what to install."""


@dataclass(frozen=True)
class Opponent:
    """An external implementation: `make(width, heads, **settings)` builds its layer, from the distribution `package`."""

    package: str
    what: str
    make: Callable[..., nn.Module]
    shares_layer: bool = False  # a scan in a layer of ours, whose matrix products can be counted
    trains: bool = True  # False where it has no gradient
    decodes: bool = False  # whether it has a form of one token
    install: str = ""  # how, where it is not `pip install PACKAGE`

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        return dict(list(inspect.signature(self.make, eval_str=True).parameters.items())[2:])


class Substituted(nn.Module):
    """A layer of ours in which another form computes what our kernels would; `token` makes its form of one token, if any."""

    def __init__(
        self,
        layer: nn.Module,
        form: Callable[..., tuple[Tensor, Any]],
        token: Callable[[Given], Token] | None = None,
    ):
        super().__init__()
        self.layer, self.other, self.token = layer, OtherForm(form), token
        self.place = place(layer)

    def forward(self, x: Tensor) -> Tensor:
        with patch.object(*self.place, self.other):
            return self.layer(x)[0]


def check(name: str, settings: dict[str, Any]) -> None:
    """Raise ValueError, in one sentence, for an implementation or a setting that does not exist, or a setting's wrong type."""
    if name not in OPPONENTS:
        close = difflib.get_close_matches(name, OPPONENTS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(OPPONENTS)}."
        raise ValueError(f"There is no external implementation '{name}'; {hint}")
    check_settings("Opponent", name, settings, OPPONENTS[name].settings)


def build(name: str, width: int, heads: int, **settings: Any) -> nn.Module:
    """The layer of an external implementation. Raises ValueError as `check` does, `Absent` without its package."""
    check(name, settings)
    opponent = OPPONENTS[name]
    if comparison.version(opponent.package) is None:
        install = opponent.install or f"pip install {opponent.package}"
        raise Absent(f"{opponent.package} is not installed; {install}")
    return opponent.make(width, heads, **settings)


def _sdpa(width: int, heads: int) -> nn.Module:
    def form(q: Tensor, k: Tensor, v: Tensor, **unused: Any) -> tuple[Tensor, None]:
        return turned(F.scaled_dot_product_attention(*turned(q, k, v), is_causal=True))[0], None

    return Substituted(TitansLMM(width, heads, memory=MemorySettings(memory_depth=1)), form)


def _gated_delta_rule(
    rule: Callable, width: int, heads: int, layer: str, inner: int | None = None, of_one: Callable | None = None
) -> nn.Module:
    """A gated delta rule with the oracles' signature in the layer of Titans' memory or Gated DeltaNet; `of_one` for a token."""

    def in_memory(q: Tensor, k: Tensor, v: Tensor, *, rate: Tensor, keep: Tensor, **unused: Any):
        return rule(q, k, v, g=keep.log(), beta=rate)

    def in_scan(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, rate: Tensor, **unused: Any):
        return rule(q * q.shape[-1] ** 0.5, k, v, g=log_forget, beta=rate)  # the rule scales its queries itself

    layers = {"titans-lmm": (lambda: TitansLMM(width, heads, memory=MemorySettings(memory_depth=1)), in_memory)}
    layers["gated-deltanet"] = (lambda: GatedDeltaNet(width, heads, inner=inner), in_scan)
    if layer not in layers:
        raise ValueError(f"There is no layer '{layer}' for a gated delta rule; choose one of {', '.join(layers)}.")
    make, form = layers[layer]
    return Substituted(make(), form, of_one and one_token.gated_delta_rule(of_one))


def _transformers_gated_delta(width: int, heads: int, layer: Layer = "titans-lmm", inner: int | None = None):
    """`inner` as Gated DeltaNet's: the width of its keys over all heads."""
    module = hugging_face.modelling("qwen3_next")
    rules = [inspect.unwrap(getattr(module, f"torch_{form}_gated_delta_rule")) for form in ("chunk", "recurrent")]
    return _gated_delta_rule(rules[0], width, heads, layer, inner, rules[1])


def _fla_gated_delta(width: int, heads: int, layer: Layer = "gated-deltanet", inner: int | None = None):
    rules = [naive("gated_delta_rule", f"naive_{form}_gated_delta_rule") for form in ("chunk", "recurrent")]
    return _gated_delta_rule(rules[0], width, heads, layer, inner, rules[1])


def _compiled_gated_delta(width: int, heads: int, layer: Layer = "gated-deltanet", inner: int | None = None):
    """Lengths are multiples of the chunk; compiled for each, a piece of code for every chunk."""
    rule = textbook.compiled()
    return _gated_delta_rule(
        lambda q, k, v, g, beta: rule(q * k.shape[-1] ** -0.5, k, v, g, beta), width, heads, layer, inner
    )


def _xlstm_mlstm(width: int, heads: int, inner: int | None = None) -> nn.Module:
    """`inner` as mLSTM's: the width of queries, keys and values over all heads; lengths are multiples of the chunk."""
    rule = import_module("mlstm_kernels.torch.chunkwise.native").mlstm_chunkwise__native_custbw

    def form(q: Tensor, k: Tensor, v: Tensor, write: Tensor, forget: Tensor, *unused: Any) -> tuple[Tensor, None]:
        return turned(rule(*turned(q, k, v, write, forget), chunk_size=CHUNK))[0], None

    return Substituted(MLSTM(width, heads, inner=inner), form, one_token.xlstm_memory)


def _fla_delta(width: int, heads: int) -> nn.Module:
    rule = naive("delta_rule", "delta_rule_chunkwise")

    def form(q: Tensor, k: Tensor, v: Tensor, *, rate: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        y, state = rule(*turned(q * q.shape[-1] ** 0.5, k, v, rate))
        return y.transpose(1, 2), state

    return Substituted(DeltaNet(width, heads), form)


def _fla_retention(width: int, heads: int) -> nn.Module:
    rule = naive("simple_gla", "naive_chunk_simple_gla")

    def form(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        return rule(q, k, v, log_forget, chunk_size=CHUNK, scale=1.0)

    return Substituted(RetNet(width, heads), form)


def _fla_gla(width: int, heads: int) -> nn.Module:
    rule, layer = naive("gla", "naive_recurrent_gla"), import_module("baselines.second_generation.gla").GLA

    def form(q: Tensor, k: Tensor, v: Tensor, *, log_forget: Tensor, **unused: Any) -> tuple[Tensor, Any]:
        return rule(q * q.shape[-1] ** 0.5, k, v, log_forget)

    return Substituted(layer(width, heads), form)


def _associative_scan(width: int, heads: int) -> nn.Module:
    return Substituted(Mamba(width, heads), associative_scan.selective)


def _vllm_gated_delta(width: int, heads: int, inner: int | None = None) -> nn.Module:
    """`inner` as Gated DeltaNet's: the width of its keys over all heads."""
    return Substituted(GatedDeltaNet(width, heads, inner=inner), vllm_cpu.scan, one_token.vllm_gated_delta_rule)


def _vllm_mamba2(width: int, heads: int, states: int = 128) -> nn.Module:
    """`states` as Mamba-2's: how many keys a head has."""
    return Substituted(Mamba2(width, heads, states=states), vllm_cpu.scan, one_token.vllm_state_space)


XLSTM = "pip install --no-deps mlstm_kernels einops"
VLLM = {"shares_layer": True, "trains": False, "decodes": True, "install": vllm_library.INSTALL}

OPPONENTS: dict[str, Opponent] = {
    "sdpa": Opponent("torch", "causal softmax attention in the layer of titans-lmm", _sdpa, True),
    "transformers-gated-delta": Opponent(
        "transformers", "torch_chunk_gated_delta_rule in a layer of ours", _transformers_gated_delta, True, decodes=True
    ),
    "transformers-mamba": Opponent("transformers", "MambaMixer, PyTorch path", whole_layers.transformers_mamba),
    "torch-associative-scan": Opponent(
        "torch", "torch's associative scan in the layer of mamba", _associative_scan, True
    ),
    "transformers-mamba2": Opponent("transformers", "Mamba2Mixer, PyTorch path", whole_layers.transformers_mamba2),
    "fla-gated-delta": Opponent(
        "fla-core", "naive_chunk_gated_delta_rule in a layer of ours", _fla_gated_delta, True, decodes=True
    ),
    "torch-compiled-gated-delta": Opponent(
        "torch", "the paper's chunks through torch.compile in a layer of ours", _compiled_gated_delta, True
    ),
    "xlstm-mlstm": Opponent(
        "mlstm_kernels",
        "mlstm_chunkwise__native_custbw in the layer of mlstm",
        _xlstm_mlstm,
        True,
        decodes=True,
        install=XLSTM,
    ),
    "fla-delta": Opponent("fla-core", "delta_rule_chunkwise in the layer of deltanet", _fla_delta, True),
    "fla-retention": Opponent("fla-core", "naive_chunk_simple_gla in the layer of retnet", _fla_retention, True),
    "fla-gla": Opponent("fla-core", "naive_recurrent_gla, a loop, in the layer of gla", _fla_gla, True),
    "vllm-gated-delta": Opponent(
        vllm_library.PACKAGE, "chunk_gated_delta_rule_cpu in the layer of gated-deltanet", _vllm_gated_delta, **VLLM
    ),
    "vllm-mamba2": Opponent(
        vllm_library.PACKAGE, "mamba_chunk_scan_fwd_cpu in the layer of mamba2", _vllm_mamba2, **VLLM
    ),
    "torchscale-retnet": Opponent("torchscale", "MultiScaleRetention by chunks", whole_layers.torchscale),
    "titans-pytorch": Opponent("titans-pytorch", "NeuralMemory", whole_layers.titans_pytorch),
    "titans-unofficial": Opponent("titans-unofficial", "NeuralMemoryModule, a loop", whole_layers.titans_unofficial),
    "open-titans": Opponent("open-titans", "NeuralMemory", whole_layers.open_titans),
}
