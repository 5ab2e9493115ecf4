"""Stories of the bAbI simulator, the events that their sentences tell, and where the released ones are."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from schema.places import ROOT
from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import Story
from tasks.babilong.babi.world import Event

ARCHIVE = "babi-v1.2-en-10k.tar.xz"
STORIES = 2000


def simulated(name: str, stories: int = STORIES) -> list[Story]:
    told = [list(TASKS[name].story(Random(1000 + index))) for index in range(stories)]
    return [Story(list(items[-1].facts), items) for items in told]


def event_of(fact: str) -> Event:
    """The event that a sentence tells; the inverse of `EventTask.sentence`."""
    words = fact.rstrip(".").removesuffix(" there").split()
    verb = words[1]
    if verb in ("passed", "gave", "handed"):
        return Event("give", words[0], thing=words[3], recipient=words[5])
    if verb in ("got", "took", "grabbed", "picked"):
        return Event("get", words[0], thing=words[-1])
    if verb in ("left", "dropped", "discarded", "put"):
        return Event("drop", words[0], thing=words[-1])
    assert verb in ("went", "journeyed", "travelled", "moved"), fact
    return Event("move", words[0], room=words[-1])


def archive() -> Path | None:
    beside = ROOT.parent / "shared" / "data" / ARCHIVE
    path = Path(os.environ.get("TITANOMACHY_BABI", beside))
    return path if path.is_file() else None
