"""The confusion matrices of Table I, and what captions say of the split."""

import json

import pytest

from reports.make.tables.captions import caption
from reports.make.tables.confusion import confusion_data, confusion_sheet, matrices
from reports.make.tables.inputs import SPLITS, read_inputs
from reports.make.tables.rows import Assembler
from tests.helpers.tables import Run, make_params, sound_scores
from tests.helpers.tables import write as write_run

RUN = Run("isic17-256", "base", "paper", 42)
TP, FN, FP, TN = 0.15, 0.02, 0.03, 0.80  # shares of all pixels


@pytest.fixture
def read(root):
    params = make_params(sizes=(256,), source="file")
    acc, spe, sen = TP + TN, TN / (TN + FP), TP / (TP + FN)
    scores = {"miou": 0.75, "dsc": 0.857, "acc": acc, "spe": spe, "sen": sen}
    data = {"n_train": 1500, "n_test": 650, "source": "file"}
    write_run(root, params, RUN, data, (256, 256), scores, sound_scores(scores))
    inputs = read_inputs(root, params, [RUN])
    return inputs, Assembler(inputs).tables()


def test_measured_and_published_matrices_stand_side_by_side(read):
    inputs, tables = read
    rows = matrices(tables, inputs)
    assert [row.row.label for row in rows] == ["VM-UNet"]
    (row,) = rows
    assert row.measured[0] == pytest.approx((TP, FN, FP, TN))
    low, middle, high = row.published
    assert middle.lesion == pytest.approx(0.16797, abs=1e-5)  # 96.29, 97.58, 89.90 as printed
    assert all(a < b < c for a, b, c in zip(low, middle, high, strict=True))
    (block,) = confusion_sheet(inputs, rows).blocks
    published, measured = ([cell.text for cell in line.cells] for line in block.lines)
    assert published[:3] == ["VM-UNet", "publ.", "15.10 [14.98, 15.22]"]
    assert measured == ["VM-UNet", "meas.", "15.00", "2.00", "3.00", "80.00"]
    assert "15.100391,14.9825,15.218294,15.0," in confusion_data(rows).csv()


def test_captions_say_what_was_found_of_the_split_of_these_data(read, root):
    inputs, tables = read
    first = next(table for table in tables if table.key == "I")
    text = "The split is the one behind the published figures: ..."
    assert not any("split is" in note for note in caption(first, inputs).notes)
    for source, said in (("file", True), ("http", False)):
        (root / SPLITS).parent.mkdir(parents=True, exist_ok=True)
        of = {"isic17": {"source": source, "agrees": True, "text": text}}
        (root / SPLITS).write_text(json.dumps(of))
        again = read_inputs(root, inputs.params, [RUN])
        assert (f"ISIC17: {text}" in caption(first, again).notes) == said
