import json
import re
import warnings
from struct import unpack

import numpy as np
import pytest

from reports.make.figures import writing
from reports.make.figures.drawn import DRAWN, make_figures
from reports.make.figures.fields import receptive_fields
from reports.make.figures.images import lowest, models, qualitative
from reports.make.figures.listing import read_cases
from reports.make.figures.runs import Runs
from reports.make.figures.scores import by_size, dice_distributions, reliability, training_curves
from reports.make.figures.volumes import by_organ, outlined_slices
from reports.make.page import pictures
from reports.make.page.pictures import make_pictures
from tests.helpers.figures import (
    declared,
    disc_images,
    make_grid,
    write_fields,
    write_images,
    write_volumes,
)
from tests.helpers.tables import RIVALS, VOLUME_RIVALS, copy_declarations
from vmunet.drawing.figures import style
from vmunet.errors import InputError

FIGURES = (*pictures.DRAWN, *DRAWN)
OF_SCORES = [
    "dice-distributions",
    "size",
    "calibration",
    "training-curves",
    "organs-synapse-32",
    "receptive-fields-isic17-64",
]
OF_VIEWS = {
    "isic17-64": ["qualitative-isic17-64", "models-isic17-64", "failures-isic17-64"],
    "isic18-64": ["qualitative-isic18-64", "models-isic18-64", "failures-isic18-64"],
    "synapse-32": ["slices-synapse-32", "models-synapse-32"],
}
FOLDERS = {name: "figures" for name in OF_SCORES} | {
    name: f"pictures/{view}" for view, names in OF_VIEWS.items() for name in names
}


def write_demo(root, seeds=(42,)):
    """Two views of images, one of them at a second size, and one of volumes."""
    copy_declarations(root)
    params = make_grid(("isic17-64", "isic18-64"), volumes=(32,), seeds=seeds)
    runs = declared(
        params,
        ("base", "scratch"),
        ("paper", "sound"),
        elsewhere=("isic17-96",),
        rivals=("unet", "malunet"),
        volume_rivals=VOLUME_RIVALS,
    )
    images, truth = disc_images(12, 32)
    volumes = [run for run in runs if run.view in params.grid.volumes]
    write_images(root, params, [run for run in runs if run not in volumes], images, truth)
    write_volumes(root, params, volumes)
    return params, runs


def write_small(root, count=12, source="file", ids=None):
    """One view with one cell, of real images."""
    copy_declarations(root)
    params = make_grid(("isic17-64",))
    runs = declared(params, ("scratch",))
    write_images(root, params, runs, *disc_images(count, 32), source=source, ids=ids)
    return params, runs


KEPT = {}  # the demo's figures by name, as they were saved


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    params, runs = write_demo(root)
    write_fields(root, params, runs[0])

    def save(figure, stem):
        KEPT[stem.name] = figure
        style.save(figure, stem)

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(writing, "save", save)
        assert make_figures(root, params, runs) == OF_SCORES
        for view, names in OF_VIEWS.items():
            assert make_pictures(root, params, runs, view) == names
    return root, params, runs


@pytest.mark.parametrize("place", sorted(set(FOLDERS.values())))
def test_every_figure_is_listed_and_written_in_both_forms(demo, place):
    folder = demo[0] / "reports/out" / place
    names = [name for name, own in FOLDERS.items() if own == place]
    listed = json.loads((folder / "figures.json").read_text())
    assert [entry["name"] for entry in listed] == names
    files = {f"{name}.{form}" for name in names for form in ("pdf", "png")} | {"figures.json"}
    assert {path.name for path in folder.iterdir()} - {"cases.json"} == files
    for entry in listed:
        assert entry["data"] == "phantom"
        assert all(len(entry[field]) > 5 for field in ("title", "caption", "alt"))
        assert "Profile demo, seed 42." in entry["caption"]
        assert "synthetic" in entry["caption"]
        assert "  " not in entry["caption"] + entry["alt"]
        assert "nan" not in entry["caption"] + entry["alt"]


