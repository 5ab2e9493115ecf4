"""Compiled forms: how they are built, kept and refused, and that the number of threads changes no digit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from models.ops import native_build
from models.ops.convolution.native import liquid as native_liquid
from models.ops.convolution.native import native as native_system
from models.ops.diagonal_scan.outer_native import native as native_outer
from models.ops.log_linear.native import native as native_levels
from models.ops.neural_memory.native import native as native_memory
from models.ops.neural_memory.recurrence import Rule
from models.ops.providers import NotCovered, watch
from models.ops.recurrent_cell.native import native as native_cell
from models.ops.scan import scan
from models.ops.scan.native import SOURCE, native
from models.ops.selective_scan.native import native as native_selective

needs_compiler = pytest.mark.skipif(not native_build.compiler(), reason="no C compiler is here")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache of its own, and nothing loaded yet."""
    monkeypatch.setenv("TITANOMACHY_CACHE", str(tmp_path))
    native_build.forget()
    yield tmp_path
    native_build.forget()


def text(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def test_without_a_compiler_native_says_so_and_auto_goes_on(fresh, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    x = text(1, 5, 2, 4)
    with pytest.raises(NotCovered, match="needs a C compiler"):
        scan(x, x, x, provider="native")
    with watch() as ran:
        y, _ = scan(x, x, x)
    assert ran == {"chunked"}
    assert torch.equal(y, scan(x, x, x, provider="chunked")[0])


@needs_compiler
def test_a_compiler_that_fails_is_told_of_once_and_auto_goes_on(fresh, monkeypatch):
    monkeypatch.setenv("CC", "false")
    x = text(1, 5, 2, 4)
    with watch() as ran, pytest.warns(UserWarning, match="could not be built from native.c with false") as told:
        for _ in range(3):
            scan(x, x, x)
    assert ran == {"chunked"}
    assert len(told) == 1
    assert list((fresh / "native").iterdir()) == []


@needs_compiler
def test_a_library_is_built_once_and_kept(fresh, monkeypatch):
    x = text(1, 5, 2, 4)
    with watch() as ran:
        y, _ = scan(x, x, x)
    assert ran == {"native"}
    kept = list((fresh / "native").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    native_build.forget()
    monkeypatch.setattr(native_build, "_build", lambda *_: pytest.fail("built again"))
    assert torch.equal(scan(x, x, x)[0], y)


@needs_compiler
def test_a_damaged_library_is_refused_with_what_to_do(fresh):
    x = text(1, 5, 2, 4)
    kind, macros = torch.float32, {"K": 4, "V": 4, "LANES": 4, "DECAY": 0, "COMPARE": 0, "BEFORE": 0, "TIED": 1}
    words = (f"-DREAL={native_build.KINDS[kind]}", *(f"-D{name}={macros[name]}" for name in sorted(macros)))
    name = f"scan-{native_build._fingerprint(SOURCE, words, native_build.compiler())}.so"
    (fresh / "native").mkdir()
    (fresh / "native" / name).write_bytes(b"no library")
    with pytest.raises(NotCovered, match="delete the file"):
        native(x, x, x)


@needs_compiler
def test_two_processes_that_build_at_once_do_not_meet(fresh):
    program = "import torch; from models.ops.scan import scan; x = torch.ones(1, 5, 2, 4); print(scan(x, x, x)[0].sum().item())"
    crew = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in crew]
    assert said[0] == said[1] == "480.0\n"
    assert len(list((fresh / "native").iterdir())) == 1


def read_memory(q: torch.Tensor, gate: torch.Tensor, *initial: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    gates = {"momentum": gate, "rate": 0.1 * gate, "keep": gate}
    y, (weights, _, _) = native_memory(q, q.flip(1), q.flip(2), **gates, initial=initial, rule=Rule(4))
    return y, torch.cat([w.flatten() for w in weights])


def read_levels(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: torch.Tensor, compare: bool):
    y, (buckets, _) = native_levels(q, k, v, weights, log_forget=-k.sum(-1).abs(), compare=compare)
    return y, buckets


def read_system(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, *erase: torch.Tensor, liquid: bool):
    return native_liquid(x, a, b, c, 3) if liquid else native_system(x, a, b, c, erase or None)


@needs_compiler
@pytest.mark.parametrize(
    "which",
    [
        "matrix state",
        "wide matrix state",
        "wide delta rule",
        "selective scan",
        "memory",
        "cell",
        "outer",
        "log-linear",
        "log-linear delta",
        "system",
        "system with erasing",
        "liquid system",
    ],
)
def test_two_threads_give_the_digits_of_one(which):
    if which == "matrix state":
        given = [text(2, 70, 3, 6), text(2, 70, 3, 6) / 3, text(2, 70, 3, 8)]
        form = lambda q, k, v: native(q, k, v, log_forget=-k.sum(-1).abs(), compare=True)  # noqa: E731
    elif which == "wide matrix state":
        given = [text(2, 70, 1, 36), text(2, 70, 1, 36) / 6, text(2, 70, 3, 33)]
        form = lambda q, k, v: native(q, k, v, log_forget=-v.sum(-1).abs())  # noqa: E731
    elif which == "wide delta rule":
        given = [text(2, 70, 3, 36), text(2, 70, 3, 36) / 6, text(2, 70, 3, 33)]
        form = lambda q, k, v: native(q, k, v, log_forget=-v.sum(-1).abs(), compare=True)  # noqa: E731
    elif which == "cell":
        given = [text(5, 20, 64), text(2, 32, 8) / 3]
        form = lambda x, recurrent: native_cell(x, None, recurrent, cell="slstm")  # noqa: E731
    elif which == "outer":
        given = [text(2, 70, 160), text(2, 70, 160).sigmoid(), *(text(2, 70, 4).sigmoid() for _ in range(3))]
        form = native_outer
    elif which.startswith("log-linear"):
        given = [text(2, 150, 3, 6) / 3, text(2, 150, 3, 6) / 3, text(2, 150, 3, 8), text(2, 150, 3, 9).abs()]
        form = lambda q, k, v, w: read_levels(q, k, v, w, compare=which.endswith("delta"))  # noqa: E731
    elif "system" in which:
        given = [text(2, 70, 21), *(text(21, 5, 2) / 5 for _ in range(5 if "erasing" in which else 3))]
        form = lambda x, *system: read_system(x, *map(torch.view_as_complex, system), liquid="liquid" in which)  # noqa: E731
    elif which == "memory":
        given = [text(2, 70, 3, 6) / 3, text(2, 70, 3).sigmoid(), text(3, 6, 8) / 3, text(3, 8, 6) / 3]
        form = read_memory
    else:
        given = [text(2, 70, 160), text(2, 70, 160).abs(), -text(160, 4).abs(), text(2, 70, 4), text(2, 70, 4)]
        form = native_selective
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            inputs = [x.clone().requires_grad_() for x in given]
            y, state = form(*inputs)
            found.append((y, state, *torch.autograd.grad(y.square().sum() + state.sum(), inputs)))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@needs_compiler
def test_a_state_passed_in_is_left_as_it_was():
    x, state = text(1, 5, 2, 4), text(1, 2, 4, 4)
    before = state.clone()
    native(x, x, x, state=state)
    assert torch.equal(state, before)


@needs_compiler
def test_auto_takes_plain_chunks_where_these_are_the_faster():
    wide, narrow = text(1, 5, 2, 256), text(1, 5, 2, 16)
    for x, compare, provider in ((wide, False, "chunked"), (wide, True, "native"), (narrow, False, "native")):
        with watch() as ran:
            scan(x, x, x, compare=compare)
        assert ran == {provider}
    with watch() as ran:
        scan(wide.requires_grad_(), wide, wide)
    assert ran == {"native"}


@needs_compiler
def test_a_library_hangs_on_every_file_that_its_source_includes(tmp_path):
    for name, text in {
        "a/one.c": '#include "../b/two.h"\n',
        "b/two.h": '#include "three.h"\n',
        "b/three.h": "int three;\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "b" / "unread.h").write_text("int none;\n")
    source, command = tmp_path / "a" / "one.c", native_build.compiler()
    before = native_build._fingerprint(source, (), command)
    (tmp_path / "b" / "unread.h").write_text("int other;\n")
    assert native_build._fingerprint(source, (), command) == before
    (tmp_path / "b" / "three.h").write_text("int four;\n")
    assert native_build._fingerprint(source, (), command) != before
