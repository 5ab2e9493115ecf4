"""One look a model: a function of family and name, told apart by readers with deuteranopia and protanopia."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import baselines  # noqa: F401 - registers every model
from models import registry
from results.report import evaluations
from results.report.families import LOOKS, MARKERS, Families, ShownFamily, looks
from results.report.figures import style
from tests.support import synthetic

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, 2009: severity 1.0, on linear RGB.
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "all colours": np.eye(3),
}
TO_LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
          [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
          [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
APART = 0.08  # in OKLab, where 0.02 is just noticed


def lab(colour: str, eye: str) -> np.ndarray:
    """A colour in OKLab as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ np.clip(np.array(SEEN[eye]) @ linear, 0, 1))


def known_families() -> list[ShownFamily]:
    return [ShownFamily(one.name, one.title, one.place, one.hue, one.marker, one.looks) for one in registry.families()]


@pytest.mark.parametrize("eye", SEEN)
def test_fifty_models_of_nine_families_are_told_apart(eye):
    models = evaluations.everyone(evaluations.grouped(synthetic.comparison(tuple(synthetic.FIFTY))))
    assert len(models) == 50 and len({model.look.marker for model in models}) == 9
    for one, other in itertools.combinations(models, 2):
        if one.family != other.family:
            assert one.look.marker != other.look.marker
            continue
        dashes = style.line(one)["linestyle"] != style.line(other)["linestyle"]
        far = np.linalg.norm(lab(style.colour(one), eye) - lab(style.colour(other), eye)) >= APART
        assert one.look != other.look and (dashes or far), (one.label, other.label)


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("hue", range(0, 360, 15))
def test_the_shades_of_any_hue_are_told_apart(hue, eye):
    seen = [lab(style._colour(shade, hue), eye) for shade in style.SHADES]
    assert all(np.linalg.norm(a - b) >= APART for a, b in itertools.combinations(seen, 2))


def test_a_look_does_not_depend_on_who_else_is_drawn():
    rows = synthetic.comparison()
    everyone = {m.label: m.look for m in evaluations.everyone(evaluations.grouped(rows, Families(known_families())))}
    for model in ("transformer", "titans-mac", "ttt-mlp"):
        alone = [row for row in rows if row["model"] == model]
        (one,) = evaluations.everyone(evaluations.grouped(alone, Families(known_families())))
        assert one.look == everyone[model]
    family = ShownFamily("delta", "delta", 40, 85.0)
    assert (
        looks(family, ["d", "new"])["d"] == looks(family, ["d"])["d"] == looks(family, ["d (default)"])["d (default)"]
    )


def test_registered_models_and_families_have_looks_of_their_own():
    """Where this fails for a new model, name it at the end of `looks` in its family's folder."""
    families = known_families()
    marks = {family.name: looks(family, ["x"])["x"].marker for family in families}
    assert len(set(marks.values())) == len({family.hue for family in families}) == len(families), marks
    for family in families:
        names = [name for name in registry.names() if registry.entry(name).family == family.name]
        together = looks(family, names)
        assert all(looks(family, [name])[name] == together[name] for name in names), family.name
        assert len({together[name] for name in names}) == len(names)


def test_what_nobody_listed_takes_the_next_free_look_and_never_a_listed_one():
    family = ShownFamily("many", "many", 40, 85.0, looks=("first", "second"))
    names = [f"model-{number}" for number in range(LOOKS - 2)]
    found = looks(family, names)
    assert len({look.number for look in found.values()}) == LOOKS and (
        found["first"].number,
        found["second"].number,
    ) == (0, 1)
    more = looks(family, [*names, "one more", "and another"])
    assert len(set(more.values())) == LOOKS + 2 and all(more[name] == found[name] for name in ("first", "second"))


def test_families_that_nobody_lists_give_way_to_those_that_are_listed_and_to_one_another():
    listed = [*known_families()]
    families = Families(listed)
    new = [families.of({"family": f"new_{n}", "family_order": n // 2}) for n in range(3)]  # two of one place
    apart = families.apart([*listed, *new])
    assert [apart[family].hue for family in listed] == [family.hue for family in listed]
    found = {name: looks(apart[family], ["same name"])["same name"] for name, family in zip("abc", new, strict=True)}
    shown = [*found.values(), *(looks(family, ["same name"])["same name"] for family in listed)]
    assert len({look.marker for look in shown}) == min(len(shown), len(MARKERS))
    assert len({round(look.hue) for look in shown}) == len(shown)
    assert families.apart(new[:1])[new[0]] == apart[new[0]]  # whoever of those listed is drawn
