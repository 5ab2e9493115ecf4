"""`bench.py profile`: the table of a layer, of a whole model, of an external implementation; and what it refuses."""

import pytest

import bench


def run(capsys, *words: str) -> tuple[int, str]:
    code = bench.main(["profile", *words])
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.mark.parametrize("name", ["deltanet", "rmt", "sdpa"])
def test_a_step_is_taken_apart(capsys, name):
    code, said = run(capsys, name, "--length", "16", "--batch", "1", "--size", "width=16,heads=2")
    assert code == 0
    assert "matrix products" in said and "between operators" in said and "times the floor" in " ".join(said.split())


def test_an_unknown_model_a_wrong_setting_and_no_tokens_are_refused(capsys):
    assert run(capsys, "deltanett")[0] == 2
    code, said = run(capsys, "deltanet", "--set", "deltanet.colour=1")
    assert code == 2 and "colour" in said
    code, said = run(capsys, "deltanet", "--length", "0")
    assert code == 2 and "at least one" in said
    code, said = run(capsys, "deltanet", "--dtype", "float8")
    assert code == 2 and "float8" in said
