"""Solvers and surrogates by name: how a study finds them and checks their settings.

A component's settings are its constructor's arguments, checked by pydantic against their
annotations, so a component declares them once, in plain Python.
"""

import difflib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from framework.study.section import Section


class Component(Section):
    """The section of a solver or a surrogate: its name, and beside it its own settings."""

    model_config = ConfigDict(extra="allow")
    name: str


@contextmanager
def their_mistakes(what: str, plain: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Code of the user's runs: what it raises becomes a ValueError that says `what` and where.

    Errors of the kind `plain` say all that is needed and pass as they are.
    """
    try:
        yield
    except plain:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{what} with {type(error).__name__}: {' '.join(str(error).split())} "
            f"({place.filename}:{place.lineno})"
        ) from None


def find(name: str, kind: str, registered: Mapping[str, str], base: type[Any]) -> type[Any]:
    """The class with a registered name or an import path `package.module:Class`.

    Raises ValueError if there is none, or if it is not a subclass of `base`.
    """
    path = registered.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, registered, n=1)
        raise ValueError(
            f"{kind}.name is {name}: it must be one of {', '.join(registered)}, "
            "or an import path such as my_package.wave:Wave"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    with their_mistakes(f"{kind}.name is {name}: importing {module} failed"):
        loaded = importlib.import_module(module)
    found = getattr(loaded, attribute, None)
    if found is None:
        raise ValueError(f"{kind}.name is {name}: {module} has no {attribute}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{kind}.name is {name}: that is not a subclass of {base.__name__}")
    return found


def factory(
    component: Component, kind: str, registered: Mapping[str, str], base: type[Any], *leading: Any
) -> Callable[[], Any]:
    """The component's class with its settings filled in; `leading` arguments come before them.

    Raises ValueError if the component is not found or a setting is wrong.
    """
    found: Callable[..., Any] = find(component.name, kind, registered, base)
    with their_mistakes(f"{kind}.name is {component.name}: reading its settings failed"):
        model = settings_of(found, len(leading))
    try:
        settings = model.model_validate(component.model_extra)
    except ValidationError as error:
        raise ValueError(explain(error, model, kind)) from None
    return partial(found, *leading, **dict(settings))


def settings_of(component: Callable[..., Any], leading: int) -> type[Section]:
    """A model of the arguments of a component's constructor, without the `leading` ones."""
    hints = get_type_hints(component.__init__, include_extras=True)
    parameters = list(inspect.signature(component).parameters.values())[leading:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    return create_model(component.__name__, __base__=Section, **fields)


def describe(name: str, component: type[Any], leading: int) -> dict[str, str]:
    """A component's name, the first sentence of its documentation, and its settings."""
    settings = (
        key if field.is_required() else f"{key}={field.default}"
        for key, field in settings_of(component, leading).model_fields.items()
    )
    text = " ".join((inspect.getdoc(component) or "").partition("\n\n")[0].split())
    summary = re.split(r"(?<=\.) ", text, maxsplit=1)[0]
    return {"name": name, "summary": summary, "settings": ", ".join(settings)}


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """What is wrong, a sentence for each mistake: the key, the value, and what is allowed."""
    sentences = []
    for detail in error.errors(include_url=False):
        location = [str(part) for part in detail["loc"]]
        key = ".".join([prefix, *location] if prefix else location)
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        match detail["type"]:
            case "extra_forbidden":
                section = ".".join(filter(None, [prefix, *location[:-1]])) or "a study"
                names = _fields_at(model, location[:-1])
                near = difflib.get_close_matches(location[-1], names, n=1)
                sentences.append(
                    f"{key} is not a setting"
                    + (f": {section} has {', '.join(names)}" if names else "")
                    + (f"; did you mean {near[0]}?" if near else "")
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
    """The names of the settings of the section that `location` leads to; none if it is no model."""
    for part in location:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
