"""A causal language model of Hugging Face holds the contract and is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="Hugging Face models need transformers")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

import tasks  # noqa: E402
from baselines.oracles.adapters import pretrained  # noqa: E402
from models.conformance.streaming import NotStreamable, admit  # noqa: E402
from models.conformance.subject import difference, feed  # noqa: E402
from tasks.harness.evaluate import evaluate  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.3,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def test_pieces_give_what_the_whole_gives_and_a_state_can_be_used_twice(folder):
    model = pretrained.load(folder)
    text = torch.randint(256, (2, 50), generator=torch.Generator().manual_seed(0))
    whole, _ = feed(model, text)
    assert difference(feed(model, text, [1, 2, 20, 49])[0], whole) < 1e-4
    _, state = feed(model, text[:, :20])
    first, _ = feed(model, text[:, 20:], state=state)
    second, _ = feed(model, text[:, 20:], state=state)
    assert torch.equal(first, second) and difference(first, whole[:, 20:]) < 1e-4
    admit(model, 10_000)
    with pytest.raises(NotStreamable, match="state grows"):
        admit(model, 100_000_000)


def test_the_log_probabilities_are_the_models_own(folder):
    model = pretrained.load(folder)
    text = torch.randint(256, (1, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model(text)[0], model.model(text).logits, atol=1e-5)


def test_every_text_is_read_after_what_the_tokenizer_puts_before_it(folder):
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 7, "a": 1}, unk_token="a"))
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 7)])
    plain = pretrained.load(folder)
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    try:
        model = pretrained.load(folder)
    finally:
        for file in Path(folder).glob("tokenizer*"):
            file.unlink()
    text = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(2))
    after = torch.cat([torch.full((2, 1), 7), text], 1)
    with torch.no_grad():
        assert torch.allclose(model(text)[0], plain(after)[0][:, 1:], atol=1e-5)
        assert difference(feed(model, text, [1, 5])[0], model(text)[0]) < 1e-4
    assert plain.begin.tolist() == [] and model.begin.tolist() == [7]


def test_it_sits_the_tasks_exams(folder):
    model = pretrained.load(folder)
    needle = tasks.create("needle", variants=("s-niah-1",), test_lengths=(128,), depths=(0.5,), samples=4)
    found = {m.metric: m for m in evaluate(model, needle)}
    assert found["compact_exact_match"].count == 4
    babilong = tasks.create("babilong", questions=("qa1",), length=128, test_lengths=(0,), samples=4)
    assert {m.metric for m in evaluate(model, babilong)} >= {"choice_accuracy", "generated_accuracy"}


def test_a_missing_model_is_told_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="No causal language model could be loaded"):
        pretrained.load(str(tmp_path))


def test_code_beside_the_weights_is_not_run(tmp_path):
    mine = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "config.json").write_text(json.dumps(mine), encoding="utf-8")
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ValueError, match="No causal language model could be loaded"):
        pretrained.load(str(tmp_path))
    with pytest.raises(ValueError, match="No tokenizer"):
        pretrained.tokenizer_file(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["small", "mamba"])
def test_it_is_asked_from_the_command_line_in_its_own_tokens(name, tmp_path, capsys, monkeypatch):
    import tokenizers
    from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

    import bench

    monkeypatch.setenv("COLUMNS", "200")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(["the"], tokenizers.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    size = {"vocab_size": inner.get_vocab_size(), "hidden_size": 32, "num_hidden_layers": 1}
    if name == "mamba":
        model = MambaForCausalLM(MambaConfig(**size, state_size=8, initializer_range=0.2))
    else:
        model = LlamaForCausalLM(LlamaConfig(**size, intermediate_size=64, num_attention_heads=4))
    model.save_pretrained(tmp_path / name)
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path / name)
    settings = {"variants": "['s-niah-1']", "length": 128, "test_lengths": "[128]", "depths": "[0.5]", "samples": 2}
    words = [word for key, value in settings.items() for word in ("--set", f"needle.{key}={value}")]
    assert bench.main(["ask", str(tmp_path / name), "needle", *words]) == 0
    said = capsys.readouterr().out
    assert f"{name}, asked needle" in said and f"unit {name}" in said and "compact_exact_match" in said
    way = "token by token after the first piece" if name == "mamba" else "in pieces"
    assert f"Read {way}: relative error to the whole text" in " ".join(said.split())
