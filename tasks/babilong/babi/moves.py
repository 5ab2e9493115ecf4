"""bAbI tasks about moves alone, told in other words: qa9 and qa10 (doubt), qa11 to qa13 (who is meant), qa14 (when)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tasks.babilong.babi.story import RECENT, Round, RoundTask
from tasks.babilong.babi.world import MOVES, PEOPLE, ROOMS, World, pick

TRAVELLERS = World(("Bill", "Fred", "Julie", "Mary"), ("bedroom", "cinema", "kitchen", "office", "park", "school"))
PRONOUN = {"Daniel": "he", "John": "he", "Mary": "she", "Sandra": "she"}
LINKS = ("Then", "Afterwards", "After that", "Following that")
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")

Move = tuple[str, int]  # an actor, and the time as a place in TIMES


def other(random: Random, options: tuple[str, ...], *but: str | None) -> str:
    """One of the options that is none of `but`."""
    return pick(random, [option for option in options if option not in but])


def cycled(random: Random, items: Sequence[Move]) -> list[Move]:
    """The items in another order, one of all that are a single cycle of theirs, equally likely (Sattolo's shuffle)."""
    found = list(items)
    for last in range(len(found) - 1, 0, -1):
        place = int(random.random() * last)
        found[last], found[place] = found[place], found[last]
    return found


def sizes(options: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The options from the shortest on, and from the longest on."""
    by_size = sorted(options, key=len)
    return by_size, by_size[::-1]


class Doubt(RoundTask):
    """qa9 and qa10: is an actor in a room, of which some moves tell only what is not, or what may be.

    `unsure` is "not" (the room that was left is told) or "either" (the true room is told beside one of all six, which may be
    the room that was left, and may be the true room again: 925 of 5,487 such facts of the released data name one room twice).
    """

    def __init__(self, name: str, world: World, unsure: str, labels: tuple[str, ...]) -> None:
        self.name, self.world, self.unsure, self.labels = name, world, unsure, labels

    def rounds(self, random: Random) -> Iterator[Round]:
        room = {actor: pick(random, self.world.rooms) for actor in self.world.actors}
        told: list[tuple[str, str, tuple[str, ...]]] = []  # actor, "in", "not" or "either", rooms
        for _ in range(self.questions):
            facts = []
            for _ in range(2):
                actor = pick(random, self.world.actors)
                left, room[actor] = room[actor], other(random, self.world.rooms, room[actor])
                text, *what = self._tell(random, actor, left, room[actor])
                facts.append(text)
                told.append((actor, *what))
            yield facts, [self._ask(random, told)]

    def _tell(self, random: Random, actor: str, left: str, new: str) -> tuple[str, str, tuple[str, ...]]:
        draw = random.random()
        if draw < 0.5:
            return f"{actor} {pick(random, MOVES)} the {new}.", "in", (new,)
        if draw < 0.75:
            return f"{actor} is in the {new}.", "in", (new,)
        if self.unsure == "not":
            return f"{actor} is {pick(random, ('not', 'no longer'))} in the {left}.", "not", (left,)
        rooms = [new, pick(random, self.world.rooms)]
        if random.random() < 0.5:
            rooms.reverse()
        return f"{actor} is either in the {rooms[0]} or the {rooms[1]}.", "either", (new, *rooms)

    def _ask(self, random: Random, told: list[tuple[str, str, tuple[str, ...]]]) -> tuple[str, str, tuple[int, ...]]:
        actor = pick(random, told[-RECENT:])[0]
        index = max(index for index, fact in enumerate(told) if fact[0] == actor)
        _, kind, rooms = told[index]
        asked = rooms[0]
        if kind != "not" and random.random() < 0.5:
            asked = other(random, self.world.rooms, asked)
        answer = "no" if kind == "not" or asked not in rooms else "yes" if kind == "in" else "maybe"
        return f"Is {actor} in the {asked}? ", answer, (index,)

    def extremes(self) -> tuple[str, str, str]:
        (actor, *_), (longest, *_) = sizes(self.world.actors)
        (room, *_), (far, farther, *_) = sizes(self.world.rooms)
        long = f"{longest} went back to the {far}."
        if self.unsure == "either":
            long = f"{longest} is either in the {far} or the {farther}."
        long = max(long, f"{longest} is no longer in the {far}." if self.unsure == "not" else "", key=len)
        return f"{actor} is in the {room}.", long, f"Is {longest} in the {far}? "


class Together(RoundTask):
    """qa11 to qa13: where is an actor, of whom is told in pairs of actors, in pairs of facts joined by a pronoun, or both."""

    labels = ROOMS

    def __init__(self, name: str, company: int, joined: bool) -> None:
        self.name, self.company, self.joined = name, company, joined

    def rounds(self, random: Random) -> Iterator[Round]:
        room: dict[str, str | None] = {actor: pick(random, ROOMS) for actor in PEOPLE.actors}
        told: list[tuple[tuple[str, ...], str]] = []
        for _ in range(self.questions):
            facts = []
            for second in (False, True):
                if second and self.joined:
                    who = told[-1][0]
                    name = f"{pick(random, LINKS)} {'they' if self.company > 1 else PRONOUN[who[0]]}"
                else:
                    who = tuple(self._group(random))
                    name = " and ".join(who)
                new = other(random, ROOMS, *(room[actor] for actor in who))
                room |= dict.fromkeys(who, new)
                told.append((who, new))
                facts.append(f"{name} {pick(random, MOVES)} the {new}.")
            yield facts, [self._ask(random, told)]

    def _group(self, random: Random) -> Iterator[str]:
        left = list(PEOPLE.actors)
        for _ in range(self.company):
            yield left.pop(int(random.random() * len(left)))

    def _ask(self, random: Random, told: list[tuple[tuple[str, ...], str]]) -> tuple[str, str, tuple[int, ...]]:
        # The original counts the moves of two actors in one fact as two events.
        actor = pick(random, [actor for who, _ in told for actor in who][-RECENT:])
        last = max(index for index, (who, _) in enumerate(told) if actor in who)
        supports = (last - 1, last) if self.joined else (last,)
        return f"Where is {actor}? ", told[last][1], supports

    def extremes(self) -> tuple[str, str, str]:
        short, long = sizes(PEOPLE.actors)
        rooms, far = sizes(ROOMS)
        subjects = [" and ".join(names[: self.company]) for names in (short, long)]
        facts = [f"{subjects[0]} went to the {rooms[0]}.", f"{subjects[1]} went back to the {far[0]}."]
        if self.joined:
            they = ("they", "they") if self.company > 1 else ("he", "she")
            facts += [f"Then {they[0]} went to the {rooms[0]}.", f"Following that {they[1]} went back to the {far[0]}."]
        return min(facts, key=len), max(facts, key=len), f"Where is {long[0]}? "


class Before(RoundTask):
    """qa14: where was an actor before a room; moves are stamped with the time of day and told out of order.

    Two actors move, each a time of day on from the last, until one of the last five moves can be asked about; what happened
    since the last question is then told in a random cycle of its order, in which no fact keeps its place.
    """

    name = "qa14"
    labels = TRAVELLERS.rooms
    fewest = 2

    def rounds(self, random: Random) -> Iterator[Round]:
        days: dict[str, list[str]] = {actor: [] for actor in TRAVELLERS.actors}  # the rooms of each, by time
        happened: list[Move] = []
        told: list[Move] = []
        for _ in range(self.questions):
            while not (found := self._askable(days, happened)) or len(happened) == len(told):
                if len(happened) == len(days) * len(TIMES):
                    return
                for _ in range(2):
                    self._move(random, days, happened)
            new = cycled(random, happened[len(told) :])
            told += new
            actor, time = pick(random, found)
            supports = told.index((actor, time)), told.index((actor, time - 1))
            facts = [self._sentence(random, mover, when, days[mover][when]) for mover, when in new]
            yield facts, [(f"Where was {actor} before the {days[actor][time]}? ", days[actor][time - 1], supports)]

    @staticmethod
    def _move(random: Random, days: dict[str, list[str]], happened: list[Move]) -> None:
        """Somebody whose day is not over goes to another room."""
        actor = pick(random, [actor for actor, rooms in days.items() if len(rooms) < len(TIMES)])
        happened.append((actor, len(days[actor])))
        days[actor].append(other(random, TRAVELLERS.rooms, *days[actor][-1:]))

    @staticmethod
    def _askable(days: dict[str, list[str]], happened: list[Move]) -> list[Move]:
        """The recent moves that came after another one of their actor's, and were the last to their room."""
        return [
            (actor, time)
            for actor, time in happened[-RECENT:]
            if time and days[actor][time] not in days[actor][time + 1 :]
        ]

    @staticmethod
    def _sentence(random: Random, actor: str, time: int, room: str) -> str:
        clause = f"{actor} {pick(random, MOVES)} the {room}"
        early = random.random() < 0.5
        return f"{TIMES[time].capitalize()} {clause}." if early else f"{clause} {TIMES[time]}."

    def extremes(self) -> tuple[str, str, str]:
        (actor, *_), (longest, *_) = sizes(TRAVELLERS.actors)
        (room, *_), (far, *_) = sizes(TRAVELLERS.rooms)
        short, long = f"{actor} went to the {room} yesterday.", f"{longest} went back to the {far} this afternoon."
        return short, long, f"Where was {longest} before the {far}? "


TASKS = (
    Doubt("qa9", PEOPLE, "not", ("yes", "no")),
    Doubt("qa10", TRAVELLERS, "either", ("yes", "no", "maybe")),
    Together("qa11", company=1, joined=True),
    Together("qa12", company=2, joined=False),
    Together("qa13", company=2, joined=True),
    Before(),
)
