"""Where a number comes from: versions, commit, machine, and the content of the code that made it."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from schema.places import ROOT

# packages named in a row where they are installed
PROVIDERS = ("triton", "fla-core", "mamba-ssm", "causal-conv1d", "flash-attn")

C_FILES = (".c", ".h")
# Python's strings and comments, each from its first sign; a string between three quotes may hold lines.
APART = re.compile(
    r'''"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|\#[^\n]*''',
    re.DOTALL,
)
INCLUDED = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = {"titanomachy": suite(), "python": platform.python_version()}
    for package in ("torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    for package in PROVIDERS:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["machine"] = machine()
    return tuple(found.items())


def versions() -> dict[str, str]:
    """Versions of the suite, Python, torch, numpy ("" where absent), installed providers, platform, machine; imports none."""
    return dict(_versions())


def suite() -> str:
    """The version of this checkout, as pyproject.toml says it; "" in a copy of the code alone."""
    try:
        return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    except OSError:
        return ""


@lru_cache(maxsize=1)
def machine() -> str:
    """The processor's model and number of cores, e.g. "AMD EPYC 7763, 2 cores"; no host name."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        model = found.group(1).strip() if found else model
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{model}, {cores} core{'s' if cores != 1 else ''}"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@lru_cache(maxsize=8)
def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, "" without git."""
    return _git(root, "rev-parse", "HEAD") or ""


@lru_cache(maxsize=8)
def dirty(root: Path = ROOT) -> bool:
    """Whether tracked files differ from the commit; True where git cannot say."""
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return status is None or bool(status)


@dataclass(frozen=True)
class Sources:
    """What the files of some folders import and do, each read once: for the many closures and hashes of a process."""

    folders: tuple[Path, ...] = ()
    near: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    told: dict[Path, bytes] = field(default_factory=dict)

    def keep(self, path: Path) -> bool:
        """Whether a file is in one of the folders; of others, which may be a user's, nothing is kept."""
        return any(path.is_relative_to(folder) for folder in self.folders)


def code_hash(files: Iterable[tuple[str, Path]], besides: str = "", sources: Sources | None = None) -> str:
    """A hash over (relative name, what it does) of files, and `besides`; neither their order nor where they lie matters.

    Comments, docstrings and empty lines of Python and C are left out: a number that was measured stays valid when they change.
    What `sources` know of a file is not read again, and what they do not know of one of their own is told them.
    """
    sources = Sources() if sources is None else sources
    digest = hashlib.sha256(besides.encode())
    for name, path in sorted({(str(name), Path(path)) for name, path in files}):
        content = sources.told.get(path)
        if content is None:
            content = _done_by(name, path)
            if sources.keep(path):
                sources.told[path] = content
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _done_by(name: str, path: Path) -> bytes:
    """What a file holds, of code without what changes nothing."""
    content = path.read_bytes()
    if name.endswith(".py"):
        return _effective(content)
    return _effective_c(content) if name.endswith(C_FILES) else content


def _effective(content: bytes) -> bytes:
    """Python source without comments, docstrings and empty lines outside strings; as it is where it does not parse.

    Lines are cut rather than a tree printed again, whose form differs between versions of Python.
    """
    try:
        text = content.decode()
        documented = _documented(text, _tree(content, ""))
    except (SyntaxError, UnicodeDecodeError):
        return content
    lines = dict(enumerate(text.split("\n"), start=1))
    in_strings: set[int] = set()
    row, before = 1, 0
    for found in APART.finditer(text):
        row += text.count("\n", before, found.start())
        before = found.start()
        if found[0][0] == "#":
            lines[row] = lines[row][: before - text.rfind("\n", 0, before) - 1]
        elif rows := found[0].count("\n"):
            in_strings |= set(range(row, row + rows + 1))
    kept = [
        line if row in in_strings else line.rstrip()
        for row, line in lines.items()
        if row not in documented and (row in in_strings or line.strip())
    ]
    return "\n".join(kept).encode()


def _effective_c(content: bytes) -> bytes:
    """C source without comments and empty lines; a string that holds the signs of a comment would be cut, so none may."""
    text = re.sub(rb"/\*.*?\*/|//[^\n]*", b"", content, flags=re.DOTALL)
    return b"\n".join(line.rstrip() for line in text.split(b"\n") if line.strip())


def _documented(text: str, tree: ast.Module) -> set[int]:
    """The rows of Python's docstrings that share no row with code."""
    rows, lines = set(), text.split("\n")
    for node in [tree, *_statements(tree)]:
        documentable = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if not documentable or ast.get_docstring(node, clean=False) is None:
            continue
        docstring, after = node.body[0], node.body[1:2]
        begins_its_row = not lines[docstring.lineno - 1].encode()[: docstring.col_offset].strip()
        if begins_its_row and not (after and after[0].lineno == docstring.end_lineno):
            rows |= set(range(docstring.lineno, docstring.end_lineno + 1))
    return rows


