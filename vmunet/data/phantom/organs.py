"""The organs of a CT phantom, from the outside to the inside: later shapes cover earlier ones."""

import numpy as np

from vmunet.data.phantom.body import Scene
from vmunet.data.phantom.patient import AIR, LABELS
from vmunet.data.phantom.shapes import Point, Region


def paint_organs(scene: Scene) -> None:
    """Paint everything inside the cavity: image and labels."""
    _bowel(scene)
    _liver(scene)
    _stomach(scene)
    _spleen(scene)
    _retroperitoneum(scene)
    _kidneys(scene)
    _pancreas_and_vessels(scene)
    if scene.patient.gallbladder:
        _gallbladder(scene)


def _bowel(scene: Scene) -> None:
    """Colon and loops of small bowel, some with gas: they resemble every organ a little."""
    rng, near, canvas = scene.rng, scene.near, scene.canvas
    colon = (
        [near(0.74, 0.0, -110), near(0.72, 0.15, -70), near(0.62, 0.35, -42)],
        [near(0.62, 0.5, -48), near(0.1, 0.8, -62), near(-0.5, 0.72, -40), near(-0.8, 0.2, -2)],
        [near(-0.84, 0.1, -4), near(-0.84, -0.25, -50), near(-0.8, -0.2, -110)],
    )
    for _ in range(22):
        start = np.array(
            scene.patient.at(rng.uniform(-0.7, 0.55), rng.uniform(0, 0.75), rng.uniform(-95, 0))
        )
        path = start + np.vstack([np.zeros(3), rng.normal(0, 18, (3, 3)).cumsum(0)])
        loop = canvas.tube(path.tolist(), rng.uniform(8, 13, 4).tolist())
        gas = float(start[1] + rng.choice([4.0, 100.0], p=[0.3, 0.7]))
        _gut(scene, loop, rng.uniform(5, 60), gas)
    for path_of in colon:
        tube = canvas.tube(path_of, scene.size(*[15] * len(path_of)))
        gas = float(np.mean([p[1] for p in path_of]) + rng.uniform(-6, 14))
        _gut(scene, tube.rough(scene.grain, 1.5), rng.uniform(-40, 50), gas)


def _liver(scene: Scene) -> None:
    canvas, near, size = scene.canvas, scene.near, scene.size
    right = canvas.ellipsoid(near(0.56, 0.0, 14), size(82, 94, 76), lean=-0.18)
    left = canvas.ellipsoid(near(0.06, 0.52, 32), size(68, 40, 44), turn=-0.25)
    for lobe in (right, left):
        lobe = lobe.rough(scene.grain, 1.5).within(scene.cavity - 2).within(scene.below)
        canvas.paint(lobe, scene.patient.hu["liver"], LABELS["liver"])
    trunk = near(0.14, 0.08, 62)
    for tip in (near(0.75, 0.1, 10), near(0.45, 0.55, 18), near(0.0, 0.6, 30)):
        vein = canvas.tube([trunk, tip], [5, 2.5])
        canvas.paint(vein, scene.patient.hu["cava"], LABELS["liver"], over=LABELS["liver"])


def _stomach(scene: Scene) -> None:
    near, rng = scene.near, scene.rng
    path = [
        near(-0.5, 0.0, 58),
        near(-0.52, 0.18, 36),
        near(-0.44, 0.48, 8),
        near(-0.18, 0.64, -16),
        near(0.14, 0.55, -18),
    ]
    full = rng.uniform(0.75, 1.15)
    radii = scene.size(30 * full, 31 * full, 27 * full, 21 * full, 12)
    shape = scene.canvas.tube(path, radii).rough(scene.grain, 1.5)
    shape = shape.within(scene.cavity - 3).within(scene.below - 1)
    meal = rng.choice([rng.uniform(5, 40), rng.uniform(60, 110)], p=[0.75, 0.25])
    gas = float(path[2][1] + rng.uniform(-5, 22))
    _hollow(scene, shape, scene.patient.hu["stomach"], 4.5, meal, gas, LABELS["stomach"])
    gullet = scene.canvas.tube(
        [near(-0.08, 0.08, 110, 2), near(-0.1, 0.12, 66, 2), near(-0.28, 0.1, 48)], [8, 8, 9]
    )
    scene.canvas.paint(gullet, scene.patient.hu["esophagus"], LABELS["esophagus"])


