"""Large models are compared in two depths, because gradients of 100 M parameters take long."""

import pytest


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["forward", "all"])
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether loss, gradients and the train mode are compared too."""
    return request.param
