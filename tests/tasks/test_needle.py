"""The needle task: both templates, what is drawn, what is asked, how it is marked, and what cheats score."""

from __future__ import annotations

import hashlib
import math
import re
import time
from itertools import product
from random import Random

import pytest
import torch

from tasks.corpus import documents
from tasks.floors import sit
from tasks.haystack import NOISE, Haystack, books
from tasks.needle import CURRICULUM, Needle
from tasks.needle_text import split_of
from tasks.needle_values import Number, ShortUuid, Uuid, Word
from tasks.needle_variants import SINGLE as VARIANTS
from tasks.task import IGNORE, Answers
from tasks.words import words

COMPACT = {
    "s-niah-1": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=(\d{4})\n([^\n]*)\n\2=\3"),
    "s-niah-2": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=(\d{4})\n([^\n]*)\n\2=\3"),
    "s-niah-3": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=([0-9a-f]{2}-[0-9a-f]{2})\n([^\n]*)\n\2=\3"),
}


def _rows(batch) -> list[str]:
    return [bytes(row.tolist()).decode() for row in batch.tokens]


def _collapsed(split: str) -> str:
    return " ".join(" ".join(document.text for document in documents(split)).split())


@pytest.fixture(scope="module")
def compact() -> Needle:
    return Needle(length=64, test_lengths=(64, 129), samples=4)


@pytest.fixture(scope="module")
def ruler() -> Needle:
    return Needle(template="ruler", length=1024, test_lengths=(1024, 2048), samples=2)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_compact_texts_hide_the_asked_value_in_text_of_the_splits_own_books(compact, split):
    prose, noise = _collapsed(split) + " ", (NOISE + " ") * 9
    exams = list(compact.exams(split))
    assert exams
    for exam in exams:
        where = exam.batch.where
        assert exam.batch.tokens.shape == (4, where["length"])  # exactly as long as asked
        assert where["haystack"] == ("noise" if where["variant"] == "s-niah-1" else "austen-melville")
        for text in _rows(exam.batch):
            before, key, value, after = COMPACT[where["variant"]].fullmatch(text).groups()
            assert key in words().nouns and split_of(key, value) == split
            filler = before + after
            assert filler in (noise if where["variant"] == "s-niah-1" else prose * 2)
            assert not before or before.endswith(" ") or not after
            if where["depth"] in (0, 1):
                assert (before, after)[int(where["depth"])] == ""
            else:
                assert abs(len(before) - where["depth"] * len(filler)) < 25


def test_only_the_answer_is_asked_and_it_ends_with_a_line_break(compact):
    for batch in [compact.training(0, 3, 0.8, 2048), *(exam.batch for exam in compact.exams("test"))]:
        for text, targets in zip(_rows(batch), batch.targets.tolist(), strict=True):
            answer = text.rsplit("=", 1)[1] + "\n"
            assert bytes(t for t in targets if t != IGNORE).decode() == answer
            assert all(t == IGNORE for t in targets[: -len(answer)])


def test_training_rows_mix_the_variants_evenly_and_take_prose_from_training_books(compact):
    batch = compact.training(7, 1, 1.0, 64 * 32)
    prose, kinds = _collapsed("train") + " ", []
    for text in _rows(batch):
        variant = next(v for v in VARIANTS[::-1] if COMPACT[v].fullmatch(text))
        before, key, value, after = COMPACT[variant].fullmatch(text).groups()
        assert split_of(key, value) == "train"
        if variant == "s-niah-2" and before + after in (NOISE + " ") * 9:
            variant = "s-niah-1"
        assert variant == "s-niah-1" or before + after in prose * 2
        kinds.append(variant)
    counts = [kinds.count(variant) for variant in VARIANTS]
    assert max(counts) - min(counts) <= 1 and sum(counts) == len(kinds)


