"""Split images into training and test, by a rule or by a table; no patient is in both.

The rule orders ids (or patients, if they are known) by the SHA-256 of their names and takes the
first share as the test part. It depends only on the names, not on the order of the files. One more
image moves at most one other image to the other part; one more image of a known patient moves none.
"""

import csv
import hashlib
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from vmunet.csv_cells import UnixLines, from_row, to_cells
from vmunet.data.own.files import Pair, clean_id, shown
from vmunet.errors import InputError
from vmunet.files import whole_file

COLUMNS = ("id", "split", "patient")


@dataclass(frozen=True)
class Sample:
    """An image or volume in its part; `patient` is empty if no table names one."""

    id: str
    part: str
    patient: str
    image: str
    mask: str


def part_for_test(units: Collection[str], share: float) -> set[str]:
    """The ids, or patients, that test: `share` of them, at least one, and at least one trains.

    Raises:
        InputError: there are fewer than two units.
    """
    names = sorted(set(units), key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    if len(names) < 2:
        raise InputError(
            f"own: {len(names)} image or patient cannot be split into training and test; at "
            "least two are needed"
        )
    return set(names[: min(max(1, round(share * len(names))), len(names) - 1)])


def assign(pairs: Sequence[Pair], share: float | None, table: Path | None) -> list[Sample]:
    """Every pair with its part and patient, in the pairs' order.

    Args:
        pairs: the pairs of `vmunet.data.own.files`.
        share: the share of the images, or of the patients if the table names them, that test;
            None if the table has the column `split`.
        table: CSV with `id`, and `split` or `patient` or both; other columns are ignored.

    Raises:
        InputError: the table is missing, lacks columns, or does not fit the pairs; a patient is
            in both parts, or a part is empty.
    """
    ids = [pair.id for pair in pairs]
    rows = _read_table(table, ids) if table else {}
    patients = {key: row["patient"] for key, row in rows.items() if "patient" in row}
    if table and "split" in next(iter(rows.values())):
        if share is not None:
            raise InputError(
                f"{table}: its column split says which images test, and so does test: {share} in "
                "params.yaml; remove one of them"
            )
        parts = {key: row["split"].lower() for key, row in rows.items()}
        _check_parts(table, parts, patients)
    elif share is None:
        raise InputError(
            f"{table}: no column split, so params.yaml has to say which share of the patients "
            "tests; add test: 0.2 beside csv:"
        )
    else:
        units = patients or {key: key for key in ids}
        chosen = part_for_test(units.values(), share)
        parts = {key: "test" if units[key] in chosen else "train" for key in ids}
    return [
        Sample(p.id, parts[p.id], patients.get(p.id, ""), str(p.image), str(p.mask)) for p in pairs
    ]


def _check_parts(table: Path, parts: dict[str, str], patients: dict[str, str]) -> None:
    wrong = sorted({part for part in parts.values() if part not in ("train", "test")})
    if wrong:
        raise InputError(
            f"{table}: column split holds {shown([repr(part) for part in wrong])}; expected train "
            "or test (the sound protocol holds out its own validation images from train)"
        )
    for part in ("train", "test"):
        if part not in parts.values():
            raise InputError(f"{table}: column split has no {part} row; at least one is needed")
    of_part = {
        part: {patients[key] for key in patients if parts[key] == part}
        for part in ("train", "test")
    }
    both = sorted(of_part["train"] & of_part["test"])
    if both:
        raise InputError(
            f"{table}: {len(both)} patients are in train and in test ({shown(both)}); all images "
            "of a patient belong to one part"
        )


def _read_table(path: Path, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The table's rows by id, exactly one for every id.

    Rows without any value, which spreadsheets leave below a table, are passed over.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            cleaned = [{k: _text(row[k]) for k in COLUMNS if k in row} for row in reader]
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; correct csv: in params.yaml's own, or leave it out"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from None
    if "id" not in columns or not {"split", "patient"} & set(columns):
        raise InputError(
            f"{path}: its columns are {', '.join(columns) or 'none'}; expected id, and split or "
            "patient or both, separated by commas"
        )
    rows: dict[str, dict[str, str]] = {}
    for row in cleaned:
        if not any(row.values()):
            continue
        key = clean_id(row["id"])
        if not key:
            others = ", ".join(value for value in row.values() if value)
            raise InputError(f"{path}: a row ({others}) has no id; name its image, or remove it")
        if key in rows:
            raise InputError(f"{path}: {key} has two rows; keep one")
        rows[key] = row
    missing = sorted(set(ids) - rows.keys())
    if missing:
        raise InputError(
            f"{path}: no row for {len(missing)} of {len(ids)} images ({shown(missing)}); the "
            "column id holds file names without their suffixes"
        )
    unknown = sorted(rows.keys() - set(ids))
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} rows have no image ({shown(unknown)}); the column id holds "
            "file names without their suffixes"
        )
    nameless = [key for key in ids if rows[key].get("patient") == ""]
    if nameless:
        raise InputError(f"{path}: no patient for {shown(nameless)}; name one in every row")
    return rows


def _text(cell: str | None) -> str:
    """A cell in Unicode's composed form; repeated spaces become one."""
    return " ".join(unicodedata.normalize("NFC", cell or "").split())


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write the samples as a CSV, completely or not at all."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(UnixLines(file))
        names = [field.name for field in fields(Sample)]
        writer.writerow(names)
        writer.writerows(to_cells(getattr(sample, name) for name in names) for sample in samples)


def read_samples(path: Path) -> tuple[list[Sample], list[Sample]]:
    """The samples that train and those that test, as `write_samples` left them.

    Raises:
        InputError: there is no such file.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            samples = [Sample(**from_row(row)) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the own_split stage first") from None
    train, test = ([s for s in samples if s.part == part] for part in ("train", "test"))
    return train, test
