"""Take the picture of the report: ``python documentation/figures/report.py longflow_demo_forecast``.

The folder is that of a finished ``longflow_demo``. It needs playwright (the extra ``test``) and chromium.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
#: pixels of the window; the picture has the upper part of the page
WIDTH, HEIGHT = 1180, 1120
#: a computer without a graphics card draws, too
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def main(demo: Path) -> None:
    """Photograph the page of the first held-out heart, at its first forecast."""
    page_file = min((demo / "forecasts" / "report").glob("subject_*.html")).resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        page.goto(page_file.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready")
        page.locator('.mark[data-kind="prediction"]').first.click()
        page.wait_for_timeout(3000)  # the images of both panes are drawn
        page.mouse.move(0, 0)
        page.screenshot(path=HERE / "report.png")
        browser.close()
    print(HERE / "report.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
