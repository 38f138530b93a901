"""The base class of the models of params.yaml and of the profiles."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ProtocolName = Literal["paper", "sound"]
# The name of a view or a dataset. It becomes a folder's name and a command's argument.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Strict(BaseModel):
    """Unknown keys and wrong types are errors: a misspelt parameter must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
