"""Names of the published U-Nets' state dicts, from ours."""

import re

SEQUENTIAL = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4"}


def _parts(name: str) -> tuple[str, int, str, str]:
    """(encoder, ups, decoder or head; stage; layer; weight, bias or statistic)."""
    part, *rest = name.split(".")
    return part, int(rest[0]) if len(rest) > 1 else 0, rest[1] if len(rest) > 2 else "", rest[-1]


def lee(name: str) -> str:
    """LeeJunHyun: Conv1..5, Up5..2, Up_conv5..2, Conv_1x1."""
    part, stage, layer, last = _parts(name)
    if part == "head":
        return f"Conv_1x1.{last}"
    if part == "ups":
        return f"Up{5 - stage}.up.{layer}.{last}"
    place = f"Conv{stage + 1}" if part == "encoder" else f"Up_conv{5 - stage}"
    return f"{place}.conv.{SEQUENTIAL[layer]}.{last}"


def milesial(name: str) -> str:
    """milesial: inc, down1..4, up1..4, outc."""
    part, stage, layer, last = _parts(name)
    if part == "head":
        return f"outc.conv.{last}"
    if part == "ups":
        return f"up{stage + 1}.up.{last}"
    down = f"down{stage}.maxpool_conv.1" if stage else "inc"
    place = down if part == "encoder" else f"up{stage + 1}.conv"
    return f"{place}.double_conv.{SEQUENTIAL[layer]}.{last}"


def buda(name: str) -> str:
    """mateuszbuda: encoder1..4, bottleneck, upconv4..1, decoder4..1, conv."""
    part, stage, layer, last = _parts(name)
    if part == "head":
        return f"conv.{last}"
    if part == "ups":
        return f"upconv{4 - stage}.{last}"
    number = stage + 1 if part == "encoder" else 4 - stage
    place, prefix = f"{part}{number}", f"{part[:3]}{number}"
    if place == "encoder5":
        place = prefix = "bottleneck"
    return f"{place}.{prefix}{layer.replace('bn', 'norm')}.{last}"


def nested(name: str) -> str:
    """4uiiurz1: conv0_0..4_0 down, conv3_1..0_4 up, final."""
    name = re.sub(r"^encoder\.(\d)", r"conv\1_0", name)
    name = re.sub(r"^decoder\.(\d)", lambda m: f"conv{3 - int(m[1])}_{1 + int(m[1])}", name)
    return name.replace("head", "final")
