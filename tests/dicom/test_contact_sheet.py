import base64
import io
import re
from dataclasses import replace

import numpy as np
from PIL import Image

from longflow.dicom.choice import choose
from longflow.dicom.contact_sheet import contact_sheet
from tests.dicom.helpers import SECONDARY, write_series
from tests.dicom.test_survey import survey


def test_a_picture_for_each_stack(tmp_path):
    write_series(tmp_path)
    write_series(tmp_path, series="2", SOPClassUID=SECONDARY)
    write_series(tmp_path, series="3", SeriesDescription="<script>alert(1)</script>", StudyDate="")
    found = choose(survey(tmp_path).findings, False)
    page = contact_sheet(found, "Dataset101_Liver", 1)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) == 2 and page.count("<figure") == 3
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    assert image.shape == (160, 120) and image.min() < image.max()  # 10 x 0.8 mm by 12 x 0.5 mm
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert all(
        text in page for text in ("6 slices, 0.5 x 0.8 x 3 mm", "a secondary capture", "venous", "figure class='ask'")
    )


def test_pixels_that_cannot_be_decoded_leave_a_gap(tmp_path):
    paths = write_series(tmp_path)
    found = choose(survey(tmp_path).findings, False)
    for path in paths:
        path.write_bytes(path.read_bytes()[:-200])
    assert "data:image" not in contact_sheet([replace(one) for one in found], "x", 1)
