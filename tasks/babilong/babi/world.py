"""The hidden world of the bAbI stories: what can happen in it, how it is told, and what has been told so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
MOVES = ("went to", "journeyed to", "travelled to", "moved to", "went back to")
WORDING = {
    "move": tuple(f"{{actor}} {verb} the {{room}}" for verb in ("went to", "journeyed to", "travelled to", "moved to"))
    + ("{actor} went back to the {room}",),
    "get": tuple(f"{{actor}} {verb} the {{thing}}" for verb in ("got", "took", "grabbed", "picked up")),
    "drop": tuple(f"{{actor}} {verb} the {{thing}}" for verb in ("left", "dropped", "discarded", "put down")),
    "give": tuple(f"{{actor}} {verb} the {{thing}} to {{recipient}}" for verb in ("passed", "gave", "handed")),
}


class World(NamedTuple):
    """Who and what a story may name; the order of actors and things is the order in which gifts are tried."""

    actors: tuple[str, ...]
    rooms: tuple[str, ...] = ROOMS
    things: tuple[str, ...] = OBJECTS


PEOPLE = World(("Daniel", "John", "Mary", "Sandra"))


class Event(NamedTuple):
    """Something that happened: a "move" has a room, a "get" or "drop" a thing, a "give" a thing and a recipient."""

    kind: str
    actor: str
    thing: str = ""
    room: str = ""
    recipient: str = ""


moved = lru_cache(lambda actor, room: Event("move", actor, room=room))  # most events are moves


@lru_cache(maxsize=4096)
def wordings(event: Event) -> tuple[str, ...]:
    """All ways to tell an event, without the full stop."""
    return tuple(text.format_map(event._asdict()) for text in WORDING[event.kind])


def pick(random: Random, options: Sequence[Any]) -> Any:
    """One option, uniformly; built on `random()` alone, the only draw that Python promises to keep over versions."""
    return options[int(random.random() * len(options))]


class Scene:
    """The hidden state: everybody and everything starts in a random room, and nobody is told where."""

    def __init__(self, world: World, kinds: tuple[str, ...], random: Random) -> None:
        self.world = world
        self.random = random
        self.options = _options(world.actors, kinds)
        self.room = {name: pick(random, world.rooms) for name in world.actors}
        self.place = {name: pick(random, world.rooms) for name in world.things}  # a room, or the actor who holds it

    def event(self) -> Event:
        """The next thing that happens: actor and kind are drawn together until the two are possible."""
        while True:
            actor, act = pick(self.random, self.options)
            event = act(self, actor)
            if event is not None:
                return event

    def move(self, actor: str) -> Event | None:
        room = pick(self.random, self.world.rooms)
        if room == self.room[actor]:
            return None
        self.room[actor] = room
        return moved(actor, room)

    def get(self, actor: str) -> Event | None:
        thing = self._one_at(self.room[actor])
        if thing is None:
            return None
        self.place[thing] = actor
        return Event("get", actor, thing)

    def drop(self, actor: str) -> Event | None:
        thing = self._one_at(actor)
        if thing is None:
            return None
        self.place[thing] = self.room[actor]
        return Event("drop", actor, thing)

    def give(self, _: str) -> Event | None:
        """Whoever was drawn, the first thing that can change hands does, to the first who is near, as in the data."""
        for thing, giver in self.place.items():
            for other in self.world.actors if giver in self.room else ():
                if other != giver and self.room[other] == self.room[giver]:
                    self.place[thing] = other
                    return Event("give", giver, thing, recipient=other)
        return None

    def _one_at(self, place: str) -> str | None:
        things = [thing for thing, where in self.place.items() if where == place]
        if len(things) > 1:
            return pick(self.random, things)
        return things[0] if things else None


@lru_cache(maxsize=64)
def _options(actors: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[tuple[str, Callable], ...]:
    return tuple((actor, getattr(Scene, kind)) for actor in actors for kind in kinds)


class Chronicle:
    """What has been told so far, indexed by what questions ask for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.moves: dict[str, list[int]] = {}  # actor -> indices of its moves
        self.touched: dict[str, int] = {}  # thing -> index of its latest get, drop or give
        self.taken: dict[str, int] = {}  # thing -> index of its latest get
        self.given: dict[str, int] = {}  # thing -> index of its latest give

    def tell(self, event: Event) -> None:
        """Append one event."""
        index = len(self.events)
        self.events.append(event)
        if event.kind == "move":
            self.moves.setdefault(event.actor, []).append(index)
            return
        self.touched[event.thing] = index
        if event.kind == "get":
            self.taken[event.thing] = index
        elif event.kind == "give":
            self.given[event.thing] = index

    def moves_between(self, actor: str, first: int, last: int) -> list[int]:
        """Indices of the actor's moves after fact `first` and before fact `last`."""
        return [index for index in self.moves.get(actor, ()) if first < index < last]
