"""Pictures as text inside the page: photographs as WebP, masks and labels as small PNG."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vmunet.drawing.sheets.images import Colour

SIDE = 256  # the longest side of a picture on the page, px
LOSSLESS = 101  # OpenCV's quality of a WebP that keeps every pixel
QUALITY = 75  # of WebP, 0..100: a photograph of 256 px takes about 4 kB


def photograph(image: NDArray[np.uint8]) -> str:
    """An RGB image (height, width, 3), or a grey one (height, width), as a data: URI."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    small = _reduced(bgr, cv2.INTER_AREA, SIDE)
    content = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    return data_uri("image/webp", content.tobytes())


def lossless(png: bytes) -> str:
    """A PNG file's picture as a data: URI of about half its size, with the same pixels."""
    import cv2

    pixels = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, LOSSLESS])[1]
    return data_uri("image/webp", content.tobytes())


def drawing(labels: NDArray, colours: Sequence["Colour"], side: int = SIDE) -> str:
    """Labels (height, width) as a PNG data: URI, with as few bits a pixel as possible.

    Label 0 is transparent, label k has colour k - 1; if there are more labels than colours, the
    colours start again. `side` is the most pixels of the longer side.
    """
    import cv2
    from PIL import Image

    small = _reduced(labels.astype(np.uint8), cv2.INTER_NEAREST, side)
    count = max(len(colours), int(small.max(initial=0)))
    bits = next(bits for bits in (1, 2, 4, 8) if count < 2**bits)
    picture = Image.fromarray(small)
    palette = [channel for k in range(count) for channel in colours[k % len(colours)]]
    picture.putpalette([0, 0, 0, *palette])
    content = io.BytesIO()
    picture.save(content, "PNG", bits=bits, transparency=b"\0" + b"\xff" * count, optimize=True)
    return data_uri("image/png", content.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """The data: URI of a file's content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def css(colour: "Colour") -> str:
    """A colour in the page's notation."""
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def _reduced(pixels: NDArray, interpolation: int, side: int) -> NDArray:
    """Shrink a picture to at most `side` px on its longer side; a smaller one is not changed."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    same = size == (width, height)
    return (
        np.ascontiguousarray(pixels)
        if same
        else cv2.resize(pixels, size, interpolation=interpolation)
    )
