"""The page: its content, that texts stay texts, and that it requests no other file."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reports.make.page.cases import main_runs
from reports.make.page.comparison import scale_of
from reports.make.page.document import OUTPUT, SCRIPTS, TEMPLATES, make_page, policy
from reports.make.page.examples import examples
from reports.make.page.further import page_table
from reports.make.page.layout import DASH
from reports.make.page.pixels import drawing, lossless
from reports.make.report import Difference, Inference
from reports.make.tidy import tidy
from reports.make.typeset.words import best
from tests.helpers.page import (
    CASES,
    IDS,
    NASTY,
    SIDE,
    circle,
    make_whole_page,
    params_of,
    runs_of,
    volume,
    write_all,
)
from tests.helpers.tables import REPOSITORY, Run, made_up, metrics_file
from vmunet.drawing.figures.slices import choose_slice
from vmunet.errors import InputError

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The page's elements in order, as (name, attributes, own text)."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop()[0] == tag, f"</{tag}> out of place"

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag, **wanted):
        return [
            (attributes, text)
            for name, attributes, text in self.elements
            if name == tag and all(attributes.get(k) == v for k, v in wanted.items())
        ]


def built(root, params, runs, statistics=None):
    make_whole_page(root, params, runs, statistics)
    return (root / OUTPUT).read_text()


@pytest.fixture
def root(tmp_path, monkeypatch):
    return tmp_path, params_of(tmp_path, monkeypatch.setitem)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        params = params_of(root, patch.setitem)
        params.profile.about = f"Made up: {NASTY}"
        runs = runs_of(params, Run)
        write_all(root, params, runs)
        return built(root, params, runs)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def views(page):
    return {
        attributes["data-view"]: json.loads(text)
        for attributes, text in page.all("script", type="application/json")
    }


def test_landmarks_language_and_names(page):
    assert page.all("html", lang="en")
    assert all(len(page.all(tag)) == 1 for tag in ("main", "h1", "header", "footer", "title"))
    assert page.all("a", href="#main")[0][1].startswith("Skip")
    assert "width=device-width" in page.all("meta", name="viewport")[0][0]["content"]
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert [name for name, n in Counter(ids).items() if n > 1] == []
    for _, attributes, _ in page.elements:
        if attributes.get("href", "").startswith("#case="):
            assert attributes["class"] == "trio"
        elif attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert all("alt" in attributes for attributes, _ in page.all("img"))


def test_tables_have_captions_and_every_column_a_button(page):
    tables = page.all("table", **{"class": "sortable"})
    # I in two, II to VI, then seven that the paper does not have, the runs, and an extra one.
    assert len(tables) == len(page.all("caption")) == 7 + 7 + 2
    for attributes, _ in page.all("th"):
        assert attributes["scope"] in ("col", "colgroup", "row", "rowgroup")
    columns = page.all("th", scope="col")
    assert len(columns) > 100
    assert all(words.strip() for _, words in columns)  # the text of its button
    (main,) = page.all("section", id="comparison")
    assert main[0]["aria-labelledby"] == "comparison-title"


def test_rows_are_as_wide_as_the_headings(text):
    for table in re.findall(r'<table class="sortable">.*?</table>', text, re.S):
        head, body = table.split("<tbody>")
        rows = [
            sum(
                int(n or 1)
                for n in re.findall(r'<t[hd](?: scope="\w+")?(?: colspan="(\d+)")?', row)
            )
            for row in re.findall(r"<tr>(.*?)</tr>", head, re.S)
        ]
        rows += [
            len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
        ]
        assert len(set(rows)) == 1, table[:300]


def test_nothing_is_loaded_from_anywhere(page, text):
    for tag, attributes, _ in page.elements:
        for name in ("src", "srcset", "data", "poster", "background"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert [a["href"] for a, _ in page.all("link")] == ["data:,"]
    assert not page.all("iframe")
    style = page.all("style")[0][1]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", text)


def test_a_browser_is_told_to_load_and_run_nothing_else(page):
    style, script = page.all("style")[0][1], page.all("script")[-1][1]
    meta = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]
    assert meta["content"] == policy(style, script)
    assert meta["content"].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in meta["content"]


def test_texts_from_data_stay_texts(page, text):
    assert not page.all("i")
    kinds = Counter(a.get("type", "own") for a, _ in page.all("script"))
    assert kinds == {"application/json": 3, "own": 1}
    assert NASTY not in text
    assert any(NASTY in words for _, words in page.all("dd"))  # the profile's own words
    assert any(NASTY in words for _, words in page.all("th", scope="row"))  # a CSV file's cell
    assert any(NASTY in words for _, words in page.all("h3"))  # a figure's title
    assert any(a["alt"].endswith(NASTY) for a, _ in page.all("img"))
    assert views(page)["isic17-64"]["ids"] == IDS


def test_a_cell_with_a_nasty_name(root):
    root, params = root
    params.cells[NASTY] = params.cells["scratch"]
    runs = runs_of(params, Run, cells=(NASTY,))
    runs = [run for run in runs if run.view == "isic17-64"]
    write_all(root, params, runs, scores=lambda run: made_up(replace(run, cell="scratch")))
    page = Page(built(root, params, runs))
    (view,) = views(page).values()
    assert [run["title"] for run in view["runs"]] == [
        f"{NASTY}, paper protocol, seed 42",
        f"{NASTY}, sound protocol, seed 42",
    ]
    linked = root / "reports/out" / unquote(view["runs"][0]["metrics"])
    assert linked.is_file()
    assert not set('<>"& ') & set(view["runs"][0]["metrics"])


def test_measured_figures_lead_to_their_files_and_runs(root):
    root, params = root
    runs = runs_of(params, Run)
    write_all(root, params, runs)
    page = Page(built(root, params, runs))
    links = [(a["href"], words) for a, words in page.all("a") if "metrics.json" in a["href"]]
    scores = made_up(Run("isic17-64", "base", "paper", 42))
    shown = [href for href, words in links if words == f"{100 * scores['miou']:.2f}"]
    assert "../../metrics/demo/isic17-64/base/paper/42/metrics.json" in shown
    for run in runs:
        href = f"../../{run.metrics_folder('demo').as_posix()}/metrics.json"
        assert (root / "reports/out" / href).is_file()
        assert href in [link for link, _ in links], run.name
        mlflow = f"http://127.0.0.1:5000/#/runs/mlflow-of-{run.name}"
        of_figures = [a for a, _ in page.all("a", href=mlflow) if a.get("class") == "run"]
        (name,) = {a["aria-label"] for a in of_figures}
        assert run.name in name


def test_several_seeds_are_a_list(root):
    root, params = root
    runs = runs_of(params, Run, seeds=(1, 2))
    write_all(root, params, runs)
    page = Page(built(root, params, runs))
    details = [words for a, words in page.all("details", **{"class": "seeds"})]
    one = next(words for words in details if "isic17-64-base-paper-1" in words)
    assert "isic17-64-base-paper-2" in one
    assert "\u00b1" in one
    assert len(views(page)["isic17-64"]["runs"]) == 2  # one seed of each protocol


def test_a_figure_without_runs_is_a_dash_and_is_sorted_last(text):
    dashes = re.findall(r"<td[^>]*>\u2013</td>", text)
    assert len(dashes) > 50
    assert all('none"' in cell and "data-sort" not in cell for cell in dashes)
    assert "nan" not in re.sub(r"[\w-]*nan[\w-]+", "", text.split("<script")[0].lower())
    assert ">--<" not in text


def test_published_and_best(text):
    table = text[text.index('id="table1-isic17"') :]
    row = re.search(r"<tr>\s*<th[^>]*>VM-UNet</th>(.*?)</tr>", table, re.S).group(1)
    cells = re.findall(r"<td.*?</td>", row, re.S)
    assert cells[0] == '<td class="text">phantoms</td>'  # its initial weights
    assert "<strong>80.23</strong>" in cells[1]
    assert 'data-sort="80.23"' in cells[1]
    miou = 100 * made_up(Run("isic17-64", "base", "paper", 42))["miou"]
    assert f"{miou:.2f}" in cells[2]
    assert f"\u2212{80.23 - miou:.2f}" in cells[3]


class Same:
    """The same interval and test for every measured figure."""

    def strata(self, results, limits):
        return []

    def inferences(self, rows, base, scales):
        inference = Inference(low=61.5, high=72.25, p=0.0123, methods=True)
        return [dict.fromkeys(scales, inference) if row else {} for row in rows]

    def difference(self, first, second, metric):
        return Difference((1.0, 2.0), (3.0, 4.0), 5.0, 6.0, 0.5, methods=True)


def test_intervals_and_stars(root):
    root, params = root
    runs = runs_of(params, Run)
    write_all(root, params, runs)
    text = built(root, params, runs, Same())
    page = Page(text)
    assert ("[61.50, 72.25]") in [words for _, words in page.all("small")]
    assert not [words for _, words in page.all("small") if "below" in words or "inside" in words]
    assert {a["aria-label"] for a, _ in page.all("span", **{"class": "star"})} == {
        "differs from VM-UNet's row, p = 0.012"
    }
    assert "cannot say whether the published figure" in text


def notes_of(page):
    """The notes on what a block was made from, as (class, text)."""
    return [(a["class"], words) for _, a, words in page.elements if a.get("role") == "note"]


def test_a_band_stands_on_the_blocks_of_phantoms_alone(root, text):
    root, params = root
    runs = runs_of(params, Run)
    write_all(root, params, runs, source="http")
    real = metrics_of(root, "isic17-64")
    write_all(root, params, runs)
    for path, content in real.items():
        path.write_text(content)
    mixed = built(root, params, runs)
    bands = [words for kind, words in notes_of(Page(mixed)) if kind == "origin phantom"]
    assert len(bands) > 8
    assert not [words for words in bands if "ISIC17" in words]
    first, second = (
        mixed[mixed.index(f'id="table1-{name}"') :].partition("<thead>")[0]
        for name in ("isic17", "isic18")
    )
    assert 'class="origin real"><b>ISIC17:</b> 56 training and 24 test images of the real' in first
    assert "hantom" not in first
    assert 'class="origin phantom" role="note"><b>ISIC18:</b> 56 training' in second
    # Columns of both datasets: a note for each, and the headings tell them apart.
    columns = mixed[mixed.index('id="table3-isic17-isic18"') :].partition("<tbody>")[0]
    assert columns.count('class="origin phantom"') == columns.count('class="origin real"') == 1
    assert re.findall(r'colspan="6">(.*?)</th>', columns) == ["ISIC17", "ISIC18 (phantoms)"]
    viewed = views(Page(mixed))
    assert viewed["isic17-64"]["warning"] == ""
    assert viewed["isic18-64"]["warning"].startswith("Figures on phantoms")
    assert viewed["isic18-64"]["title"].startswith("ISIC18 (phantoms) at")
    assert (
        'class="origin phantom"' in text[text.index('id="table1-isic17"') :].partition("<thead>")[0]
    )


def metrics_of(root, view):
    """The metrics files of a view's runs, with their content."""
    return {path: path.read_text() for path in root.glob(f"metrics/demo/{view}/**/metrics.json")}


