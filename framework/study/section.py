"""The base of every section of a study; each section's own model lives beside the code it sets."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Unknown keys and numbers that are not finite are refused, and so is true or false where it
    is not asked for, which Python would take for 1 or 0. Nothing changes after the check."""

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
    """Whether true is for this annotation to judge: a bool, anything, or a section of its own."""
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