def named(root: Path, files: Iterable[Path], packages: Iterable[Path] = ()) -> list[tuple[str, Path]]:
    """Files with the names that `code_hash` takes: relative to `root`, or the bare name for a file outside it.

    Those in one of the folders `packages` are named from it, with its own name.
    """
    roots = [_resolved(root), *(_resolved(package).parent for package in packages)]
    # as texts: a checkout has many files, and a run asks for many hashes
    above = [f"{one.as_posix().rstrip('/')}/" for one in roots]
    found = []
    for text, path in sorted((path.as_posix(), path) for path in map(_resolved, files)):
        begins = next((one for one in above if text.startswith(one)), None)
        found.append((path.name if begins is None else text.removeprefix(begins), path))
    return found


def matching(root: Path, pattern: str) -> list[Path]:
    """The files below `root` that a pattern names. Raises FileNotFoundError where it names none: a file has moved."""
    found = sorted(Path(root).glob(pattern))
    if not found:
        raise FileNotFoundError(f"No file below {root} matches {pattern!r}; it has moved: mend the pattern.")
    return found


def import_closure(
    root: Path,
    files: Iterable[Path],
    without: Iterable[Path] = (),
    whole: Path | None = None,
    sources: Sources | None = None,
) -> set[Path]:
    """`files` and every module below `root` that they import, transitively, read from their text without running it.

    Packages on the way count by their __init__.py; one below `whole` counts with all of its files, those in C with what they
    include too. Modules in `without` are neither counted nor followed; `sources` as in `code_hash`, those of one root and one
    `whole`. Raises SyntaxError for a file that is not Python, FileNotFoundError for one that is not there.
    """
    root, sources = _resolved(root), Sources() if sources is None else sources
    left_out = set(map(_resolved, without))
    waiting = list(map(_resolved, files))
    closure: set[Path] = set()
    packages: dict[Path, tuple[Path, ...]] = {}  # of `whole`, met so far
    while waiting:
        file = waiting.pop()
        if file in closure or file in left_out:
            continue
        closure.add(file)
        beside = sources.near.get(file)
        if beside is None:
            beside = _near(root, file, whole, packages)
            if sources.keep(file):
                sources.near[file] = beside
        waiting += beside
    return closure


def _near(root: Path, file: Path, whole: Path | None, packages: dict[Path, tuple[Path, ...]]) -> tuple[Path, ...]:
    """The files that one brings with it: those it imports or includes, and below `whole` those of its package."""
    if file.suffix in C_FILES:
        return tuple(_included(file))
    found = [beside for name in _imported(root, file) for beside in _module_files(root, name)]
    if whole is not None and file.is_relative_to(whole) and file.parent != whole:
        package = whole / file.relative_to(whole).parts[0]
        if package not in packages:
            packages[package] = tuple(one for suffix in (".py", *C_FILES) for one in package.rglob(f"*{suffix}"))
        found += packages[package]
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)  # every closure of a run names the same files
def _resolved(path: Path) -> Path:
    return Path(path).resolve()


def _included(file: Path) -> list[Path]:
    """The files beside it, or at a path from it, that a C file includes."""
    return [(file.parent / name).resolve() for name in INCLUDED.findall(file.read_text(encoding="utf-8"))]


def _imported(root: Path, file: Path) -> tuple[str, ...]:
    """Dotted names that a file may import; of `from a import b` both a and a.b, since b may be a module."""
    package = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    return _names(file.read_bytes(), package, str(file))


def _tree(content: bytes, filename: str) -> ast.Module:
    """A file's syntax, which both its imports and its docstrings are read from."""
    try:
        return _parsed(content)
    except SyntaxError as error:
        error.filename = filename or error.filename
        raise


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements below a node, in whatever stands in another; expressions, most of a tree, hold none."""
    for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
        for one in getattr(node, inner, ()):
            if isinstance(one, ast.stmt):
                yield one
            yield from _statements(one)


@lru_cache(maxsize=4096)
def _parsed(content: bytes) -> ast.Module:
    return ast.parse(content)


def _names(content: bytes, package: tuple[str, ...], filename: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node in _statements(_tree(content, filename)):
        if isinstance(node, ast.Import):
            found.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and (
            package or not node.level
        ):  # a file outside: its package counts whole
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found.update(dict.fromkeys([origin, *(f"{origin}.{alias.name}" for alias in node.names)]))
    return tuple(found)


@lru_cache(maxsize=8192)  # most files import the same names
def _module_files(root: Path, name: str) -> tuple[Path, ...]:
    """The file of a module below `root`, and the __init__.py of every package above it; none for anything else.

    Which files there are is asked of the disk once a process; what is in them, each time.
    """
    parts = [part for part in name.split(".") if part]
    found: list[Path] = []
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        found += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()]
    return tuple(found)
