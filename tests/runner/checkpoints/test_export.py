"""A checkpoint handed to transformers: the same logits, the same text generated with a carried state, and back again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

import bench
from runner.checkpoints import store
from runner.checkpoints.export import CODE, LOADER, byte_tokenizer, card, export
from runner.checkpoints.trained_model import CheckpointSettings
from schema.places import ROOT
from tests.runner.checkpoints.test_checkpoints import CELL, key, trained_by

TEXT = {"length": 64, "test_bytes": 512}
OF_TEXT = dataclasses.replace(CELL, task="language-modelling", task_settings=TEXT, model="gated-deltanet")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    settings = CheckpointSettings(tmp_path_factory.mktemp("kept"))
    trained_by(OF_TEXT, settings)
    return settings.folder / key(OF_TEXT)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    return export(checkpoint, tmp_path_factory.mktemp("out") / "model")


def test_every_byte_is_its_own_token(folder):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer.from_str(byte_tokenizer())
    text = "\n Größe\t7 \x00 中"
    assert made.encode(text).ids == list(text.encode())
    assert made.decode(list(text.encode())) == text
    assert made.get_vocab_size() == 256
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "Ā"  # NUL


def test_what_is_exported_is_a_checkpoint_with_a_card(checkpoint, folder):
    tokens = torch.randint(256, (2, 30), generator=torch.Generator().manual_seed(0))
    expected, _ = store.load(checkpoint).model(tokens)
    assert torch.equal(store.load(folder).model(tokens)[0], expected)
    text = (folder / "README.md").read_text()
    assert "gated-deltanet" in text and "Trained for 3 steps of 128 tokens" in text and "No rows" in text


def test_the_card_holds_the_rows_of_this_training_alone(checkpoint):
    facts = store.read_facts(checkpoint)
    row = {name: facts[name] for name in ("model", "size", "budget", "seed", "lr", "dtype")} | {
        "settings": {"model": facts["settings"]}, "status": "ok", "task": "needle", "metric": "exact_match",
        "value": 0.25, "where": {"length": 128},
    }  # fmt: skip
    from runner.checkpoints.export import _measured

    kept = _measured(facts, [row, {**row, "seed": 7}, {**row, "status": "failed"}, {**row, "metric": "machine_load"}])
    assert kept == [row] and "| needle | exact match | length 128 | 25.0 |" in card(facts, kept)


def test_the_card_of_a_users_model_says_which_file_to_name_first(checkpoint):
    facts = store.read_facts(checkpoint)
    assert "load_file" not in card(facts, [])
    assert "user_file.load_file('goose.py')" in card({**facts, "model_files": ["/home/someone/goose.py"]}, [])


def test_symbols_and_folders_that_are_there_are_refused(tmp_path, checkpoint, folder):
    with pytest.raises(ValueError, match="not empty; name a new folder"):
        export(checkpoint, folder)
    settings = CheckpointSettings(tmp_path)
    of_symbols = dataclasses.replace(
        CELL, task="mqar", task_settings={"pairs": (2,), "length": 16, "vocab": 32, "test_lengths": (16,)}
    )
    trained_by(of_symbols, settings)
    with pytest.raises(ValueError, match="trained on symbols"):
        export(tmp_path / key(of_symbols), tmp_path / "out")


def test_without_this_project_nobody_is_told_to_install_a_stranger_of_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "runner.checkpoints.causal_lm", None)
    with pytest.raises(ImportError, match="needs the project Titanomachy, installed from its own repository"):
        exec(LOADER, {})


def test_what_is_exported_is_asked_again_and_its_code_is_not_run(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / CODE).write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n", encoding="utf-8")
    settings = {"variants": "['s-niah-1']", "length": 64, "test_lengths": "[64]", "depths": "[0.5]", "samples": 1}
    words = [word for name, value in settings.items() for word in ("--set", f"needle.{name}={value}")]
    assert bench.main(["ask", str(tmp_path / "model"), "needle", *words]) == 0
    assert "gated-deltanet, trained on" in capsys.readouterr().out and not (tmp_path / "was_run").exists()


def test_a_text_goes_on_from_its_state_by_each_of_its_names(folder):
    pytest.importorskip("transformers")
    from runner.checkpoints.causal_lm import NAMES_OF_STATES, TitanomachyForCausalLM

    model = TitanomachyForCausalLM.from_pretrained(str(folder))
    tokens = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
    whole, before = model(tokens).logits[:, 12:], model(tokens[:, :12])
    for name in ("state", *NAMES_OF_STATES):
        found = model(tokens[:, 12:], **{name: getattr(before, name)})
        torch.testing.assert_close(found.logits, whole, rtol=1e-5, atol=1e-5)


ELSEWHERE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
given = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)("Emma", return_tensors="pt")
made = model.generate(**given, max_new_tokens=12, do_sample=False)
torch.save({"tokens": made, "logits": model(made).logits.detach()}, sys.argv[2])
"""