def test_a_sample_says_that_it_does_not_compare(root):
    root, params = root
    runs = [run for run in runs_of(params, Run) if run.view == "isic17-64"]
    write_all(root, params, runs, source="sample")
    page = Page(built(root, params, runs))
    kinds = {kind for kind, _ in notes_of(page)} - {"origin phantom"}  # that one is the viewer's
    assert kinds == {"origin sample"}
    said = [words for kind, words in notes_of(page) if kind == "origin sample"]
    assert all("Not the paper's 1,500 and 650 images: the figures do not" in one for one in said)
    assert any("a sample of 80 real ISIC 2017 images (56 to train, 24 to test)" in s for s in said)


def test_the_first_screen_comes_before_tables_settings_and_provenance(text):
    places = [
        text.index(part)
        for part in (
            '<p class="summary">Profile demo: 8 runs of 2 variants of VM-UNet',
            '<a href="#tables">',
            '<a href="#cases">',
            '<a href="#csv-runs">',
            '<section id="comparison"',
            '<section id="examples"',
            '<section id="tables"',
            '<section id="table1"',
            '<section id="table6"',
            '<details class="notes" id="reading">',
            '<section id="further"',
            '<section id="figures"',
            '<section id="cases"',
            '<section id="provenance"',
            '<section id="references"',
        )
    ]
    assert places == sorted(places)
    number = re.search(r'<td class="number"><a href="[^"]+metrics.json"', text).start()
    before = text[text.index("<body>") : number]
    for words in ("Code revision", "Packages", "batch size", "permutation", "Profile</dt>"):
        assert words not in before, words
        assert words in text[number:], words


