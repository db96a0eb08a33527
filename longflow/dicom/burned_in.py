"""Letters in the pixels of a slice: what a viewer cannot switch off."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: share of the width and of the height of a slice that the letters may take
WIDTH, HEIGHT = 0.9, 0.3


def burn_in(pixels: np.ndarray, lines: tuple[str, ...], ink: float, ground: float) -> np.ndarray:
    """Write lines of text into the upper left corner of a slice, as large as fits.

    :param pixels: (rows, columns).
    :param lines: the text.
    :param ink: value of the letters.
    :param ground: value of the box behind the letters.
    :returns: a copy with the text.
    """
    rows, columns = pixels.shape
    text, size = "\n".join(lines), max(1, rows // 3)
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    while size > 1:
        box = draw.multiline_textbbox((1, 1), text, font=ImageFont.load_default(size))
        if box[2] <= WIDTH * columns and box[3] <= HEIGHT * rows:
            break
        size -= 1
    font = ImageFont.load_default(size)
    box = draw.multiline_textbbox((1, 1), text, font=font)
    draw.multiline_text((1, 1), text, fill=255, font=font)
    written = pixels.copy()
    written[: int(box[3]) + 2, : int(box[2]) + 2] = ground
    written[np.asarray(canvas) > 127] = ink
    return written
