"""Names, settings and sizes: what is refused, with which sentence, and the parameter match of every model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import baselines
from models import registry
from models.language_model import Size, build, parameter_count, solve, state_bytes
from models.law import Law
from models.matching.match import NoMatch, by_depth, by_feed, nearest
from models.matching.solver import reference_parameters
from models.registry import UnknownModel, families, register
from models.shell.model import Shape, deep_enough
from schema.terms import tolerance
from tests.support.models import CORE

SHIPPED = {
    "attention": {
        "bahdanau", "based", "fast-weights", "linear-attention", "local-attention", "performer",
        "polysketch", "rebased", "routing", "scatterbrain", "transformer", "transformer-window",
    },
    "first_generation": {"lru", "retnet", "rwkv4", "s4", "s4d", "s5"},
    "second_generation": {
        "gla", "hawk", "hgrn2", "liquid-s4", "log-linear-mamba2", "mamba",
        "mamba2", "mamba3", "mambamixer", "mingru", "minlstm", "mlstm",
        "rwkv6", "xlstm-7b",
    },
    "third_generation": {
        "comba", "deltanet", "deltaproduct", "gated-deltanet", "gated-deltanet-2", "gated-deltaproduct",
        "kda", "lact", "log-linear-gated-deltanet", "longhorn", "mesanet", "rwkv7",
        "ttt-linear", "ttt-mlp",
    },
    "segment_recurrent": {
        "armt", "block-recurrent", "bmojo", "feng", "memformer", "r-transformer", "rmt",
        "transformer-xl",
    },
    "hybrids": {"griffin", "hybrid", "samba", "xlstm"},
    "titans": {"titans-lmm", "titans-mac", "titans-mag", "titans-mal"},
    "gated_ancestors": {"gru", "janet", "lstm", "slstm"},
    "after_titans": {"atlas", "memora", "moneta", "omeganet", "yaad"},
    "external_memory": {"camelot", "knn-lm", "memoryllm", "memoryllm-frozen"},
}  # fmt: skip
SIZES = [Size(256, 64, 2, 4), Size(256, 128, 4, 4), Size(512, 256, 3, 8)]
TINY = Size(256, 32, 2, 2)


def test_every_file_imports():
    assert baselines.failures == {}


@pytest.mark.parametrize(("family", "names"), SHIPPED.items(), ids=SHIPPED)
def test_family_is_the_folder(family, names):
    assert names <= set(registry.names())
    for name in names:
        assert registry.entry(name).family == family
        assert next(one for one in families() if one.name == family).place == registry.entry(name).family_order
        assert family in registry.entry(name).file.parts


def test_names_stand_in_historical_order():
    orders = [registry.entry(name).family_order for name in registry.names()]
    assert orders == sorted(orders)
    assert len({one.place for one in families()}) == len(families())  # no two families share a place


@pytest.mark.parametrize("name", registry.names())
def test_entry_says_paper_and_equation(name):
    entry = registry.entry(name)
    assert "arXiv" in entry.paper
    assert "=" in entry.equation or "<-" in entry.equation


@pytest.mark.parametrize("name", registry.names())
def test_entry_says_its_law(name):
    """What is written and what is read, every model has; a step that it has not is a dash, and none is left empty."""
    law = registry.entry(name).law
    assert all(law), law
    assert "-" not in (law.write, law.read), law
    assert not any("\n" in word for word in law), law


def test_a_law_that_is_none_is_refused():
    class Lawless(Heavy):
        law = ("a", "-", "k v^T", "S q")

    with pytest.raises(ValueError, match=r"Lawless must say its law as Law\(forget, compare, write, read\)"):
        register("lawless", paper="none", equation="none")(Lawless)


def test_a_hybrid_has_the_laws_of_its_layers():
    entry = registry.entry("hybrid")
    assert entry.says("law", {"layers": "kda,retnet*3"}) == Law(
        "a, per key channel, from x; then g_h, per head, fixed",
        "S^T k; then -",
        "b k (v - S^T k)^T; then k v^T",
        "S^T q",
    )
    assert entry.says("reading", {"layers": "liquid-s4,retnet"}).startswith("liquid-s4: causal")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[] if name in CORE or size is SIZES[0] else [pytest.mark.slow])
        for name in registry.names()
        for size in SIZES
    ],
    ids=str,
)
def test_parameters_match_the_reference(name, size):
    with torch.device("meta"):
        count = parameter_count(build(name, size := deep_enough(registry.entry(name), size)))
    target = reference_parameters(size)
    assert abs(count / target - 1) <= tolerance(target)


def test_unknown_model_names_its_neighbour():
    with pytest.raises(UnknownModel) as error:
        build("retnett", TINY)
    sentence = str(error.value)
    assert "Unknown model 'retnett'. Did you mean 'retnet'?" in sentence
    assert f"{len(registry.names())} are registered (python bench.py list shows them" in sentence
    assert "import baselines" in sentence


def test_unknown_model_in_an_empty_registry_says_what_to_import(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {})
    with pytest.raises(UnknownModel, match="import baselines first"):
        registry.entry("retnet")


def test_misspelt_setting_prints_the_signature():
    with pytest.raises(
        ValueError,
        match=r"'transformer-window' has no setting 'windw' .did you mean window..; its settings are: window: .*64",
    ):
        build("transformer-window", TINY, windw=32)


@pytest.mark.parametrize("value", ["32", 32.0, True, None])
def test_ill_typed_setting_prints_the_signature(value):
    with pytest.raises(ValueError, match=r"transformer-window.window=.* has the wrong type; its settings are: window"):
        build("transformer-window", TINY, window=value)


def test_setting_reaches_the_model():
    assert build("transformer-window", TINY, window=7).period == 7


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2"])
@pytest.mark.parametrize("field", ["vocab", "width", "depth", "heads"])
def test_impossible_size_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"Size.{field} must be a whole number"):
        Size(**{"vocab": 256, "width": 32, "depth": 2, "heads": 2, field: value})


def test_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="width 30 cannot be shared by 4 heads"):
        Size(256, 30, 2, 4)


def test_odd_head_width_is_refused_by_what_needs_an_even_one():
    with pytest.raises(ValueError, match="even head width"):
        build("transformer", Size(256, 6, 1, 2))(torch.zeros(1, 2, dtype=torch.long))


def test_unknown_provider_lists_the_providers():
    with pytest.raises(ValueError, match="Unknown provider 'cuda'; choose auto, recurrence, chunked"):
        build("retnet", TINY, provider="cuda")


class Heavy(nn.Module):
    """A mixer beyond any budget, with no inner width to shrink."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(100 * width, width))


