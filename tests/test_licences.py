"""What the installed packages' licences allow, and how they are found."""

import pytest

from pipeline import licences


def test_the_library_brings_no_gnu_licence_and_the_pipeline_no_unknown_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert licences.main() == 0
    rows = {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert (rows["torch"], rows["dvc"], rows["medpy"]) == ("library", "pipeline", "tests")
    assert "medpy" not in licences.brought("vmunet", ["pipeline", "export", "serve", "cluster"])


def test_a_new_copyleft_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(licences, "brought", lambda *_: {"pygit2", "numpy"})
    assert licences.main() == 1  # the library needs none, known or not
    monkeypatch.setattr(licences, "brought", lambda _, extras: {"pygit2"} if extras else set())
    assert licences.main() == 0
    monkeypatch.setattr(licences, "KNOWN", licences.KNOWN - {"pygit2"})
    capsys.readouterr()
    assert licences.main() == 1
    assert capsys.readouterr().err == "error: pygit2 is under a copyleft licence\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("GPLv3", True),
        ("GNU Affero General Public License", True),
        ("LGPL-2.1", True),
        ("MIT License", False),
        ("Apache-2.0", False),
        ("MPL-2.0", False),
    ],
)
def test_gnu_licences_are_told_from_others(words: str, found: bool) -> None:
    assert bool(licences.COPYLEFT.search(words)) is found
