"""Oracles of the models over the diagonal recurrence: small packages of other people, and layers of transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from baselines.first_generation.lru import LRU
from baselines.first_generation.rwkv4 import RWKV4
from baselines.first_generation.s5 import S5
from baselines.oracles.parity.comparison import Comparison, Draw, Errors, compare, leaves
from baselines.oracles.parity.hugging_face import configuration, modelling
from baselines.second_generation.hawk import Hawk
from baselines.second_generation.min_rnns import MinGRU, MinLSTM

WIDTH, HEADS, TIME = 32, 4, 150


def _whole_layer(ours: nn.Module, inputs: dict[str, Tensor], weights: Callable, theirs: Callable) -> Errors:
    """One of our mixers on x with the weights that `weights(**inputs)` names, against `theirs(x, **inputs)`."""

    def our_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(ours, weights(given), (x,), strict=True)[0]

    return compare(our_side, theirs, {"x": Draw().normal(2, TIME, WIDTH)} | inputs)


def hawk() -> Errors:
    """The recurrent block against RecurrentGemmaRecurrentBlock, from a text's first token on."""
    module, ours = modelling("recurrent_gemma"), Hawk(WIDTH, HEADS, inner=48)
    config = configuration("recurrent_gemma", hidden_size=WIDTH, num_attention_heads=HEADS, lru_width=48)
    theirs = module.RecurrentGemmaRecurrentBlock(config, layer_idx=0).eval()
    for name in ("recurrent_gate_weight", "input_gate_weight", "recurrent_gate_bias", "input_gate_bias"):
        nn.init.normal_(getattr(theirs.rg_lru, name), std=0.3)
    nn.init.uniform_(theirs.rg_lru.recurrent_param, -4, -2)

    def weights(given: dict[str, Tensor]) -> dict[str, Tensor]:
        gates = [given[f"rg_lru.{name}_gate_weight"] for name in ("recurrent", "input")]
        biases = [given[f"rg_lru.{name}_gate_bias"].flatten() for name in ("recurrent", "input")]
        return {
            "project.weight": torch.cat([given["linear_x.weight"], given["linear_y.weight"]]),
            "project.bias": torch.cat([given["linear_x.bias"], given["linear_y.bias"]]),
            "convolution.weight": given["conv_1d.weight"],
            "convolution.bias": given["conv_1d.bias"],
            "gate": torch.cat(gates, -1),
            "gate_bias": torch.cat(biases),
            "decay": given["rg_lru.recurrent_param"],
            "out.weight": given["linear_out.weight"],
            "out.bias": given["linear_out.bias"],
        }

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        places = torch.arange(TIME).expand(2, -1)
        return functional_call(theirs, given, (x, places), {"attention_mask": None, "use_cache": False})[0]

    return _whole_layer(ours, leaves(theirs), weights, their_side)


def lru() -> Errors:
    """The unit against LRU_pytorch, whose D is a full matrix, and ours behind it; B and C are complex there."""
    module, ours = import_module("LRU_pytorch.LRU"), LRU(WIDTH, HEADS)
    states = len(ours.nu)
    theirs = module.LRU(WIDTH, WIDTH, states)

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        own = {
            "nu_log": given["nu"],
            "theta_log": given["theta"],
            "gamma_log": given["gamma_log"],
            "B": torch.complex(*given["B"].unbind(1)),
            "C": torch.complex(*given["C"].unbind(-1)),
            "D": torch.diag(given["D"]),
        }
        u = F.gelu(functional_call(theirs, own, (x,)), approximate="tanh")
        value, gate = F.linear(u, given["out.weight"], given["out.bias"]).split(WIDTH, -1)
        return value * torch.sigmoid(gate)

    return _whole_layer(ours, leaves(ours), lambda given: given, their_side)


def s5() -> Errors:
    """The layer against `discretize_zoh` and `apply_ssm`, which sums one half of the pairs without a factor 2."""
    module, ours = import_module("s5.s5_model"), S5(WIDTH, HEADS)

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        eigenvalues = torch.complex(given["real"], given["imaginary"])
        B, C = torch.complex(*given["B"].unbind(1)), torch.complex(*given["C"].unbind(-1))
        turn, written = module.discretize_zoh(eigenvalues, B, given["log_step"].exp())
        y = torch.stack([module.apply_ssm(turn, written, 2 * C, given["D"], row)[0] for row in x])
        u = F.gelu(y, approximate="tanh")
        return u * torch.sigmoid(F.linear(u, given["gate.weight"], given["gate.bias"]))

    return _whole_layer(ours, leaves(ours), lambda given: given, their_side)


