"""Settings that replace those of a study: `section.key=value`, each given once."""

from collections.abc import Sequence
from typing import Any

import yaml

from framework.errors import StudyError
from framework.study.reading import read_yaml

Path = tuple[str, ...]


def override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set each `section.key=value` in the nested mapping; the value is read as YAML.

    A mapping for a section can be followed by keys that it does not have. Raises StudyError if two
    overrides give the same key, as only one could count.
    """
    given: dict[Path, str] = {}
    for text in overrides:
        path, value = parsed(text)
        _check_once(given, path, text)
        given[path] = text
        _set(values, path, value)


def parsed(text: str) -> tuple[Path, Any]:
    """Return the path and the value of one override. Raises StudyError."""
    name, equals, value = text.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise StudyError(f"{text} is not of the form section.key=value")
    return path, parsed_value(value, text)


def parsed_value(value: str, text: str) -> Any:
    """Return a value that is written as YAML within a longer text.

    A text that is not in quotes is taken as it is: it has no comment or anchor. Raises StudyError.
    """
    try:
        found = read_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise StudyError(
            f"the value in {text} is not YAML with each key once: put a text in quotes"
        ) from None
    plain = value.strip()
    if isinstance(found, str) and not plain.startswith(("'", '"', "|", ">", "!")):
        return plain
    return plain if found is None and plain.startswith("#") else found


def _check_once(given: dict[Path, str], path: Path, text: str) -> None:
    """Raise StudyError if an earlier override gives the same key, or one within or around it."""
    for earlier, said in given.items():
        shorter, longer = sorted((earlier, path), key=len)
        if longer[: len(shorter)] != shorter:
            continue
        if earlier == path:
            raise StudyError(f"{'.'.join(path)} is given twice, by {said} and by {text}: give one")
        if longer == earlier or _holds(parsed(said)[1], path[len(earlier) :]):
            raise StudyError(
                f"{'.'.join(longer)} is given twice, by {said} and by {text}: give it once, alone "
                "or within the other"
            )


def _holds(value: Any, path: Path) -> bool:
    """Return whether a value has a key at `path`, or cannot be given one there."""
    for key in path:
        if not isinstance(value, dict):
            return True
        if key not in value:
            return False
        value = value[key]
    return True


def _set(values: dict[str, Any], path: Path, value: Any) -> None:
    *sections, key = path
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[key] = value
