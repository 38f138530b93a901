"""The page in a browser: sorted, searched, dragged and walked through with keys, offline."""

import pytest

from reports.make.page.document import OUTPUT
from tests.helpers.browser import Browser, needs_driver
from tests.helpers.page import IDS, make_whole_page, params_of, runs_of, write_all
from tests.helpers.tables import Run

pytestmark = needs_driver
ENTER, SPACE, TAB, LEFT, UP, RIGHT, DOWN, HOME, END, ESCAPE = (
    "\ue007", " ", "\ue004", "\ue012", "\ue013", "\ue014", "\ue015", "\ue011", "\ue010", "\ue00c",
)  # fmt: skip
NOW = "document.getElementById('now').textContent"
DRAWN = "document.getElementById('stage').dataset.drawn"
LISTED = "[...document.querySelectorAll('#list .id')].map(one => one.textContent)"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        params = params_of(root, patch.setitem)
        runs = runs_of(params, Run, rivals=("unet", "malunet"), volume_rivals=("vnet",))
        write_all(root, params, runs)
        make_whole_page(root, params, runs)
    return (root / OUTPUT).as_uri()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def opened(browser, url):
    browser.open("about:blank")
    browser.log()
    browser.log("performance")
    browser.open(url)
    browser.until(f"return {DRAWN}")
    return browser


def column(browser, number, table="table1-isic17"):
    """The texts of a column, from the top."""
    return browser.run(
        "return [...document.getElementById(arguments[0]).closest('table').tBodies[0].rows]"
        ".map(row => row.cells[arguments[1]].innerText.split(/\\s/)[0])",
        table,
        number,
    )


def heading(number, table="table1-isic17"):
    return f"table:has(#{table}) thead tr:last-child th:nth-child({number + 1})"


def test_nothing_fails_and_nothing_is_asked_for(opened):
    opened.click("[value=agreement]")
    opened.until(f"return {DRAWN}.endsWith('agreement')")
    assert opened.log() == []
    asked = [
        message
        for entry in opened.log("performance")
        if "Network.requestWillBeSent" in (message := entry["message"])
    ]
    assert asked
    assert not [one for one in asked if '"url":"http' in one]


def test_a_click_sorts_and_the_third_brings_the_order_back(opened):
    before = column(opened, 2)
    numbers = sorted((float(one) for one in before if one != "\u2013"), reverse=True)
    assert len(numbers) < len(before)
    assert before[: len(numbers)] != [f"{one:.2f}" for one in numbers]
    for order, expected in (("descending", numbers), ("ascending", numbers[::-1])):
        opened.click(heading(2) + " button")
        after = column(opened, 2)
        assert [float(one) for one in after[: len(numbers)]] == expected
        assert set(after[len(numbers) :]) == {"\u2013"}
        assert opened.run(
            "return document.querySelector(arguments[0]).getAttribute('aria-sort')", heading(2)
        ) == order  # fmt: skip
    opened.click(heading(2) + " button")
    assert column(opened, 2) == before


def test_tables_are_sorted_with_keys(opened):
    before = column(opened, 0)
    opened.type(heading(0) + " button", ENTER)
    assert column(opened, 0) == sorted(before, key=str.lower) != before
    opened.press(SPACE)
    assert column(opened, 0) == sorted(before, key=str.lower, reverse=True)


def test_the_divider_moves_with_keys_and_by_dragging(opened):
    split = "getComputedStyle(document.getElementById('right')).clipPath"
    assert "50%" in opened.run(f"return {split}")
    opened.run("document.getElementById('split').focus()")
    opened.press(LEFT, LEFT)
    assert "48%" in opened.run(f"return {split}")
    opened.press(HOME)
    assert " 0%)" in opened.run(f"return {split}")
    left, top, width = opened.run(
        "const e = document.getElementById('stage'); e.scrollIntoView({block: 'center'});"
        "const r = e.getBoundingClientRect(); return [r.left, r.top, r.width]"
    )
    for kind, part in (("mousePressed", 0.5), ("mouseMoved", 0.7), ("mouseReleased", 0.7)):
        at = {"x": left + part * width, "y": top + 40, "button": "left", "buttons": 1}
        opened.cdp("Input.dispatchMouseEvent", {"type": kind, "clickCount": 1, **at})
    assert "70%" in opened.run(f"return {split}")


