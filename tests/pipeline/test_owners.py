"""Which process an entry on a page belongs to, and whether that process is dead."""

import os
import subprocess

import pytest

from pipeline import owners
from pipeline.owners import HOST, PROCESS, is_dead, machine, owner, process
from pipeline.passwords import without_password


def test_this_process_lives() -> None:
    assert not is_dead(owner())


def test_a_process_is_dead_when_it_has_ended_even_if_nobody_has_fetched_its_status() -> None:
    child = subprocess.Popen(["sleep", "60"])
    known = process(child.pid)
    tags = {HOST: machine(), PROCESS: known}
    assert known
    assert not is_dead(tags)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(tags)
    child.wait()
    assert is_dead(tags)


def test_an_id_that_was_given_again_is_another_process() -> None:
    assert is_dead({HOST: machine(), PROCESS: f"{os.getpid()} 0-0"})


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {HOST: machine()},
        {PROCESS: "999999999 0-0"},
        {HOST: "elsewhere", PROCESS: "999999999 0-0"},
        {HOST: machine(), PROCESS: "a person's own tag"},
    ],
)
def test_who_cannot_be_known_is_not_dead(tags: dict[str, str]) -> None:
    assert not is_dead(tags)


def test_a_container_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    own = machine()
    monkeypatch.setattr(owners.os, "readlink", lambda _: "pid:[4026532999]")
    assert machine() != own


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:secret@host:5000", "http://host:5000"),
        ("https://token@host/mlflow is away", "https://host/mlflow is away"),
        ("http://user:p@ss@host", "http://host"),
        (
            "postgresql://mlflow:secret@db/mlflow, http://b:secret@c",
            "postgresql://db/mlflow, http://c",
        ),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_addresses_are_shown_without_passwords(text: str, shown: str) -> None:
    assert without_password(text) == shown
