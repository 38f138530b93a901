"""The options of a sweep: those of `vmunet sweep`, and the parameters of its Prefect flow."""

from dataclasses import dataclass, fields

from vmunet.errors import InputError

RUNNERS = ("local", "dask")


@dataclass(frozen=True)
class SweepOptions:
    """The options of a sweep; with the defaults it runs all cells.

    Attributes:
        tables: only the cells that these tables show. A table is a number or a numeral: 3 or III.
        cells: only the cells whose names match one of these shell patterns.
        seeds: only these of the declared seeds.
        parallel: the number of stages at once; None for one on each GPU, worker or core.
        gpus: `all`, `none`, or indices such as 0,1.
        retries: the number of further attempts for a stage that fails.
        runner: the machines that run the cells: `local` for this one, or `dask`.
        address: the Dask scheduler's address.

    Raises:
        InputError: a value is out of range, or two values exclude each other.
    """

    tables: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    parallel: int | None = None
    gpus: str = "all"
    retries: int = 2
    runner: str = "local"
    address: str = ""

    def __post_init__(self) -> None:
        if self.parallel is not None and self.parallel < 1:
            raise InputError(f"--parallel {self.parallel}: expected at least 1")
        if self.retries < 0:
            raise InputError(f"--retries {self.retries}: expected at least 0")
        if self.runner not in RUNNERS:
            raise InputError(f"--runner {self.runner}: expected {' or '.join(RUNNERS)}")
        if self.address and self.runner != "dask":
            raise InputError(f"--address {self.address}: only valid with --runner dask")
        if self.runner == "dask" and self.gpus not in ("all", "none"):
            raise InputError(
                f"--gpus {self.gpus}: a Dask worker has the GPU of its own CUDA_VISIBLE_DEVICES"
            )

    @property
    def everything(self) -> bool:
        """Whether no cell is left out."""
        return not (self.tables or self.cells or self.seeds)

    @property
    def command(self) -> list[str]:
        """The words of the command line that has these options."""
        words = ["vmunet", "sweep"]
        for option in fields(self):
            value = getattr(self, option.name)
            if value == option.default:
                continue
            if option.name == "cells":
                words += [word for pattern in value for word in ("--cells", pattern)]
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += [f"--{option.name}", text]
        return words