def test_settings_and_legends_are_folded_and_said_once(page, text):
    shown = re.sub(r"<details.*?</details>", "", text.partition("<script")[0], flags=re.S)
    for words in ("batch size 4", "one confusion matrix over all test pixels at the training size"):
        assert words not in shown
    (reading,) = [words for a, words in page.all("details", id="reading")]
    assert reading.count("batch size 4 (paper: 32)") == 2  # images and volumes
    assert text.count("one confusion matrix over all test pixels at the training size") <= 2


def test_the_main_comparison_is_drawn_on_one_scale(root):
    root, params = root
    runs = runs_of(params, Run)
    write_all(root, params, runs)
    text = built(root, params, runs, Same())
    section = text[text.index('<section id="comparison"') :].partition("</section>")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="number[^"]*">(.*?)</td>', section)
    models = [("VM-UNet", "80.23"), ("VM-UNet, sound protocol", DASH)]
    assert rows[:3] == [*models, ("VM-UNet (from scratch)", "77.59")]
    assert len(rows) == 3 + 3 + 2
    miou = 100 * made_up(Run("isic17-64", "base", "paper", 42))["miou"]
    assert f">{miou:.2f}</a>" in section
    assert "[61.50, 72.25]" in section
    assert section.count('class="published" x1=') == 1 + 5  # the key, and the paper's runs
    low, high, dot = (
        float(re.search(pattern, section).group(1))
        for pattern in (
            r'class="interval" x1="([\d.]+)%"',
            r'class="interval" x1="[\d.]+%" x2="([\d.]+)%"',
            r'class="measured" cx="([\d.]+)%"',
        )
    )
    assert (dot - low) / (high - low) == pytest.approx((miou - 61.5) / (72.25 - 61.5), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "scale", "first_and_last"),
    [
        ([61.5, 82.0], (60, 90, 10), (60, 90)),
        ([80.0, 80.0], (80, 90, 10), (80, 90)),
        ([12.0, 81.0], (0, 100, 20), (0, 100)),
        ([0.0, 100.0], (0, 100, 20), (0, 100)),
    ],
)
def test_a_scale_holds_its_values(values, scale, first_and_last):
    made = scale_of(values)
    assert (made.low, made.high, made.step) == scale
    labels = [label for label, _ in made.ticks]
    assert (labels[0], labels[-1]) == first_and_last
    assert all(5 <= made.place(value) <= 95 for value in values)
    assert made.place(None) is None


