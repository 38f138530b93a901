"""Position embeddings and Swin's bias tables at another size."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vmunet.weights.imagenet.resize import resized_bias_table, resized_positions


def positions(side: int = 14, dim: int = 3) -> torch.Tensor:
    return torch.randn(1, 1 + side**2, dim, generator=torch.Generator().manual_seed(0))


def test_a_grid_of_the_same_size_loses_the_class_token_alone() -> None:
    given = positions()
    assert torch.equal(resized_positions(given, (14, 14)), given[:, 1:])


@pytest.mark.parametrize("side", [4, 16, 24])
def test_a_grid_is_zoomed_as_transunets_authors_do(side: int) -> None:
    given = positions()
    grid = given[0, 1:].numpy().reshape(14, 14, -1)
    zoomed = ndimage.zoom(grid, (side / 14, side / 14, 1), order=1)
    found = resized_positions(given, (side, side))
    np.testing.assert_allclose(found[0].numpy(), zoomed.reshape(side**2, -1), atol=1e-5)


def test_a_grid_may_have_two_sides_and_keeps_its_corners() -> None:
    given = positions()
    found = resized_positions(given, (12, 16)).unflatten(1, (12, 16))[0]
    grid = given[:, 1:].unflatten(1, (14, 14))[0]
    for row in (0, -1):
        for column in (0, -1):
            torch.testing.assert_close(found[row, column], grid[row, column])


def test_a_table_of_the_same_window_is_the_same() -> None:
    table = torch.randn(169, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resized_bias_table(table, (7, 7)), table)


def cubic(old: int, new: int) -> np.ndarray:
    """The matrix of bicubic interpolation along an axis: Keys's kernel with a = -0.75."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    matrix = np.zeros((new, old))
    for row in range(new):
        place = (row + 0.5) * old / new - 0.5
        for column in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[row, min(max(column, 0), old - 1)] += weight(place - column)
    return matrix


@pytest.mark.parametrize("window", [(8, 8), (2, 2), (8, 4)])
def test_a_table_is_resized_bicubically_along_both_axes(window: tuple[int, int]) -> None:
    table = torch.randn(169, 6, generator=torch.Generator().manual_seed(0))
    height, width = (2 * w - 1 for w in window)
    expected = np.einsum(
        "ar,bc,rch->abh",
        cubic(13, height),
        cubic(13, width),
        table.numpy().reshape(13, 13, 6).astype(np.float64),
    )
    found = resized_bias_table(table, window)
    np.testing.assert_allclose(found.numpy(), expected.reshape(-1, 6), atol=1e-5)
