"""A checkpoint's folder as somebody else may have written it: one sentence, no code run, nothing built that cannot be."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import bench
import tasks
from models.language_model import Size, seeded
from runner.cell_key import code_of_training
from runner.checkpoints import model_files, store, trained_model
from runner.checkpoints.store import CheckpointError, load
from tasks.harness import tensor_file
from tasks.harness.train import Training
from tasks.text.byte_pair import JsonTokenizer
from tasks.text.tokenizer import BYTES

SIZE = {"width": 16, "depth": 1, "heads": 2}


def facts(**changed) -> dict:
    plain = {"model": "deltanet", "settings": {}, "size": SIZE, "vocab": 256, "seed": 1, "task": "language-modelling"}
    plain |= {"model_files": [], "when": "2026-01-31T12:00:00+00:00", "providers": [], "budget": {}, "versions": {}}
    plain |= {"code_hash": code_of_training("deltanet", tasks.classes()["language-modelling"], {})}
    return plain | changed


def kept(folder: Path, **changed) -> Path:
    model = seeded("deltanet", Size(256, 16, 1, 2), 0)
    store.save(folder, model, BYTES, Training([1.0], 1, 1.0), facts(**changed))
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return kept(tmp_path_factory.mktemp("sound") / "kept")


def rewritten(folder: Path, **changed) -> Path:
    path = folder / store.FACTS
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    told = str(caught.value)
    assert told.isprintable() and len(told) < 600
    return told


def test_a_sound_folder_is_loaded_without_a_word(sound):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(sound).facts["model"] == "deltanet"


def test_a_folder_of_data_runs_no_code(tmp_path, capsys):
    ran, mine = tmp_path / "ran", tmp_path / "x.py"
    mine.write_text(f"open({str(ran)!r}, 'w')")
    folder = kept(tmp_path / "kept", model="zork", model_files=[str(mine)])
    assert bench.main(["ask", str(folder), "needle"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'zork', which is not registered here" in line and "x.py'" in line and "by --models FILE.py" in line
    assert not ran.exists()
    assert bench.main(["ask", str(folder), "needle", "--models", str(mine)]) == 2  # asked for: it is run
    assert ran.exists() and "x.py registers no model" in capsys.readouterr().err
    assert bench.main(["ask", str(folder), "needle", "--models", "zork"]) == 2
    assert "--models names no Python file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [["ask", "FOLDER", "needle"], ["zero-shot", "FOLDER"]])
def test_a_user_s_file_that_ends_the_process_is_exit_2(flag, sound, tmp_path, capsys):
    if flag[0] == "zero-shot":
        pytest.importorskip("lm_eval", reason="zero-shot needs lm-eval")
    mine = tmp_path / "polite_not.py"
    mine.write_text("import sys\nsys.exit(0)")
    words = [str(sound) if word == "FOLDER" else word for word in flag]
    assert bench.main([*words, "--models", str(mine)]) == 2
    assert "polite_not.py fails to import, line 2: SystemExit: 0" in capsys.readouterr().err


WRONG = {
    "size": ({**SIZE, "width": 10**12}, r"size\.width must be at most 2147483648, not 1000000000000"),
    "size ": ({**SIZE, "width": 2**30}, r"says width 1,073,741,824, depth 1 and vocab 256, but its weights are [\d,]+ numbers"),
    "size  ": ({**SIZE, "depth": 2**30}, r"depth 1,073,741,824"),
    "size   ": ({**SIZE, "width": 32}, "holds the weights of another model"),
    "size    ": ({**SIZE, "heads": "two"}, r"size\.heads must be a whole number, not 'two'"),
    "size     ": ([16, 1, 2], r"size must be a table, not \[16, 1, 2\]"),
    "vocab": (2**30, r"vocab 1,073,741,824"),
    "vocab ": (None, "vocab must be a whole number, not None"),
    "seed": (10**30, "seed"),
    "seed ": (-1, "seed must be at least 0, not -1"),
    "settings": ([], r"settings must be a table, not \[\]"),
    "model": (None, "model must be text, not None"),
    "model ": ("zork\nzork", "which is not registered here"),
    "tokenizer": ({"name": "byte"}, r"tokenizer\.vocab is missing; add it"),
    "tokenizer ": ("byte", "tokenizer must be a table, not 'byte'"),
    "tokenizer  ": ({"name": "byte", "vocab": 999, "separator": 0, "fingerprint": ""}, "tokenizer has 999 tokens, its model 256"),
    "tokenizer   ": ({"name": "b", "vocab": 9, "separator": 0, "fingerprint": ""}, "tokenizer.json, .*cannot be read"),
    "task": ("no-such", "was trained on 'no-such', which is no task here"),
    "when": ("yesterday", "when: "),
    "when ": ("2026-01-31", "when: a time needs its zone"),
    "providers": ([3], r"providers\.0 must be text, not 3"),
    "versions": ({"torch": 2}, r"versions\.torch must be text, not 2"),
    "schema": (True, "no checkpoint of this version"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_facts_are_one_sentence(name, tmp_path):
    value, told = WRONG[name]
    folder = rewritten(kept(tmp_path / "kept"), **{name.strip(): value})
    if name == "schema":  # True == 1
        rewritten(folder, schema="1")
    assert re.search(told, refusal(folder))


def test_settings_that_the_model_does_not_have_are_told_as_everywhere(tmp_path):
    with pytest.raises(ValueError, match="Model 'deltanet' has no setting 'zork'"):
        load(kept(tmp_path / "kept", settings={"zork": 1}))


@pytest.mark.parametrize("name", [store.FACTS, store.WEIGHTS, store.TOKENIZER])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(name, tmp_path):
    about = {"name": "mine", "vocab": 3, "separator": None, "fingerprint": ""}
    folder = rewritten(kept(tmp_path / "kept"), tokenizer=about)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert "is no file" in refusal(folder)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(facts())), below=st.sampled_from(["", *SIZE, "vocab", "separator"]), value=ANY)
def test_whatever_stands_in_the_facts_it_is_loaded_or_refused_in_one_sentence(sound, name, below, value):
    path = sound / store.FACTS
    before = path.read_text()
    table = json.loads(before)
    if below and isinstance(table[name], dict):
        table[name][below] = value
    else:
        table[name] = value
    try:
        path.write_text(json.dumps(table))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other code
            load(sound)
    except ValueError as error:  # CheckpointError, and what `build` says of settings
        assert str(error).isprintable() and len(str(error)) < 1200
    finally:
        path.write_text(before)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=113, letter=32, cut=False)  # in the facts, which the digest did not cover once
@given(place=st.integers(0, 10**6), letter=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_of_weights_is_told(sound, tmp_path_factory, place, letter, cut):
    content = bytearray((sound / store.WEIGHTS).read_bytes())
    place %= len(content)
    if content[place] == letter and not cut:
        return
    content = content[:place] if cut else content[:place] + bytes([letter]) + content[place + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        tensors, facts = tensor_file.read(path)
    except tensor_file.Damaged as error:
        assert "is damaged" in str(error)
        return
    # What was not told has changed nothing: white space between the words of the header.
    whole, told = tensor_file.read(sound / store.WEIGHTS)
    assert facts == told and tensors.keys() == whole.keys()
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)


@pytest.mark.parametrize("about", [None, {"facts": "{", "digest": ""}, {"facts": "[]", "digest": ""}, {"facts": "{}"}])
def test_a_file_of_tensors_whose_facts_are_none_is_damaged(about, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata=about)
    with pytest.raises(tensor_file.Damaged, match="a.safetensors is damaged"):
        tensor_file.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("told", [{"tokens": "x", "seconds": 1.0}, {"tokens": 1}, {"tokens": 1, "seconds": -1.0}])
def test_a_training_that_says_what_none_can_have_is_refused(told, tmp_path):
    tensor_file.write(tmp_path / store.LOSSES, {"losses": torch.ones(2)}, told)
    with pytest.raises(CheckpointError, match="tokens|seconds"):
        store.read_training(tmp_path)


def test_losses_that_are_none_are_refused(tmp_path):
    tensor_file.write(tmp_path / store.LOSSES, {"other": torch.ones(2)}, {"tokens": 1, "seconds": 1.0})
    with pytest.raises(CheckpointError, match="no losses"):
        store.read_training(tmp_path)


def test_a_model_that_other_code_trained_is_told(tmp_path):
    with pytest.warns(UserWarning, match="was trained by other code than is here: deltanet, language-modelling or"):
        load(kept(tmp_path / "kept", code_hash="0" * 16))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"code_hash": "0" * 16}, "was trained by other code"),
        ({"versions": {"torch": "1.0"}}, r"was trained under torch 1\.0, here is"),
    ],
)
def test_what_is_kept_by_other_code_is_no_training_of_this_cell(changed, told, tmp_path, monkeypatch):
    class Cell:
        model, budget, settings = "deltanet", {}, {}

    task = tasks.create("language-modelling", length=32)
    now = {
        "versions": trained_model.provenance.versions(),
        "code_hash": code_of_training("deltanet", type(task), {}),
    }
    trained_model._check_code(facts(**now), Cell, task, tmp_path)
    with pytest.raises(CheckpointError, match=told):
        trained_model._check_code(facts(**now | changed), Cell, task, tmp_path)
    with pytest.raises(CheckpointError, match="does not say versions"):
        trained_model._check_code({k: v for k, v in facts(**now).items() if k != "versions"}, Cell, task, tmp_path)


def test_another_tokenizer_beside_the_weights_is_told(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    content = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str()
    model = seeded("deltanet", Size(256, 16, 1, 2), 0)
    store.save(tmp_path, model, JsonTokenizer("mine", content), Training([1.0], 1, 1.0), facts())
    assert load(tmp_path).tokenizer.vocab == 2
    path = tmp_path / store.TOKENIZER
    path.write_text(path.read_text().replace('"b"', '"c"'))
    assert "is not the tokenizer that the model was trained with" in refusal(tmp_path)
    path.write_text("{}")
    assert "no JSON file of the tokenizers library" in refusal(tmp_path)


def test_a_file_that_the_user_has_named_here_is_found_again_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    mine, other = tmp_path / "mine.py", tmp_path / "other.py"
    mine.touch(), other.touch()
    assert model_files.among([str(mine)]) == []
    model_files.name([mine])
    assert model_files.among([str(mine), str(other), "nowhere.py"]) == [mine.resolve()]
    (tmp_path / "state" / "titanomachy" / "model-files.json").write_text('{"no": "list"}')
    assert model_files.among([str(mine)]) == []
    model_files.name([other])
    assert model_files.named() == [other.resolve()]
