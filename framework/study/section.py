"""The base of every section of a study."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


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
