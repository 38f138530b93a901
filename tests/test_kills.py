"""A dozen kills of `dvc repro` and `vmunet sweep`: every one is resumed, to the same bits."""

from pathlib import Path

from tests.helpers.kills import Campaign


def test_a_dozen_kills_cost_nothing_but_time(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, seed=7, one_cell=True)
    campaign.run(12)
    assert campaign.by_hand == []
    assert campaign.different == []
    assert len(campaign.kills) == 12
