"""The pages in a real browser: Debian's chromium, driven by playwright, without a network."""

import csv
import hashlib
import io
import os
import shutil
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from longflow.reading import read_json
from longflow.report.cohort import write_cohort_report
from longflow.report.pages import write_report
from tests.report.conftest import HOSTILE

#: the accessibility checker axe-core, as published (MPL-2.0)
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
#: Debian's packages that these tests need
PACKAGES = ("chromium",)
#: folder for the pictures of pages, of three widths; they are for people to look at
PICTURES = os.environ.get("LONGFLOW_TEST_PICTURES")
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


#: the place under the crosshair of a viewer, mm
CROSSHAIR = "Array.from(viewer.frac2mm(viewer.scene.crosshairPos, 0, true))"


@pytest.fixture(scope="module")
def launched():
    """Start chromium with further flags; skip where it, or playwright, is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install "longflow[test]"')
    if (program := shutil.which("chromium")) is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browsers = []

        def launch(*flags: str):
            # root, as in containers, cannot use chromium's sandbox
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            browsers.append(playwright.chromium.launch(executable_path=program, args=[*sandbox, *flags]))
            return browsers[-1]

        yield launch
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="module")
def browser(launched):
    """Chromium that draws WebGL in software."""
    return launched(*WEBGL)


class Opened:
    """A page that is ready, with all that it said and asked for."""

    def __init__(self, browser, path: Path, width: int = 1600):
        self.context = browser.new_context(viewport={"width": width, "height": 1000}, offline=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)  # WebGL in software takes long next to other programs
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def ready(self) -> str:
        """Wait for the viewer; return how it draws."""
        ready = self.page.locator("html[data-ready]")
        ready.wait_for(state="attached")
        return ready.get_attribute("data-ready")

    def settled(self) -> None:
        """Wait until every pane shows what it was told to show."""
        self.page.evaluate("Promise.all(longflowPanes.map((pane) => pane.work))")

    def quiet(self) -> bool:
        """Tell whether nothing was said, and nothing but the file was asked for."""
        assert self.said == []
        outside = [url for url in self.requests if not url.startswith(("data:", "blob:", "file:"))]
        assert outside == [] and sum(url.startswith("file:") for url in self.requests) == 1
        return True


@pytest.fixture
def pages(evaluated) -> Path:
    """Folder of the report of two subjects."""
    return write_report(evaluated).parent


@pytest.mark.slow
@pytest.mark.parametrize("width", [1600, 1024, 400])
def test_a_page_opens_without_an_error_or_a_request(browser, pages, width):
    opened = Opened(browser, pages / "subject_s1.html", width)
    assert opened.ready() == "webgl"
    opened.settled()
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if PICTURES:
        opened.page.screenshot(path=Path(PICTURES) / f"subject_{width}.png", full_page=True)
    opened.page.emulate_media(media="print")  # paper has the strips, and nothing behind them
    assert opened.page.locator(".stage canvas:visible").count() == 0
    assert opened.page.locator(".series img").first.is_visible()
    assert opened.quiet()


@pytest.mark.slow
def test_labels_have_colours_and_the_background_has_none(browser, pages, tmp_path):
    """NiiVue tints the background where it is given more than 64 colours."""
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    opened.page.get_by_role("button", name="4 months: acquired scan").click()  # it has labels
    shares = []
    for opacity in ("1", "0"):
        opened.page.locator("#opacity").fill(opacity)
        opened.settled()
        opened.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        opened.page.locator(".series canvas").screenshot(path=tmp_path / "canvas.png")
        colours = matplotlib.image.imread(tmp_path / "canvas.png")[..., :3]
        shares.append((np.ptp(colours, axis=2) > 0.1).mean())
    with_labels, without = shares
    assert without + 0.005 < with_labels < without + 0.5


@pytest.mark.slow
def test_slider_marks_comparison_and_flicker(browser, pages):
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    page = opened.page
    caption, comparison = page.locator(".series figcaption"), page.locator("#comparison-caption")
    assert caption.text_content() == "0 months: acquired scan, s1_0"
    page.locator("#time").press("ArrowRight")
    assert caption.text_content() == "1.5 months: acquired scan, s1_1.5"
    page.locator("#time").fill("3.9")  # the nearest scan, by its true time
    assert caption.text_content() == "4 months: acquired scan, s1_4"
    page.get_by_role("button", name="4 months: prediction, s1_4").click()
    assert caption.text_content() == "4 months: PREDICTION, s1_4"
    assert page.locator(".mark[aria-current=true]").get_attribute("data-kind") == "prediction"
    assert "Right: 4 months: acquired scan, s1_4" in comparison.text_content()
    page.locator("#against").select_option("difference")
    assert "prediction minus acquired scan" in comparison.text_content()
    page.locator("#against").select_option("last")
    assert "Right: 1.5 months: acquired scan, s1_1.5" in comparison.text_content()
    page.locator("#swipe").fill("25")
    assert page.locator("#cover").evaluate("(cover) => cover.style.clipPath") == "inset(0px 0px 0px 25%)"
    flicker = page.locator("#flicker")
    flicker.click()
    page.wait_for_selector("#cover.off", state="attached")
    flicker.click()
    assert flicker.get_attribute("aria-pressed") == "false"
    assert page.locator("#cover").get_attribute("class") == ""
    page.locator("#zoom").fill("2")
    zooms = page.evaluate("longflowPanes.map(({viewer}) => viewer.scene.pan2Dxyzmm[3])")
    assert zooms == [2, 2, 2]
    page.locator("#high").fill("0.5")
    page.locator("#high").press("Enter")
    opened.settled()
    assert page.evaluate("longflowPanes.map(({viewer}) => viewer.volumes[0].cal_max)")[0] == 0.5
    page.locator("#window").select_option("full range")
    opened.settled()
    assert page.evaluate("longflowPanes[0].viewer.volumes[0].cal_max") > 0.9
    for planes in ("multi", "coronal", "sagittal", "axial"):
        page.locator("#planes").select_option(planes)
    opened.settled()
    assert opened.quiet()


@pytest.mark.slow
def test_the_voxel_under_the_crosshair_is_that_of_the_file(browser, pages, evaluated):
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    opened.settled()
    before = opened.page.locator("#place").text_content()
    opened.page.locator(".series canvas").click(position={"x": 330, "y": 170})
    opened.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = opened.page.evaluate(
        f"(({{viewer}}) => {{ const image = viewer.volumes[0]; const mm = {CROSSHAIR};"
        "return {mm, value: image.getValue(...image.mm2vox(mm))}; })"
        "(longflowPanes[0])"
    )
    source = nibabel.load(evaluated.parent / "raw" / "Dataset101_Tiny" / "imagesTs" / "s1_0_0000.nii.gz")
    voxel = np.rint(nibabel.affines.apply_affine(np.linalg.inv(source.affine), found["mm"][:3])).astype(int)
    value = source.get_fdata()[tuple(voxel)]
    assert found["value"] == pytest.approx(value, abs=1 / 254)
    shown = opened.page.locator("#place").text_content()
    assert shown != before and f"{value:.2f}"[:3] in shown.split("(0 months")[0].split("): ")[1]
    assert shown.split(" mm ")[0] == ", ".join(f"{one:.1f}" for one in found["mm"][:3])
    assert "(4 months: PREDICTION, s1_4)" in shown
    places = "longflowPanes.map(({viewer}) => Array.from(viewer.scene.crosshairPos))"
    first, *others = opened.page.evaluate(places)
    assert others and all(other == pytest.approx(first, abs=1e-5) for other in others)
    assert opened.quiet()


#: columns of the affine of a scan: turned about two axes; with flipped axes; with another order of axes
GRIDS = {
    "oblique": Rotation.from_euler("zx", (25, -15), degrees=True).as_matrix() @ np.diag((1.0, 1.2, 3.0)),
    "flipped": np.diag((-1.0, 1.2, -3.0)),
    "sagittal": np.array([[0, 0, 3.0], [-1.0, 0, 0], [0, 1.2, 0]]),
}


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_of_oblique_and_flipped_grids_are_those_of_the_files(browser, evaluated, grid):
    raw = evaluated.parent / "raw" / "Dataset101_Tiny"
    affine = nibabel.affines.from_matvec(GRIDS[grid], (12.5, -30.25, 7.0))
    for path in [*evaluated.glob("*.nii.gz"), *raw.rglob("*.nii.gz")]:
        source = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(source.dataobj), affine), path)
    opened = Opened(browser, write_report(evaluated).with_name("subject_s1.html"))
    opened.ready()
    opened.settled()
    files = [
        raw / "imagesTs" / "s1_0_0000.nii.gz",
        evaluated / "s1_4_0000.nii.gz",
        raw / "targetsTs" / "s1_4_0000.nii.gz",
    ]
    seen = set()
    for x, y in ((330, 170), (300, 280), (420, 250)):
        opened.page.locator(".series canvas").click(position={"x": x, "y": y})
        opened.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = opened.page.evaluate(
            f"longflowPanes.map(({{viewer}}) => {{ const mm = {CROSSHAIR};"
            "const image = viewer.volumes[0]; return {mm, value: image.getValue(...image.mm2vox(mm))}; })"
        )
        for one, path in zip(found, files, strict=True):
            source = nibabel.load(path)
            voxel = np.rint(nibabel.affines.apply_affine(np.linalg.inv(source.affine), one["mm"][:3])).astype(int)
            assert one["value"] == pytest.approx(source.get_fdata()[tuple(voxel)], abs=1 / 200)
            seen.add(tuple(voxel))
    assert len(seen) > 1
    assert opened.quiet()


@pytest.mark.slow
def test_the_intensity_of_a_voxel_over_time_is_that_of_the_files(browser, pages, evaluated):
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    opened.settled()
    opened.page.locator(".series canvas").click(position={"x": 330, "y": 170})
    opened.page.locator("#intensity summary").click()
    dots = opened.page.locator("#intensity circle")
    dots.nth(3).wait_for(state="attached")
    mm = opened.page.evaluate(
        "(({viewer}) => Array.from(viewer.frac2mm(viewer.scene.crosshairPos, 0, true)))(longflowPanes[0])"
    )
    raw = evaluated.parent / "raw" / "Dataset101_Tiny"
    files = [*(raw / "imagesTs" / f"s1_{time}_0000.nii.gz" for time in ("0", "1.5"))]
    files += [raw / "targetsTs" / "s1_4_0000.nii.gz", evaluated / "s1_4_0000.nii.gz"]
    for number, path in enumerate(files):
        source = nibabel.load(path)
        voxel = np.rint(nibabel.affines.apply_affine(np.linalg.inv(source.affine), mm[:3])).astype(int)
        shown = float(dots.nth(number).text_content().rsplit(": ", 1)[1])
        assert shown == pytest.approx(source.get_fdata()[tuple(voxel)], abs=1 / 200)
    assert opened.quiet()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["subject", "index", "cohort"])
def test_nothing_hinders_readers_who_use_a_screen_reader_or_a_keyboard(
    browser, pages, studied, evaluated, page, scheme
):
    """axe-core finds no violation of any kind."""
    cohort = write_cohort_report(studied, evaluated)
    path = {"subject": pages / "subject_s1.html", "index": pages / "index.html", "cohort": cohort}[page]
    opened = Opened(browser, path)
    opened.page.emulate_media(color_scheme=scheme)
    if page == "subject":
        opened.ready()
    # the page's policy refuses further scripts; those of the debugger are no part of the page
    found = opened.page.evaluate(
        f"async () => {{ {AXE.read_text(encoding='utf-8')}; return (await axe.run()).violations; }}"
    )
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


@pytest.mark.slow
def test_a_cohort_page_opens_without_an_error_or_a_request(browser, studied, evaluated):
    opened = Opened(browser, write_cohort_report(studied, evaluated), 400)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert opened.quiet()


def test_axe_is_the_published_one():
    described = read_json(AXE.with_name("axe.json"))
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == described["sha256"]
    assert "Mozilla Public License" in AXE.with_name("axe.LICENSE").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_table_is_saved_as_it_was_written(browser, pages, tmp_path):
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    with opened.page.expect_download() as download:
        opened.page.locator("button.save").first.click()
    assert download.value.suggested_filename == "s1_metrics.csv"
    download.value.save_as(tmp_path / "saved.csv")
    with open(tmp_path / "saved.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"case": "s1_4", "subject": "s1", "method": "forecast", "rmse": "0.1234567890123"}
        ]


@pytest.mark.slow
def test_hostile_names_are_text_and_run_nothing(browser, pages):
    opened = Opened(browser, pages / "index.html")
    opened.page.get_by_role("link", name=HOSTILE).click()
    opened.ready()
    assert opened.page.locator("h1").text_content() == HOSTILE
    assert opened.page.locator("img[src=x]").count() == 0
    assert opened.said == []


@pytest.mark.slow
def test_a_script_that_was_let_in_does_not_run(browser, pages):
    path = pages / "subject_s1.html"
    path.write_text(path.read_text().replace("</main>", "<script>alert(1)</script></main>", 1))
    opened = Opened(browser, path)
    opened.ready()
    assert any("Content Security Policy" in text for text in opened.said)
    assert not any(text.startswith("dialog") for text in opened.said)


@pytest.mark.slow
def test_without_webgl_the_middle_planes_are_shown(launched, pages):
    opened = Opened(launched("--disable-3d-apis"), pages / "subject_s1.html")
    assert opened.ready() == "strips"
    page = opened.page
    assert page.locator("#no-webgl").is_visible()
    assert not page.locator("#planes").is_visible() and not page.locator("#zoom").is_visible()
    strip, labels = page.locator(".series img").first, page.locator(".series img").last
    assert strip.is_visible() and strip.evaluate("(image) => image.complete && image.naturalWidth > 100")
    assert not labels.is_visible()
    first = strip.get_attribute("src")
    page.locator("#time").press("ArrowRight")
    assert strip.get_attribute("src") != first
    assert strip.get_attribute("alt") == "Middle planes of 1.5 months: acquired scan, s1_1.5"
    page.locator("#time").fill("4")  # it has labels
    opened.settled()
    assert labels.is_visible()
    pictures = [strip.screenshot()]
    page.locator("#opacity").fill("0")
    opened.settled()
    pictures.append(strip.screenshot())
    page.locator("#low").fill("0.9")
    page.locator("#low").press("Enter")
    opened.settled()
    pictures.append(strip.screenshot())
    assert len(set(pictures)) == 3  # with labels, without, in another window
    bright, dark = (matplotlib.image.imread(io.BytesIO(one))[..., 0].mean() for one in pictures[1:])
    assert dark < bright / 2
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / "without_webgl.png", full_page=True)
    assert opened.quiet()
