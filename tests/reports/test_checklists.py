"""The checklists' answers: a value, a table that the report has, or that nothing is known."""

import pytest

from reports.make.checklists import NOT_IN_PAPER, UNKNOWN, VALUES, answered
from reports.make.results.views import load_yaml
from tests.helpers.paths import ROOT
from vmunet.errors import InputError

PROVENANCE = [(heading, f"the {heading}.") for heading in VALUES.values()]


def answers(*items, tables=()):
    declared = {"checklists": [{"name": "A", "about": "B", "items": list(items)}]}
    (checklist,) = answered(declared, PROVENANCE, tables)
    return [answer for _, answer in checklist.items]


def test_an_item_is_answered_by_a_value_a_table_or_not_at_all():
    items = (
        {"ask": "a", "here": "from {Data}"},
        {"ask": "b", "tables": ["sound", "cross"]},
        {"ask": "c", "tables": ["cross"], "paper": False},
    )
    assert answers(*items, tables=["sound"]) == [
        "from the Data",
        "table sound",
        f"{UNKNOWN} ({NOT_IN_PAPER})",
    ]
    assert answers(*items, tables=["sound", "cross"])[1] == "tables sound, cross"


@pytest.mark.parametrize(
    "item", [{"here": "x"}, {"ask": "a", "here": "{Weather}"}, {"ask": "a", "sex": None}]
)
def test_a_malformed_item_is_one_error(item):
    with pytest.raises(InputError, match=r"reports/checklists\.yaml: an item is malformed"):
        answers(item)


def test_the_projects_own_checklists_name_existing_tables_alone():
    declared = load_yaml(ROOT / "reports/checklists.yaml")
    golden = {path.stem for path in (ROOT / "tests/golden_tables").glob("*.tex")}
    named = {
        name
        for checklist in declared["checklists"]
        for item in checklist["items"]
        for name in item.get("tables", ())
    }
    assert named <= golden | {"agreement"}  # the made-up report has no run of the paper's settings
    claim, tripod = answered(declared, PROVENANCE, sorted(named))
    assert len(claim.items) >= 30
    assert len(tripod.items) >= 20
