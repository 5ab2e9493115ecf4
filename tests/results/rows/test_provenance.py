"""Provenance: hashes follow content and imports, and nothing needs git or torch."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from results.rows import provenance
from schema.places import ROOT


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_import_closure_follows_every_form_of_import(tmp_path):
    write(
        tmp_path,
        {
            "pack/__init__.py": "from pack import late\n",
            "pack/late.py": "",
            "pack/a.py": "import os, torch\nfrom pack.deep import b\n",
            "pack/deep/__init__.py": "",
            "pack/deep/b.py": "def f():\n    import pack.deep.c\n",
            "pack/deep/c.py": "from . import d\nfrom ..top import name\n",
            "pack/deep/d.py": "import pack.a  # a ring ends too\n",
            "pack/top.py": "name = 1\n",
            "pack/unrelated.py": "",
            "single.py": "",
        },
    )
    found = {
        path.relative_to(tmp_path).as_posix() for path in provenance.import_closure(tmp_path, [tmp_path / "pack/a.py"])
    }
    deep = {f"pack/deep/{name}.py" for name in ("__init__", "b", "c", "d")}
    assert found == deep | {"pack/__init__.py", "pack/late.py", "pack/a.py", "pack/top.py"}
    mine = tmp_path / "elsewhere" / "mine.py"
    write(tmp_path, {"elsewhere/mine.py": "import single\n"})
    assert provenance.import_closure(tmp_path / "pack", [mine]) == {mine}
    assert provenance.import_closure(tmp_path, [mine]) == {mine, tmp_path / "single.py"}


def test_code_hash_follows_content_and_name_but_not_place_or_order(tmp_path):
    write(tmp_path, {"one/a.py": "x", "one/b.py": "y", "two/a.py": "x", "two/b.py": "y"})
    hashes = {
        provenance.code_hash(provenance.named(tmp_path / place, paths))
        for place in ("one", "two")
        for paths in (
            [tmp_path / place / "a.py", tmp_path / place / "b.py"],
            [tmp_path / place / "b.py", tmp_path / place / "a.py"],
        )
    }
    assert len(hashes) == 1
    (tmp_path / "one/b.py").write_text("z")
    files = provenance.named(tmp_path / "one", [tmp_path / "one/a.py", tmp_path / "one/b.py"])
    assert [name for name, _ in files] == ["a.py", "b.py"] and provenance.code_hash(files) not in hashes
    assert provenance.named(tmp_path / "one", [tmp_path / "two/a.py"])[0][0] == "a.py"


SOURCE = '''"""What it is."""

import math  # of the standard library


class Thing:
    """A thing,
    in two lines."""

    # why it is so
    def text(self):
        "One line."
        return """# no comment

        a row"""
'''


def test_code_hash_stays_when_only_comments_docstrings_and_empty_lines_change(tmp_path):
    def hashed(source: str, name: str = "a.py") -> str:
        write(tmp_path, {name: source})
        return provenance.code_hash([(name, tmp_path / name)])

    first = hashed(SOURCE)
    for old, new in (
        ('"""What it is."""', '"""What else\n\nit is."""'), ("  # of the standard library", ""), ("    # why it is so\n", ""),
        ('"""A thing,\n    in two lines."""', '"""A thing."""'), ('"One line."', '"Another."'), ("\n\n\nclass", "\nclass"),
    ):  # fmt: skip
        assert old in SOURCE and hashed(SOURCE.replace(old, new)) == first, old
    for old, new in (
        ("# no comment", "# a comment"), ("comment\n\n", "comment\n"), ("import math", "import cmath"), ("    def", "  def"),
        ('        "One line."\n        return', "        return 1 or"), ("class Thing", "class Other"),
    ):  # fmt: skip
        assert old in SOURCE and hashed(SOURCE.replace(old, new)) != first, old
    assert hashed('def f(): "a"\n') != hashed('def f(): "b"\n'), "a docstring beside code is taken as code"
    assert hashed("x = (  # broken") != hashed("x = (  # still broken"), "what does not parse is taken as it is"
    assert hashed("# a\n", "a.toml") != hashed("# b\n", "a.toml")


def test_without_git_the_commit_is_unknown_and_the_tree_counts_as_dirty(tmp_path):
    assert provenance.commit(tmp_path) == "" and provenance.dirty(tmp_path) is True


def test_git_tells_commit_and_changes(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    write(tmp_path, {"a.txt": "1"})
    subprocess.run([*git, "add", "a.txt"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    assert len(provenance.commit(tmp_path)) == 40 and provenance.dirty(tmp_path) is False
    write(tmp_path, {"a.txt": "2"})
    provenance.dirty.cache_clear()
    assert provenance.dirty(tmp_path) is True


def test_versions_name_packages_without_importing_torch():
    code = (
        "import json, sys; from results.rows import provenance; "
        "print(json.dumps({**provenance.versions(), 'loaded': 'torch' in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    named = {"titanomachy", "python", "torch", "numpy", "platform", "machine", "loaded"}
    assert found["loaded"] is False and named <= set(found) <= named | set(provenance.PROVIDERS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found["titanomachy"] == project["version"] != ""
    assert found["python"].startswith("3.") and "core" in found["machine"]


@pytest.mark.parametrize("installed", [(), ("triton",), provenance.PROVIDERS])
def test_versions_name_the_providers_that_are_installed_and_no_other(installed, monkeypatch):
    def version(package: str) -> str:
        if package in ("torch", "numpy", *installed):
            return "1.2"
        raise provenance.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(provenance.metadata, "version", version)
    found = provenance._versions.__wrapped__()
    assert set(dict(found)) - {"titanomachy", "python", "torch", "numpy", "platform", "machine"} == set(installed)


def test_comments_and_strings_are_where_python_sees_them():
    for path in [*(ROOT / "runner").rglob("*.py"), *(ROOT / "results").rglob("*.py"), *(ROOT / "schema").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        starts = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        seen = [starts[one.start[0] - 1] + one.start[1] for one in tokens if one.type == tokenize.COMMENT]
        assert [found.start() for found in provenance.APART.finditer(text) if found[0][0] == "#"] == seen, path


def test_what_is_known_of_a_file_in_their_folders_is_not_read_again_and_of_others_nothing_is_kept(tmp_path):
    house, mine = tmp_path / "house" / "a.py", tmp_path / "mine.py"
    write(tmp_path, {"house/a.py": "import mine\n", "mine.py": "x = 1\n"})
    sources, named = provenance.Sources((tmp_path / "house",)), [("a.py", house), ("mine.py", mine)]

    def told():
        return provenance.import_closure(tmp_path, [house], sources=sources), provenance.code_hash(
            named, sources=sources
        )

    first = told()
    assert first[0] == {house, mine} and set(sources.near) == set(sources.told) == {house}
    write(tmp_path, {"house/a.py": "x = 2\n"})
    assert told() == first
    write(tmp_path, {"mine.py": "x = 3\n"})
    assert told()[1] != first[1]