@pytest.mark.slow
def test_a_fresh_process_elsewhere_gives_the_checkpoints_logits_and_asks_nothing(checkpoint, folder, tmp_path):
    pytest.importorskip("transformers")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "found")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout + done.stderr
    found = torch.load(tmp_path / "found")
    with torch.no_grad():
        expected, _ = store.load(checkpoint).model(found["tokens"])
    torch.testing.assert_close(
        found["logits"], expected, rtol=1e-4, atol=1e-5
    )  # another process, another number of threads
    assert torch.equal(found["tokens"][0, 4:], found["logits"][0, 3:-1].argmax(-1))


@pytest.mark.slow
def test_lm_evaluation_harness_asks_it_by_its_own_type(loaded):
    pytest.importorskip("accelerate", reason="lm-eval's type hf needs accelerate")
    HFLM = pytest.importorskip("lm_eval.models.huggingface").HFLM
    from lm_eval.api.instance import Instance

    model, tokenizer = loaded
    asker = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")
    said = [Instance("loglikelihood", {}, ("The sky is", ending), 0) for ending in (" blue", " a cat")]
    for (value, _), ending in zip(asker.loglikelihood(said), (" blue", " a cat"), strict=True):
        tokens = torch.tensor([list(("The sky is" + ending).encode())])
        with torch.no_grad():
            chances = model(tokens).logits.log_softmax(-1)[0, :-1].gather(-1, tokens[0, 1:, None])
        assert value == pytest.approx(chances[-len(ending) :].sum().item(), abs=1e-4)
    (written,) = asker.generate_until(
        [Instance("generate_until", {}, ("Emma", {"until": ["\n"], "max_gen_toks": 6}), 0)]
    )
    assert isinstance(written, str)


@pytest.fixture(scope="module")
def loaded(folder):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=True)
    return model, transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True)


def test_transformers_loads_it_with_the_same_logits_and_loss(checkpoint, loaded):
    model, tokenizer = loaded
    tokens = tokenizer("It is a truth universally acknowledged", return_tensors="pt").input_ids
    assert tokens[0].tolist() == list(b"It is a truth universally acknowledged")
    with torch.no_grad():
        found = model(tokens, labels=tokens)
        expected, _ = store.load(checkpoint).model(tokens)
    assert torch.equal(found.logits, expected)
    loss = torch.nn.functional.cross_entropy(expected[0, :-1], tokens[0, 1:])
    assert found.loss.item() == pytest.approx(loss.item())


def test_it_generates_with_a_carried_state_what_it_generates_from_the_whole_text(loaded):
    model, tokenizer = loaded
    given = tokenizer("Emma", return_tensors="pt")
    lengths = []
    handle = model.model.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    made = model.generate(**given, max_new_tokens=12, do_sample=False)
    handle.remove()
    assert lengths == [4] + [1] * 11
    expected = given.input_ids
    with torch.no_grad():
        for _ in range(12):
            expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(made, expected)
    drawn = model.generate(**given, max_new_tokens=5, do_sample=True, num_return_sequences=3)
    assert drawn.shape == (3, 9)


def test_beams_and_padding_are_refused_in_one_sentence(loaded):
    model, tokenizer = loaded
    given = tokenizer("Emma", return_tensors="pt")
    with pytest.raises(ValueError, match="num_beams=1"):
        model.generate(**given, max_new_tokens=2, num_beams=2)
    mask = given.attention_mask.clone()
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="give them one by one"):
        model(given.input_ids, attention_mask=mask)
