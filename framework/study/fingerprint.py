"""A fingerprint of a solver's code: data of different code does not mix unnoticed.

Of a built-in solver it is its `version`. Of a user's own it is also a hash of every source file
that its module imports from its own package, or, of a plain module, from its own folder. Of a
program that a solver runs it is a hash of the file (`Solver.program_files`).
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solvers.base import Solver

# What pip has installed there belongs to no one solver, unless it is the solver's own package.
_INSTALLED = {"site-packages", "dist-packages"}


def fingerprint(solver: Solver) -> dict[str, Any]:
    """Return the version of a solver's class and short hashes of its files, as plain values."""
    files = {path.name: _hash(path) for path in solver.program_files()}
    module = type(solver).__module__
    if module.partition(".")[0] != "solvers":
        root = _root(module)
        sources = sorted(_sources(module, root))
        files |= {path.relative_to(root).as_posix(): _hash(path) for path in sources}
    return {"version": solver.version, "files": files}


def changed(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return in words what differs between two fingerprints; an empty text if nothing does."""
    if there["version"] != here["version"]:
        return f"the solver's version was {there['version']} and is {here['version']}"
    one, other = there["files"], here["files"]
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    if not names:
        return ""
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not what the solver then used"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _root(module: str) -> Path:
    """Return the folder whose files count: the module's package, or a plain module's own folder."""
    top = sys.modules[module.partition(".")[0]]
    if hasattr(top, "__path__"):
        return Path(next(iter(top.__path__))).resolve()
    return Path(str(top.__file__)).resolve().parent


def _sources(module: str, root: Path) -> set[Path]:
    """Return the files under `root` that a module consists of and imports, over any depth."""
    found: set[Path] = set()
    left, seen = [module], {module}
    while left:
        name = left.pop()
        path = _file_of(name, root)
        if path is None:
            continue
        found.add(path)
        if path.suffix != ".py":  # a compiled module
            continue
        packaged = path.name == "__init__.py"
        for imported in _imported(path, name if packaged else name.rpartition(".")[0]):
            # Importing a.b.c also runs a and a.b.
            parts = imported.split(".")
            names = {".".join(parts[:count]) for count in range(1, len(parts) + 1)} - seen
            left += names
            seen |= names
    return found


def _file_of(name: str, root: Path) -> Path | None:
    """Return the file of a module, if it lies under `root`."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    parent = name.rpartition(".")[0]
    if module is None and (not parent or _file_of(parent, root)):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):  # not a module but a name in one
            return None
        file = spec.origin if spec and spec.has_location else None
    if file is None:
        return None
    path = Path(file).resolve()
    if not path.is_relative_to(root):
        return None
    inside = path.relative_to(root).parts
    alone = root.name in _INSTALLED  # a plain module among all that is installed
    return path if not _INSTALLED & {*inside} and not (alone and len(inside) > 1) else None


def _imported(path: Path, package: str) -> Iterator[str]:
    """Yield the names of modules that a source file imports, and of what may be modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(filter(None, [*parts[: len(parts) - node.level + 1], base]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
