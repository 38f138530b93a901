"""Files written completely or not at all, on a disk that is full."""

import errno
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.discs import CPU, SETTINGS, tiny_model
from vmunet.errors import InputError
from vmunet.files import open_log, whole_file, whole_folder
from vmunet.protocols import PAPER
from vmunet.training.optimizer import make_optimizer
from vmunet.training.state import Progress, save_state
from vmunet.weights.checkpoints import save_checkpoint


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can be larger than 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def plain(path: Path) -> None:
    with whole_file(path) as part:
        part.write_bytes(bytes(200_000))


def folder(path: Path) -> None:
    with whole_folder(path) as part:
        (part / "a").write_bytes(b"small")
        (part / "b").write_bytes(bytes(200_000))


def checkpoint(path: Path) -> None:
    save_checkpoint(path, tiny_model(), {})


def resume_point(path: Path) -> None:
    model = tiny_model()
    save_state(path, model, make_optimizer(model, SETTINGS, PAPER, CPU), Progress())


@pytest.mark.parametrize("write", [plain, folder, checkpoint, resume_point])
def test_a_write_that_fails_names_its_file_and_leaves_what_was_there(
    write: Callable[[Path], None], tmp_path: Path, small_files: None
) -> None:
    target = tmp_path / "target"
    target.write_text("before")
    with pytest.raises(OSError, match="too large") as error:
        write(target)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    for error in (InputError("wrong"), ZeroDivisionError(), OSError(errno.ENOENT, "no", "photo")):
        with pytest.raises(type(error)) as raised, whole_file(tmp_path / "target"):
            raise error
        assert raised.value is error


def test_a_log_is_its_owners_alone(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    for _ in range(2):
        with open_log(log) as file:
            file.write(b"line\n")
    assert log.read_bytes() == b"line\nline\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
