"""The base class of the models of params.yaml and of the profiles."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ProtocolName = Literal["paper", "sound"]


class Strict(BaseModel):
    """Unknown keys and wrong types are errors: a misspelt parameter must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