def test_examples_are_the_middle_of_each_third():
    def view(name, scores, warning=""):
        cases = [
            {"score": score, "truth": f"t{i}", "prediction": f"p{i}"}
            for i, score in enumerate(scores)
        ]
        run = {"key": "base-paper-42", "title": "base", "cases": cases}
        ids = [f"a/{i}" for i in range(len(scores))]
        return {"view": name, "title": name, "noun": "image", "warning": warning, "runs": [run]} | {
            "ids": ids,
            "images": [f"i{i}" for i in range(len(scores))],
        }

    phantoms = view("phantoms", [0.5], "made up")
    real = view("real", [0.1, None, 0.9, 0.8, 0.7, 0.3, 0.3])
    chosen = examples([phantoms, real])
    assert (chosen.title, chosen.number, chosen.warning) == ("real", 6, "")
    assert [(case.id, case.dice) for case in chosen.cases] == [
        ("a/3", "80.0"),
        ("a/5", "30.0"),
        ("a/0", "10.0"),
    ]
    assert chosen.cases[0].href == "#case=real/a%2F3&run=base-paper-42"
    assert [case.id for case in examples([phantoms]).cases] == ["a/0"] * 3
    assert examples([view("none", [None])]) is None
    assert examples([]) is None


def test_figures_stand_inside_with_a_way_to_their_pdf(page):
    assert {a["href"] for a, _ in page.all("a") if a["href"].endswith(".pdf")} == {
        "../../reports/out/figures/curves.pdf",
        "../../reports/out/figures/nasty.pdf",
    }
    first = next(a for a, _ in page.all("img") if a["alt"].startswith('A "picture"'))
    assert (first["width"], first["height"]) == ("50", "30")