def min_rnn(cls: type[nn.Module], name: str, projection: str) -> Errors:
    """One of the two against its log-space form, which is run in float64: in float32 its own gradients are 3e-5 off.

    The order of its gates is ours turned around, the candidate first.
    """
    module, ours = import_module(f"minGRU_pytorch.{name}"), cls(WIDTH, HEADS, kernel=0)
    theirs = getattr(module, name)(WIDTH, expansion_factor=1.5)

    def weights(given: dict[str, Tensor]) -> dict[str, Tensor]:
        candidate, *gates = given[f"{projection}.weight"].chunk(ours.parts)
        return {"project.weight": torch.cat([*gates, candidate]), "out.weight": given["to_out.weight"]}

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        own = {name: weight.double() for name, weight in given.items()}
        return functional_call(theirs, own, (x.double(),)).float()

    return _whole_layer(ours, leaves(theirs), weights, their_side)


MIXES = ("time_mix_key", "time_mix_receptance")  # of RWKV-4's channels, ours one parameter


def rwkv4(index: int) -> Errors:
    """The first or the second block against RwkvBlock, which returns the whole stream."""
    module, ours = modelling("rwkv"), RWKV4(WIDTH, HEADS, index=index, depth=2)
    theirs = module.RwkvBlock(configuration("rwkv", hidden_size=WIDTH), layer_id=index).eval()
    halves = {"time": theirs.attention, "channels": theirs.feed_forward}
    names = {"time_decay": "decay", "time_first": "bonus"}

    def own(half: str, name: str) -> Tensor:
        if half == "channels":
            return ours.channels.mix[MIXES.index(name)]
        return getattr(ours.time, names.get(name, name.removeprefix("time_")))

    with torch.no_grad():
        for half, part in halves.items():  # they leave these to the whole model
            for name, parameter in part.named_parameters():
                if name.startswith("time_"):
                    parameter.copy_(own(half, name).view_as(parameter))

    def weights(given: dict[str, Tensor]) -> dict[str, Tensor]:
        prefixes = {"pre_ln": "stream_norm", "ln1": "time_norm", "ln2": "channel_norm"}
        prefixes |= {"attention": "time", "feed_forward": "channels"}
        found = {"channels.mix": torch.stack([given[f"feed_forward.{name}"].flatten() for name in MIXES])}
        for name, value in given.items():
            first, rest = name.split(".", 1)
            if first == "feed_forward" and rest in MIXES:
                continue
            if rest == "output.weight":
                rest = "out.weight"
            elif (first, rest) == ("feed_forward", "receptance.weight"):
                rest = "gate.weight"
            elif rest.startswith("time_"):
                rest, value = names.get(rest, rest.removeprefix("time_")), value.flatten()
            found[f"{prefixes[first]}.{rest}"] = value
        return found

    def their_side(x: Tensor, **given: Tensor) -> Tensor:
        return functional_call(theirs, given, (x,))[0] - x

    return _whole_layer(ours, leaves(theirs), weights, their_side)


COMPARISONS = (
    Comparison("lru", "lru-pytorch", "whole layer: LRU, a loop, and the gated map behind it", lru),
    Comparison("s5", "s5-pytorch", "whole layer: discretize_zoh, apply_ssm, and the gated map behind it", s5),
    Comparison("hawk", "transformers", "whole layer: RecurrentGemmaRecurrentBlock", hawk),
    Comparison("rwkv4", "transformers", "first block, with the embedding's norm: RwkvBlock", lambda: rwkv4(0)),
    Comparison("rwkv4", "transformers", "second block: RwkvBlock", lambda: rwkv4(1)),
    Comparison(
        "mingru",
        "minGRU-pytorch",
        "layer without convolution: minGRU, parallel, in float64",
        lambda: min_rnn(MinGRU, "minGRU", "to_hidden_and_gate"),
    ),
    Comparison(
        "minlstm",
        "minGRU-pytorch",
        "layer without convolution: minLSTM, parallel, in float64",
        lambda: min_rnn(MinLSTM, "minLSTM", "to_hidden_and_f_i_gate"),
    ),
)
