"""Solvers and surrogates by name: how a study finds them and checks their settings.

A component's settings are its constructor's arguments, checked by pydantic against their
annotations. Millstream's own components are also listed in tables, which import nothing slow.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

import solvers.table
import surrogates.table
from framework.errors import did_you_mean, raised
from framework.study.section import Section

# Settings in a sentence are cut there.
_LONGEST_TEXT = 400


class Component(Section):
    """The section of a solver or a surrogate: its name, and its own settings beside it."""

    model_config = ConfigDict(extra="allow")
    name: str

    def given(self) -> str:
        """Return the settings that the study gives, in brackets, for a sentence; or nothing."""
        settings = [f"{key} {value}" for key, value in (self.model_extra or {}).items()]
        text = ", ".join(settings)
        return (
            f" ({text if len(text) <= _LONGEST_TEXT else f'{text[:_LONGEST_TEXT]} ...'})"
            if text
            else ""
        )


@contextmanager
def their_mistakes(what: str, plain: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn any error of the user's code into a ValueError that says `what` failed and where.

    Errors of the kind `plain` pass as they are: they say all that is needed.
    """
    try:
        yield
    except plain:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} with {raised(error)}") from None


@dataclass(frozen=True)
class Kind:
    """A section that names a component: the known names, and what other names must lead to."""

    section: str
    table: Mapping[str, Any]  # name -> an entry with its `path` and its `settings`
    base: str  # module:Class, of which a component is a subclass
    leading: int  # how many arguments of the constructor are no settings


SOLVER = Kind("solver", solvers.table.TABLE, "solvers.base:Solver", 0)
SURROGATE = Kind("surrogate", surrogates.table.TABLE, "surrogates.base:Surrogate", 1)


def check_settings(component: Component, kind: Kind) -> None:
    """Check the name and, if the table knows the component, its settings.

    Imports no component: those with an import path are left for `find` and `factory`. Raises
    ValueError.
    """
    if component.name in kind.table:
        _validated(component, kind, kind.table[component.name].settings, 0)
    elif ":" not in component.name:
        raise ValueError(
            f"{kind.section}.name is {component.name}: it must be one of {', '.join(kind.table)}, "
            "or an import path such as my_package.wave:Wave"
            + did_you_mean(component.name, kind.table)
        )


def find(component: Component, kind: Kind) -> type[Any]:
    """Import the component's class. Raises ValueError if it is not there or of another kind."""
    check_settings(component, kind)
    known = kind.table.get(component.name)
    path = known.path if known else component.name
    return load_class(f"{kind.section}.name is {component.name}", path, kind.base)


def own_modules(component: Component, kind: Kind) -> list[str]:
    """Return the module of a component that the table knows; nothing of the user's own."""
    known = kind.table.get(component.name)
    return [known.path.partition(":")[0]] if known else []


def load_class(named: str, path: str, base: str) -> type[Any]:
    """Import the class at `path`, module:Class, which has to be a subclass of that at `base`.

    Raises ValueError, whose message begins with `named`: where the class was asked for.
    """
    module, _, attribute = path.partition(":")
    with their_mistakes(f"{named}: importing {module} failed"):
        loaded = importlib.import_module(module)
    found = getattr(loaded, attribute, None)
    if found is None:
        raise ValueError(f"{named}: {module} has no {attribute}")
    base_module, _, base_name = base.partition(":")
    base_class = getattr(importlib.import_module(base_module), base_name)
    if not (isinstance(found, type) and issubclass(found, base_class)):
        raise ValueError(f"{named}: that is not a subclass of {base_name}")
    return found


def factory(component: Component, kind: Kind, *leading: Any) -> Callable[[], Any]:
    """Return the component's class with its settings filled in, after the arguments `leading`.

    Raises ValueError if the component is not found or a setting is wrong.
    """
    found: Callable[..., Any] = find(component, kind)
    settings = _validated(component, kind, found, kind.leading)
    return partial(found, *leading, **dict(settings))