def test_without_figures(root):
    root, params = root
    runs = [run for run in runs_of(params, Run) if run.view == "isic17-64"]
    write_all(root, params, runs)
    for path in (root / "reports/out/figures").iterdir():
        path.unlink()
    page = Page(built(root, params, runs))
    assert not page.all("section", id="figures")
    assert not page.all("dialog")


def test_the_page_needs_only_the_files_of_other_stages(root):
    """Only the stages before the page read metrics, arrays and declarations."""
    root, params = root
    runs = [run for run in runs_of(params, Run) if run.view == "isic17-64"]
    write_all(root, params, runs)
    text = built(root, params, runs)
    for name in ("metrics", "data"):
        shutil.rmtree(root / name)
    for path in (root / "reports").glob("*.yaml"):
        path.unlink()
    make_page(root)
    assert (root / OUTPUT).read_text() == text


@pytest.mark.parametrize("stage", ["page", "pdf"])
def test_the_stage_imports_nothing_that_computes(stage):
    """So an edit of the statistics, or of the reading of metrics, reruns only the tables."""
    code = f"import stages.{stage}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    computing = ("reports.make.results", "reports.make.tables", "vmunet.evaluation", "pandas")
    assert [name for name in done.stdout.split() if name.startswith(computing)] == []
    assert f"stages.{stage}" in done.stdout.split()


def pixels(uri):
    head, content = uri.split(",")
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_cases_of_the_viewer(page):
    by_view = views(page)
    assert list(by_view) == ["isic17-64", "isic18-64", "synapse-64"]
    view = by_view["isic17-64"]
    assert len(view["images"]) == len(IDS)
    assert pixels(view["images"][0]).size == (SIDE, SIDE)
    assert [run["key"] for run in view["runs"]] == ["base-paper-42", "base-sound-42"]
    first, second = view["runs"][0]["cases"][:2]
    assert first["score"] == 1
    assert ["Dice", "100.0"] in first["facts"]
    assert second["score"] < 1
    assert ["Own size", "60\u00d748 px"] in first["facts"]
    layers = [np.array(pixels(second[name])) for name in ("truth", "prediction", "agreement")]
    truth, mask = layers[0] == 1, layers[1] == 1
    assert truth.mean() == second["size"]
    expected = np.where(truth & mask, 1, np.where(mask, 2, np.where(truth, 3, 0)))
    assert (layers[2] == expected).all()


def test_the_slices_of_the_viewer(page):
    view = views(page)["synapse-64"]
    assert view["ids"] == CASES
    case = view["runs"][0]["cases"][0]
    assert ["Slice", "2 of 4"] in case["facts"]  # two organs; the next has more pixels of one
    assert case["score"] == 0.5
    assert ["Dice, gallbladder", DASH] in case["facts"]
    truth = volume()[1]
    assert (np.array(pixels(case["truth"])) == truth[1]).all()
    assert pixels(view["images"][0]).size == (24, 20)
    same = truth[1] == np.roll(truth, 1, axis=2)[1]
    agreement = np.array(pixels(case["agreement"]))
    assert ((agreement == 1) == (same & (truth[1] > 0))).all()
    assert (agreement[~same] > 0).all()


