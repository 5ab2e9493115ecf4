"""bAbI tasks about who is where and who carries what: qa6 (yes or no), qa7 (counting) and qa8 (lists)."""

from __future__ import annotations

from itertools import permutations
from random import Random

from tasks.babilong.babi.story import EventTask
from tasks.babilong.babi.world import OBJECTS, PEOPLE, Chronicle, Event, World, pick

NUMBERS = ("none", "one", "two", "three")


class IsActorIn(EventTask):
    """qa6: is an actor in a room; half of the questions name the true room of the actor's latest move."""

    forms = ("Is {actor} in the {room}? ",)
    triggers = ("move",)

    def supports(self, told: Chronicle, index: int) -> list[tuple[int, ...]]:
        return [(told.moves[told.events[index].actor][-1],)]

    def phrase(self, told: Chronicle, supports: tuple[int, ...], random: Random) -> tuple[str, str]:
        event = told.events[supports[0]]
        right = random.random() < 0.5
        room = event.room if right else pick(random, [room for room in self.world.rooms if room != event.room])
        return self.forms[0].format(actor=event.actor, room=room), "yes" if right else "no"


class Carrying(EventTask):
    """What an actor carries, as told: every get, drop and give that it had a part in is a supporting fact."""

    triggers = ("get", "drop", "give")

    def supports(self, told: Chronicle, index: int) -> list[tuple[int, ...]]:
        return [self.part_in(told, told.events[index].actor)]

    def part_in(self, told: Chronicle, actor: str) -> tuple[int, ...]:
        """Indices of the facts that an actor's load follows from."""
        return tuple(
            index
            for index, event in enumerate(told.events)
            if event.kind != "move" and actor in (event.actor, event.recipient)
        )

    @staticmethod
    def load(events: list[Event], actor: str) -> list[str]:
        """What the actor holds after these events of its own, in the order in which it first held them."""
        held: dict[str, bool] = {}
        for event in events:
            held[event.thing] = event.kind == "get" or event.recipient == actor
        return [thing for thing, here in held.items() if here]

    def asked(self, told: Chronicle, supports: tuple[int, ...], random: Random) -> tuple[str, list[str]]:
        """The actor whom all supports have a part of, and its load."""
        events = [told.events[index] for index in supports]
        actors = [actor for actor in self.world.actors if all(actor in (e.actor, e.recipient) for e in events)]
        # Only where all that was told of two actors are gifts between them, either may be meant.
        actor = pick(random, [actor for actor in actors if self.part_in(told, actor) == supports])
        return actor, self.load(events, actor)


class HowMany(Carrying):
    """qa7: how many objects an actor carries."""

    forms = ("How many objects is {actor} carrying? ",)

    def phrase(self, told: Chronicle, supports: tuple[int, ...], random: Random) -> tuple[str, str]:
        actor, load = self.asked(told, supports, random)
        return self.forms[0].format(actor=actor), NUMBERS[len(load)]


class WhatIsCarried(Carrying):
    """qa8: which objects an actor carries, as `apple,milk`; the supports are ordered by object."""

    forms = ("What is {actor} carrying? ",)

    @property
    def answers(self) -> tuple[str, ...]:
        lists = [",".join(some) for count in (1, 2, 3) for some in permutations(OBJECTS, count)]
        return ("nothing", *lists)

    def part_in(self, told: Chronicle, actor: str) -> tuple[int, ...]:
        found = super().part_in(told, actor)
        things = list(dict.fromkeys(told.events[index].thing for index in found))
        return tuple(sorted(found, key=lambda index: things.index(told.events[index].thing)))

    def phrase(self, told: Chronicle, supports: tuple[int, ...], random: Random) -> tuple[str, str]:
        actor, load = self.asked(told, supports, random)
        return self.forms[0].format(actor=actor), ",".join(load) or "nothing"


_CARRY = ("move", "get", "drop")
# Gifts are tried in this order of actors (`Scene.give`): of all 24, who gives and who receives in the released qa7 fits it best.
GIVERS = World(("John", "Mary", "Sandra", "Daniel"))
TASKS = (
    IsActorIn("qa6", PEOPLE, _CARRY, ("yes", "no")),
    HowMany("qa7", GIVERS, (*_CARRY, "give"), NUMBERS),
    WhatIsCarried("qa8", PEOPLE, _CARRY, (*OBJECTS, "nothing")),
)