def test_mixer_beyond_the_budget_is_refused_with_both_counts(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    register("heavy", paper="none", equation="none")(Heavy)
    target = f"{reference_parameters(TINY):,}"
    with pytest.raises(NoMatch, match=f"'heavy' cannot be matched at .*reference Transformer {target}"):
        build("heavy", TINY)


def test_name_taken_by_another_file_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    with pytest.raises(ValueError, match="'retnet' is already taken by .*retnet.py"):
        register("retnet", paper="none", equation="none")(Heavy)


def test_constructor_of_neither_form_is_refused():
    class Other(nn.Module):
        def __init__(self, hidden: int):
            super().__init__()

    with pytest.raises(ValueError, match="must begin .self, width, heads"):
        register("other", paper="none", equation="none")(Other)
    assert "other" not in registry.names()


@pytest.mark.parametrize("target", [1, 7, 30, 31, 10_000])
def test_nearest_is_the_nearest(target):
    found = nearest(lambda n: 3 * n + 1, target, 1, 100)
    assert abs(3 * found + 1 - target) == min(abs(3 * n + 1 - target) for n in range(1, 101))


def test_search_keeps_depth_for_a_swiglu_and_shrinks_a_mixer_beyond_the_budget():
    def count(shape: Shape) -> int:
        mixer = 100 * (16 if shape.inner is None else shape.inner)
        return shape.depth * (mixer + 3 * 8 * shape.feed)

    assert by_feed(count, 2 * (1600 + 240), depth=2, width=8, unit=4) == Shape(2, 10, None)
    shrunk = by_feed(count, 2 * 1000, depth=2, width=8, unit=4)
    assert shrunk.inner == 8
    assert count(shrunk) == pytest.approx(2000, rel=0.02)


def test_search_solves_depth_and_then_inner_width_where_there_is_no_swiglu():
    def count(shape: Shape) -> int:
        return shape.depth * 10 * (16 if shape.inner is None else shape.inner)

    assert by_depth(count, 800, depth=2, width=8, unit=None) == Shape(5, 0)
    assert by_depth(count, 880, depth=2, width=8, unit=2) == Shape(5, 0, 18)


def test_tolerance_is_tighter_from_ten_million():
    assert tolerance(9_999_999) == 0.05
    assert tolerance(10_000_000) == 0.01


def test_solve_gives_mamba_no_swiglu():
    shape = solve(registry.entry("mamba"), SIZES[0], {})
    assert shape.feed == 0
    assert shape.depth > SIZES[0].depth


def test_state_bytes_count_distinct_storages_and_no_integers():
    buffer = torch.zeros(2, 10)
    assert state_bytes(((buffer, buffer[:, :1]), 5, torch.zeros(3, dtype=torch.float64))) == 80 + 24


def test_a_mixer_that_names_index_or_depth_is_told_its_layer(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @register("layered", paper="here", equation="y = x")
    class Layered(nn.Module):
        fixed_state = True

        def __init__(self, width: int, heads: int, index: int, depth: int):
            super().__init__()
            self.layer = index, depth

    model = build("layered", Size(vocab=64, width=32, depth=3, heads=2), match=False)
    assert [block.mixer.layer for block in model.blocks] == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(ValueError, match="has no setting 'index'"):
        build("layered", TINY, index=1)
