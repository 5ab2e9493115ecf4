"""The optimiser's groups and what a training tells a model of its warm-up."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import nn

from schema.weight_decay import groups
from tasks.harness.train import BETAS, WARM_UP, WEIGHT_DECAY, optimiser, recipe, train
from tasks.task import Batch


class Decaying(nn.Module):
    """A recurrence with a matrix of decays and a vector that decays, over 8 tokens."""

    no_weight_decay = ("A_log",)
    with_weight_decay = ("memory",)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.A_log, self.memory = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 8)
        self.heard: list[float] = []

    def warm_up(self, share):
        self.heard.append(share)

    def forward(self, tokens, state=None):
        x = self.embedding(tokens) + self.memory
        return self.out(self.norm(x + x @ self.A_log)), None


class Repeat:
    """A task that asks for the token itself."""

    def training(self, seed, step, done, batch_tokens):
        tokens = torch.arange(8).repeat(2, 1)
        return Batch(tokens, tokens, {})


def names(model: nn.Module, group: dict) -> list[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in group["params"]]


DECAYED = ["memory", "embedding.weight", "out.weight"]
LEFT_ALONE = ["A_log", "norm.weight", "norm.bias", "out.bias"]


def test_groups_follow_the_declarations_and_no_number_of_dimensions():
    model = Decaying()
    decayed, left = optimiser(model, 1e-3).param_groups
    assert (decayed["weight_decay"], left["weight_decay"], decayed["betas"]) == (WEIGHT_DECAY, 0.0, BETAS)
    assert names(model, decayed) == DECAYED
    assert names(model, left) == LEFT_ALONE


def test_model_in_shards_has_the_same_groups():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = copy.deepcopy(Decaying())
        fully_shard(model.out, mesh=init_device_mesh("cpu", (1,)))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        decayed, left = groups(model, WEIGHT_DECAY)
        assert (names(model, decayed), names(model, left)) == (DECAYED, LEFT_ALONE)
    finally:
        dist.destroy_process_group()


def test_what_is_left_alone_moves_by_its_gradient_alone():
    model = Decaying()
    adam = optimiser(model, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    adam.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if name in LEFT_ALONE else 1 - 0.5 * WEIGHT_DECAY
        assert torch.allclose(parameter, factor * before[name]), name


def test_model_is_told_how_far_the_warm_up_is():
    model = Decaying()
    train(model, Repeat(), steps=20, batch_tokens=16, lr=1e-3)
    assert WARM_UP == 0.1
    assert model.heard == [0.0, 0.5, *[1.0] * 19]  # the last: a training that is over is warm
    train(model, Repeat(), steps=1, batch_tokens=16, lr=1e-3)
    assert model.heard[-2:] == [0.0, 1.0]


def test_recipe_in_the_rows_says_what_decays():
    words = recipe()["optimiser"]
    assert "matrices" not in words
    assert f"weight decay {WEIGHT_DECAY} where a parameter's class declares it" in words and "clip 1.0" in words
