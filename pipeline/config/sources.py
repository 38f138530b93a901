"""The sources of a profile's data and initial weights: `data`, `volumes`, `weights`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.strict import Strict
from vmunet.weights.imagenet.files import FILES


class PhantomSource(Strict):
    """Procedural images, written as archives with the official layout."""

    source: Literal["phantom"]
    training: Annotated[int, Field(ge=2)]
    validation: Annotated[int, Field(ge=1)]
    n_train: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _some_are_left_to_train(self) -> "PhantomSource":
        if self.n_train > self.training:
            raise ValueError(f"n_train {self.n_train} exceeds training {self.training}")
        return self


class SampleSource(Strict):
    """The sample in examples/isic17/; the first `n_train` of its sorted training ids train."""

    source: Literal["sample"]
    n_train: Annotated[int, Field(ge=1)]


class ArchiveSource(Strict):
    """The official archives: `file` from $VMUNET_MIRROR/<dataset>/, `http` from the publisher."""

    source: Literal["file", "http"]


class PreparedSource(Strict):
    """The authors' prepared 7:3 set, a zip or a folder; `path` if it is not in $VMUNET_MIRROR."""

    source: Literal["prepared"]
    path: Annotated[str, Field(min_length=1)] | None = None


class PhantomVolumes(Strict):
    """Procedural CT volumes in the raw BTCV layout: `side` px, and `slices` from the first number
    to the second."""

    source: Literal["phantom"]
    side: Annotated[int, Field(ge=32)]
    slices: Annotated[list[Annotated[int, Field(ge=8)]], Field(min_length=2, max_length=2)]
    seed: Annotated[int, Field(ge=0)] = 0


class SynapseSource(Strict):
    """Synapse (BTCV): `synapse` downloads the raw volumes with $SYNAPSE_AUTH_TOKEN; `file` reads
    them, and `prepared` reads train_npz and test_vol_h5, from `path` or $VMUNET_MIRROR/synapse."""

    source: Literal["synapse", "file", "prepared"]
    path: Annotated[str, Field(min_length=1)] | None = None


class ImagenetSource(Strict):
    """A file of ImageNet weights: its path, or its http(s) address.

    `sha256` is its checksum or the first 8 or more digits of it, as PyTorch's file names have them.
    """

    place: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None

    @property
    def is_address(self) -> bool:
        return self.place.startswith(("https://", "http://"))


def with_place(content: Any) -> Any:
    """A text is a place without a checksum."""
    return {"place": content} if isinstance(content, str) else content


class WeightsSource(Strict):
    """Initial weights: VMamba v0 from the publisher (`http`) or $VMUNET_MIRROR/weights/*.pth
    (`file`), a short pre-training (`phantom`) at `side` px, or `none`.

    `imagenet` has the weights of other models, by the names in `vmunet.weights.imagenet.files`.
    With `file`, those that it does not name come from $VMUNET_MIRROR/weights/imagenet/.
    """

    source: Literal["http", "file", "phantom", "none"]
    steps: Annotated[int, Field(ge=1)] = 40
    side: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    imagenet: dict[str, Annotated[ImagenetSource, BeforeValidator(with_place)]] = Field(
        default_factory=dict
    )

    @field_validator("imagenet")
    @classmethod
    def _files_are_known(cls, sources: dict[str, ImagenetSource]) -> dict[str, ImagenetSource]:
        for name in sources:
            if name not in FILES:
                raise ValueError(f"unknown file {name!r}; known: {', '.join(FILES)}")
        return sources
