"""The pages in a real browser: Debian's chromium, driven by playwright, without a network."""

import csv
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from longflow.report.pages import write_report
from tests.report.conftest import HOSTILE

#: Debian's packages that these tests need
PACKAGES = ("chromium",)
#: folder for the pictures of pages, of three widths; they are for people to look at
PICTURES = os.environ.get("LONGFLOW_TEST_PICTURES")
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


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
        ready.wait_for(state="attached", timeout=60_000)
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
    assert opened.quiet()


@pytest.mark.slow
def test_slider_marks_comparison_and_flicker(browser, pages):
    opened = Opened(browser, pages / "subject_s1.html")
    opened.ready()
    page = opened.page
    caption, comparison = page.locator("#series-caption"), page.locator("#comparison-caption")
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
    opened.page.locator("#series canvas").click(position={"x": 330, "y": 170})
    opened.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = opened.page.evaluate(
        "(({viewer}) => { const image = viewer.volumes[0]; const mm = viewer.frac2mm(viewer.scene.crosshairPos);"
        "const vox = image.mm2vox(Array.from(mm)); return {mm: Array.from(mm), value: image.getValue(...vox)}; })"
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
    strip = page.locator("#series img")
    assert strip.is_visible() and strip.evaluate("(image) => image.complete && image.naturalWidth > 100")
    first = strip.get_attribute("src")
    page.locator("#time").press("ArrowRight")
    assert strip.get_attribute("src") != first
    assert strip.get_attribute("alt") == "Middle planes of 1.5 months: acquired scan, s1_1.5"
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / "without_webgl.png", full_page=True)
    assert opened.quiet()
