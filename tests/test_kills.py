"""Kills of `dvc repro` and `vmunet sweep` at random moments: all are resumed, to the same bits."""

from pathlib import Path

import pytest

from tests.helpers.kills import Campaign


@pytest.mark.timeout(1800)
def test_kills_cost_nothing_but_time(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, seed=7, one_cell=True)
    campaign.run(12)
    assert campaign.by_hand == []
    assert campaign.different == []
    assert len(campaign.kills) == 12
