"""Readers of qa6 to qa20 that know nothing of the simulator: they answer from the facts alone."""

from __future__ import annotations

import re

from tasks.babilong.babi.facts import TASKS
from tasks.babilong.babi.released import Story

SINGULAR = {"mice": "mouse", "cats": "cat", "wolves": "wolf", "sheep": "sheep"}
WAYS = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
WAYS |= {"above": (0, 1), "below": (0, -1), "to the left of": (-1, 0), "to the right of": (1, 0)}
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


def rooms_of(facts: tuple[str, ...]) -> dict[str, tuple[str, set[str]]]:
    """For each actor what was last told: "in" one room, "not" in one, or "either" in two."""
    known: dict[str, tuple[str, set[str]]] = {}
    last: list[str] = []
    for fact in facts:
        rooms = re.findall(r"\bthe (\w+)", fact)
        who = re.findall(r"\b(?:John|Mary|Sandra|Daniel|Bill|Fred|Julie|Jeff)\b", fact) or last
        if not rooms or re.search(r"apple|football|milk", fact):
            continue
        kind = "not" if " not " in fact or "no longer" in fact else "either" if "either" in fact else "in"
        known |= dict.fromkeys(who, (kind, set(rooms)))
        last = who
    return known


def is_in(facts: tuple[str, ...], question: str) -> str:
    actor, room = re.match(r"Is (\w+) in the (\w+)\?", question).groups()
    kind, rooms = rooms_of(facts)[actor]
    if kind == "either":
        return "maybe" if room in rooms else "no"
    return "yes" if kind == "in" and room in rooms else "no"


def where_is(facts: tuple[str, ...], question: str) -> str:
    return rooms_of(facts)[re.match(r"Where is (\w+)\?", question)[1]][1].pop()


def carried(facts: tuple[str, ...], question: str) -> list[str]:
    actor, held = re.search(r"is (\w+) carrying", question)[1], []
    for words in (fact.rstrip(".").split() for fact in facts):
        thing = next((thing for thing in ("apple", "football", "milk") if thing in words), None)
        if thing and words[1] in ("passed", "gave", "handed"):
            held = [x for x in held if x != thing] + [thing] * (words[-1] == actor)
        elif thing and words[0] == actor:
            taken = words[1] in ("got", "took", "grabbed", "picked")
            held = [x for x in held if x != thing] + [thing] * taken
    return sorted(held)


def before(facts: tuple[str, ...], question: str) -> str:
    actor, room = re.match(r"Where was (\w+) before the (\w+)\?", question).groups()
    day = {}
    for fact in facts:
        if re.search(rf"\b{actor}\b", fact):
            day[next(i for i, time in enumerate(TIMES) if time in fact.lower())] = re.search(r"to the (\w+)", fact)[1]
    return day[max(time for time, there in day.items() if there == room and time - 1 in day) - 1]


def fears(facts: tuple[str, ...], question: str) -> str:
    text = " ".join(facts)
    kind = re.search(rf"{question.split()[2].capitalize()} is a (\w+)", text)[1]
    plural = next(many for many, one in SINGULAR.items() if one == kind)
    return SINGULAR[re.search(rf"{plural.capitalize()} are afraid of (\w+)", text)[1]]


def color(facts: tuple[str, ...], question: str) -> str:
    kinds = dict(re.findall(r"(\w+) is a (\w+)", " ".join(facts)))
    colors = dict(re.findall(r"(\w+) is (?!a )(\w+)", " ".join(facts)))
    asked = question.split()[-1].rstrip("?")
    return [colors[name] for name, kind in kinds.items() if kind == kinds[asked] and name != asked][-1]


def places(facts: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Coordinates of all things that lie beside each other."""
    ways = "|".join(WAYS)
    told = [re.match(rf"The (.+?) is ({ways})(?: of)? the (.+)\.", fact).groups() for fact in facts]
    where = {told[0][0]: (0, 0)}
    for _ in told:
        for thing, way, other in told:
            (x, y) = WAYS[way]
            if other in where and thing not in where:
                where[thing] = (where[other][0] + x, where[other][1] + y)
            elif thing in where and other not in where:
                where[other] = (where[thing][0] - x, where[thing][1] - y)
    return where


def lies(facts: tuple[str, ...], question: str) -> str:
    ways = "|".join(list(WAYS)[4:])
    thing, way, other = re.match(rf"Is the (.+?) ({ways}) the (.+)\?", question).groups()
    where = places(facts)
    return "yes" if sum((where[thing][i] - where[other][i]) * WAYS[way][i] for i in (0, 1)) > 0 else "no"


def path(facts: tuple[str, ...], question: str) -> set[str]:
    """Every pair of told steps that leads there."""
    start, goal = re.match(r"How do you go from the (\w+) to the (\w+)\?", question).groups()
    steps = {}
    for fact in facts:
        room, way, beside = re.match(r"The (\w+) is (\w+) of the (\w+)\.", fact).groups()
        back = next(w for w, (x, y) in list(WAYS.items())[:4] if (-x, -y) == WAYS[way])
        steps[beside, room], steps[room, beside] = way[0], back[0]
    return {f"{w},{steps[b, goal]}" for (a, b), w in steps.items() if a == start and (b, goal) in steps}


def bigger(facts: tuple[str, ...], question: str) -> str:
    order = set()
    for fact in facts:
        small = re.match(r"The (.+) fits inside the (.+)\.", fact)
        order.add(small.groups() if small else re.match(r"The (.+) is bigger than the (.+)\.", fact).groups()[::-1])
    for _ in range(5):
        order |= {(a, d) for a, b in order for c, d in order if b == c}
    fits = re.match(r"Does the (.+) fit in the (.+)\?", question)
    pair = fits.groups() if fits else re.match(r"Is the (.+) bigger than the (.+)\?", question).groups()[::-1]
    assert (pair in order) != (pair[::-1] in order)
    return "yes" if pair in order else "no"


def motive(facts: tuple[str, ...], question: str) -> str:
    who = re.search(r"(?:will|did) (\w+)", question)[1].capitalize()
    why = re.search(rf"{who} is (\w+)", " ".join(facts))[1]
    room = {"bored": "garden", "tired": "bedroom"}.get(why, "kitchen")
    return room if question.startswith("Where") else why


READERS = dict.fromkeys(("qa6", "qa9", "qa10"), is_in) | dict.fromkeys(("qa11", "qa12", "qa13"), where_is)
READERS |= {"qa7": carried, "qa8": carried, "qa14": before, "qa15": fears, "qa16": color, "qa17": lies}
READERS |= {"qa18": bigger, "qa19": path, "qa20": motive}


def check(name: str, stories: list[Story]) -> None:
    for item in (item for story in stories for item in story.items):
        said = READERS[name](item.facts, item.question)
        if name == "qa7":
            said = ("none", "one", "two", "three")[len(said)]
        if name == "qa8":
            assert said == ([] if item.answer == "nothing" else sorted(item.answer.split(","))), item
        elif name == "qa19":
            assert item.answer in said and len(said) == 1, item
        else:
            assert said == item.answer, item
        assert item.answer in TASKS[name].answers
