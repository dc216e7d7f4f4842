"""The base class of the sections of a config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of sections: unknown keys are an error, defaults are validated, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
