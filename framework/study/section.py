"""The base of every section of a study."""

import math
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# Arrays and other languages hold no larger whole numbers.
_LARGEST_WHOLE = 2**64


class Section(BaseModel):
    """Settings that are checked once and do not change afterwards.

    Unknown keys and numbers that are not finite are refused. So are true and false where they are
    not asked for: Python would take them for 1 and 0.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if not _may_be_true(annotation) and _holds_bool(value):
            raise ValueError(
                f"it is {value!r}: true and false (also yes, no, on, off) are no numbers"
            )
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_of_a_size(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if _is_section(annotation):  # which checks its own numbers, and says where they are
            return value
        for place, number in _numbers_in(value):
            at = f"{place}: " if place else ""
            if isinstance(number, int) and abs(number) > _LARGEST_WHOLE:
                raise ValueError(f"{at}it has a whole number above 2^64, which is too large")
            # Floats that are annotated as such are refused by pydantic.
            if annotation is Any and not math.isfinite(number):
                raise ValueError(f"{at}it is {number!r}: numbers have to be finite")
        return value


def _numbers_in(value: Any, place: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield the numbers in a value, each with its place there: keys with points between."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers_in(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers_in(item, place)
    elif isinstance(value, int | float):
        yield place, value


def _is_section(annotation: Any) -> bool:
    """Return whether an annotation is that of a section, or of a section or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_is_section(part) for part in get_args(annotation))


def _may_be_true(annotation: Any) -> bool:
    """Return whether the annotation itself decides on true: a bool, Any, or another section."""
    if annotation in (bool, Any):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_may_be_true(part) for part in get_args(annotation))


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_bool(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_bool(item) for item in value)
    return isinstance(value, bool)
