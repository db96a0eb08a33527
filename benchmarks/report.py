"""Measure the pages of the timeline report: size, seconds, memory, and the seconds until a browser is ready.

Three subjects are made of spheres with noise: a phantom of the size of the demo, a heart of the size of ACDC, and five
visits of 256 x 256 x 150 voxels, each with a forecast of the last scan. Each page is written in a process of its own.
The peak is the resident memory of this process. Then the index of a cohort of many subjects is written.
``--browser`` opens every page in chromium (needs playwright), which draws WebGL in software.

    python benchmarks/report.py
    python benchmarks/report.py --browser --subjects 1000
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: shape (z, y, x), spacing (z, y, x) in mm, number of scans
SIZES = {
    "phantom": ((12, 64, 64), (8.0, 2.2, 2.2), 8),
    "ACDC": ((10, 256, 216), (8.0, 1.5, 1.5), 2),
    "largest": ((150, 256, 256), (1.0, 1.0, 1.0), 5),
}
SEED = 0
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--subjects", type=int, default=1000, help="of the index (default: 1000)")
    parser.add_argument("--browser", action="store_true", help="open the pages in chromium")
    parser.add_argument("--work", type=Path, help="folder to work in and keep (default: a temporary one)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(Path(options.child))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.work or Path(temporary)).resolve()
        pages = []
        print("page             size, MB    seconds processor, s  peak, GB")
        for size in options.size:
            folder = home / size
            make_subject(folder, *SIZES[size])
            environment = {**os.environ, "LONGFLOW_HOME": str(home)}
            command = [sys.executable, __file__, "--child", str(folder)]
            answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found = json.loads(answer.splitlines()[-1])
            pages.append((size, folder / "out" / "report" / "subject_s1.html"))
            costs = [found[name] for name in ("megabytes", "seconds", "processor", "peak")]
            print(f"{size:14} " + " ".join(f"{cost:10.2f}" for cost in costs))
        index = write_index(home, options.subjects)
        print(f"index of {options.subjects} subjects: {index.stat().st_size / 1e6:.2f} MB")
        if options.browser:
            open_pages([*pages, ("index", index)])


def make_subject(folder: Path, shape: tuple[int, ...], spacing: tuple[float, ...], scans: int) -> None:
    """Write a series, and a forecast of its last scan."""
    from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
    from longflow.data.images import Geometry, write_volume
    from longflow.files import write_json

    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days")
    geometry = Geometry(shape[::-1], spacing[::-1], (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    generator, given, out = np.random.default_rng(SEED), folder / "in", folder / "out"
    rows = [Scan(f"s1_{number}", "s1", 90.0 * number, ()) for number in range(scans)]
    for one in rows:
        volume = phantom(shape, 0.5 + 0.1 * one.time / 90, generator)
        write_volume(volume, geometry, "float32", given / f"{one.case}_0000.nii.gz")
    write_volume(
        phantom(shape, 0.5 + 0.1 * (scans - 1), generator), geometry, "float32", out / f"{rows[-1].case}_0000.nii.gz"
    )
    for place, some in ((given, rows), (out, rows[-1:])):
        write_description(description, place / "dataset.json")
        write_scans(some, place / "scans.csv")
    context = {"context": [one.case for one in rows[:-1]], "context_times": [one.time for one in rows[:-1]]}
    write_json(
        {"case": rows[-1].case, "subject": "s1", **context, "horizon_outside_training": False},
        out / f"{rows[-1].case}.json",
    )


def phantom(shape: tuple[int, ...], radius: float, generator: np.random.Generator) -> np.ndarray:
    """Make a ball with noise in an empty field of view, as a scan is mostly air around a body."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    distance = np.sqrt(sum(axis**2 for axis in axes))
    body = (distance < 0.95) * (300 + 200 * (distance < radius)).astype(np.float32)
    return body + np.where(body > 0, generator.normal(0, 12, shape), 0).astype(np.float32)


def measured(folder: Path) -> dict[str, float]:
    """Write the page of a folder; return what it cost."""
    from longflow.report.pages import write_report

    start, processor = time.perf_counter(), time.process_time()
    index = write_report(folder / "out", [folder / "in"])
    page = index.with_name("subject_s1.html")
    return {
        "megabytes": page.stat().st_size / 1e6,
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def write_index(home: Path, subjects: int) -> Path:
    """Write the index of many subjects with eight scans and two predictions each; their pages do not matter."""
    from longflow.data.dataset import DatasetDescription
    from longflow.report.rendering import render
    from longflow.report.timeline import Moment, Predicted, Results, Subject

    def subject(number: int) -> Subject:
        name = f"subject{number:05d}"
        acquired = tuple(Moment(case=f"{name}_{time}", time=float(time), images=(home,)) for time in range(8))
        predicted = tuple(Predicted(case=f"{name}_{time}", time=float(time), images=(home,)) for time in (8, 9))
        return Subject(name, acquired, predicted, ())

    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days")
    found = tuple(map(subject, range(subjects)))
    results = Results(home, description, found, {}, {}, {}, (), ())
    index = home / "index.html"
    rows = [(one, f"subject_{one.name}.html", 0) for one in found]
    index.write_text(render("index.html.j2", [], results=results, rows=rows), encoding="utf-8")
    return index


def open_pages(pages: list[tuple[str, Path]]) -> None:
    """Print the seconds from opening each page until its slider works, and until the comparison does, too."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for name, path in pages:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(300_000)
            start = time.perf_counter()
            page.goto(path.as_uri())
            print(f"{name}: open in the browser after {time.perf_counter() - start:.1f} s")
            for state, means in (("interactive", "the slider works"), ("ready", "everything works")):
                if name != "index":
                    page.wait_for_selector(f"html[data-{state}]", state="attached")
                    print(f"{name}: {means} after {time.perf_counter() - start:.1f} s")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