def _spleen(scene: Scene) -> None:
    middle = scene.near(-0.76, -0.32, 18)
    shape = scene.canvas.ellipsoid(middle, scene.size(31, 50, 45, spread=0.12), turn=-0.3, lean=0.1)
    shape = shape.rough(scene.grain, 1.5).within(scene.cavity - 2).within(scene.below)
    hilum = scene.canvas.ellipsoid((middle[0] + 42, middle[1] + 14, middle[2] - 8), (26, 28, 60))
    scene.canvas.paint(shape, scene.patient.hu["spleen"], LABELS["spleen"])
    scene.canvas.paint(hilum, scene.patient.hu["fat"], over=LABELS["spleen"])


def _retroperitoneum(scene: Scene) -> None:
    """Fat in front of the spine, psoas and the crura of the diaphragm beside it."""
    canvas, patient, hu = scene.canvas, scene.patient, scene.patient.hu
    x, y = patient.spine
    tall = 400.0
    canvas.paint(canvas.ellipsoid((x, y + 4, 0), (46, 40, tall)), hu["fat"])
    for side in (-1, 1):
        psoas = [(side * 30, y + 2, 10), (side * 38, y, -40), (side * 44, y + 3, -110)]
        canvas.paint(canvas.tube(psoas, scene.size(9, 16, 21)), hu["muscle"])
        crus = [(side * 17, y + 20, -40), (side * 22, y + 25, 20), (side * 34, y + 20, 110)]
        canvas.paint(canvas.tube(crus, (4, 5, 5)), hu["muscle"])


def _kidneys(scene: Scene) -> None:
    hu = scene.patient.hu
    for side, name, level in ((1, "right", -30), (-1, "left", -20)):
        middle = scene.near(0.53 * side, -0.42, level)
        x, y, z = middle
        radii = scene.size(26, 29, 47)
        turn = side * scene.rng.uniform(-0.7, -0.3)
        lean = -0.15 * side
        roomy = [r + scene.rng.uniform(4, 8) for r in radii]
        roomy[1] += 11  # no sliver of liver behind the kidney
        around = scene.canvas.ellipsoid((x, y - 9, z), roomy, turn, lean).within(scene.cavity)
        scene.canvas.paint(around, hu["fat"])
        kidney = scene.canvas.ellipsoid(middle, radii, turn, lean).rough(scene.grain, 1)
        kidney = kidney.within(scene.cavity - 2)
        deep = np.clip((kidney.depth - 5) / 4, 0, 1)
        mottle = np.clip(0.7 + 0.6 * scene.grain[kidney.where], 0.2, 1)
        shade = hu["cortex"] - (hu["cortex"] - hu["medulla"]) * deep * mottle
        scene.canvas.paint(kidney, shade, LABELS[f"{name} kidney"])
        front = (x - side * 30, y + 14, z)
        sinus = scene.canvas.tube([(x - side * 3, y + 2, z), front], [8, 10])
        scene.canvas.paint(sinus, -55, over=LABELS[f"{name} kidney"])
        vein = scene.canvas.tube(
            [(x - side * 6, y + 4, z), (side * 12, scene.patient.at(0, 0.02, 0)[1], z + 6)],
            [4, 5],
        )
        scene.canvas.paint(vein, hu["cava"])
        gland = (x - side * 30, y + 18, z + radii[2] * 0.9)
        for limb in ((-side * 3, -14, -6), (side * 8, -12, -6)):
            end = tuple(a + b for a, b in zip(gland, limb, strict=True))
            leaf = scene.canvas.tube([gland, end], [3.8, 3.2])
            scene.canvas.paint(leaf, hu["adrenal"], LABELS[f"{name} adrenal gland"])


