"""Longer texts, and how the kit tells rounding from a fault in them."""

from __future__ import annotations

import pytest

from models.conformance import state
from models.conformance.kit import TINY
from models.conformance.subject import Subject
from tests.support import broken_mixers as broken
from tests.support.kit_answers import found


def test_text_is_longer_than_two_periods(enter, monkeypatch):
    monkeypatch.setattr(broken.Sound, "period", 100)
    subject = Subject(enter(broken.Sound), TINY)
    assert subject.length > 200
    assert subject.text.shape == (2, subject.length)


def test_thorough_decodes_a_longer_text(enter, monkeypatch):
    assert state.LONG == 4096
    monkeypatch.setattr(state, "LONG", 600)
    answer = found(enter(broken.Sound), "split: single tokens", thorough=True)
    assert answer.passed
    assert "600 tokens in 600 pieces" in answer.detail


@pytest.mark.parametrize(
    ("cls", "passes"),
    [(broken.FaintlyOffInPieces, False), (broken.CoarseInPieces, False), (broken.IllConditioned, True)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_thorough_decoding_tells_rounding_from_a_fault(enter, monkeypatch, cls, passes):
    monkeypatch.setattr(state, "LONG", 200)
    answer = found(enter(cls), "split: single tokens", thorough=True)
    assert answer.figure > state.SPLIT
    assert answer.passed == passes
    assert "in float64" in answer.detail


@pytest.mark.parametrize(("cls", "passes"), [(broken.Sound, True), (broken.FaintlyOffInPieces, False)])
def test_what_amplifies_rounding_is_decoded_stretch_by_stretch(enter, monkeypatch, cls, passes):
    """The excuse covers no fault: pieces that are off are found in every stretch."""
    monkeypatch.setattr(state, "LONG", 300)
    monkeypatch.setattr(cls, "amplifies_rounding", "it is so made", raising=False)
    answer = found(enter(cls), "split: single tokens", thorough=True)
    assert answer.passed == passes
    assert "300 tokens in stretches of 256" in answer.detail and answer.detail.endswith("it is so made")
