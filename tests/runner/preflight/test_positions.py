"""A model that knows so many positions is asked no more, and that is told before anything is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tasks
from runner.commands import ask
from runner.preflight import positions
from tasks.task import Batch, EvaluationBatch

NEEDLE = {"variants": ["s-niah-1"], "length": 64, "test_lengths": [64, 128], "depths": [0.5], "samples": 1}


def exam(length: int, prompt: int | None = None, **more) -> EvaluationBatch:
    tokens = torch.zeros(1, length, dtype=torch.long)
    return EvaluationBatch(Batch(tokens, tokens, {}), prompt, **more)


@pytest.mark.parametrize(
    ("one", "needed"),
    [
        (exam(10), 10),
        (exam(10, 8), 10),
        (exam(10, 8, generate=5), 12),  # the last token that is written is not read
        (exam(10, 8, choices=((1,), (1, 2, 3, 4))), 11),
        (exam(0), 0),
    ],
)
def test_how_many_tokens_a_question_feeds(one, needed):
    assert positions.fed(one) == needed


class Model(nn.Module):
    def __init__(self, known: int | None, begin: int = 0):
        super().__init__()
        self.positions, self.begin = known, [0] * begin
        self.embedding = nn.Embedding(256, 4)

    def forward(self, tokens, state=None):
        raise AssertionError("something was computed")


def most() -> int:
    return max(positions.fed(one) for one in tasks.create("needle", **NEEDLE).exams("test"))


def test_a_task_of_more_positions_is_refused_with_what_it_needs():
    task, needed = tasks.create("needle", **NEEDLE), most()
    positions.check(Model(None), "mine", task)
    positions.check(Model(needed), "mine", task)
    positions.check(Model(needed + 1, begin=1), "mine", task)
    for model in (Model(needed - 1), Model(needed, begin=1)):
        with pytest.raises(
            ValueError, match=rf"mine knows {model.positions} positions, and needle needs .*length 128.*: ask shorter"
        ):
            positions.check(model, "mine", task)


def test_ask_refuses_before_anything_is_computed(monkeypatch, tmp_path):
    (tmp_path / "checkpoint.json").touch()
    answerer = ask.Answerer(Model(100), "mine", "bytes")
    monkeypatch.setattr(ask, "_kept", lambda *_: answerer)
    with pytest.raises(ValueError, match="mine knows 100 positions"):
        ask.asked_table(str(tmp_path), "needle", NEEDLE, None, "auto", "cpu")


def test_pretrained_models_know_what_their_configuration_says():
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    from baselines.oracles.adapters.pretrained import Pretrained

    size = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2, vocab_size=64)
    )
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**size, intermediate_size=16, max_position_embeddings=48)
    )
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2))
    assert [Pretrained(model).positions for model in (gpt2, llama, bloom)] == [32, 48, None]
    model = Pretrained(gpt2.eval(), [1])
    _, state = model(torch.zeros(1, 31, dtype=torch.long))
    for tokens, before in ((32, None), (1, state)):
        with pytest.raises(ValueError, match="GPT2LMHeadModel knows 32 positions, not 33: ask shorter lengths"):
            model(torch.zeros(1, tokens, dtype=torch.long), before)
