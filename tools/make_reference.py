"""Writes the pages of the reference that follow from the code: commands, studies, settings.

docs/conf.py calls it before the site is built. Usage: python tools/make_reference.py FOLDER
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer.main
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

from framework.cli.main import app
from framework.study.component import SOLVER, SURROGATE, Kind, settings_of
from framework.study.study import Study

# What typer writes after an argument's or an option's name: STUDY <path>, ... <list[str]>.
_TYPE = re.compile(r" <[a-z]+(\[[a-z]+\])?>$")
_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def commands() -> str:
    """Every command of the command line with its arguments and options."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    parts = [
        "# The command line",
        group.help or "",
        "Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted. With `--json` a command "
        "prints one JSON object to standard output, and everything else to standard error.",
    ]
    for name, command in group.commands.items():
        parts += _command(name, command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: TyperCommand) -> Iterator[str]:
    context = command.make_context(f"millstream {name}", [], resilient_parsing=True)
    yield f"## `{name}`"
    yield inspect.cleandoc(command.help or "")
    said = [item.get_help_record(context) for item in command.params if item.name != "help"]
    rows = [
        f"| `{_cell(_TYPE.sub('', names))}` | {_cell(text)} |" for names, text in filter(None, said)
    ]
    yield "\n".join(["| argument or option | what it is |", "|---|---|", *rows])
    if command.epilog:
        yield f"```\n{command.epilog.removeprefix('Example: ')}\n```"


def study() -> str:
    """Every section of a study with its settings."""
    parts = [
        "# The study",
        "A study is one YAML file. These are its keys; the sections `solver` and `surrogate` hold "
        "a `name` and that component's own settings: see [Solvers](../solvers.md) and "
        "[Surrogates](../surrogates.md). On the command line `section.key=value` replaces any "
        "setting. A key that is unknown, or a value out of its range, is refused before anything "
        "starts.",
        "## The top level",
        _table(Study),
    ]
    for name, field in Study.model_fields.items():
        if _is_section(field.annotation) and name not in ("solver", "surrogate"):
            parts += _section(name, field.annotation)
    return "\n\n".join(parts) + "\n"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    """A section, and after it the sections within it."""
    yield f"## `{name}`"
    said = inspect.getdoc(model) or ""
    if not said.startswith(f"The `{name}` section of a study"):
        yield said
    yield _table(model)
    for key, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if _is_section(part):
                yield from _section(f"{name}.{key}", part)


def settings(kind: Kind) -> str:
    """The settings of every registered solver, or surrogate."""
    parts = []
    for name, entry in kind.table.items():
        text = " ".join((inspect.getdoc(entry.settings) or "").split())
        parts += [f"### `{name}`", text]
        facts = getattr(entry, "facts", {})
        if facts:
            said = "; ".join(f"{what}: {fact}" for what, fact in facts.items())
            parts.append(f"With its defaults: {said}.")
        parts.append(_table(settings_of(entry.settings, 0)))
    return "\n\n".join(parts) + "\n"


def _table(model: type[BaseModel]) -> str:
    """The settings of a section: name, type, default, and what the code says of them."""
    schema = model.model_json_schema()
    said = _comments(model)
    rows = []
    for name, field in model.model_fields.items():
        shape = _type(schema["properties"][name], schema.get("$defs", {}))
        value = field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else _plain(value)
        text = said.get(name, "")
        text = text[:1].upper() + text[1:]
        rows.append(f"| `{name}` | {_cell(shape)} | {_cell(default)} | {_cell(text)} |")
    described = any(said.get(name) for name in model.model_fields)
    if not described:
        rows = [row.rsplit(" |  |", 1)[0] + " |" for row in rows]
        return "\n".join(["| key | value | default |", "|---|---|---|", *rows])
    return "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows])


def _plain(default: Any) -> str:
    """A default as a study would write it."""
    if isinstance(default, BaseModel):
        return "its defaults"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{list(default) if isinstance(default, tuple) else default}`"


def _type(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return _type(defs[name], defs) if "properties" not in defs[name] else "a section"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(_type(part, defs) for part in parts)
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_type(item, defs) for item in schema['prefixItems'])}]"
        case "array":
            return f"a list of {_type(schema.get('items', {}), defs)}"
        case "object" if "properties" in schema:
            return "a section"
        case "object":
            return f"name: {_type(schema.get('additionalProperties') or {}, defs)}"
        case "integer" | "number" as number:
            limits = [f"{sign} {_number(schema[k])}" for k, sign in _LIMITS.items() if k in schema]
            what = "whole number" if number == "integer" else "number"
            return f"{what} {', '.join(limits)}".strip()
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "text"
    return "any"


def _number(limit: float) -> str:
    return "2^63" if limit == 2**63 else f"{limit:g}"


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """What the comments above and beside the attributes of a class say, by attribute."""
    try:
        source = textwrap.dedent(inspect.getsource(model))
    except OSError:
        return {}
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.insert(0, line.strip().lstrip("# "))
        beside = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :]
        said = [*above, beside.strip().lstrip("# ")]
        found[node.target.id] = " ".join(filter(None, said))
    return found


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def write(folder: Path) -> None:
    """Write all of these pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.md").write_text(commands())
    (folder / "study.md").write_text(study())
    (folder / "solver_settings.md").write_text(settings(SOLVER))
    (folder / "surrogate_settings.md").write_text(settings(SURROGATE))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