@pytest.mark.parametrize("view", OF_VIEWS)
def test_every_case_of_a_view_is_kept_for_the_page(demo, view):
    cases = read_cases(demo[0], view)
    assert cases["view"] == view
    assert len(cases["ids"]) == len(cases["images"]) == (5 if view == "synapse-32" else 12)
    assert [run["key"] for run in cases["runs"]] == ["base-paper-42", "base-sound-42"]


def test_a_view_without_runs_has_no_cases(tmp_path):
    copy_declarations(tmp_path)
    params = make_grid(("isic17-64",))
    assert make_pictures(tmp_path, params, [], "isic17-64") == []
    assert read_cases(tmp_path, "isic17-64") is None
    with pytest.raises(InputError, match=r"cases\.json: no such file; .*stages.pictures isic18-64"):
        read_cases(tmp_path, "isic18-64")


@pytest.mark.parametrize("name", FOLDERS)
def test_figures_are_as_wide_as_a_column_or_a_page_with_embedded_fonts(demo, name):
    folder = demo[0] / "reports/out" / FOLDERS[name]
    pdf = (folder / f"{name}.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    width = unpack(">I", (folder / f"{name}.png").read_bytes()[16:20])[0]
    assert any(abs(width / style.DPI * 2.54 - cm) < 0.02 for cm in (style.SINGLE, style.DOUBLE))
    assert top_colour(folder / f"{name}.png") == pytest.approx((230, 159, 0), abs=1)


def top_colour(path):
    from matplotlib.image import imread

    return tuple(255 * imread(path)[2, 2, :3])


def test_figures_have_the_same_bytes_each_time(demo, tmp_path):
    root, params, runs = demo
    with style.settled():
        for figure in (lowest, by_size, outlined_slices, receptive_fields):
            drawn = next(figure(Runs(root, params, runs)))
            style.save(drawn.figure, tmp_path / drawn.name)
    assert len(list(tmp_path.iterdir())) == 8
    for path in tmp_path.iterdir():
        place = root / "reports/out" / FOLDERS[path.stem]
        assert path.read_bytes() == (place / path.name).read_bytes()


def test_one_cell_on_one_view_of_real_images_has_no_band(tmp_path):
    params, runs = write_small(tmp_path)
    assert make_figures(tmp_path, params, runs) == OF_SCORES[:4]
    # No other model, no figure of every model.
    without = [name for name in OF_VIEWS["isic17-64"] if not name.startswith("models")]
    assert make_pictures(tmp_path, params, runs, "isic17-64") == without
    folder = tmp_path / "reports/out/figures"
    listed = json.loads((folder / "figures.json").read_text())
    assert {entry["data"] for entry in listed} == {"real"}
    assert top_colour(folder / "size.png") == (255, 255, 255)


def test_several_seeds_are_pooled_and_captions_say_so(tmp_path):
    params, runs = write_demo(tmp_path, seeds=(42, 7))
    with style.settled():
        drawn = {d.name: d for f in FIGURES for d in f(Runs(tmp_path, params, runs))}
    assert "Of 2 seeds the first declared one, 42." in drawn["failures-isic17-64"].caption
    assert "seed 42." in drawn["failures-isic17-64"].caption
    assert "An image counts with its mean over the 2 seeds." in drawn["size"].caption
    assert "Pixels are pooled over the 2 seeds." in drawn["calibration"].caption
    assert "seeds 7 and 42." in drawn["dice-distributions"].caption
    assert len(drawn["training-curves"].results) == 2 * 12
    assert not any(name.startswith("receptive") for name in drawn)


@pytest.mark.parametrize(("source", "said"), [("synapse", True), ("prepared", False)])
def test_slices_of_prepared_files_do_not_say_where_the_patients_right_is(tmp_path, source, said):
    copy_declarations(tmp_path)
    params = make_grid((), volumes=(32,))
    runs = declared(params)
    write_volumes(tmp_path, params, runs)
    for run in runs:
        path = tmp_path / run.metrics_folder("demo") / "metrics.json"
        content = json.loads(path.read_text())
        content["data"]["source"] = source
        path.write_text(json.dumps(content))
    with style.settled():
        (drawn,) = outlined_slices(Runs(tmp_path, params, runs))
    assert ("patient's right" in drawn.caption) is said


@pytest.mark.parametrize(
    ("lost", "figure", "message"),
    [
        ("metrics/demo/isic17-64/base/paper/42/predictions.npz", qualitative, "no predictions"),
        ("metrics/demo/isic17-64/base/sound/42/per_image.csv", dice_distributions, "no such file"),
        ("metrics/demo/synapse-32/base/sound/42/per_case.csv", by_organ, "no such file"),
        ("metrics/demo/synapse-32/base/sound/42/predictions.npz", outlined_slices, "no pred"),
        ("data/arrays/isic17-64/paper/test/images.npy", lowest, "no such file"),
        ("data/arrays/synapse-32/cases/case0000/labels.npy", outlined_slices, "cannot be read"),
    ],
)
def test_a_missing_file_is_named(demo, tmp_path, lost, figure, message):
    root, params, runs = demo
    away = (root / lost).rename(tmp_path / "away")
    try:
        with (
            style.settled(),
            pytest.raises(InputError, match=f"{re.escape(lost)}: {message}"),
        ):
            list(figure(Runs(root, params, runs)))
    finally:
        away.rename(root / lost)


def test_if_a_figure_fails_the_old_ones_stay(tmp_path):
    params, runs = write_small(tmp_path)
    folder = tmp_path / "reports/out/figures"
    folder.mkdir(parents=True)
    (folder / "old.png").write_bytes(b"old")
    (tmp_path / runs[0].metrics_folder("demo") / "per_image.csv").unlink()
    with pytest.raises(InputError, match=r"per_image\.csv: no such file"):
        make_figures(tmp_path, params, runs)
    assert [path.name for path in folder.iterdir()] == ["old.png"]


def test_foreign_files_are_named(tmp_path):
    params, runs = write_small(tmp_path)
    folder = tmp_path / runs[0].metrics_folder("demo")
    files = {name: (folder / name).read_bytes() for name in ("metrics.json", "per_image.csv")}

    def refused(figure, match):
        with style.settled(), pytest.raises(InputError, match=match):
            list(figure(Runs(tmp_path, params, runs)))
        for name, content in files.items():
            (folder / name).write_bytes(content)

    again = f"run `vmunet sweep --cells {runs[0].name}`"
    metrics = json.loads(files["metrics.json"])
    for block, figure in (("history", training_curves), ("calibration", reliability)):
        left = {name: metrics[name] for name in metrics if name != block}
        left["sound"] = {n: scores for n, scores in metrics["sound"].items() if n != block}
        (folder / "metrics.json").write_text(json.dumps(left))
        refused(figure, f"does not hold the scores of a run .*'{block}'.*; {again}")
    text = files["per_image.csv"].decode()
    (folder / "per_image.csv").write_text(text.replace("native_size_dice", "dice"))
    refused(dice_distributions, f"does not hold the scores of each .*'native_size_dice'.*; {again}")
    (folder / "per_image.csv").write_text(text.replace("ISIC_0000003", "ISIC_0000099"))
    refused(lowest, f"per_image.csv: does not hold .*ISIC_0000003.*; {again}")
    ids = tmp_path / "data/arrays/isic17-64/paper/test/ids.txt"
    listed = ids.read_text()
    ids.write_text(listed.replace("ISIC_0000003", "ISIC_0000099"))
    refused(lowest, "predictions.npz: other images than in the arrays .*sweep --cells isic17-64")
    ids.write_text(listed)
    (folder / "predictions.npz").write_bytes(b"no archive")
    refused(qualitative, "predictions.npz: not readable")


def test_receptive_fields_of_a_run_outside_the_grid_are_refused(tmp_path):
    params, runs = write_small(tmp_path)
    other = declared(make_grid(("isic18-64",)))[0]
    write_fields(tmp_path, params, other)
    with pytest.raises(InputError, match="isic18-64-base-paper-42, which the grid does not have"):
        list(receptive_fields(Runs(tmp_path, params, runs)))
    path = tmp_path / "metrics/demo/isic17-64/receptive_field.npz"
    np.savez(path, images=0, run="")
    assert list(receptive_fields(Runs(tmp_path, params, runs))) == []
    for content in (b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"does not hold receptive fields .*receptive_field isic"
        ):
            list(receptive_fields(Runs(tmp_path, params, runs)))


def test_no_text_of_the_demo_is_cut_or_lies_on_another(demo, monkeypatch):
    assert set(KEPT) == set(FOLDERS)
    for name, figure in KEPT.items():
        check_texts(name, figure, monkeypatch)


@pytest.mark.parametrize("ids", ["short", "long"])
def test_no_text_of_a_small_grid_is_cut_or_lies_on_another(tmp_path, ids, monkeypatch):
    long = [f"a-very-long-name-of-an-image-{i}" for i in range(12)]
    params, runs = write_small(tmp_path, source="phantom", ids=long if ids == "long" else None)
    figures = (qualitative, lowest) if ids == "long" else FIGURES  # the other figures show no ids
    for figure in figures:
        with style.settled():
            for drawn in figure(Runs(tmp_path, params, runs)):
                drawn.figure.canvas.draw()  # settles the layout
                check_texts(drawn.name, drawn.figure, monkeypatch)


def test_every_model_has_a_picture_of_the_same_images(tmp_path, monkeypatch):
    """All rivals of Table I and two cells with initial weights: more than fit into one line."""
    copy_declarations(tmp_path)
    params = make_grid(("isic17-64",))
    for name in ("sanet", "transfuse"):
        params.cells[f"{name}-imagenet"] = params.cells[name]
    rivals = (*RIVALS, "unet-34m", "sanet-imagenet", "transfuse-imagenet")
    runs = declared(params, ("base", "scratch"), ("paper", "sound"), rivals=rivals)

    images, truth = disc_images(5, 32)
    write_images(tmp_path, params, runs, images, truth)
    with style.settled():
        (drawn,) = models(Runs(tmp_path, params, runs))
    cells = [result.run.cell for result in drawn.results]
    assert cells == ["base", *rivals]
    assert {result.run.protocol for result in drawn.results} == {"paper"}
    assert "VM-UNet, UNet, UNet++, Att-UNet" in drawn.alt
    drawn.figure.canvas.draw()
    pictures_of = [axes for axes in drawn.figure.axes if axes.images]
    assert len(pictures_of) == 4 * 12  # four images; the image itself and eleven models
    lines = {round(axes.get_position().y0, 4) for axes in pictures_of}
    assert len(lines) == 8  # two lines for each image
    check_texts(drawn.name, drawn.figure, monkeypatch)


def test_receptive_fields_of_another_model_are_those_of_the_output(tmp_path, monkeypatch):
    params, runs = write_small(tmp_path)
    path = write_fields(tmp_path, params, runs[0], places=("output",))
    assert len(np.load(path)["r50"]) == 2
    with style.settled():
        (drawn,) = receptive_fields(Runs(tmp_path, params, runs))
        drawn.figure.canvas.draw()
    assert len([axes for axes in drawn.figure.axes if axes.images]) == 2
    assert drawn.alt.startswith("Two heat maps")
    check_texts(drawn.name, drawn.figure, monkeypatch)


def check_texts(name, figure, monkeypatch):
    """Draws a figure whose layout is settled, and looks at the boxes of its texts."""
    from matplotlib.text import Text

    seen, draw = [], Text.draw

    def record(self, renderer):
        draw(self, renderer)
        if self.get_text().strip() and self.get_visible() and not self.get_path_effects():
            # The box of a slanted text is larger than the text.
            slanted = self.get_rotation() % 90 != 0
            seen.append((slanted, self.get_text(), self.get_window_extent(renderer)))

    with style.settled(), monkeypatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
    assert len(seen) > 3
    page = figure.bbox
    for i, (slanted, words, box) in enumerate(seen):
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < page.x1 + 1 and box.y1 < page.y1 + 1
        assert inside, (name, words)
        for leaning, other, another in seen[:i]:
            wide = min(box.x1, another.x1) - max(box.x0, another.x0)
            tall = min(box.y1, another.y1) - max(box.y0, another.y0)
            assert slanted or leaning or min(wide, tall) < 2, (name, words, other)
