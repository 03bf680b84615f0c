"""A part of a spec: what a user writes, parsed once and never changed."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a spec; unknown keys are refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
