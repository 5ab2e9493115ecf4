"""What the optimiser leaves alone in every registered model, name by name, and how `check` tells it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
from models import registry
from models.conformance.kit import check
from models.language_model import Size, build
from schema.weight_decay import decisions

SHELL = {"norm.weight", "mixer_norm.weight", "feed_norm.weight"}
WITHOUT_SWIGLU = SHELL - {"feed_norm.weight"}
# Both TTT layers norm their input themselves.
TTT = SHELL - {"mixer_norm.weight"} | {
    f"mixer.{name}"
    for name in (
        "pre_norm.weight", "input_norm.weight", "pre_convolution.bias", "convolution_q.bias", "convolution_k.bias", "rate.bias",
        "place_factor", "biases.0", "scale", "shift", "norm.weight", "norm.bias",
    )
}  # fmt: skip
CHANNEL_GATED = SHELL | {f"mixer.{name}" for name in ("A_log", "step_bias", "gate.1.bias", "norm.weight")}
GOOSE = {
    "norm.weight", "norm.bias", "enter.weight", "enter.bias", "mixer_norm.weight", "mixer_norm.bias", "channel_norm.weight",
    "channel_norm.bias", "channels.mix", "mixer.mix", "mixer.k_k", "mixer.k_a", "mixer.r_k", "mixer.norm.weight",
    "mixer.norm.bias",
} | {f"mixer.{name}.{part}" for name in ("decay", "rate", "keep") for part in ("down", "up", "bias")}  # fmt: skip
RWKV_NORMS = ("norm_time", "norm_channels", "norm")
GATING = {"mixer.gating.kept.weight", "mixer.gating.gate.weight"}
HAWK = SHELL | {f"mixer.{name}" for name in ("decay", "gate_bias", "project.bias", "out.bias", "convolution.bias")}
MAMBA = ("A_log", "D", "convolution.bias", "step.bias")
MAMBAMIXERS = 4  # layers that match three of the reference
LEFT_ALONE = {
    "transformer": SHELL,
    "transformer-window": SHELL,
    "lstm": SHELL | {"mixer.project.bias"},
    "gru": SHELL | {"mixer.project.bias", "mixer.candidate_bias"},
    "janet": SHELL | {"mixer.project.bias"},
    "slstm": {"norm.weight"}
    | {f"mixer.{name}.weight" for name in ("norm", "feed_norm", "head_norm")}
    | {"mixer.recurrent", "mixer.bias", "mixer.convolution.bias"},
    "retnet": SHELL,
    "mamba": WITHOUT_SWIGLU | {"mixer.A_log", "mixer.D", "mixer.convolution.bias", "mixer.step.bias"},
    "mamba2": WITHOUT_SWIGLU
    | {"mixer.A_log", "mixer.D", "mixer.convolution.bias", "mixer.step_bias", "mixer.norm.weight"},
    "gla": SHELL | {"mixer.forget.1.bias", "mixer.norm.weight"},
    "hgrn2": SHELL | {"mixer.norm.weight", "bounds"},
    "mlstm": {"norm.weight"}
    | {f"mixer.{name}" for name in ("norm.weight", "head_norm.weight", "convolution.bias", "gates.bias", "skip")},
    "xlstm-7b": SHELL | {"mixer.head_norm.weight", "mixer.gates.bias"},
    "deltanet": SHELL | {"mixer.norm.weight"},
    "gated-deltanet": SHELL | {"mixer.A_log", "mixer.step_bias", "mixer.rate.bias", "mixer.norm.weight"},
    "kda": CHANNEL_GATED,
    "gated-deltanet-2": CHANNEL_GATED,
    "deltaproduct": SHELL | {"mixer.norm.weight"},
    "gated-deltaproduct": SHELL | {"mixer.A_log", "mixer.step_bias", "mixer.norm.weight"},
    "comba": SHELL | {f"mixer.{name}" for name in ("A_log", "step_bias", "decay", "correction", "norm.weight")},
    "rwkv7": GOOSE | {"mixer.gate.down", "mixer.gate.up"},
    "rwkv6": {"norm.weight", "mixer.channels.mix"}
    | {f"mixer.{norm}.{part}" for norm in ("norm_embedding", *RWKV_NORMS) for part in ("weight", "bias")}
    | {
        f"mixer.{name}"
        for name in ("mix_first", "mix", "mix_down", "mix_up", "decay", "decay_down", "decay_up", "bonus")
    },
    "mamba3": SHELL
    | {f"mixer.{name}" for name in ("step_bias", "bias_B", "bias_C", "D", "norm_B.weight", "norm_C.weight")},
    "mesanet": SHELL | {f"mixer.{name}" for name in ("ridge", "forget.bias", "rate.bias", "norm.weight")},
    "lact": SHELL
    | {f"mixer.{name}" for name in ("scale", "offset", "rates.bias", "gate.bias", "momentum.bias", "norm.weight")},
    "ttt-linear": TTT,
    "ttt-mlp": TTT | {"mixer.biases.1"},
    "rmt": SHELL,
    "armt": SHELL | {f"memories.{layer}.rate.bias" for layer in range(3)},
    "block-recurrent": SHELL
    | {f"mixer.{name}" for name in ("scale", "bias", "cross_scale", "state_scales", "gate_bias", "state_norm.weight")},
    "memformer": SHELL | {"read_norm.weight"},
    "feng": SHELL | {"read_norm.weight", "write_norm.weight", "read_gate.bias", "write_gate.bias"},
    "transformer-xl": SHELL | {"mixer.content_bias", "mixer.place_bias"},
    "local-attention": SHELL | {"mixer.out.bias"},
    "hawk": HAWK,
    "griffin": HAWK,
    "mambamixer": WITHOUT_SWIGLU
    | {f"mixer.{name}" for name in ("A_log", "D", "convolution.bias", "step.bias")}
    | {f"mixers.{layer}.norm.weight" for layer in range(MAMBAMIXERS)}
    | {f"mixers.{layer}.scans.{way}.{name}" for layer in range(MAMBAMIXERS) for way in (0, 1) for name in MAMBA}
    | {f"{name}.{layer}" for layer in range(MAMBAMIXERS) for name in ("tokens", "channels")},
    "samba": SHELL | {"mixer.A_log", "mixer.D", "mixer.convolution.bias", "mixer.step.bias"},
    "hybrid": SHELL | {"mixer.A_log", "mixer.step_bias", "mixer.rate.bias", "mixer.norm.weight"},
    "titans-lmm": SHELL | {"mixer.memory.gates.bias", "mixer.norm.gain"},
    "titans-mac": SHELL | {"mixer.memory.gates.bias", "mixer.recall_norm.gain"} | GATING,
    "titans-mag": SHELL | {"mixer.memory.gates.bias"} | GATING,
    "titans-mal": SHELL | {"mixer.memory.memory.gates.bias", "mixer.memory.norm.gain", "mixer.norm.weight"},
}
# Parameters of no torch layer that decay: learned starts, as in the code of TTT and RMT.
STARTS = {
    **dict.fromkeys(("lstm", "gru", "janet"), {"mixer.recurrent"}),
    "slstm": {"mixer.inputs"},
    "mlstm": {"mixer.queries_keys", "mixer.values"},
    "hawk": {"mixer.gate"},
    "griffin": {"mixer.gate"},
    "ttt-linear": {"mixer.weights.0"},
    "ttt-mlp": {"mixer.weights.0", "mixer.weights.1"},
    "lact": {f"mixer.first.{index}.whole" for index in range(3)},
    "rmt": {"memory"},
    "armt": {"memory"},
    "feng": {"memory"},
    "memformer": {"writer.bias"},
    "block-recurrent": {"mixer.first", "mixer.place"},
    "titans-lmm": {"mixer.memory.initial.0", "mixer.memory.initial.1"},
    "titans-mac": {"mixer.memory.initial.0", "mixer.memory.initial.1", "mixer.persistent"},
    "titans-mag": {"mixer.memory.initial.0", "mixer.memory.initial.1", "mixer.persistent"},
    "titans-mal": {"mixer.memory.memory.initial.0", "mixer.memory.memory.initial.1", "mixer.persistent"},
}


def _of_mixer(*names: str) -> set[str]:
    return {f"mixer.{name}" for name in names}


LEFT_ALONE |= {
    "lru": WITHOUT_SWIGLU | _of_mixer("D", "gamma_log", "nu", "theta", "out.bias"),
    "rwkv4": {"norm.weight"}
    | {f"mixer.{norm}_norm.{part}" for norm in ("stream", "time", "channel") for part in ("weight", "bias")}
    | {"mixer.channels.mix"}
    | {f"mixer.time.{name}" for name in ("bonus", "decay", "mix_key", "mix_value", "mix_receptance")},
    "s4": SHELL | _of_mixer("B", "P", "imaginary", "log_real", "log_dt", "out.bias"),
    **dict.fromkeys(("s4d", "liquid-s4"), SHELL | _of_mixer("imaginary", "log_real", "log_dt", "out.bias")),
    "s5": WITHOUT_SWIGLU | _of_mixer("B", "D", "imaginary", "real", "log_step", "gate.bias"),
    **dict.fromkeys(("mingru", "minlstm"), SHELL | {"mixer.convolution.bias"}),
    "log-linear-mamba2": WITHOUT_SWIGLU | _of_mixer("A_log", "D", "L", "step_bias", "convolution.bias", "norm.weight"),
    "log-linear-gated-deltanet": SHELL | _of_mixer("A_log", "L", "step_bias", "rate.bias", "norm.weight"),
    "longhorn": WITHOUT_SWIGLU | _of_mixer("convolution.bias", "rate.bias", "skip"),
    **dict.fromkeys(("yaad", "moneta", "memora"), SHELL | _of_mixer("gates.bias", "norm.gain")),
    **dict.fromkeys(("omeganet", "atlas"), SHELL | _of_mixer("gates.bias", "norm.gain", "features.factors")),
    "xlstm": LEFT_ALONE["mlstm"] | LEFT_ALONE["slstm"],
}
LEFT_ALONE |= {
    **dict.fromkeys(
        ("fast-weights", "performer", "routing", "scatterbrain", "camelot", "knn-lm", "memoryllm-frozen"), SHELL
    ),
    "bmojo": SHELL
    | _of_mixer(*(f"ssm.{name}" for name in ("A_log", "D", "step_bias", "convolution.bias", "norm.weight"))),
    "memoryllm": SHELL | {"fresh"},
    "r-transformer": SHELL | _of_mixer("project.bias", "recurrent.bias"),
    "bahdanau": SHELL | _of_mixer("input.bias", "query.bias"),
    "linear-attention": SHELL | _of_mixer("qkv.bias", "out.bias"),
    "based": SHELL | _of_mixer("project.bias", "out.bias"),
    "rebased": SHELL | _of_mixer(*(f"{side}_norm.{part}" for side in ("query", "key") for part in ("weight", "bias"))),
    "polysketch": SHELL
    | _of_mixer("gain", "shift", *(f"sketch.{name}" for name in ("gain", "shift", "next_gain", "next_shift"))),
}
STARTS |= {
    "memoryllm": {"pool"},
    "lru": _of_mixer("B", "C"),
    "s5": _of_mixer("C"),
    "polysketch": _of_mixer(*(f"sketch.{name}" for name in ("up", "down", "next_up", "next_down"))),
    **dict.fromkeys(("s4", "s4d", "liquid-s4"), _of_mixer("C", "D")),
    **dict.fromkeys(("yaad", "moneta", "memora", "omeganet", "atlas"), _of_mixer("initial.0", "initial.1")),
    "xlstm": STARTS["mlstm"] | STARTS["slstm"],
}


def names(found) -> set[str]:
    """Names inside a block, and outside of blocks; of a memory's base as of the base alone."""
    every = [one.name.removeprefix("base.") for one in found]
    return {name.split(".", 2)[2] if name.startswith("blocks.") else name for name in every}