def test_every_model_on_a_case(root):
    root, params = root
    runs = runs_of(params, Run, rivals=("unet", "malunet"), volume_rivals=("vnet",))
    write_all(root, params, runs)
    page = Page(built(root, params, runs))
    by_view = views(page)
    models = by_view["isic17-64"]["models"]
    assert [one["title"] for one in models] == ["VM-UNet", "UNet", "MALUNet"]
    assert models[0]["cases"] is None  # the viewer has its masks
    assert models[0]["key"] == by_view["isic17-64"]["runs"][0]["key"]
    assert models[1]["metrics"].endswith("isic17-64/unet/paper/42/metrics.json")
    case = models[1]["cases"][1]
    assert 0 < case["score"] < 1
    mask = np.array(pixels(case["prediction"]))
    assert (mask == circle(16 + 3, 8)).all()
    (vnet,) = by_view["synapse-64"]["models"][1:]
    truth = volume()[1]
    assert (np.array(pixels(vnet["cases"][0]["prediction"])) == np.roll(truth, 1, axis=2)[1]).all()
    assert vnet["cases"][0]["score"] == 0.5
    assert "Every model, measured against published" in [words for _, words in page.all("h2")]
    assert ("#models") in [a.get("href") for a, _ in page.all("a")]


def test_without_another_model_there_is_no_comparison_of_models(page):
    assert all(view["models"] == [] for view in views(page).values())
    assert "#models" not in [a.get("href") for a, _ in page.all("a")]
    assert "VM-UNet, measured against published" in [words for _, words in page.all("h2")]


def test_a_model_with_masks_of_other_images_is_named(root):
    root, params = root
    runs = runs_of(params, Run, rivals=("unet",))
    write_all(root, params, runs)
    lost = root / "metrics/demo/isic17-64/unet/paper/42/per_image.csv"
    lost.write_text(lost.read_text().replace(IDS[1], "ISIC_9999999"))
    with pytest.raises(InputError, match=r"unet/paper/42: .* are of other cases than"):
        built(root, params, runs)


def test_a_figure_keeps_every_pixel_in_half_the_bytes():
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    png = cv2.imencode(".png", picture)[1].tobytes()
    uri = lossless(png)
    assert (np.array(pixels(uri).convert("RGB"))[..., ::-1] == picture).all()
    flat = cv2.imencode(".png", np.full((300, 300, 3), 200, np.uint8))[1].tobytes()
    assert len(pixels(lossless(flat)).fp.getvalue()) < len(flat) / 2


def test_fullest_slice_of_an_empty_volume():
    assert choose_slice(np.zeros((3, 4, 4), np.uint8)) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda most: st.tuples(
            st.just(most), st.lists(st.integers(0, most), min_size=1, max_size=300)
        )
    )
)
def test_a_drawing_keeps_every_label(case):
    most, values = case
    labels = np.array(values, np.uint8)[None]
    colours = [(k, 2 * k, 3 * k) for k in range(1, most + 1)]
    picture = pixels(drawing(labels, colours))
    side = picture.size
    if labels.shape[1] <= 256:
        assert (np.array(picture) == labels).all()
    assert max(side) <= 256
    rgba = np.array(picture.convert("RGBA"))[0]
    for k, value in zip(np.array(picture)[0], rgba, strict=True):
        assert tuple(value) == ((0, 0, 0, 0) if k == 0 else (*colours[k - 1], 255))


def test_eight_hundred_cases_are_small_enough():
    """At 256 px, three drawings of a lesion take little, apart from the photographs."""
    y, x = np.ogrid[:256, :256]
    wave = 60 + 12 * np.sin(9 * np.arctan2(y - 128, x - 128))
    lesion = (y - 128) ** 2 + (x - 128) ** 2 < wave**2
    taken = len(drawing(lesion, [(0, 114, 178)]))
    assert taken < 1500


