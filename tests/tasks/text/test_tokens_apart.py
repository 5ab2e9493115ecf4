"""Question and answer, encoded apart, are the tokens of the whole text, whatever a tokenizer puts before one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import create
from tasks.harness.floors import sit
from tasks.text.tokenizer import BYTES, apart, reversible
from tasks.text.tokenizer import create as tokenizer_of

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers other than bytes are an extra")
KINDS = ["bytes", "prepend", "metaspace", "old metaspace", "byte level", "merging"]
TEXT = st.text("ab is4821=,.\n käß北\u00a0", max_size=12)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The path of a tokenizer of each kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found = {"bytes": "bytes"}
    for kind in KINDS[1:]:
        inner = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=kind != "byte level", unk_token=None))
        decoders, normalizers, pre = tokenizers.decoders, tokenizers.normalizers, tokenizers.pre_tokenizers
        special = ["<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if kind == "byte level":
            inner.pre_tokenizer, inner.decoder = pre.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
            special = []
        elif kind in ("prepend", "merging"):
            inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            inner.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
        else:
            inner.pre_tokenizer = pre.Metaspace(prepend_scheme="always", split=True)
            inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
        alphabet = pre.ByteLevel.alphabet() if kind == "byte level" else list("abcdefghiklmnopqrstuvwyz4821=,.▁")
        texts = ["kiwi=4821 plum=4821"] if kind == "merging" else ["the man walked and said so"]
        inner.train_from_iterator(
            texts * 9,
            tokenizers.trainers.BpeTrainer(
                vocab_size=600, special_tokens=special, show_progress=False, initial_alphabet=alphabet
            ),
        )
        file = folder / f"{kind}.json"
        inner.save(str(file))
        if kind == "old metaspace":
            parts = json.loads(file.read_text())
            parts["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
            file.write_text("\ufeff" + json.dumps(parts))
        found[kind] = str(file)
    return found


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KINDS[:-1]), TEXT, TEXT)
def test_pieces_are_the_text_and_what_is_taken_apart_its_tokens(made, kind, prompt, answer):
    tokenizer = tokenizer_of(made[kind])
    whole = prompt + answer + "\n"
    assert tokenizer.decode(tokenizer.encode(whole)) == whole
    both = apart(tokenizer, prompt, answer)
    if both is not None:
        assert np.array_equal(np.concatenate(both), tokenizer.encode(whole))
        assert tokenizer.decode(both[0]) + tokenizer.decode(both[1]) == whole
    assert both is not None or tokenizer is not BYTES


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize(("template", "length"), [("compact", 256), ("ruler", 1024)])
def test_who_goes_on_with_the_texts_own_tokens_gets_every_mark(made, kind, template, length):
    task = create(
        "needle", tokenizer=made[kind], template=template, length=length, test_lengths=[length], samples=2,
        variants=["s-niah-1", "s-niah-3"], depths=[0.5], words="own",
    )  # fmt: skip
    for exam in task.exams("test"):
        for row, tokens in enumerate(exam.batch.tokens):
            said = [*tokens[: exam.prompt].tolist(), *task.truth(exam, row)]
            text = task.tokenizer.decode(tokens[: exam.prompt].tolist()) + task.tokenizer.decode(task.truth(exam, row))
            assert task.tokenizer.encode(text).tolist() == said
    assert all(m.value == 1.0 for m in sit(task, task.oracle))


def test_a_tokenizer_that_joins_question_and_answer_is_refused(made):
    with pytest.raises(ValueError, match="joins the end of a question with its answer in one token") as error:
        create("needle", tokenizer=made["merging"], length=256)
    assert "\n" not in str(error.value)


def test_nothing_is_changed_where_no_blank_is_put(made, tmp_path):
    sample = " kiwi, as it was"
    for kind in KINDS[1:]:
        assert reversible(tokenizer_of(made[kind]), sample, "this test").decode([]) == ""
    own = tokenizer_of("bpe:300")
    again = tmp_path / "again.json"
    again.write_text(own.inner.to_str())
    assert tokenizer_of(str(again)).encode(sample).tolist() == own.encode(sample).tolist()


@pytest.mark.parametrize(
    "content",
    ["[1]", "5", '{"model": 3}', '{"model": null, "decoder": 5}', '{"model": {}, "normalizer": []}', "[" * 99999, "\0"],
)
def test_a_broken_tokenizer_is_one_sentence(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match="is no JSON file of the tokenizers library") as error:
        tokenizer_of(str(tmp_path / "bad.json"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    for name in ("x" * 5000, "a\0b", "bpe:99999999999999"):
        with pytest.raises(ValueError, match="There is no tokenizer") as error:
            tokenizer_of(name)
        assert len(str(error.value)) < 400
