"""The two training protocols, as named switches.

`paper` repeats what the published code does, its quirks included; `sound` does what a careful
reader would want. The two differ in the switches below and in nothing else, and every run is
scored with the metrics of both, so that the difference is a finding rather than a mixture.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """One training protocol (paper, section IV-B, and the published code).

    Attributes:
        name: what runs, folders and tables call it.
        resize: `bilinear` samples two neighbours, no matter how far the image shrinks (without
            antialiasing, as in the published code); `area` averages all source pixels that a
            target pixel covers.
        mask_resize: `bilinear` gives soft targets in 0..1; `nearest` keeps them binary.
        rotation: `one_angle` draws a single angle in 0..360 degrees from the run's seed and turns
            half of the samples by it (the published code draws it when the transform is built);
            `fresh_angle` draws an angle for every sample.
        rotation_image: interpolation of rotated images; rotated masks are always nearest.
        loss_input: `probabilities` puts a sigmoid before binary cross-entropy, which saturates;
            `logits` computes the same loss without it.
        weight_decay_on: `all` parameters, or `matrices`: none on norms, biases, A_log and D.
        schedule: `climbing_cosine` is CosineAnnealingLR with the profile's T_max, which climbs
            back after T_max epochs; `cosine` descends once over the run's own epochs.
        selection: images whose loss selects the epoch: the `test` images, or a `held_out` part of
            the training images.
        slice_resize: how CT slices are resized to the training size: `cubic` splines, not
            antialiased, or `area` averages. Labels take the nearest voxel.
        slice_turns: `quarter_turns` turns and flips half of the slices and rotates half of the
            rest by whole degrees in -20..19, as the published code does; `small_angles` rotates
            half of the slices by -20..20 degrees. A mirrored body has its left kidney on the
            right, and the two are classes of their own.
        volume_selection: the epoch with the lowest mean of its training `batch_losses`, each of
            which counts the same however few samples the last batch has (3 of 2,211 slices are 1
            of 70 batches), as in the published code; or the lowest loss on `held_out` cases, a
            sixth of those that train.
    """

    name: Literal["paper", "sound"]
    resize: Literal["bilinear", "area"]
    mask_resize: Literal["bilinear", "nearest"]
    rotation: Literal["one_angle", "fresh_angle"]
    rotation_image: Literal["nearest", "bilinear"]
    loss_input: Literal["probabilities", "logits"]
    weight_decay_on: Literal["all", "matrices"]
    schedule: Literal["climbing_cosine", "cosine"]
    selection: Literal["test", "held_out"]
    slice_resize: Literal["cubic", "area"]
    slice_turns: Literal["quarter_turns", "small_angles"]
    volume_selection: Literal["batch_losses", "held_out"]


PAPER = Protocol(
    name="paper",
    resize="bilinear",
    mask_resize="bilinear",
    rotation="one_angle",
    rotation_image="nearest",
    loss_input="probabilities",
    weight_decay_on="all",
    schedule="climbing_cosine",
    selection="test",
    slice_resize="cubic",
    slice_turns="quarter_turns",
    volume_selection="batch_losses",
)

SOUND = Protocol(
    name="sound",
    resize="area",
    mask_resize="nearest",
    rotation="fresh_angle",
    rotation_image="bilinear",
    loss_input="logits",
    weight_decay_on="matrices",
    schedule="cosine",
    selection="held_out",
    slice_resize="area",
    slice_turns="small_angles",
    volume_selection="held_out",
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (PAPER, SOUND)}