def test_the_main_cell():
    def result(cell, seed, view="v", protocol="paper"):
        return SimpleNamespace(run=Run(view, cell, protocol, seed))

    results = [result("scratch", 1), result("base", 1), result("base", 2), result("base", 1, "w")]
    results.append(result("base", 1, protocol="sound"))
    assert main_runs(results, "v") == [results[1], results[4]]
    assert main_runs(results[:1], "v") == results[:1]
    assert main_runs(results, "elsewhere") == []


def broken(root, params, runs, words):
    with pytest.raises(InputError, match=words):
        make_whole_page(root, params, runs)


def test_missing_files_are_named_and_the_old_page_stays(root):
    root, params = root
    runs = runs_of(params, Run)
    write_all(root, params, runs)
    (root / OUTPUT).parent.mkdir(parents=True, exist_ok=True)
    (root / OUTPUT).write_text("old")
    folder = metrics_file(root, params, runs[0]).parent
    for name, words in (
        ("predictions.npz", "no predictions there; evaluate the run again"),
        ("per_image.csv", "no such file; .* run `vmunet sweep --cells isic17-64-base-paper-42`"),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        broken(root, params, runs, words)
        (folder / name).write_bytes(kept)
    rows = (folder / "per_image.csv").read_text()
    (folder / "per_image.csv").write_text(rows.replace(IDS[0], "another"))
    broken(root, params, runs, "of other images than the arrays of isic17-64")
    (folder / "per_image.csv").write_text(rows)
    figures = root / "reports/out/figures"
    (figures / "curves.png").unlink()
    broken(root, params, runs, "curves.png: no such file")
    (figures / "figures.json").write_text('[{"name": "curves"}]')
    broken(root, params, runs, "does not hold a list of figures .*'title'")
    (figures / "figures.json").write_text("{")
    broken(root, params, runs, "figures.json: does not hold a list of figures")
    case = next(root.glob("metrics/demo/synapse-64/base/paper/42/per_case.csv"))
    (figures / "figures.json").write_text("[]")
    case.write_text("case,organ,truth_voxels,dice\nanother,aorta,1,1\n")
    broken(root, params, runs, "does not fit the arrays of case0001")
    assert (root / OUTPUT).read_text() == "old"
    assert not list((root / "reports/out").glob(".*.part"))


def test_same_bytes_twice(root):
    root, params = root
    runs = [run for run in runs_of(params, Run) if run.view == "isic17-64"]
    write_all(root, params, runs)
    assert built(root, params, runs) == built(root, params, runs)


def test_a_tidy_table_is_shown_as_its_columns_need():
    one, two = "metrics/x/metrics.json", "metrics/y z/metrics.json"
    first = {"name": "a", "n": 3, "score": 57.9251, "score_low": 40.0, "score_high": 70.0}
    first |= {"p": 0.0000312, "git": "12e4567", "metrics_files": f"{one};{two}"}
    data = tidy([first, {"name": "b", "p": 0.25, "metrics_files": one, "std": None}])
    table = page_table("some", data)
    assert [column.text for column in table.columns] == [
        "name", "n", "score", "p", "git", "metrics files", "std",
    ]  # fmt: skip
    first, second = table.rows
    assert [cell.text for cell in first] == [
        "a", "3", "57.93", "3.1e-05", "12e4567", "2 files", DASH,
    ]  # fmt: skip
    assert first[2].small == ("[40, 70]",)
    assert first[2].full == "57.9251"
    assert [source.metrics for source in first[5].sources] == [
        "../../metrics/x/metrics.json",
        "../../metrics/y%20z/metrics.json",
    ]
    assert [cell.text for cell in second] == ["b", DASH, DASH, "0.2500", DASH, "metrics.json", DASH]
    assert second[5].href == "../../metrics/x/metrics.json"
    assert first[1].sort == 3
    assert second[1].sort is None


def test_a_table_without_rows():
    assert page_table("some", tidy([])).rows == []


def test_best_of_a_column():
    assert best(["1.0", "--", "10.0", "9.0"], "higher") == "10.0"
    assert best(["1.0", "--", "10.0"], "lower") == "1.0"
    assert best(["--", "1.0"], "higher") is None
    assert best(["0.00", "0.00", "--"], "higher") is None
    assert best(["0.00", "1.00"], "lower") == "0.00"


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_the_light_and_in_the_dark():
    style = (REPOSITORY / TEMPLATES / "page.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    for scheme in schemes:
        colour = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for ink in ("ink", "soft", "link", "warning"):
            for ground in ("ground", "raised"):
                assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
        assert contrast(colour["band-ink"], colour["band"]) >= 4.5
        assert contrast(colour["ink"], colour["chosen"]) >= 4.5
        assert contrast(colour["focus"], colour["ground"]) >= 3


def test_the_scripts_are_short():
    for name in SCRIPTS:
        script = (REPOSITORY / TEMPLATES / name).read_text()
        assert len(script.splitlines()) < 400
        assert "innerHTML" not in script  # text from data would be read as HTML
        assert "</" not in script


# The page as its script sees it: a field, two links to MLflow, and no tables, figures or cases.
NODE = """
const [script, hash, kept, typed] = [...process.argv.slice(1, 3), ...JSON.parse(process.argv[3])];
const usual = "http://127.0.0.1:5000";
const field = { value: usual, defaultValue: usual };
field.addEventListener = (name, listener) => { field[name] = listener; };
const link = (href) => ({ href, getAttribute: () => href });
const links = ["1", "2"].map((id) => link(`${usual}/#/runs/${id}`));
const store = kept === null ? {} : { "vmunet-mlflow": kept };
Object.assign(globalThis, {
  window: globalThis,
  IntersectionObserver: class {},
  document: {
    getElementById: (id) => ({ "mlflow-address": field, "mlflow-at": {} })[id] ?? null,
    querySelectorAll: (css) => (css === `a[href^="${usual}/"]` ? links : []),
  },
  location: { hash },
  localStorage: {
    getItem: (key) => store[key] ?? null,
    setItem: (key, value) => { store[key] = value; },
  },
  addEventListener: () => {},
});
new Function(require("fs").readFileSync(script, "utf8"))();
if (typed !== null) { field.value = typed; field.change(); }
const shown = links.map((one) => one.href);
console.log(JSON.stringify([shown, field.value, store["vmunet-mlflow"] ?? null]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize(
    ("fragment", "kept", "typed", "served"),
    [
        ("", None, None, "http://127.0.0.1:5000"),
        ("#mlflow=http://127.0.0.1:5001", None, None, "http://127.0.0.1:5001"),
        ("#mlflow=http://127.0.0.1:5001", "http://host:1", None, "http://127.0.0.1:5001"),
        ("", "http://host:1", None, "http://host:1"),
        ("#case=isic17-64/x", "http://host:1", None, "http://host:1"),
        ("", None, "https://host/mlflow/", "https://host/mlflow"),
        ("", "http://host:1", "no address", "http://host:1"),
        ("", None, "javascript:alert(1)", "http://127.0.0.1:5000"),
        ("#mlflow=javascript:alert(1)", None, None, "http://127.0.0.1:5000"),
    ],
)
def test_links_lead_to_the_mlflow_that_the_address_or_the_field_names(
    fragment, kept, typed, served
):
    script = REPOSITORY / TEMPLATES / "page.js"
    command = ["node", "-e", NODE, "--", str(script), fragment, json.dumps([kept, typed])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    links, field, stored = json.loads(done.stdout)
    assert links == [f"{served}/#/runs/{run}" for run in (1, 2)]
    assert field == served
    assert (stored or "http://127.0.0.1:5000") == served


def test_the_page_knows_the_address_that_its_links_were_written_with(page):
    (field,) = [a for a, _ in page.all("input", id="mlflow-address")]
    links = [a["href"] for a, _ in page.all("a") if "/#/runs/" in a["href"]]
    assert links
    assert all(link.startswith(f"{field['value']}/#/runs/") for link in links)
