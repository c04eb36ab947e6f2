"""Rules of the house that no other tool keeps: names, sizes, circles, docstrings, tests apart."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = [
    name for name in ("framework", "solvers", "surrogates", "millstream") if (ROOT / name).is_dir()
]
LONGEST_FILE, LONGEST_FUNCTION = 350, 60
# A file or a function may be longer where this comment says why.
REASON = "# Long because "

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    """The Python files in folders of the checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def none(wrong: list[str]) -> None:
    """Fail with the whole list, a line each, unless it is empty."""
    if wrong:
        pytest.fail("\n".join([f"{len(wrong)}:", *wrong]), pytrace=False)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines."""
    if isinstance(statement, Function | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def test_no_two_names_of_modules_in_the_machinery_are_the_same() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources("framework"):
        for statement in tree(path).body:
            for name in defined(statement):
                if not name.startswith("__"):
                    places[name].append(shown(path))
    twice = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    none(twice)


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_fit_a_screen_or_say_why_not(package: str) -> None:
    long = []
    for path in sources(package):
        lines = path.read_text().splitlines()
        if len(lines) > LONGEST_FILE and not any(line.startswith(REASON) for line in lines):
            long.append(f"{shown(path)}: {len(lines)} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, Function) and node.end_lineno is not None:
                body = lines[node.lineno - 1 : node.end_lineno]
                if len(body) > LONGEST_FUNCTION and not any(REASON in line for line in body):
                    long.append(f"{shown(path)}:{node.lineno} {node.name}: {len(body)} lines")
    none(long)


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of `modules` that a file imports at its top, for type checkers too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules or {node.module}
    return found & modules


def test_imports_make_no_circle() -> None:
    files = {module(path): path for path in sources(*PACKAGES)}
    graph = {name: imported(path, set(files)) - {name} for name, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_has_a_docstring(package: str) -> None:
    missing = []
    for path in sources(package):
        whole = tree(path)
        if ast.get_docstring(whole) is None:
            missing.append(shown(path))
        classes = [node for node in whole.body if isinstance(node, ast.ClassDef)]
        for owner in [whole, *classes]:
            if isinstance(owner, ast.ClassDef) and owner.bases:
                continue  # a base class may document the methods
            for node in owner.body:
                public = isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
                if public and ast.get_docstring(node) is None:
                    missing.append(f"{shown(path)}:{node.lineno} {node.name}")
    none(missing)


def test_no_test_imports_another() -> None:
    tests = {path.stem for path in sources("tests") if path.stem.startswith("test_")}
    wrong = [
        f"{shown(path)}: {name}"
        for path in sources("tests")
        for name in sorted(imported(path, tests))
    ]
    none(wrong)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(node: ast.AST) -> list[str]:
    """The names that a piece of code reaches into: attributes, imports, what it patches or gets."""
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        name = ast.unparse(node)
        return [] if own or not is_private(node.attr) or name == "os._exit" else [name]
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names if is_private(alias.name)]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in REACHING:
        texts = [item.value for item in node.args if isinstance(item, ast.Constant)]
        return [text for text in texts if isinstance(text, str) and reaches(text)]
    return []


# What takes the name of an attribute as a text.
REACHING = ("getattr", "setattr", "delattr")


def reaches(text: str) -> bool:
    return any(map(is_private, text.split(".")))


def test_tests_leave_private_attributes_alone() -> None:
    none(
        [
            f"{shown(path)}:{getattr(node, 'lineno', 0)} {name}"
            for path in sources("tests")
            for node in ast.walk(tree(path))
            for name in private_names(node)
        ]
    )


def test_random_numbers_come_from_named_streams() -> None:
    makers = {"default_rng", "manual_seed", "SeedSequence", "RandomState", "seed"}
    wrong = []
    for path in sources("framework"):
        if path.name == "streams.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                maker = node.func.attr
                named = "derived_seed" in ast.unparse(node)
                if maker in makers and not named:
                    wrong.append(f"{shown(path)}:{node.lineno} {ast.unparse(node)}")
    none(wrong)


def test_docs_name_files_and_modules_that_are_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    modules = {module(path) for path in sources(*PACKAGES)}
    wrong = []
    for page in pages:
        if page.name == "CHANGELOG.md":
            continue
        for text in re.findall(r"`([\w./]+)`", page.read_text()):
            package = re.split(r"[./]", text)[0]
            if package not in PACKAGES:
                continue
            there = (ROOT / text).exists() if "/" in text else known(text, modules)
            if not there:
                wrong.append(f"{shown(page)}: {text}")
    none(wrong)


def known(name: str, modules: set[str]) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        start = ".".join(parts[:length])
        if start in modules:
            if length == len(parts):
                return True
            path = ROOT / start.replace(".", "/")
            file = (
                path.with_suffix(".py")
                if path.with_suffix(".py").exists()
                else path / "__init__.py"
            )
            return re.search(rf"\b{re.escape(parts[length])}\b", file.read_text()) is not None
    return False
