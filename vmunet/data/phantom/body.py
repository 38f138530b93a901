"""The trunk around the organs of a CT phantom: wall, lungs, bones, and the couch below it."""

import numpy as np

from vmunet.data.phantom.patient import LUNG, WALL, Patient
from vmunet.data.phantom.shapes import Canvas, Field


class Scene:
    """Everything that drawing a shape needs: canvas, patient, and the spaces of the trunk.

    Attributes:
        canvas, patient, rng: the arguments.
        grain: noise of unit deviation over the canvas, features 22 mm wide.
        cavity: depth in the abdominal cavity, mm.
        below: depth below the diaphragm, mm.
    """

    def __init__(self, canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
        self.canvas, self.patient, self.rng = canvas, patient, rng
        self.grain = canvas.noise(rng, 22)
        x, y, z = canvas.x, canvas.y, canvas.z
        u, v = x / patient.width, y / patient.depth
        trunk = _oval_depth(x, y, patient.width, patient.depth) + 2 * canvas.noise(rng, 90)
        back = np.hypot(u / 0.44, (v + 1.05) / 0.42)  # spine and its muscles reach into the cavity
        self.cavity = np.minimum(trunk, (back - 1) * np.float32(0.42 * patient.depth))
        # Each half of the diaphragm is a dome whose rim goes down along the ribs; the heart is
        # above the middle.
        tops = rng.uniform(84, 98), rng.uniform(62, 70), rng.uniform(74, 88)
        falls = [((u - side) / 0.62) ** 2 + (v - 0.12) ** 2 for side in (0.46, 0.0, -0.48)]
        domes = [top - 70 * fall for top, fall in zip(tops, falls, strict=True)]
        dome = np.maximum.reduce(domes)
        self.below = ((dome * patient.stretch - z) * 0.6).astype(np.float32)

    def near(self, u: float, v: float, w: float, spread: float = 4) -> tuple[float, float, float]:
        """A position in mm, moved by about `spread` mm, so that patients differ."""
        x, y, z = np.array(self.patient.at(u, v, w)) + self.rng.normal(0, spread, 3)
        return float(x), float(y), float(z)

    def size(self, *radii: float, spread: float = 0.08) -> list[float]:
        """Radii in mm for this patient: all times one random factor, and each times a small one."""
        factor = self.patient.scale * np.exp(np.clip(self.rng.normal(0, spread), -0.2, 0.2))
        return [float(r * factor * self.rng.uniform(0.94, 1.06)) for r in radii]


def paint_walls(scene: Scene) -> None:
    """Skin, fat, muscle, the fat inside, lung bases."""
    canvas, hu = scene.canvas, scene.patient.hu
    width, depth, middle = scene.patient.body
    x, y = canvas.x, canvas.y
    body = _oval_depth(x, y - middle, width, depth) + 1.5 * canvas.noise(scene.rng, 110)
    groove = 9 * np.exp(-((x / 16) ** 2)) * (y < middle)  # along the spine
    body = (body - groove).astype(np.float32)
    canvas.paint(canvas.everywhere(body), 0)  # skin
    canvas.paint(canvas.everywhere(body - 2), hu["fat"])
    muscle = canvas.everywhere(scene.cavity + WALL).within(body - 3)
    canvas.paint(muscle.rough(scene.grain, 1), hu["muscle"])
    canvas.paint(canvas.everywhere(scene.cavity), hu["fat"])
    bottom, top = float(canvas.axes[2][0]), float(canvas.axes[2][-1])
    for side in (-1, 1):
        back = scene.patient.at(0.29 * side, -1.02, 0)[:2]
        ends = [(*back, bottom), (*back, top)]
        inner = [(0.6 * back[0], back[1] + 4, end) for end in (bottom, top)]
        for path, radius in ((ends, 21), (inner, 19)):
            radii = [radius * scene.patient.scale] * 2
            canvas.paint(canvas.tube(path, radii).within(body - 4), hu["muscle"])
    middle_part = np.abs(x + 0.08 * scene.patient.width) - 0.2 * scene.patient.width
    lung = np.minimum(-scene.below - 2, np.minimum(scene.cavity - 2, middle_part))
    canvas.paint(canvas.everywhere(lung.astype(np.float32)), LUNG + 25 * scene.grain)
    heart = canvas.ellipsoid(scene.near(-0.12, 0.42, 100), scene.size(52, 42, 34))
    canvas.paint(heart.within(scene.cavity - 3), 140)


def paint_bones(scene: Scene) -> None:
    """Vertebrae with discs between them, processes, canal, ribs."""
    canvas, patient, hu = scene.canvas, scene.patient, scene.patient.hu
    (x, y), s = patient.spine, patient.scale
    tall, level = 2e3, scene.rng.uniform(0, 34)
    column = canvas.ellipsoid((x, y, 0), (23 * s, 18 * s, tall))
    z = np.broadcast_to(canvas.z, canvas.shape)[column.where]
    disc = np.clip(5 - np.abs((z + level) % 34 - 17), 0, 1)
    inner = np.clip((column.depth - 2.5) / 3, 0, 1)
    bone = hu["cortical bone"] + (hu["marrow"] - hu["cortical bone"]) * inner
    canvas.paint(column, bone + disc * (100 - bone))
    canal = y - 27 * s
    for side in (-1, 1):
        arch = [
            (side * 14 * s, y - 14 * s, 0),
            (side * 15 * s, canal - 4, 0),
            (0, canal - 14, 0),
        ]
        wing = [(side * 14 * s, canal + 4, 0), (side * 38 * s, canal - 4, 0)]
        for path, radius in ((arch, 4.5), (wing, 4)):
            for k in range(-8, 9):
                level_of = k * 34 - level
                lifted = [(px, py, level_of) for px, py, _ in path]
                part = canvas.tube(lifted, [radius * s] * len(lifted))
                canvas.paint(part, hu["cortical bone"])
    spinous = canvas.ellipsoid((0, canal - 24, 0), (3.6, 16, tall))
    fading = np.clip(0.5 + 0.9 * np.cos((z[:1, :1] + level) * (2 * np.pi / 34)), 0, 1)
    canvas.paint(spinous, hu["cortical bone"] * fading + hu["muscle"] * (1 - fading))
    canvas.paint(canvas.ellipsoid((0, canal, 0), (9, 8, tall)), 30)
    slant = canvas.z + 0.55 * canvas.y
    gap = np.abs((slant + level) % 27 - 13.5) * 0.87
    rib = 4.6 - np.hypot(np.maximum(np.abs(scene.cavity + 7) - 1.5, 0) * 1.3, gap)
    bare = np.minimum(0.72 * patient.depth - canvas.y, np.abs(canvas.x) - 30)
    rib = np.minimum(rib, np.minimum(bare, slant + 45)).astype(np.float32)
    inner = np.clip((rib - 2.5) / 2, 0, 1)
    canvas.paint(canvas.everywhere(rib), hu["cortical bone"] - 200 * inner)


def paint_table(scene: Scene) -> None:
    """The couch below the back: a thin curved shell."""
    canvas = scene.canvas
    _, depth, middle = scene.patient.body
    top = middle - depth - 12 + (canvas.x / 62) ** 2 * 3
    shell = np.minimum(2.5 - np.abs(canvas.y - top), 230 - np.abs(canvas.x))
    shape = np.broadcast_to(shell, canvas.shape).astype(np.float32)
    canvas.paint(canvas.everywhere(shape), 20)


def _oval_depth(x: Field, y: Field, width: float, depth: float) -> Field:
    """The approximate depth in mm in an oval with these half-axes, squarer than an ellipse."""
    rim = np.abs(x / np.float32(width)) ** 2.4 + np.abs(y / np.float32(depth)) ** 2.4
    return (1 - rim ** (1 / 2.4)) * np.float32((width + depth) / 2)
