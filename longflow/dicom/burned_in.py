"""Letters in the pixels of a slice: what a viewer cannot switch off."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: share of the width and of the height of a slice that the letters may take
WIDTH, HEIGHT = 0.9, 0.3
#: size of a font in pixels from which on its letters can be read
READABLE = 10
#: grey of a letter, 0 to 255, from which on a pixel is ink: thin strokes of small letters are grey alone
INK = 96


def burn_in(pixels: np.ndarray, lines: tuple[str, ...], ink: float, ground: float) -> np.ndarray:
    """Write lines of text into the upper left corner of a slice, as large as fits.

    In a slice of few pixels, where nobody could read them, the words stand below each other; in a still smaller one,
    the first word alone, in two parts. They may then take twice the height.

    :param pixels: (rows, columns).
    :param lines: the text.
    :param ink: value of the letters.
    :param ground: value of the box behind the letters.
    :returns: a copy with the text.
    """
    rows, columns = pixels.shape
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    for text, height in _layouts(lines):
        size = max(1, rows // 3)
        while size > 1:
            box = draw.multiline_textbbox((1, 1), text, font=ImageFont.load_default(size))
            if box[2] <= WIDTH * columns and box[3] <= height * rows:
                break
            size -= 1
        if size >= READABLE:
            break
    font = ImageFont.load_default(size)
    box = draw.multiline_textbbox((1, 1), text, font=font)
    draw.multiline_text((1, 1), text, fill=255, font=font)
    written = pixels.copy()
    written[: int(box[3]) + 2, : int(box[2]) + 2] = ground
    written[np.asarray(canvas) > INK] = ink
    return written


def _layouts(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Return the text in layouts that are ever narrower, each with the share of the height that it may take."""
    words = " ".join(lines).split()
    half = len(words[0]) // 2
    yield "\n".join(lines), HEIGHT
    yield "\n".join(words), 2 * HEIGHT
    yield f"{words[0][:half]}-\n{words[0][half:]}", 2 * HEIGHT
