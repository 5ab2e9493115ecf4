"""Tokenizers of the `tokenizers` library, and what language modelling counts with them: real bytes, words, positions."""

from __future__ import annotations

import json
import math
import re
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import create
from tasks.babilong.scoring import DISAGREEMENT
from tasks.harness.floors import sit
from tasks.language_modelling.task import LanguageModelling
from tasks.needle.variants import VARIANTS
from tasks.task import IGNORE, Answers, EvaluationBatch
from tasks.text import byte_pair
from tasks.text.corpus import documents
from tasks.text.tokenizer import BYTES, beginning, encoded, reversible, text
from tasks.text.tokenizer import create as tokenizer_of

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers other than bytes are an extra")

WORDS = "the sea was käse calm, and 北京 a whale 4821 came\nup  slowly;".split(" ")


def _prose(seed: int, size: int) -> str:
    """Exactly `size` bytes of words, some not ASCII."""
    draws, text = Random(seed), ""
    while len((text + " ").encode()) < size:
        word = draws.choice(WORDS)
        text += word + " " if len((text + word + " ").encode()) <= size else ""
        text += "." * (size - len(text.encode())) if size - len(text.encode()) < 12 else ""
    return text


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """Ten training texts, one validation text, and a test file of 1,000 bytes: texts of 600 and of 400."""
    records = [{"id": f"t{i}", "split": "train", "text": _prose(i, 3000)} for i in range(10)]
    records += [{"id": "v", "split": "validation", "text": _prose(90, 900)}]
    records += [{"id": f"e{size}", "split": "test", "text": _prose(size, size)} for size in (600, 400)]
    file = tmp_path_factory.mktemp("corpus") / "sea.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    return str(file)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory, corpus) -> str:
    """A JSON file of a tokenizer that is not at byte level: blanks as ▁, unknown characters as bytes."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None, byte_fallback=True))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    decoders = tokenizers.decoders
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=30,
        show_progress=False,
    )
    inner.train_from_iterator([document.text for document in documents("train", corpus)], trainer)
    file = tmp_path_factory.mktemp("tokenizer") / "spaces.json"
    inner.save(str(file))
    return str(file)


def _name(kind: str, metaspace: str) -> str:
    return metaspace if kind == "json" else kind


@pytest.mark.parametrize("kind", ["bytes", "bpe:300", "json"])
def test_every_text_comes_back_and_every_byte_belongs_to_one_token(kind, corpus, metaspace):
    tokenizer = tokenizer_of(_name(kind, metaspace), corpus)
    for number, document in enumerate(documents("test", corpus)):
        found = text("test", corpus, tokenizer, number, number)
        assert found.tokens[0] == beginning(tokenizer) and not found.ends[0] and not found.words[0]
        assert tokenizer.decode(found.tokens[1:]) == document.text == found.content.tobytes().decode()
        counts = np.diff(found.ends)
        assert counts.sum() == len(document.text.encode()) == found.ends[-1] and counts.min() >= 0
        assert found.words.sum() == len(re.split(r"\s+", document.text))
        assert int(found.tokens[1:].max()) < tokenizer.vocab


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "bpe:300", "json"])
def test_bits_per_byte_and_perplexities_of_1000_bytes_by_hand(kind, cross, corpus, metaspace):
    """Every token has a probability of its own, 1 / (2 + its number), summed here token by token over the file."""
    settings = {"corpus": corpus, "tokenizer": _name(kind, metaspace), "cross_documents": cross}
    task = LanguageModelling(length=16, test_lengths=(16, 64), test_bytes=0, **settings)

    def answer(exam: EvaluationBatch) -> Answers:
        return Answers(-torch.log(2.0 + exam.batch.targets), torch.zeros(exam.batch.targets.shape, dtype=torch.bool))

    bits = scored = words = count = 0
    for document in documents("test", corpus):
        tokens = task.tokenizer.encode(document.text).tolist()
        bits += sum(math.log2(2 + token) for token in tokens)
        scored += len(document.text.encode())
        words += len(re.split(r"\s+", document.text))
        count += len(tokens)
    marks = {(m.metric, m.where["length"]): m for m in sit(task, answer) if "length" in m.where}
    for length in (16, 64):
        m = marks["bits_per_byte", length]
        assert (m.value, m.count) == (pytest.approx(bits / scored, rel=1e-6), scored)
        assert marks["perplexity", length].value == pytest.approx(2 ** (bits / count), rel=1e-5)
        assert marks["word_perplexity", length].value == pytest.approx(2 ** (bits / words), rel=1e-4)
        assert marks["word_perplexity", length].count == words
    assert scored == 1000
    assert task.vocab == task.tokenizer.vocab + (kind == "json")  # which has no token that parts texts


@pytest.mark.parametrize("kind", ["bytes", "bpe:300", "json"])
def test_a_uniform_model_scores_the_logarithm_of_the_vocabulary(kind, corpus, metaspace):
    task = LanguageModelling(corpus, 16, (16, 64), tokenizer=_name(kind, metaspace))
    tokens = int(encoded("test", corpus, task.tokenizer).lengths.sum())
    marks = {(m.metric, m.where.get("length")): m for m in task.floors()["floor: uniform"]}
    expected = math.log2(task.vocab)
    if kind != "bytes":
        assert marks["bits_per_token", 64].value == pytest.approx(expected, rel=1e-12)
    assert marks["perplexity", 64].value == pytest.approx(task.vocab)
    per_byte = marks["bits_per_byte", 64]
    assert per_byte.value * per_byte.count == pytest.approx(expected * tokens, rel=1e-12)


def test_counting_floors_hardly_depend_on_the_tokenizer(corpus):
    def bits(tokenizer: str) -> dict[str, float]:
        floors = LanguageModelling(corpus, 60, (60,), test_bytes=0, tokenizer=tokenizer).floors()
        return {name: marks[0].value for name, marks in floors.items() if "uniform" not in name}

    by_bytes, by_pairs = bits("bytes"), bits("bpe:300")
    assert by_pairs == {name: pytest.approx(value, rel=0.05) for name, value in by_bytes.items()}


def test_loss_to_64_times_the_training_length_scores_a_bounded_number_of_bytes():
    task = LanguageModelling(length=64, test_lengths=(64, 4096), test_bytes=8192)
    marks = [m for m in task.floors()["floor: unigram"]]
    assert {m.where["length"]: m.count for m in marks if m.metric == "bits_per_byte"} == {64: 8192, 4096: 8192}
    ends = [m.where["to"] for m in marks if m.metric == "bits_per_byte_at_position"]
    assert ends == [8 * 2**i for i in range(10)]


def test_windows_cross_documents_only_where_that_is_asked(corpus):
    task = LanguageModelling(corpus, 900, (900,), test_bytes=0, cross_documents=True)
    (exam, *rest) = list(task.exams("test"))
    assert 0 in exam.batch.tokens and IGNORE in exam.batch.targets  # a separator is read and not asked
    asked = sum(int((e.batch.targets != IGNORE).sum()) for e in [exam, *rest])
    assert asked == 1000
    with pytest.raises(ValueError, match="or cross_documents=true"):
        LanguageModelling(corpus, 900, (900,))
    batch = task.training(0, 0, 0.0, 18000)
    assert IGNORE in batch.targets and batch.tokens.shape == (20, 900)


def test_own_bpe_is_trained_once_and_is_the_same_again(corpus, tmp_path, monkeypatch):
    first = tokenizer_of("bpe:300", corpus)
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    byte_pair.trained.cache_clear()
    again = tokenizer_of("bpe:300", corpus)
    assert again is not first and again.fingerprint == first.fingerprint and again.vocab == 300
    assert [file.suffix for file in (tmp_path / "tokenizers").iterdir() if file.suffix != ".lock"] == [".json"]
    byte_pair.trained.cache_clear()
    monkeypatch.setattr(byte_pair, "_train", None)  # read, not trained
    assert tokenizer_of("bpe:300", corpus).fingerprint == first.fingerprint
    kept = encoded("train", corpus, again)
    assert all(np.array_equal(a, again.encode(d.text)) for a, d in zip(kept, documents("train", corpus), strict=True))


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_needles_of_any_tokenizer_fit_and_are_solved(template, corpus):
    length = 128 if template == "compact" else 1024
    names = ["s-niah-1", "s-niah-3", "mk-niah-2", "mq-niah"]
    task = create(
        "needle", variants=names, template=template, length=length, test_lengths=[length], samples=2, depths=[0.5],
        tokenizer="bpe:1000",
    )  # fmt: skip
    assert set(names) <= set(VARIANTS)
    for exam in task.exams("test"):
        assert exam.batch.where["unit"] == "bpe:1000"
        room = 0 if template == "compact" else 128
        assert length - 60 < exam.prompt + room <= length
        assert task.evidence(exam, 0)
    assert all(m.value == 1.0 for m in sit(task, task.oracle))
    copied = [m for m in task.floors()["reference: copy the only number"] if m.where["variant"] == "s-niah-1"]
    assert copied and all(m.value == 1.0 for m in copied)
    assert task.training(0, 1, 1.0, 2 * length).tokens.max() < task.vocab == 1000
    assert task.data_hash() != create("needle").data_hash()


@pytest.mark.parametrize("values", ["uuids", "words"])
def test_where_a_prompt_ends_does_not_tell_how_many_tokens_its_answer_has(values):
    needle = create("needle", length=128, values=values, tokenizer="bpe:1000")
    ends: dict[int, list[int]] = {}
    for seed in range(150):
        sample = needle.template.draw(Random(seed), "train", "s-niah-2", 128)
        ends.setdefault(len(sample.answer), []).append(len(sample.prompt))
    assert len(ends) > 1
    most = 128 + 1 - max(ends)
    assert all(most - 2 <= end <= most for found in ends.values() for end in found)


def test_babilong_of_any_tokenizer_fills_its_length_and_is_solved():
    task = create(
        "babilong", questions=["qa1", "qa19"], length=96, test_lengths=[0, 96], samples=3, tokenizer="bpe:1000"
    )
    exams = list(task.exams("test"))
    assert {e.batch.tokens.shape[1] for e in exams if e.batch.where["length"]} == {96}
    assert all(task.evidence(exam, 0) for exam in exams)
    assert all(m.value == 1.0 for m in sit(task, task.oracle) if m.metric != DISAGREEMENT)
    assert {e.batch.where["unit"] for e in exams} == {"bpe:1000"}


def test_what_is_no_tokenizer_is_refused_in_one_sentence(corpus, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="There is no tokenizer 'bpe': ask for bytes, bpe:SIZE, gpt2 or the path"):
        tokenizer_of("bpe", corpus)
    with pytest.raises(ValueError, match="at least bpe:257"):
        tokenizer_of("bpe:100", corpus)
    (tmp_path / "not.json").write_text("{}")
    with pytest.raises(ValueError, match="is no JSON file of the tokenizers library"):
        tokenizer_of(str(tmp_path / "not.json"), corpus)
    lossy = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "?": 1}, unk_token="?"))
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    lossy.save(str(tmp_path / "lossy.json"))
    with pytest.raises(ValueError, match="'lossy' does not give the corpus's texts back"):
        list(LanguageModelling(corpus, 8, (8,), tokenizer=str(tmp_path / "lossy.json")).exams("test"))
    with pytest.raises(ValueError, match="does not give a text back as it was, which the needle needs"):
        create("needle", tokenizer=str(tmp_path / "lossy.json"))
    monkeypatch.setattr(byte_pair, "library", lambda: (_ for _ in ()).throw(ValueError("pip install")))
    byte_pair.trained.cache_clear()
    with pytest.raises(ValueError, match="pip install"):
        tokenizer_of("bpe:512", corpus)
    assert reversible(BYTES, "käse", "this test") is BYTES


def test_gpt2_without_package_and_network_is_refused_in_one_sentence(tmp_path, monkeypatch):
    class Offline:
        @staticmethod
        def from_pretrained(_: str) -> None:
            raise RuntimeError("no network")

    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    monkeypatch.setattr(byte_pair, "_gpt2_files", tuple)
    monkeypatch.setattr(tokenizers, "Tokenizer", Offline)
    byte_pair.gpt2.cache_clear()
    with pytest.raises(
        ValueError, match="GPT-2's tokenizer could not be read from the Hugging Face hub: go online once"
    ):
        tokenizer_of("gpt2")


@pytest.mark.parametrize(
    ("vocab", "told"),
    [
        ({}, "has no tokens"),
        ({"a": 0, "b": 2**32 - 1}, "has a token number 4,294,967,295"),
        ({"a": 10**12}, "is no JSON"),
    ],
)
def test_a_tokenizer_with_an_absurd_table_is_refused(vocab, told):
    table = json.loads(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).to_str())
    table["model"]["vocab"] = vocab
    with pytest.raises(ValueError, match=told):
        byte_pair.JsonTokenizer("mine", json.dumps(table))


KEYS = st.sampled_from(["model", "type", "vocab", "merges", "added_tokens", "normalizer", "decoder", "pre_tokenizer"])
TABLES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | TABLES.map(json.dumps))
def test_whatever_a_tokenizer_s_file_holds_it_is_refused_in_one_sentence(content):
    try:
        byte_pair.JsonTokenizer("mine", content)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
