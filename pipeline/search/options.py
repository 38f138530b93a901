"""The options of a search: those of `vmunet search`, and the parameters of its Prefect flow."""

from dataclasses import dataclass

from pipeline.config.strict import ProtocolName
from vmunet.errors import InputError


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        view: the data to train on.
        cell: the cell whose settings the search varies.
        protocol: the trials' training protocol: `paper` or `sound`.
        trials: the total number of trials of the study.
        parallel: the number of trials at once; None for one on each GPU or core.
        epochs: the epochs of a complete trial; None for the profile's number.
        study: the study's name; None for VIEW-CELL-PROTOCOL.
        timeout: seconds after which no trial starts; None for no limit.
        gpus: `all`, `none`, or indices such as 0,1.

    Raises:
        InputError: a number is out of range.
    """

    view: str
    cell: str = "base"
    protocol: ProtocolName = "sound"
    trials: int = 20
    parallel: int | None = None
    epochs: int | None = None
    study: str | None = None
    timeout: float | None = None
    gpus: str = "all"

    def __post_init__(self) -> None:
        for name in ("trials", "parallel", "epochs"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"--{name} {number}: expected at least 1")
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"--timeout {self.timeout}: expected more than 0 seconds")

    @property
    def study_name(self) -> str:
        """The study's name."""
        return self.study or f"{self.view}-{self.cell}-{self.protocol}"