@pytest.mark.parametrize("name", registry.names())
def test_what_is_left_alone_is_what_the_classes_declare(name):
    found = decisions(build(name, Size(64, 32, 3, 2)))
    assert all(one.declared for one in found)
    assert names(one for one in found if not one.decays) == LEFT_ALONE[name]
    decayed = names(one for one in found if one.decays)
    assert {end for end in decayed if not end.endswith(".weight")} == STARTS.get(name, set())
    assert "embedding.weight" in decayed


def test_settings_leave_nothing_undeclared():
    for name, settings in (
        ("titans-mac", {"persistent": 0, "layer_gates": True, "forget": "channel", "memory_depth": 3}),
        ("titans-lmm", {"convolution": False, "momentum": False, "forget": "none"}),
        ("ttt-linear", {"convolution": 0, "pre_convolution": 0}),
    ):
        assert all(one.declared for one in decisions(build(name, Size(64, 32, 2, 2), match=False, **settings)))


def test_check_prints_what_is_left_alone():
    (line,) = check("mamba", only=["weight decay"])
    assert line.passed and "blocks.*.mixer.A_log" in line.detail and "blocks.*.mixer.D" in line.detail
    assert line.detail.count("A_log") == 1 and line.figure.endswith("decay")


class Own(nn.Module):
    """A user's mixer with a parameter that it says nothing about."""

    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.out = nn.Linear(width, width, bias=False)
        self.mystery = nn.Parameter(torch.ones(width, width))

    def forward(self, x, state=None):
        return self.out(x @ self.mystery), ()


@pytest.mark.parametrize("family, passed", [("yours", True), ("third_generation", False)])
def test_undeclared_parameter_is_told_and_fails_but_in_a_users_own_file(monkeypatch, family, passed):
    group = next(one for one in registry.families() if one.name == family)
    entry = registry.Entry("own", Own, group, "", "", registry.entry("gla").file)
    monkeypatch.setitem(registry._entries, "own", entry)
    (line,) = check("own", only=["weight decay"])
    assert line.passed is passed
    assert "not declared: blocks.*.mixer.mystery" in line.detail and "does not decay" in line.detail
