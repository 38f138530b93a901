"""The perceptual hash, and the photographs that it and the correlation recognise as copies."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.data import encoded, picture
from vmunet.data.checks.copies import find_copies
from vmunet.data.checks.findings import RESAVED
from vmunet.data.checks.hashes import (
    SIDE,
    TURNS,
    UPRIGHT,
    Turn,
    close_pairs,
    distance,
    hash_of,
    thumbnail,
    waves_of,
)

seeds = st.integers(0, 2**32 - 1)


def hashed(*images: np.ndarray) -> np.ndarray:
    return hash_of(waves_of(np.stack([thumbnail(image) for image in images])))


def resaved(image: np.ndarray, quality: int, scale: float) -> np.ndarray:
    """The picture, resized and saved as JPEG."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    content = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(30, 100), st.floats(0.5, 3))
def test_resaving_moves_few_bits(seed: int, quality: int, scale: float) -> None:
    image = picture(seed)
    one, other = hashed(image, resaved(image, quality, scale))
    assert distance(one, other) <= RESAVED


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(TURNS))
def test_a_turned_picture_has_the_turned_waves(seed: int, turn: Turn) -> None:
    squares = np.random.default_rng(seed).integers(0, 256, (1, SIDE, SIDE), np.uint8)
    np.testing.assert_allclose(
        turn.of_waves(waves_of(squares)), waves_of(turn.of(squares)), rtol=1e-6, atol=1e-5
    )


def test_the_eight_turns_differ() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({turn.of(square).tobytes() for turn in TURNS}) == len(TURNS) == 8
    np.testing.assert_array_equal(
        next(turn for turn in TURNS if turn.name == "turned right").of(square), np.rot90(square, -1)
    )


def test_a_flat_picture_has_no_bits() -> None:
    assert hashed(np.full((40, 50, 3), 77, np.uint8)) == 0


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 40), st.integers(0, 40))
def test_close_pairs_are_all_close_pairs(seed: int, count: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 2**63, (2, count), np.uint64)
    i, j, bits = close_pairs(one, other, reach)
    expected = [
        (a, b, bin(int(one[a]) ^ int(other[b])).count("1"))
        for a in range(count)
        for b in range(a + 1, count)
    ]
    close = list(zip(i.tolist(), j.tolist(), bits.tolist(), strict=True))
    assert close == [each for each in expected if each[2] <= reach]


def copies_of(*images: np.ndarray) -> list:
    thumbnails = np.stack([thumbnail(image) for image in images])
    return find_copies(thumbnails, [image.tobytes().hex() for image in images])


def test_strangers_are_no_copies() -> None:
    assert copies_of(*(picture(seed) for seed in range(60))) == []


@pytest.mark.parametrize(("quality", "scale"), [(90, 1), (75, 0.5), (75, 2)])
def test_a_copy_saved_anew_is_found(quality: int, scale: float) -> None:
    images = [picture(seed) for seed in range(6)]
    (copy,) = copies_of(*images, resaved(images[2], quality, scale))
    assert (copy.first, copy.second, copy.turn) == (2, 6, UPRIGHT)
    assert copy.distance <= RESAVED
    assert not copy.identical


def test_a_shifted_and_recoloured_copy_is_found() -> None:
    image = picture(3, 192, 256)
    shifted = np.clip(0.8 * image[4:, :-7].astype(np.float32) + 30, 0, 255).astype(np.uint8)
    (copy,) = copies_of(image, picture(4), shifted)
    assert (copy.first, copy.second) == (0, 2)


@pytest.mark.parametrize("turn", TURNS[1:], ids=lambda turn: turn.name)
def test_a_turned_copy_is_found_once_and_named(turn: Turn) -> None:
    """The second must be turned by `turn` to look like the first."""
    original = picture(5, 128, 128)
    turned = np.stack([turn.of(original[..., c]) for c in range(3)], axis=2)
    (copy,) = copies_of(turned, original)
    assert copy.turn == turn
    assert copy.detail > 0.9


def test_identical_pixels_come_first() -> None:
    images = [picture(1), picture(2), resaved(picture(1), 90, 1), picture(2)]
    first, second = copies_of(*images)
    assert (first.first, first.second, first.identical, first.distance) == (1, 3, True, 0)
    assert (second.first, second.second, second.identical) == (0, 2, False)


def test_blank_pictures_are_copies_only_if_identical() -> None:
    blank = np.full((32, 32, 3), 9, np.uint8)
    (copy,) = copies_of(blank, blank + 1, blank)
    assert (copy.first, copy.second, copy.identical) == (0, 2, True)


def test_one_id_in_two_datasets_is_not_compared_with_itself() -> None:
    thumbnails = np.stack([thumbnail(picture(seed)) for seed in (1, 1, 1)])
    copies = find_copies(thumbnails, list("aaa"), np.array([7, 7, 8]))
    assert [(copy.first, copy.second) for copy in copies] == [(0, 2), (1, 2)]


def test_an_encoded_picture_keeps_its_hash() -> None:
    decoded = cv2.imdecode(np.frombuffer(encoded(picture(1)), np.uint8), cv2.IMREAD_COLOR)
    one, other = hashed(picture(1), decoded)
    assert one == other
