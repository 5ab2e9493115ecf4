"""Which parameters decay: what classes declare, torch's own layers, and what nobody declares."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from schema import DataError
from schema.weight_decay import decisions, groups


class Gate(nn.Module):
    no_weight_decay = ("A_log", "starts")
    with_weight_decay = ("memory",)

    def __init__(self):
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(3, 4))
        self.memory = nn.Parameter(torch.zeros(5))
        self.starts = nn.ParameterList([torch.zeros(2, 2)])
        self.plain = nn.Parameter(torch.zeros(2, 2))
        self.linear = nn.Linear(2, 2)


class Changed(Gate):
    with_weight_decay = ("A_log",)
    no_weight_decay = ("plain",)


def told(model: nn.Module) -> dict[str, bool | None]:
    """Whether each parameter decays; None where nobody says."""
    return {found.name: found.decays if found.declared else None for found in decisions(model)}


def test_class_says_for_its_own_parameters_whatever_their_shape():
    assert told(nn.Sequential(Gate())) == {
        "0.A_log": False,
        "0.memory": True,
        "0.plain": None,
        "0.starts.0": False,
        "0.linear.weight": True,
        "0.linear.bias": False,
    }


def test_nearest_class_decides_and_the_others_still_speak():
    assert {name: value for name, value in told(Changed()).items() if "linear" not in name} == {
        "A_log": True,
        "memory": True,
        "plain": False,
        "starts.0": False,
    }


def test_instance_and_method_may_declare():
    layer = Gate()
    layer.with_weight_decay = ("plain",)
    assert told(layer)["plain"] is True

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Parameter(torch.zeros(2, 2))

        def no_weight_decay(self):
            return {"tokens"}

    assert told(Tokens()) == {"tokens": False}


def test_what_nobody_declares_is_left_alone():
    decayed, left = groups(Gate(), 0.1)
    assert (decayed["weight_decay"], left["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(5,), (2, 2)]
    assert len(left["params"]) == 4


def test_shared_parameter_is_left_alone_if_one_owner_says_so():
    class Tied(nn.Module):
        no_weight_decay = ("table",)

        def __init__(self):
            super().__init__()
            self.out = nn.Linear(2, 3, bias=False)
            self.table = self.out.weight

    assert list(told(Tied()).values()) == [False]
    model = nn.ModuleList([nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)])
    model[1].weight = model[0].weight
    assert told(model) == {"0.weight": True}


LAYERS = {
    "linear": nn.Linear(2, 2),
    "bilinear": nn.Bilinear(2, 2, 2),
    "convolution": nn.Conv1d(2, 2, 1),
    "transposed": nn.ConvTranspose2d(2, 2, 1),
    "embedding": nn.Embedding(2, 2),
    "bag": nn.EmbeddingBag(2, 2),
    "attention": nn.MultiheadAttention(2, 1, add_bias_kv=True, kdim=3, vdim=4),
    "lstm": nn.LSTM(2, 2, 2, bidirectional=True, proj_size=1),
    "cell": nn.GRUCell(2, 2),
    "layer norm": nn.LayerNorm(2),
    "rms norm": nn.RMSNorm(2),
    "group norm": nn.GroupNorm(1, 2),
    "batch norm": nn.BatchNorm1d(2),
    "prelu": nn.PReLU(),
    "transformer": nn.TransformerEncoderLayer(2, 1, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_torch_are_declared_here(name):
    answers = told(LAYERS[name])
    is_norm = "norm" in name or name == "prelu"
    for parameter, decays in answers.items():
        assert decays is not (is_norm or "bias" in parameter or "norm" in parameter), parameter
    assert None not in answers.values()


@pytest.mark.parametrize("declared", ["A_log", ("A_log", 3), 0.1])
def test_declaration_that_is_no_tuple_of_names_is_refused(declared):
    layer = Gate()
    layer.no_weight_decay = declared
    with pytest.raises(DataError, match="Gate.no_weight_decay must be a tuple of names"):
        decisions(layer)


def test_name_that_is_not_there_is_refused_and_one_switched_off_is_not():
    layer = Gate()
    layer.no_weight_decay = ("A_lgo",)
    with pytest.raises(DataError, match="names 'A_lgo', which it does not have; .*A_log, memory, plain, starts"):
        decisions(layer)
    layer = Gate()
    layer.memory = None
    assert "memory" not in told(layer)


def test_name_said_both_ways_is_refused():
    layer = Gate()
    layer.no_weight_decay = layer.with_weight_decay = ("plain",)
    with pytest.raises(DataError, match="Gate names 'plain' in both"):
        decisions(layer)
