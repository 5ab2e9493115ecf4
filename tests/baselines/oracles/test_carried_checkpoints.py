"""Small random models of every architecture with a carried state are read rightly, or refused with the figures."""

from __future__ import annotations

from functools import cache

import pytest
import torch

pytest.importorskip("transformers", reason="Hugging Face models need transformers")

from baselines.oracles.adapters.pretrained import Pretrained  # noqa: E402
from baselines.oracles.adapters.reading_trial import Decision  # noqa: E402
from models.conformance.streaming import SPLIT, NotStreamable  # noqa: E402
from models.conformance.subject import difference, feed  # noqa: E402
from models.matching.counts import state_bytes  # noqa: E402
from tests.support.tiny_causal_lms import ARCHITECTURES, WINDOWED, available, tiny  # noqa: E402

QUICK = ("mamba", "mamba2", "rwkv", "recurrent-gemma", "qwen3-next", "xlstm", "bamba", "zamba2", "minimax", "mistral")
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
GROWING = {"qwen3-next", "qwen3.5", "bamba", "zamba", "zamba2", "jamba", "falcon-h1", "granite-hybrid", "nemotron-h"}
GROWING |= {"olmo-hybrid", "kimi-linear", "minimax", "lfm2", "gemma3", "llama"}  # attention without a window


@cache
def settled(name: str) -> tuple[Pretrained, Decision]:
    model = Pretrained(tiny(name))
    return model, model.settle(100, 1024)


def texts(length: int, rows: int = 2, seed: int = 5) -> torch.Tensor:
    return torch.randint(256, (rows, length), generator=torch.Generator().manual_seed(seed))


def pieces_as_transformers_reads_them(model: Pretrained, text: torch.Tensor, cuts: list[int]) -> float:
    """The error of pieces that are given to the class itself, without anything of ours but the state's name."""
    plain = Pretrained(model.model)
    plain.caller.tells_positions = model.caller.tells_positions
    try:
        return difference(feed(plain, text, cuts)[0], plain.caller.whole(text, text.shape[1]))
    except ValueError:  # RWKV answers single tokens of two rows by twice as many
        return float("inf")


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_an_architecture_is_read_as_the_whole_text_is(name):
    if not available(name):
        pytest.skip(f"this transformers has no {name}")
    model, decision = settled(name)
    text = texts(90)
    whole = model.caller.whole(text, 90)
    assert difference(model.caller.whole(text[:, 40:], 50), whole[:, 40:]) > 0.05, "a state that is lost must show"
    assert difference(feed(model, text, [1, 2, 30, 70, 71, 72, 73])[0], whole) < SPLIT / 10
    assert decision.errors[model.way] < SPLIT and decision.way in decision.sentence()
    is_right = pieces_as_transformers_reads_them(model, text, [30, 70, 71, 72, 73]) < SPLIT
    assert model.way != "in pieces" if not is_right else True
    _, state = feed(model, text[:, :40])
    first, _ = feed(model, text[:, 40:50], state=state)
    again, _ = feed(model, text[:, 40:50], [3], state=state)
    assert difference(first, whole[:, 40:50]) < SPLIT / 10 and difference(again, whole[:, 40:50]) < SPLIT / 10


@pytest.mark.parametrize(
    "name", ["mamba", "minimax", *(pytest.param(n, marks=pytest.mark.slow) for n in ("jamba", "zamba"))]
)
def test_transformers_is_wrong_in_pieces_of_these_and_says_nothing(name):
    """If this fails, a fault was mended there: they are read in pieces then, and the test above holds all the same."""
    model, decision = settled(name)
    assert decision.errors["in pieces"] > 0.01 and model.way == "token by token after the first piece"


@pytest.mark.parametrize("name", ["mistral", "bamba", "mamba2", "xlstm"])
@torch.no_grad()
def test_the_state_stays_as_it_is_but_for_attention_without_a_window(name):
    model, _ = settled(name)
    text = texts(192)
    sizes = [state_bytes(feed(model, text[:, :length], range(50, length, 50))[1]) for length in (96, 192)]
    assert (sizes[1] > sizes[0]) == (name in GROWING)


def test_a_window_is_tried_beyond_its_end_and_only_where_texts_are_longer():
    model = Pretrained(tiny("mistral"))
    lengths = []
    model.model.register_forward_pre_hook(
        lambda _, inputs, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    for longest, expected in ((100, 149), (WINDOWED * 3, 149), (200, 200), (5000, 2 * 64 + 149)):
        lengths.clear()
        model.settle(longest, 64)
        assert max(lengths) == expected > WINDOWED


def forgetful(model: torch.nn.Module) -> torch.nn.Module:
    """A model of transformers that drops the state it is given, so that every piece is read by itself."""
    family = type(model)

    class Forgetful(family):
        def forward(self, input_ids=None, cache=None, past_key_values=None, use_cache=None, **given):
            return family.forward(self, input_ids=input_ids, use_cache=use_cache, **given)

    model.__class__ = Forgetful
    return model


def test_a_model_that_is_wrong_in_every_way_is_refused_with_the_figures():
    model = Pretrained(forgetful(tiny("llama")))
    with pytest.raises(
        NotStreamable, match=r"in pieces \d\.\de.*two tokens or more \d.*token by token \d.*another version"
    ):
        model.settle(100, 1024)


def test_a_state_that_would_not_fit_is_refused_and_one_that_stays_is_not(monkeypatch):
    from baselines.oracles.adapters import reading_trial

    monkeypatch.setattr(reading_trial, "LARGEST_STATE", 2**19)
    for name, fits in (("llama", False), ("mistral", True), ("mamba2", True)):
        model = Pretrained(tiny(name))
        if fits:
            model.settle(10**8, 64)
        else:
            with pytest.raises(NotStreamable, match="grows by 256 bytes a token.*ask shorter lengths"):
                model.settle(10**8, 64)


def test_recurrences_without_positions_know_any_number_whatever_their_configuration_says():
    longrope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4}
    longrope["original_max_position_embeddings"] = 64
    known = {name: Pretrained(tiny(name)).positions for name in ("rwkv", "jamba", "zamba2", "mamba")}
    assert known == dict.fromkeys(known)
    assert Pretrained(tiny("qwen3-next", max_position_embeddings=100)).positions == 100
    assert Pretrained(tiny("llama", max_position_embeddings=128, rope_parameters=longrope)).positions == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARCHITECTURES))
@torch.no_grad()
def test_an_architecture_is_asked_at_4096_tokens(name):
    if not available(name):
        pytest.skip(f"this transformers has no {name}")
    import tasks
    from tasks.harness.evaluate import PIECE, evaluate

    model = Pretrained(tiny(name, **({"max_position_embeddings": 8192} if name == "llama" else {})))
    model.settle(4096, PIECE)
    text, state, sizes = texts(4096, rows=1), None, []
    for piece in text.split(PIECE, 1):
        logits, state = model(piece, state)
        sizes.append(state_bytes(state))
    assert difference(logits[:, -100:], model.caller.whole(text, 100)) < SPLIT
    assert name in GROWING or sizes[1:] == sizes[1:2] * 3, "memory is flat"
    needle = tasks.create("needle", variants=("s-niah-1",), length=4096, test_lengths=(4096,), depths=(0.5,), samples=1)
    assert {m.metric for m in evaluate(model, needle)} >= {"compact_exact_match"}
