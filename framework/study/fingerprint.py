"""A fingerprint of a solver's code: data of different code does not mix unnoticed.

Of a built-in solver it is its `version`. Of a user's own it is also a hash of every source file
that its module imports from its own package, or, of a plain module, from its own folder. Of a
program that a solver runs it is a hash of the file (`Solver.program_files`).
"""

import ast
import glob
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solvers.base import Solver

# What pip has installed there belongs to no one solver, unless it is the solver's own package.
_INSTALLED = {"site-packages", "dist-packages"}
_COMPILED = ".so"


def fingerprint(solver: Solver) -> dict[str, Any]:
    """Return the version of a solver's class and short hashes of its files, as plain values."""
    files: dict[str, str] = {}
    module = type(solver).__module__
    if module.partition(".")[0] != "solvers":
        root = _root(module)
        for path in sorted(_sources(module, root)):
            files[path.relative_to(root).as_posix()] = _hash(path)
    for path in solver.program_files():
        name, count = path.name, 1
        while name in files:
            count += 1
            name = f"{path.name} ({count})"
        files[name] = _hash(path)
    return {"version": solver.version, "files": files}


def changed(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return in words what differs between two fingerprints; an empty text if nothing does."""
    if there["version"] != here["version"]:
        return f"the solver's version was {there['version']} and is {here['version']}"
    one, other = there["files"], here["files"]
    ways = {
        "changed since": [name for name in one if name in other and one[name] != other[name]],
        "been added since": [name for name in other if name not in one],
        "been removed since": [name for name in one if name not in other],
    }
    return ", ".join(
        f"{', '.join(sorted(names))} {'has' if len(names) == 1 else 'have'} {what}"
        for what, names in ways.items()
        if names
    )


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _root(module: str) -> Path:
    """Return the folder whose files count: the module's package, or a plain module's own folder.

    Symbolic links are not followed: what is imported lies beside the link.
    """
    top = sys.modules[module.partition(".")[0]]
    if hasattr(top, "__path__"):
        return Path(next(iter(top.__path__))).absolute()
    return Path(str(top.__file__)).absolute().parent


def _sources(module: str, root: Path) -> set[Path]:
    """Return the files under `root` that a module consists of and imports, over any depth.

    Nothing is imported for that: a name is looked up as a file.
    """
    top = module.partition(".")[0]
    packaged = hasattr(sys.modules[top], "__path__")
    found: set[Path] = set()
    left, seen = [module], {module}
    while left:
        name = left.pop()
        path = _file_of(name.split("."), root.parent if packaged else root)
        if path is None:
            continue
        found.add(path)
        if path.suffix != ".py" or root.name in _INSTALLED:
            continue  # a compiled module, or a plain one among all that is installed
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imported(path, package):
            # Importing a.b.c also runs a and a.b.
            parts = imported.split(".")
            names = {".".join(parts[:count]) for count in range(1, len(parts) + 1)} - seen
            left += [name for name in names if not packaged or name.partition(".")[0] == top]
            seen |= names
    return found


def _file_of(parts: list[str], above: Path) -> Path | None:
    """Return the file of a module or a package that lies in the folder `above`, if it does."""
    place = above.joinpath(*parts)
    compiled = sorted(place.parent.glob(f"{glob.escape(place.name)}.*{_COMPILED}"))
    files = [place / "__init__.py", place.with_name(f"{place.name}.py"), *compiled]
    return next((file for file in files if file.is_file()), None)


def _imported(path: Path, package: str) -> Iterator[str]:
    """Yield the names of modules that a source file imports, and of what may be modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # nobody has imported it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(filter(None, [*parts[: len(parts) - node.level + 1], base]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
