"""The exit statuses of stages, which decide whether a sweep tries again."""

import errno
from pathlib import Path

import pytest

from pipeline.stage import IO_FAILED, STOPPED, WRONG_INPUT, run_stage
from vmunet.errors import InputError
from vmunet.training.loop import DivergedError


def error_of(number: int, path: str | None = None) -> OSError:
    return OSError(number, "no", path) if path else OSError(number, "no")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("wrong"), WRONG_INPUT),
        (DivergedError("the loss became nan"), WRONG_INPUT),  # a second attempt would diverge too
        (error_of(errno.ENOENT, "photo.jpg"), WRONG_INPUT),
        (error_of(errno.EACCES, "photo.jpg"), WRONG_INPUT),
        (error_of(errno.EISDIR, "photo.jpg"), WRONG_INPUT),
        (error_of(errno.ENOTDIR, "photo.jpg/x"), WRONG_INPUT),
        (error_of(errno.ENOENT), IO_FAILED),  # an error without a path
        (error_of(errno.ENOSPC, "runs/x"), IO_FAILED),
        (error_of(errno.EIO, "runs/x"), IO_FAILED),
        (error_of(errno.EMFILE, "runs/x"), IO_FAILED),
        (ConnectionResetError(errno.ECONNRESET, "reset"), IO_FAILED),
        (TimeoutError("timed out"), IO_FAILED),
    ],
)
def test_the_status_tells_wrong_input_from_a_failure(
    error: Exception, status: int, capsys: pytest.CaptureFixture
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == status
    remedy = "make room, then start the same command again"
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    message = f"runs/x: no; {remedy}" if full else str(error)
    assert capsys.readouterr().err == f"error: {message}\n"


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == STOPPED
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_file_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: print((tmp_path / "missing").read_text()))
    assert ended.value.code == WRONG_INPUT
    assert str(tmp_path / "missing") in capsys.readouterr().err


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(lambda: print(1 / 0))
