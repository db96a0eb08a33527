"""A page with one slice from the middle of every stack, next to the row of its table."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longflow.dicom.headers import Frame
from longflow.dicom.survey import ASK, NO, YES, Finding
from longflow.dicom.table import row_of
from longflow.dicom.volume import read_slice
from longflow.errors import DataError
from longflow.parallel import Progress, for_each_subject

#: pixels of the longer side of a picture; HU that a picture of CT shows
LONGEST_SIDE, HU = 160, (-160.0, 240.0)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px sans-serif; margin: 1.5em; color: #222; }}
.all {{ display: flex; flex-wrap: wrap; gap: 12px; }}
figure {{ width: 190px; margin: 0; padding: 8px; border: 3px solid #999; border-radius: 6px; }}
figure.yes {{ border-color: #2a7d2a; }} figure.ask {{ border-color: #d07a00; }} figure.no {{ opacity: 0.65; }}
img {{ display: block; margin: auto; background: black; }}
figcaption {{ font-size: 12px; overflow-wrap: anywhere; }}
b.use {{ text-transform: uppercase; }}
</style></head><body><h1>{title}</h1>
<p>{counts}. Green: will be imported. Orange: decide in series.csv. Grey: not imported. This page shows patients: keep
it in the hospital.</p>
{body}
</body></html>
"""


def contact_sheet(
    findings: Sequence[Finding], title: str, processes: int | None = None, progress: Progress | None = None
) -> str:
    """Draw the contact sheet.

    :param findings: of a survey, with their use.
    :param title: of the page.
    :param processes: number of worker processes that read slices; None: all available cores.
    :param progress: called with (pictures done, all, id).
    :returns: the page, HTML without other files.
    """
    middles = {one.id: _middle(one) for one in findings if one.stack}
    pictures = dict(for_each_subject(_picture, middles, processes, progress)) if middles else {}
    counts = {use: sum(one.use == use for one in findings) for use in (YES, ASK, NO)}
    parts = []
    for subject in dict.fromkeys(one.subject for one in findings):
        of_subject = [one for one in findings if one.subject == subject]
        figures = "\n".join(_figure(one, pictures) for one in of_subject)
        parts.append(f"<h2>{html.escape(subject or 'Other files')}</h2>\n<div class='all'>\n{figures}\n</div>")
    shown = ", ".join(f"{count} {use}" for use, count in counts.items())
    return PAGE.format(title=html.escape(title), counts=shown, body="\n".join(parts))


def _middle(finding: Finding) -> Frame:
    """Return the slice in the middle of the first time point."""
    frames = finding.stack.points[0]
    return frames[len(frames) // 2]


def _figure(finding: Finding, pictures: Mapping[str, bytes]) -> str:
    row: dict[str, Any] = {name: html.escape(str(cell)) for name, cell in row_of(finding).items() if cell != ""}
    picture = pictures.get(finding.id, b"")
    image = (
        f'<img alt="its middle slice" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        if picture
        else ""
    )
    when = (
        f"day {row['time']}"
        if "time" in row
        else f"{len(finding.times)} times, {finding.unit}"
        if finding.times
        else ""
    )
    lines = [
        f"<b class='use'>{finding.use}</b> {row.get('reason', '')}",
        f"<b>{row.get('description', '')}</b> {row.get('modality', '')}, series {row.get('series', '?')}",
        ", ".join(filter(None, (str(row.get("date", "")), when, row.get("phase", "")))),
        f"{row['slices']} slices, {row['spacing']} mm" if "slices" in row else f"{finding.files} files",
        row.get("structures", ""),
        f"id {finding.id}",
    ]
    caption = "<br>".join(filter(None, lines))
    return f"<figure class='{finding.use}'>{image}<figcaption>{caption}</figcaption></figure>"


def _picture(frame: Frame) -> bytes:
    """Draw a slice as PNG; empty where its pixels cannot be decoded, which the import says again."""
    from PIL import Image

    try:
        pixels = read_slice(frame)
    except DataError:
        return b""
    low, high = HU if frame.instance.modality == "CT" else np.percentile(pixels, (1, 99))
    grey = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255
    height, width = (np.array(pixels.shape) * frame.spacing / max(np.array(pixels.shape) * frame.spacing)).tolist()
    size = (max(1, round(width * LONGEST_SIDE)), max(1, round(height * LONGEST_SIDE)))
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).resize(size).save(buffer, "png", optimize=True)
    return buffer.getvalue()
