"""What a profile counts, and where."""

import pytest
import torch

from tasks.speed import profiling


def test_the_kinds_add_up_to_the_step_and_find_the_products():
    a = torch.randn(256, 256)

    def step() -> torch.Tensor:
        y = a
        for _ in range(20):
            y = (y @ a).tanh()
        return y

    found = profiling.profile(step, repeats=2)
    assert sum(found.kinds.values()) == pytest.approx(found.seconds, rel=1e-6)
    calls = {name: calls for name, calls, _ in found.operators}
    assert calls["mm"] == 20 and calls["tanh"] == 20
    assert found.kinds[profiling.PRODUCTS] > 0 and found.kinds[profiling.OTHER] > 0


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("aten::baddbmm_", profiling.PRODUCTS),
        ("aten::linalg_solve_triangular", profiling.SOLVES),
        ("aten::copy_", profiling.COPIES),
        ("aten::as_strided", profiling.VIEWS),
        ("aten::gelu_backward", profiling.OTHER),
    ],
)
def test_an_operator_has_its_kind(operator, expected):
    assert profiling.kind(operator) == expected


def test_no_operator_has_two_kinds():
    every = [name for names in profiling.KINDS.values() for name in names.split()]
    assert len(every) == len(set(every))


def test_a_profile_of_no_step_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        profiling.profile(lambda: torch.zeros(1), repeats=0)