def _pancreas_and_vessels(scene: Scene) -> None:
    canvas, near, hu = scene.canvas, scene.near, scene.patient.hu
    bottom, top = float(canvas.axes[2][0]) - 10, float(canvas.axes[2][-1]) + 10
    duodenum = [near(0.3, 0.42, 0), near(0.34, 0.28, -30), near(0.2, 0.1, -58)]
    _gut(scene, canvas.tube(duodenum, scene.size(13, 12, 11)), 30, 1e3)
    cava = [near(0.16, -0.02, 0, 3), near(0.2, 0.04, 60, 3)]
    line = [(cava[0][0], cava[0][1], bottom), cava[0], cava[1], (cava[1][0], cava[1][1], top)]
    canvas.paint(
        canvas.tube(line, scene.size(10.5, 11, 12, 12)), hu["cava"], LABELS["inferior vena cava"]
    )
    aorta = near(-0.09, -0.03, 0, 3)
    back = (aorta[0] - 2, aorta[1] - 9, top)
    canvas.paint(
        canvas.tube([(aorta[0], aorta[1], bottom), aorta, back], scene.size(9, 10.5, 12)),
        hu["aorta"],
        LABELS["aorta"],
    )
    gland = [
        near(0.2, 0.28, -34),
        near(0.17, 0.34, -18),
        near(0.02, 0.38, -6),
        near(-0.18, 0.27, 4),
        near(-0.4, 0.06, 13),
        near(-0.57, -0.04, 23),
    ]
    vein = [(p[0], p[1] - 11, p[2] + 3) for p in gland[2:]]
    hilum = near(0.36, 0.16, 22)
    path: list[Point] = [*reversed(vein), (vein[0][0] + 10, vein[0][1] + 2, 4), hilum]
    canvas.paint(
        canvas.tube(path, scene.size(4, 4.5, 5, 6, 7, 6)),
        hu["portal"],
        LABELS["portal and splenic vein"],
    )
    for x in (-4, 12):  # superior mesenteric artery and vein
        start = (vein[0][0] + x, vein[0][1] + 2, vein[0][2] - 4)
        canvas.paint(canvas.tube([start, (start[0], start[1] + 4, bottom)], [4, 4.5]), hu["portal"])
    shape = canvas.tube(gland, scene.size(12, 12.5, 8.5, 9, 8.5, 8.5)).rough(scene.grain, 1.8)
    canvas.paint(shape, hu["pancreas"] - 6 * np.abs(scene.grain[shape.where]), LABELS["pancreas"])


def _gallbladder(scene: Scene) -> None:
    radii = scene.size(14, 16, 24, spread=0.14)
    middle = scene.near(0.5, 0.42, -26)
    shape = scene.canvas.ellipsoid(middle, radii, turn=0.3, lean=0.15)
    wall = Region(shape.where, shape.depth + 1)
    scene.canvas.paint(wall, 60)
    scene.canvas.paint(shape, scene.patient.hu["gallbladder"], LABELS["gallbladder"])


def _gut(scene: Scene, region: Region, inside: float, gas: float) -> None:
    """A hollow organ without a label: wall, contents, and gas in front."""
    region = region.within(scene.cavity - 3).within(scene.below)
    _hollow(scene, region, scene.patient.hu["bowel"], 3, inside, gas, 0)


def _hollow(
    scene: Scene, region: Region, wall: float, thick: float, inside: float, gas: float, label: int
) -> None:
    """Wall `thick` mm, contents of `inside` HU, and gas in front of y = `gas` mm."""
    canvas = scene.canvas
    canvas.paint(region, wall, label)
    lumen = Region(region.where, region.depth - thick)
    canvas.paint(lumen, inside + 8 * scene.grain[region.where], label)
    front = np.broadcast_to(canvas.axes[1][None, :, None], canvas.shape)[region.where] - gas
    canvas.paint(Region(region.where, np.minimum(lumen.depth, front)), AIR, label)
