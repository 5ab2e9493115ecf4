"""bAbI tasks about kinds and places of things: qa15, qa16 (reasoning by kind), qa17 to qa19 (space), qa20 (motives)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

from tasks.babilong.babi.moves import other, sizes
from tasks.babilong.babi.story import Round, RoundTask
from tasks.babilong.babi.world import MOVES, ROOMS, pick

PLURAL = {"mouse": "mice", "cat": "cats", "wolf": "wolves", "sheep": "sheep"}
BACK = {"n": "s", "s": "n", "e": "w", "w": "e"}
COMPASS = {"n": "north", "s": "south", "e": "east", "w": "west"}
SIDES = {"above": (0, 1), "below": (0, -1), "to the left of": (-1, 0), "to the right of": (1, 0)}


class Fears(RoundTask):
    """qa15: what is somebody's kind afraid of; a name's kind is drawn when it is told, after what that kind fears."""

    name = "qa15"
    labels = ("cat", "mouse", "sheep", "wolf")
    fewest = 8
    questions = 4
    NAMES = ("Gertrude", "Winona", "Emily", "Jessica")

    def rounds(self, random: Random) -> Iterator[Round]:
        fears: dict[str, tuple[int, str]] = {}
        kinds: dict[str, tuple[int, str]] = {}
        facts: list[str] = []
        while len(facts) < self.fewest:
            what = pick(random, [x for x in (*self.labels, *self.NAMES) if x not in fears and x not in kinds])
            if what in self.labels:
                feared = other(random, self.labels, what)
                fears[what] = len(facts), feared
                facts.append(f"{PLURAL[what].capitalize()} are afraid of {PLURAL[feared]}.")
            elif (kind := pick(random, self.labels)) in fears:
                kinds[what] = len(facts), kind
                facts.append(f"{what} is a {kind}.")
        questions = []
        for _ in range(self.questions):
            name = pick(random, self.NAMES)
            told, kind = kinds[name]
            questions.append((f"What is {name.lower()} afraid of?", fears[kind][1], (told, fears[kind][0])))
        yield facts, questions

    def extremes(self) -> tuple[str, str, str]:
        (name, *_), (longest, *_) = sizes(self.NAMES)
        return f"{name} is a cat.", "Wolves are afraid of sheep.", f"What is {longest.lower()} afraid of?"


class Colors(RoundTask):
    """qa16: the color of the one whose color is untold, by the last told of its kind.

    Names take turns at random, each with its kind first and its color the second time; the last color of all is asked for.
    The released data never ask where two others are of the kind.
    """

    name = "qa16"
    labels = ("gray", "green", "white", "yellow")
    fewest = 9
    questions = 1
    NAMES = ("Bernhard", "Brian", "Greg", "Julius", "Lily")
    KINDS = ("frog", "lion", "rhino", "swan")
    ALIKE = (1, 3, 4)  # how many others may be of the kind of the one that is asked for

    def rounds(self, random: Random) -> Iterator[Round]:
        alike: list[str] = []
        while len(alike) not in self.ALIKE:
            kind = {name: pick(random, self.KINDS) for name in self.NAMES}
            *order, (asked, _) = self._order(random)
            alike = [name for name, first in order if first and name != asked and kind[name] == kind[asked]]
        color = {name: pick(random, self.labels) for name in self.NAMES}
        facts = [f"{name} is a {kind[name]}." if first else f"{name} is {color[name]}." for name, first in order]
        like = alike[-1]
        supports = order.index((asked, True)), order.index((like, True)), order.index((like, False))
        yield facts, [(f"What color is {asked}?", color[like], supports)]

    def _order(self, random: Random) -> list[tuple[str, bool]]:
        """Who is told of in turn, and whether it is the kind (first) or the color."""
        order: list[tuple[str, bool]] = []
        while left := [name for name in self.NAMES if (name, False) not in order]:
            name = pick(random, left)
            order.append((name, (name, True) not in order))
        return order

    def extremes(self) -> tuple[str, str, str]:
        (name, *_), (longest, *_) = sizes(self.NAMES)
        return f"{name} is gray.", f"{longest} is a rhino.", f"What color is {longest}?"


class Positions(RoundTask):
    """qa17: yes or no to how two things lie to each other, each of which is told to lie beside a third."""

    name = "qa17"
    labels = ("yes", "no")
    questions = 8
    THINGS = ("triangle", "pink rectangle", "blue square", "red square", "red sphere", "yellow square")
    MIDDLE_FIRST = 2 / 3  # share of facts whose subject is the middle thing, measured on the released data

    def rounds(self, random: Random) -> Iterator[Round]:
        left = list(self.THINGS)
        middle, *outer = (left.pop(int(random.random() * len(left))) for _ in range(3))
        sides = [pick(random, tuple(SIDES))]
        sides.append(other(random, tuple(SIDES), sides[0]))
        facts = []
        for thing, side in zip(outer, sides, strict=True):
            opposite = next(s for s, (x, y) in SIDES.items() if (-x, -y) == SIDES[side])
            told = (middle, opposite, thing) if random.random() < self.MIDDLE_FIRST else (thing, side, middle)
            facts.append(f"The {told[0]} is {told[1]} the {told[2]}.")
        between = [a - b for a, b in zip(*(SIDES[side] for side in sides), strict=True)]  # from the second to the first
        yield facts, [self._ask(random, outer, between) for _ in range(self.questions)]

    @staticmethod
    def _ask(random: Random, outer: list[str], between: list[int]) -> tuple[str, str, tuple[int, ...]]:
        first = int(random.random() * 2)
        sign = -1 if first else 1
        true = [s for s, way in SIDES.items() if sum(sign * a * b for a, b in zip(way, between, strict=True)) > 0]
        yes = random.random() < 0.5
        side = pick(random, true if yes else [side for side in SIDES if side not in true])
        question = f"Is the {outer[first]} {side} the {outer[1 - first]}?"
        return question, "yes" if yes else "no", (first, 1 - first)

    def extremes(self) -> tuple[str, str, str]:
        things, long = sizes(self.THINGS)
        middle = "to the right of the"
        return (
            f"The {things[0]} is above the {things[1]}.",
            f"The {long[0]} is {middle} {long[1]}.",
            f"Is the {long[0]} {middle} {long[1]}?",
        )


class Sizes(RoundTask):
    """qa18: yes or no to which of two things is bigger, by way of a third; five facts, and five more while none is asked."""

    name = "qa18"
    labels = ("yes", "no")
    fewest = 5
    LARGE = ("box", "chest", "container", "suitcase")
    LATE = 10  # facts, one of the last of which a question begins with
    TRIES = 50
    LAST_OF_EQUAL = 0.8  # how often the last of equal facts is taken, measured on the released data

    def rounds(self, random: Random) -> Iterator[Round]:
        large, order = list(self.LARGE), ["chocolate", "box of chocolates"]
        while large:
            order.append(large.pop(int(random.random() * len(large))))
        told: list[tuple[str, str]] = []  # the smaller one and the bigger one of each fact
        questions: list[tuple[str, str, tuple[int, ...]]] = []
        while len(questions) < self.questions:
            facts, questions = [], []
            for _ in range(5):
                pair = {pick(random, order)}
                while len(pair) < 2:
                    pair.add(pick(random, order))
                small, big = sorted(pair, key=order.index)
                told.append((small, big))
                fits = random.random() < 0.5
                facts.append(
                    f"The {small} fits inside the {big}." if fits else f"The {big} is bigger than the {small}."
                )
            while len(questions) < self.questions and (question := self._ask(random, told)):
                questions.append(question)
            yield facts, questions

    def _ask(self, random: Random, told: list[tuple[str, str]]) -> tuple[str, str, tuple[int, ...]] | None:
        """A late fact and the first fact that leads on from it: to something smaller for yes, to a bigger one for no.

        None where so many tries find no such pair.
        """
        for _ in range(self.TRIES):
            yes, index = random.random() < 0.5, pick(random, range(len(told))[-self.LATE :])
            if (on := self._leads_on(told, index, yes)) is not None:
                break
        else:
            return None
        equal = [i for i, fact in enumerate(told) if fact == told[index] and i > on]
        if index > on and len(equal) > 1:
            index = equal[-1] if random.random() < self.LAST_OF_EQUAL else pick(random, equal[:-1])
        inner, outer = (told[on][0], told[index][1]) if yes else (told[on][1], told[index][0])
        fits = random.random() < 0.5
        question = f"Does the {inner} fit in the {outer}?" if fits else f"Is the {outer} bigger than the {inner}?"
        return question, "yes" if yes else "no", (index, on)

    @staticmethod
    def _leads_on(told: list[tuple[str, str]], index: int, yes: bool) -> int | None:
        """The first fact that leads on from fact `index`; None where another fact that it leads on from stands before it."""
        here, there = (0, 1) if yes else (1, 0)
        on = next((i for i, fact in enumerate(told) if fact[there] == told[index][here]), None)
        if on is None or any(told[i][here] == told[index][here] for i in range(on) if i != index):
            return None
        return on

    def extremes(self) -> tuple[str, str, str]:
        return (
            "The box fits inside the chest.",
            "The container is bigger than the box of chocolates.",
            "Is the box of chocolates bigger than the container?",
        )


class Paths(RoundTask):
    """qa19: the two steps from one room to another; three more rooms lie beside those of the path, in free directions."""

    name = "qa19"
    labels = tuple(f"{a},{b}" for a, b in product("nsew", "nsew") if b != BACK[a])
    fewest = 5
    questions = 1
    OUTER_FIRST = 9 / 16  # share of facts whose subject is the outer room, measured on the released data
    # How readily the two supporting facts take these places, in either order, measured likewise.
    PAIRS = {
        **{(0, 1): 626, (0, 2): 684, (0, 3): 782, (0, 4): 1273, (1, 2): 726},
        **{(1, 3): 873, (1, 4): 1517, (2, 3): 1020, (2, 4): 1608, (3, 4): 1891},
    }

    def rounds(self, random: Random) -> Iterator[Round]:
        left = list(ROOMS)
        rooms = [left.pop(int(random.random() * len(left))) for _ in range(len(ROOMS))]
        start, middle, goal, *others = rooms
        answer = pick(random, self.labels)
        out, on = answer.split(",")
        edges = [(start, BACK[out], middle), (goal, on, middle)]  # (room, direction, the room it lies beside)
        taken = {start: {out}, middle: {BACK[out], on}, goal: {BACK[on]}}
        free = [(room, way) for room, ways in taken.items() for way in BACK if way not in ways]
        for new in others:
            room, way = free.pop(int(random.random() * len(free)))
            edges.append((new, way, room))
        places = self._places(random)
        facts = [""] * len(edges)
        for place, (room, way, beside) in zip(places, edges, strict=True):
            if random.random() >= self.OUTER_FIRST:
                room, way, beside = beside, BACK[way], room
            facts[place] = f"The {room} is {COMPASS[way]} of the {beside}."
        yield facts, [(f"How do you go from the {start} to the {goal}?", answer, tuple(places[:2]))]

    def _places(self, random: Random) -> list[int]:
        """Where each edge is told, those of the path first."""
        pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
        weights = [self.PAIRS[min(pair), max(pair)] for pair in pairs]
        draw, chosen = random.random() * sum(weights), 0
        while chosen < len(pairs) - 1 and (draw := draw - weights[chosen]) > 0:
            chosen += 1
        rest = [place for place in range(5) if place not in pairs[chosen]]
        others = []
        while rest:
            others.append(rest.pop(int(random.random() * len(rest))))
        return [*pairs[chosen], *others]

    def extremes(self) -> tuple[str, str, str]:
        short, long = sizes(ROOMS)
        return (
            f"The {short[0]} is east of the {short[1]}.",
            f"The {long[0]} is north of the {long[1]}.",
            f"How do you go from the {long[0]} to the {long[1]}?",
        )


class Motives(RoundTask):
    """qa20: where somebody will go, and why somebody went there and took something there; a question after every fact."""

    name = "qa20"
    labels = ("bedroom", "garden", "kitchen", "bored", "hungry", "thirsty", "tired")
    fewest = 1
    beginning = 1
    NAMES = ("Antoine", "Jason", "Sumit", "Yann")
    MOTIVES = {
        "bored": ("garden", "football"),
        "hungry": ("kitchen", "apple"),
        "thirsty": ("kitchen", "milk"),
        "tired": ("bedroom", "pajamas"),
    }
    GETS = ("got", "took", "grabbed", "picked up")
    QUARTERS = (0.0, 0.3, 0.6, 0.8)  # where each quarter of the first facts stands: two train, one validates, one tests

    def rounds(self, random: Random) -> Iterator[Round]:
        motive: dict[str, tuple[int, str]] = {}
        stage = dict.fromkeys(self.NAMES, 0)
        gone: set[str] = set()
        told = 0
        while able := [n for n, at in stage.items() if at < 2 or (at == 2 and motive[n][1] not in gone)]:
            name = pick(random, able)
            who = name.lower()
            if stage[name] == 0:
                motive[name] = told, pick(random, tuple(self.MOTIVES))
            index, why = motive[name]
            room, thing = self.MOTIVES[why]
            fact, question, answer = (
                (f"{name} is {why}.", f"Where will {who} go?", room),
                (f"{name} {pick(random, MOVES)} the {room}.", f"Why did {who} go to the {room}?", why),
                (f"{name} {pick(random, self.GETS)} the {thing} there.", f"Why did {who} get the {thing}?", why),
            )[stage[name]]
            if stage[name] == 2:
                gone.add(why)
            stage[name] += 1
            told += 1
            yield [fact], [(question, answer, (index,))]

    def place(self, beginning: tuple[str, ...]) -> float:
        """By the first fact, of which there are only 16: each quarter of them has every name and every motive once."""
        name, _, motive = beginning[0].rstrip(".").split()
        return self.QUARTERS[(self.NAMES.index(name) + tuple(self.MOTIVES).index(motive)) % len(self.QUARTERS)]

    def extremes(self) -> tuple[str, str, str]:
        short, long = sizes(self.NAMES)
        return (
            f"{short[0]} is tired.",
            f"{long[0]} picked up the football there.",
            f"Why did {long[0].lower()} go to the kitchen?",
        )


TASKS = (Fears(), Colors(), Positions(), Sizes(), Paths(), Motives())