def test_every_variant_has_its_turn_even_where_a_batch_is_one_row():
    task = Needle(length=64, samples=1)
    ends = {
        bytes(task.training(0, step, 1.0, 1).tokens[0].tolist()).rsplit(b"=", 1)[1].count(b"-") for step in range(6)
    }
    assert ends == {0, 1}


def test_training_lengths_grow_with_progress_and_spread_log_uniformly():
    task = Needle(length=512)
    start = {task.training(0, step, 0.0, 1).tokens.shape[1] for step in range(50)}
    assert start == {8 * math.ceil(task.shortest / 8)}
    late = sorted(task.training(0, step, 1.0, 1).tokens.shape[1] for step in range(400))
    assert late[0] < 40 and 480 < late[-1] <= 512
    median = math.sqrt(task.shortest * 512)
    assert abs(math.log(late[200] / median)) < 0.25
    middle = [task.training(0, step, CURRICULUM / 2, 1).tokens.shape[1] for step in range(100)]
    assert 100 < max(middle) <= 8 * math.ceil(median / 8)


@pytest.mark.parametrize("template", ["compact", "ruler"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_needles_lie_anywhere(template, variant):
    task = Needle((variant,), template, length=4096)
    draws, sign = Random(0), b"\n" if template == "compact" else b"One of the special"
    samples = [task.template.draw(draws, "train", variant, 4096) for _ in range(40)]
    depths = sorted(bytes(sample.prompt).index(sign) / 4096 for sample in samples)
    assert depths[0] < 0.2 and 0.3 < depths[20] < 0.7 and depths[-1] > 0.8


def test_the_number_of_training_tokens_is_kept_at_every_length():
    task = Needle(length=512)
    assert all(3500 < task.training(0, step, 1.0, 4096).tokens.numel() <= 4096 for step in range(30))


def test_training_and_exams_never_share_a_sample():
    task = Needle(length=64, test_lengths=(64, 128), samples=20, digits=2)
    trained = {text.rsplit("\n", 1)[1] for step in range(60) for text in _rows(task.training(0, step, 1.0, 4096))}
    asked = {
        split: {text.rsplit("\n", 1)[1] for exam in task.exams(split) for text in _rows(exam.batch)}
        for split in ("validation", "test")
    }
    assert len(trained) > 2500 and len(asked["test"]) > 300
    assert not trained & asked["test"] and not trained & asked["validation"] and not asked["test"] & asked["validation"]
    values = {pair.split("=")[1] for pair in trained}
    assert len(values & {pair.split("=")[1] for pair in asked["test"]}) > 50  # no value is kept from training


def test_the_share_of_pairs_that_belong_to_each_split():
    splits = [split_of(key, str(value)) for key in words().nouns[:20] for value in range(1000, 1500)]
    shares = [splits.count(split) / len(splits) for split in ("train", "validation", "test")]
    assert shares == [pytest.approx(share, abs=0.015) for share in (205 / 256, 25 / 256, 26 / 256)]


def test_the_same_seed_gives_the_same_bytes(compact, ruler):
    def digest(batches) -> str:
        parts = (t.numpy().astype("<i8").tobytes() for batch in batches for t in batch[:2])
        return hashlib.sha256(b"".join(parts)).hexdigest()

    again = Needle(length=64, test_lengths=(64, 129), samples=4)
    assert torch.equal(compact.training(1, 2, 0.5, 999).tokens, again.training(1, 2, 0.5, 999).tokens)
    assert not torch.equal(compact.training(1, 2, 1.0, 64).tokens, compact.training(2, 2, 1.0, 64).tokens)
    assert (
        digest([compact.training(0, 0, 1.0, 999), *(e.batch for e in compact.exams("test"))])
        == "b799d0633017cb4feb5595e6f73e740c6a747f23ed917239edeb8f298942801d"
    )
    assert (
        digest([ruler.training(0, 0, 1.0, 999), *(e.batch for e in ruler.exams("validation"))])
        == "affcf278da1fbddfb01d168433781a0f5d5325152875a47a98f3e1bccbd596a7"
    )


def test_a_cell_does_not_depend_on_the_cells_beside_it():
    wide = Needle(length=64, test_lengths=(64, 128), samples=3)
    narrow = Needle(("s-niah-2",), length=64, test_lengths=(128,), depths=(0.5,), samples=3)
    (exam,) = narrow.exams("test")
    same = [e for e in wide.exams("test") if e.batch.where == exam.batch.where]
    assert len(same) == 1 and torch.equal(same[0].batch.tokens, exam.batch.tokens)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ruler_texts_are_rulers_word_for_word(ruler, variant):
    kind = "uuid" if variant == "s-niah-3" else "number"
    seen = 0
    for exam in ruler.exams("test"):
        where = exam.batch.where
        if where["variant"] != variant:
            continue
        assert (exam.generate, exam.stop) == (128, None)  # a line break ends nothing
        for text in _rows(exam.batch):
            seen += 1
            key, value = re.search(r"for ([a-z]+-[a-z]+) mentioned in the provided text is (\S+)$", text).groups()
            assert re.fullmatch(r"[1-9]\d{6}" if kind == "number" else Uuid.pattern, value)
            head = (
                f"A special magic {kind} is hidden within the following text. Make sure to memorize it. "
                f"I will quiz you about the {kind} afterwards.\n"
            )
            tail = (
                f"\nWhat is the special magic {kind} for {key} mentioned in the provided text? "
                f"The special magic {kind} for {key} mentioned in the provided text is {value}"
            )
            assert text.startswith(head) and text.endswith(tail)
            context = text[len(head) : -len(tail)]
            needle = f"One of the special magic {kind}s for {key} is: {value}."
            _check_context(context, needle, variant, where["depth"])
            assert exam.prompt == len(text) - len(value) - 1
    assert seen == 2 * 5 * ruler.samples


def _check_context(context: str, needle: str, variant: str, depth: float) -> None:
    if variant == "s-niah-1":
        lines = context.split("\n")
        place = lines.index(needle)
        assert lines[:place] + lines[place + 1 :] == [NOISE] * (len(lines) - 1)
        assert place == min(int(depth * (len(lines) - 1)), len(lines) - 2)
        return
    before, after = context.split(needle)
    prose = _collapsed("test") + " "
    assert (before + after.lstrip(" ")).strip() in prose * 2
    assert before.endswith(" ") and after.startswith(" ")
    assert depth > 0 or before == " "
    assert (after == " ") == (depth == 1)
    assert before == " " or re.search(r"[.!?] $", before) or depth == 1
    sentences = [len(re.split(r"(?<=[.!?])\s+", part.strip())) if part.strip() else 0 for part in (before, after)]
    assert sentences[0] == int(sum(sentences) * depth)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ruler_lengths_hold_the_largest_haystack_that_fits(variant):
    least = Needle((variant,), "ruler", length=4096).template.minimum(variant)
    template = Needle((variant,), "ruler", length=least).template
    longest = Word(tuple((max(kind, key=len),) for kind in words()))
    unit = len(NOISE) + 1 if variant == "s-niah-1" else template.haystack("test", variant).longest_word + 1
    for length in (least, least + 1, least + 50, 1000, 3000):
        for i in range(20):
            sample = template.draw(Random(i), "test", variant, length)
            used = len(sample.prompt) + 128
            assert used <= length
            assert length == least or used > length - unit or length < least + 2 * unit
    template.kinds["words"] = longest
    used = len(template.draw(Random(0), "test", variant, least).prompt) + 128
    assert used == least if variant == "s-niah-1" else least - unit < used <= least


@pytest.mark.parametrize(("template", "variant"), list(product(("compact", "ruler"), VARIANTS)))
def test_a_length_below_the_minimum_is_refused_with_the_minimum(template, variant):
    least = Needle((variant,), template, length=4096).template.minimum(variant)
    assert least <= 64 or template == "ruler"
    task = Needle((variant,), template, length=least, test_lengths=(least,), samples=1)
    assert all(len(exam.batch.tokens) for exam in task.exams("test"))
    for short in (1, least - 1):
        for settings in ({"length": short}, {"length": least, "test_lengths": (least, short)}):
            with pytest.raises(ValueError, match=f"{variant} needs a length of at least {least}, not {short}"):
                Needle((variant,), template, **settings)


@pytest.mark.parametrize("template", ["compact", "ruler"])
def test_the_oracle_scores_everything_and_the_floors_stand_beside_it(template, compact, ruler):
    task = compact if template == "compact" else ruler
    perfect = sit(task, task.oracle)
    assert perfect and all(m.value == 1.0 for m in perfect)
    metrics = {"exact_match", "answer_token_accuracy"} | (
        {"string_match"} if template == "ruler" else {"generated_match"}
    )
    assert {m.metric for m in perfect} == {("" if template == "ruler" else "compact_") + m for m in metrics}
    floors = task.floors()
    assert list(floors) == ["floor: uniform digits", "cheat: copy the only number"]
    for marks in floors.values():
        assert [(m.metric, m.where, m.count) for m in marks] == [(m.metric, m.where, m.count) for m in perfect]
    assert all(m.value == 1.0 for m in floors["cheat: copy the only number"])


def test_the_guessing_floor_is_what_a_guesser_scores():
    task = Needle(("s-niah-2", "s-niah-3"), length=64, test_lengths=(64,), depths=(0.5,), samples=1500, digits=1)
    guess = Random(0)

    def answer(exam) -> Answers:
        value = task.template.values[exam.batch.where["variant"]]
        hit = torch.zeros(exam.batch.targets.shape, dtype=torch.bool)
        texts = []
        for row, targets in enumerate(exam.batch.targets):
            said = [*value.draw(guess).encode(), 10]
            hit[row, exam.prompt - 1 :] = targets[exam.prompt - 1 :] == torch.tensor(said)
            texts.append(tuple(said[:-1]))
        return Answers(torch.zeros(hit.shape), hit, None, tuple(texts))

    floor = task.floors()["floor: uniform digits"]
    for guessed, expected in zip(sit(task, answer), floor, strict=True):
        assert guessed.value == pytest.approx(expected.value, abs=0.03)
    assert floor[0].value == pytest.approx(1 / 9) and floor[3].value == pytest.approx(16**-4)


def test_marks_of_half_right_answers(compact):
    exam = next(compact.exams("test"))  # s-niah-1: four digits and a line break
    oracle = compact.oracle(exam)
    hit = oracle.hit.clone()
    hit[0, exam.prompt] = False  # the second digit of the first row
    hit[1, -1] = False  # the terminator of the second row, which is not marked
    texts = (oracle.text[0], (*oracle.text[1], 48), *oracle.text[2:])
    marks = {
        m.metric: (m.value, m.count) for m in compact.mark(exam, Answers(oracle.log_probability, hit, None, texts))
    }
    assert marks["compact_exact_match"] == (0.75, 4)
    assert marks["compact_answer_token_accuracy"] == (15 / 16, 16)
    assert marks["compact_generated_match"] == (0.75, 4)  # "48210" is not "4821"
    without = {m.metric for m in compact.mark(exam, Answers(oracle.log_probability, hit))}
    assert without == {"compact_exact_match", "compact_answer_token_accuracy"}


def test_string_match_is_a_substring_whatever_its_case(ruler):
    exam = [e for e in ruler.exams("test") if e.batch.where["variant"] == "s-niah-3"][0]
    oracle = ruler.oracle(exam)
    said = tuple(tuple(b"\n It is " + bytes(text).upper() + b", I think") for text in oracle.text)
    (match,) = (m for m in ruler.mark(exam, oracle._replace(text=said)) if m.metric == "string_match")
    assert match.value == 1.0
    wrong = tuple(text[:-2] for text in oracle.text)  # without the last digit and the line break
    (match,) = (m for m in ruler.mark(exam, oracle._replace(text=wrong)) if m.metric == "string_match")
    assert match.value == 0.0


@pytest.mark.parametrize("value", [Number(1), Number(4), ShortUuid(1), ShortUuid(3), Uuid()])
def test_values_have_their_form_and_their_chances(value):
    drawn = [value.draw(Random(i)) for i in range(3000)]
    assert all(re.search(value.pattern, f"a {text}.").group() == text for text in drawn)
    chances = value.chances(drawn[0])
    for place, chance in enumerate(chances):
        letters = [text[place] for text in drawn]
        assert len(set(letters)) == round(1 / chance)
        assert max(map(letters.count, set(letters))) / 3000 == pytest.approx(chance, abs=0.03)
    assert len(chances) == len(drawn[0]) == len(drawn[-1])


def test_a_haystack_is_a_ring():
    ring = Haystack("  one\ntwo   three ")
    assert ring.text == b"one two three " and ring.longest_word == 5
    assert ring.passage(8, 40) == b"three one two three one two three one tw"
    assert ring.words(1, 1) == "two" and ring.words(2, 1) == "three"
    assert ring.words(2, 5) == "three one two three one"
    assert ring.words(0, 3) == "one two three"


def test_the_haystack_of_a_split_is_all_its_books():
    assert books("test").text.decode() == _collapsed("test") + " "
    assert books("test") is books("test")


def test_long_exams_and_a_haystack_longer_than_the_books_end():
    task = Needle(("s-niah-2",), length=64, test_lengths=(600_000,), depths=(0.5,), samples=1)
    (exam,) = task.exams("test")
    assert exam.batch.tokens.shape == (1, 600_000)
    (exam,) = Needle(("s-niah-2",), "ruler", 1024, (100_000,), (0.5,), 1).exams("test")
    assert 99_900 < exam.prompt + 128 <= 100_000


def test_a_training_batch_is_drawn_quickly():
    task = Needle(length=128)
    task.training(0, 0, 1.0, 4096)
    best = math.inf
    for step in range(20):
        begun = time.perf_counter()
        task.training(0, step, 1.0, 32 * 128)
        best = min(best, time.perf_counter() - begun)
    assert best < 0.005


def test_word_lists_are_sorted_distinct_and_plain():
    for each in words():
        assert list(each) == sorted(set(each)) and all(re.fullmatch("[a-z]+", word) for word in each)
    assert len(words().adjectives) >= 150 and sum(len(word) == 5 for word in words().nouns) >= 100
    assert not set(words().adjectives) & set(words().nouns)


def test_the_word_lists_of_wonderwords_are_used_where_asked_for():
    pytest.importorskip("wonderwords")
    theirs = words("wonderwords")
    assert len(theirs.adjectives) == 910 and len(theirs.nouns) > 6000
    task = Needle(("s-niah-1",), "ruler", 1024, samples=1, words="wonderwords")
    assert task.data_hash() != Needle(("s-niah-1",), "ruler", 1024).data_hash()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"variants": ("s-niah-9",)}, "no variant .*s-niah-9.* choose some of s-niah-1"),
        ({"variants": ()}, "no variant"),
        ({"depths": (0.5, 50)}, "depths must lie between 0"),
        ({"samples": 0}, "samples be at least 1"),
        ({"digits": 0}, "digits and uuid_groups must be at least 1"),
        ({"template": "ruler", "length": 1024, "digits": 4}, "RULER's values are fixed"),
        ({"template": "long"}, "no template 'long'"),
        ({"words": "mine"}, "no word lists 'mine'"),
        ({"corpus": "/nowhere"}, "not there"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Needle(**settings)


def test_an_exam_of_the_training_split_is_refused(compact):
    with pytest.raises(ValueError, match="no exam 'train': ask for validation or test"):
        next(compact.exams("train"))