def test_both_sides_are_drawn(opened):
    """The truth is blue on the left, the prediction orange on the right, over grey images."""
    opened.run("location.hash = arguments[0]", f"#case=isic17-64/{IDS[1]}")
    opened.until(f"return {DRAWN} === '{IDS[1]} masks'")
    colours = (
        "const c = document.getElementById(arguments[0]);"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let blue = 0, orange = 0; for (let i = 0; i < d.length; i += 4) {"
        "blue += d[i + 2] > d[i] + 60; orange += d[i] > d[i + 2] + 60; } return [blue, orange]"
    )
    blue, orange = opened.run(colours, "left")
    assert blue > 100 > orange == 0
    blue, orange = opened.run(colours, "right")
    assert orange > 100 > blue == 0
    opened.click("[value=agreement]")
    opened.until(f"return {DRAWN}.endsWith('agreement')")
    assert opened.run(colours, "left") == [0, 0]
    assert min(opened.run(colours, "right")) > 100
    legend = opened.run("return document.getElementById('legend').innerText.split('\\n')")
    assert legend == ["in both", "predicted only", "missed"]


def test_search_and_order(opened):
    worst = opened.run(f"return {LISTED}")
    assert worst == [IDS[3], IDS[2], IDS[1], IDS[0]]
    opened.run(
        "const e = document.getElementById('order'); e.value = arguments[0];"
        "e.dispatchEvent(new Event('change'))",
        "best",
    )
    assert opened.run(f"return {LISTED}") == worst[::-1]
    opened.run("const e = document.getElementById('order'); e.value = 'id';"
               "e.dispatchEvent(new Event('change'))")  # fmt: skip
    assert opened.run(f"return {LISTED}")[1:] == [IDS[2], IDS[1], IDS[0]]
    opened.type("#search", "000002")
    assert opened.run(f"return {LISTED}") == [IDS[1]]
    assert opened.run(f"return {NOW}").startswith(IDS[1])
    assert "1 of 4 images" in opened.run("return document.getElementById('shown').textContent")
    opened.type("#search", "nowhere")
    assert opened.run(f"return {LISTED}") == []
    opened.press(DOWN)
    assert opened.run(f"return {NOW}").startswith(IDS[1])


def test_arrow_keys_step_through_the_cases(opened):
    opened.run("document.getElementById('list').focus()")
    first = opened.run(f"return {NOW}")
    assert first.startswith(IDS[3])
    opened.press(DOWN)
    assert opened.run(f"return {NOW}").startswith(IDS[2])
    opened.press(RIGHT)
    assert opened.run(f"return {NOW}").startswith(IDS[1])
    opened.press(UP, LEFT)
    assert opened.run(f"return {NOW}") == first
    opened.press(END)
    assert opened.run(f"return {NOW}") == f"{IDS[0]}: Dice 100.0"
    chosen = "document.getElementById(document.getElementById('list')"
    chosen += ".getAttribute('aria-activedescendant'))"
    assert opened.run(f"return {chosen}.getAttribute('aria-selected')") == "true"
    assert opened.run(f"return {chosen}.querySelector('.id').textContent") == IDS[0]
    opened.run("document.getElementById('split').focus()")
    opened.press(UP)
    assert opened.run(f"return {NOW}").startswith(IDS[1])
    assert opened.run("return document.getElementById('split').value") == "50"


def test_an_address_leads_to_a_case_and_follows_it(browser, url):
    browser.open("about:blank")
    browser.open(f"{url}#case=synapse-64/case0002&run=base-sound-42")
    browser.until(f"return {DRAWN} === 'case0002 masks'")
    assert browser.run("return document.getElementById('run').selectedOptions[0].text") == (
        "base, sound protocol, seed 42"
    )
    facts = browser.run("return document.getElementById('facts').innerText")
    assert "2 of 4" in facts
    browser.click("#previous")
    assert browser.run("return location.hash") == "#case=synapse-64/case0001&run=base-sound-42"
    nasty = browser.run("return encodeURIComponent(arguments[0])", IDS[3])
    browser.run("location.hash = arguments[0]", f"#case=isic18-64/{nasty}")
    browser.until(f"return {NOW}.startsWith('ISIC_<i>')")
    browser.run("location.hash = '#case=nowhere/%E0%A4%A'")
    assert browser.run(f"return {NOW}").startswith("ISIC_<i>")
    assert browser.log() == []


def test_another_run_keeps_the_case(opened):
    opened.run("document.getElementById('list').focus()")
    opened.press(DOWN)
    opened.run("const e = document.getElementById('run'); e.value = 1;"
               "e.dispatchEvent(new Event('change'))")  # fmt: skip
    assert opened.run(f"return {NOW}").startswith(IDS[2])
    assert "base/sound/42" in opened.run("return document.getElementById('metrics').href")


def test_a_figure_opens_and_closes_with_keys(opened):
    opened.type(".enlarge", ENTER)
    assert opened.run("return document.getElementById('larger').open")
    assert opened.run("return document.getElementById('large').alt") == 'A "picture" of Curves'
    opened.press(ESCAPE)
    assert not opened.run("return document.getElementById('larger').open")
    assert opened.run("return document.activeElement.className") == "enlarge"


def test_the_first_key_skips_to_the_report(opened):
    opened.press(TAB)
    assert opened.run("return document.activeElement.className") == "skip"
    opened.press(ENTER)
    assert opened.run("return document.activeElement.id") == "main"


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_page_does_not_scroll_sideways(browser, url, width):
    browser.open("about:blank")
    browser.open(url, width, 740)
    browser.until(f"return {DRAWN}")
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    page, inside = "document.documentElement.scrollWidth", "document.documentElement.clientWidth"
    assert browser.run(f"return {page} - {inside}") == 0
    assert browser.run("return innerWidth") == width
    wide = "[...document.querySelectorAll('.scroll')].some(one => one.scrollWidth > innerWidth)"
    assert browser.run(f"return {wide}")


def test_a_link_opens_what_is_folded_and_keys_open_it_too(opened):
    is_open = "return document.getElementById('reading').open"
    assert not opened.run(is_open)
    opened.type("a[href='#reading']", ENTER)
    assert opened.run(is_open)
    opened.type("#reading > summary", ENTER)
    assert not opened.run(is_open)


def test_the_first_screen_holds_figures_and_images(browser, url):
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    browser.open("about:blank")
    browser.open(url, 1280, 900)
    browser.until(f"return {DRAWN}")
    for part in ("#comparison .of", ".examples figure"):
        assert browser.run(bottom, part) < 900
    browser.open("about:blank")
    browser.open(url, 375, 812)
    browser.until(f"return {DRAWN}")
    assert browser.run(bottom, "#comparison .of") < 812
    widths = "return [...document.querySelectorAll('#comparison .plot')].map(e => e.clientWidth)"
    assert min(browser.run(widths)) > 300


def test_an_example_leads_to_its_case(opened):
    opened.type(".trio", ENTER)
    opened.until(f"return {NOW}.startsWith('{IDS[0]}')")
    assert not opened.run("return document.getElementById('warning').hidden")  # phantoms


def test_links_lead_to_the_mlflow_that_the_address_or_the_field_names(browser, url):
    shown = "return [...document.querySelectorAll('a.run, #mlflow')].map(a => a.href.split('#')[0])"
    browser.open("about:blank")
    browser.open(f"{url}#mlflow=http://127.0.0.1:5001")
    browser.until(f"return {DRAWN}")
    assert set(browser.run(shown)) == {"http://127.0.0.1:5001/"}
    browser.open("about:blank")
    browser.open(url)  # it is kept
    browser.until(f"return {DRAWN}")
    assert set(browser.run(shown)) == {"http://127.0.0.1:5001/"}
    address = "https://host/mlflow"
    for typed in ("https://host/mlflow/", "no address"):
        browser.run(
            "const e = document.getElementById('mlflow-address'); e.value = arguments[0];"
            "e.dispatchEvent(new Event('change'))",
            typed,
        )
        assert set(browser.run(shown)) == {f"{address}/"}
        assert browser.run("return document.getElementById('mlflow-address').value") == address


TILES = "[...document.querySelectorAll('#models-grid figcaption')].map(one => one.innerText)"


def test_every_model_on_the_chosen_case(opened):
    drawn = "return document.getElementById('models').dataset.drawn"
    opened.run("location.hash = arguments[0]", f"#case=isic17-64/{IDS[1]}")
    opened.until(f"{drawn} === '{IDS[1]} 3'")
    texts = opened.run(f"return {TILES}")
    assert [text.rsplit(" ", 1)[0] for text in texts[1:]] == ["VM-UNet", "UNet", "MALUNet"]
    dice = texts[1].rsplit(" ", 1)[1]
    assert opened.run(f"return {NOW}") == f"{IDS[1]}: Dice {dice}"
    told = opened.run("return document.getElementById('models-told').textContent")
    assert told.startswith(f"{IDS[1]}: Dice from {dice}")
    link = "return document.querySelector('#models-grid a[href*=\"/malunet/\"]').href"
    assert opened.run(link).endswith("isic17-64/malunet/paper/42/metrics.json")
    colours = (
        "return [...document.querySelectorAll('#models-grid canvas')].map(c => {"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let blue = 0, orange = 0; for (let i = 0; i < d.length; i += 4) {"
        "blue += d[i + 2] > d[i] + 60; orange += d[i] > d[i + 2] + 60; } return [blue, orange] })"
    )
    truth, *models = opened.run(colours)
    assert truth[0] > 100 > truth[1] == 0
    assert len(models) == 3
    assert all(min(counts) > 100 for counts in models)  # the true outline and the predicted mask
    # The next case, and another dataset.
    opened.run("document.getElementById('list').focus()")
    opened.press(UP)
    opened.until(f"{drawn} !== '{IDS[1]} 3'")
    opened.run("location.hash = '#case=synapse-64/case0002'")
    opened.until(f"{drawn} === 'case0002 2'")
    assert opened.run(f"return {TILES}") == ["Truth", "VM-UNet 50.0", "V-Net 50.0"]
    assert opened.log() == []


def test_the_models_are_ordered_by_their_dice(opened):
    scores = iter((0.5, 0.75, 0.25))
    change = (
        "const models = view().models, i = view().ids.indexOf(arguments[0]);"
        "models.forEach((one, k) => { casesOf(one)[i].score = arguments[1][k]; });"
        "for (const [id, value] of [['models-order', 'best'], ['order', 'apart']]) {"
        "const e = document.getElementById(id); e.value = value;"
        "e.dispatchEvent(new Event('change')); } show(i)"
    )
    opened.run(change, IDS[0], list(scores))
    opened.until(f"return document.getElementById('models').dataset.drawn === '{IDS[0]} 3'")
    opened.until(f"return {TILES}[1] === 'UNet 75.0'")
    assert opened.run(f"return {TILES}")[1:] == ["UNet 75.0", "VM-UNet 50.0", "MALUNet 25.0"]
    best = "return [...document.querySelectorAll('#models-grid strong')].map(e => e.textContent)"
    assert opened.run(best) == ["75.0"]
    assert opened.run(f"return {LISTED}")[0] == IDS[0]  # its models are the furthest apart