def settings_with_defaults(component: Component, kind: Kind) -> dict[str, Any]:
    """Return all settings of a component as plain values, defaults included."""
    settings = _validated(component, kind, find(component, kind), kind.leading)
    # What has no annotation is as it was written.
    free = {key for key, field in type(settings).model_fields.items() if field.annotation is Any}
    values = settings.model_dump(mode="json")
    return {key: whole(value) if key in free else value for key, value in values.items()}


def plain_settings(component: Component, kind: Kind) -> dict[str, Any]:
    """Return the given settings of a component, so that equal numbers are the same.

    The settings of a component of ours become what their annotations ask for. Those of others are
    not known without importing them: there 1.0 becomes 1.
    """
    given = component.model_dump(mode="json")
    if component.name not in kind.table:
        return {key: whole(value) for key, value in given.items()}
    typed = _validated(component, kind, kind.table[component.name].settings, 0)
    numbers = {key: getattr(typed, key) for key in given if key != "name"}
    return {**given, **{key: _as_list(value) for key, value in numbers.items() if _numeric(value)}}


def whole(value: Any) -> Any:
    """Return a value with its numbers as integers where they are whole: 1.0 as 1."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_numeric(item) for item in value)
    return isinstance(value, int | float)


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, list | tuple) else value


def _validated(
    component: Component, kind: Kind, declared_by: Callable[..., Any], leading: int
) -> Section:
    """Check the settings against the signature that declares them. Raises ValueError."""
    with their_mistakes(f"{kind.section}.name is {component.name}: reading its settings failed"):
        model = settings_of(declared_by, leading)
    try:
        return model.model_validate(component.model_extra)
    except ValidationError as error:
        raise ValueError(explain(error, model, kind.section)) from None


def settings_of(declared_by: Callable[..., Any], leading: int) -> type[Section]:
    """Make a model of the arguments of a class or a function, without the `leading` ones."""
    # A class declares them in its constructor, a function in itself.
    signed = getattr(declared_by, "__init__") if isinstance(declared_by, type) else declared_by  # noqa: B009
    hints = get_type_hints(signed, include_extras=True)
    parameters = list(inspect.signature(declared_by).parameters.values())[leading:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    return create_model(declared_by.__name__, __base__=Section, **fields)


def describe(name: str, declared_by: Callable[..., Any], leading: int = 0) -> dict[str, str]:
    """Return a component's name, the first sentence of its documentation, and its settings."""
    settings = (
        key if field.is_required() else f"{key}={field.default}"
        for key, field in settings_of(declared_by, leading).model_fields.items()
    )
    text = " ".join((inspect.getdoc(declared_by) or "").partition("\n\n")[0].split())
    summary = re.split(r"(?<=\.) ", text, maxsplit=1)[0]
    return {"name": name, "summary": summary, "settings": ", ".join(settings)}


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Say what is wrong, a sentence for each mistake: the key, the value, and what is allowed."""
    sentences = []
    for detail in error.errors(include_url=False):
        location = [str(part) for part in detail["loc"]]
        key = ".".join([prefix, *location] if prefix else location)
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        match detail["type"]:
            case "extra_forbidden":
                section = ".".join(filter(None, [prefix, *location[:-1]])) or "a study"
                names = _fields_at(model, location[:-1])
                sentences.append(
                    f"{key} is not a setting"
                    + (f": {section} has {', '.join(names)}" if names else "")
                    + did_you_mean(location[-1], names)
                )
            case "missing":
                sentences.append(f"{key} is missing")
            case "value_error" | "assertion_error":
                sentences.append(f"{key}: {message}" if key else message)
            case _:
                message = message[0].lower() + message[1:]
                sentences.append(f"{key} is {detail['input']!r}: {message}")
    return "; ".join(sentences)


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the names of the settings of the section at `location`, if it is a section."""
    for part in location:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
