import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmunet.data.phantom.lesions import phantom
from vmunet.measure import image_facts
from vmunet.measure.image_facts import (
    SIDE,
    at_side,
    black_surroundings,
    contrast,
    hair_mask,
    measure,
)

SKIN, BROWN, HAIR = (215, 170, 150), (120, 70, 50), (50, 35, 30)


def skin(seed=0, size=SIDE):
    noise = np.random.default_rng(seed).normal(0, 2, (size, size, 3))
    return np.clip(np.array(SKIN) + noise, 0, 255).astype(np.uint8)


def disc(image, radius, colour=BROWN, centre=(64, 64)):
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    image[mask > 0] = colour
    return mask > 0


def hairs(count, seed, thickness=1):
    random = np.random.default_rng(seed)
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(count):
        start, angle = random.uniform(15, 113, 2), random.uniform(0, np.pi)
        reach = 45 * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(int(v) for v in start + sign * reach) for sign in (-1, 1)]
        cv2.line(drawn, *ends, 1, thickness)
    return drawn > 0


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 8), seed=st.integers(0, 10_000), thickness=st.integers(1, 2))
def test_the_cover_of_drawn_hairs_is_measured(count, seed, thickness):
    image, drawn = skin(seed), hairs(count, seed, thickness)
    image[drawn] = HAIR
    mask = hair_mask(image)
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (mask & ~near).mean() < 0.002
    assert mask.mean() == pytest.approx(drawn.mean(), rel=0.4, abs=0.004)


@pytest.mark.parametrize("what", ["skin", "lesion", "dots", "ink", "lens", "step"])
def test_what_is_no_hair_is_not_counted(what):
    image = skin()
    if what == "lesion":
        disc(image, 30)
    if what == "dots":
        for centre in ((20, 20), (60, 30), (90, 100), (30, 90)):
            disc(image, 2, HAIR, centre)
    if what == "ink":
        image[hairs(5, 3)] = (95, 60, 150)
    if what == "lens":
        y, x = np.mgrid[:SIDE, :SIDE] - 63.5
        image[x**2 + y**2 > 70**2] = 5
    if what == "step":
        image[:, 100:] = (90, 70, 60)
    assert hair_mask(image).mean() < 0.002


def test_contrast_is_the_distance_in_lab():
    image = np.full((SIDE, SIDE, 3), SKIN, np.uint8)
    lesion = disc(image, 25)
    pair = np.array([[SKIN, BROWN]], np.uint8).astype(np.float32) / 255
    lab = cv2.cvtColor(pair, cv2.COLOR_RGB2LAB)[0]
    expected = float(np.linalg.norm(lab[0] - lab[1]))
    assert measure(image, lesion).contrast == pytest.approx(expected, rel=1e-3)
    image[hairs(4, 5) & ~lesion] = HAIR
    assert measure(image, lesion).contrast == pytest.approx(expected, rel=0.05)


def test_contrast_needs_a_lesion_and_skin():
    image, nothing = skin(), np.zeros((SIDE, SIDE), bool)
    assert measure(image, nothing).contrast is None
    assert measure(image, ~nothing).contrast is None
    assert contrast(image, disc(image, 20), nothing) is None


def test_black_corners_are_surroundings_and_a_black_lesion_is_none():
    image = skin()
    lesion = disc(image, 20, (10, 5, 5))
    image[:20, :20] = 3
    mask = black_surroundings(image)
    assert mask[:20, :20].all()
    assert not (mask & lesion).any()
    assert measure(np.zeros_like(image), lesion).hair == 0.0


@pytest.mark.parametrize("size", [64, 256])
def test_images_of_every_size_are_measured_alike(size):
    image, drawn = skin(), hairs(4, 2, thickness=2)
    image[drawn] = HAIR
    lesion = np.zeros((SIDE, SIDE), bool)
    lesion[40:80, 40:80] = True
    other = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    scaled = cv2.resize(lesion.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0
    assert at_side(other).shape == (SIDE, SIDE, 3)
    one, two = measure(image, lesion), measure(other, scaled)
    assert two.hair == pytest.approx(one.hair, rel=0.6)  # half the pixels blur a line
    assert two.size == pytest.approx(one.size, rel=0.05)


def test_phantoms_with_hair_and_pale_ones_are_told_from_the_others():
    has, measured = {"hair": [], "pale": []}, {"hair": [], "pale": []}
    for i in range(60):
        made = phantom(7, i, 96, 128)
        size = (64, 64)
        image = cv2.resize(made.image, size, interpolation=cv2.INTER_AREA)
        lesion = cv2.resize(made.mask, size, interpolation=cv2.INTER_NEAREST) > 0
        facts = image_facts.measure(image, lesion)
        has["hair"].append(made.attributes["hair"])
        has["pale"].append(made.attributes["pale"])
        measured["hair"].append(facts.hair)
        measured["pale"].append(-(facts.contrast or 0.0))
    for name, truth in has.items():
        is_so, value = np.array(truth), np.array(measured[name])
        above = value[is_so][:, None] - value[~is_so]
        assert (above > 0).mean() + 0.5 * (above == 0).mean() > 0.85, name
