"""The check of the arguments that a function of the front door is given."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from framework.errors import StudyError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function raise StudyError for arguments that do not fit its annotations.

    Missing and unknown arguments raise TypeError, as they always do.
    """
    validated = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = signature(function).bind(*args, **kwargs).arguments
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            raise StudyError(f"{function.__name__}: {_sentences(error, given)}") from None

    return call


def _sentences(error: ValidationError, given: Mapping[str, Any]) -> str:
    """Say what is wrong, once for each argument: its name, its value, and what is allowed."""
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        argument, *rest = detail["loc"]
        name = list(given)[argument] if isinstance(argument, int) else argument
        # Below the argument come the key of a mapping, or the alternatives of a type.
        inside = isinstance(given[name], Mapping) and rest and rest[0] in given[name]
        place = f"{name}[{rest[0]!r}]" if inside else name
        message = f"{detail['msg'][0].lower()}{detail['msg'][1:]}"
        found.setdefault(place, f"{place} is {detail['input']!r}: {message}")
    return "; ".join(found.values())
