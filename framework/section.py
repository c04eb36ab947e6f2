"""The base of every section of a study; each section's own model lives beside the code it sets."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys and numbers that are not finite are refused; nothing changes after the check."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
