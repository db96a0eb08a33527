"""Explicit time or none, where the requested time decides (CRONOS B.6.2 and table 9), on a phantom or on real scans.

Writes a cohort twice, with the times of its scans and with their order alone, plans both alike, and runs
`longflow_compare` on the held-out subjects. The cohort is that of `longflow/demo/only_time.py`. With `--raw`, it is
made of the training scans of a raw dataset, as the paper says: two of a grid of four frames are drawn, and one of the
later frames is predicted. `--draws` such samples are made of each patient, who is held out whole. The rows:

- LCI;
- cronos_discrete without timestamps: trained on the order alone, as the paper's discrete model;
- cronos without explicit time (`--set explicit_time=off`): the same network without times;
- cronos_discrete on a grid of real times, which tells it of the horizon as far as its spacing allows;
- cronos as printed (`--set mixing=off --set target_code=off --set recurrence=off`), and with each of them alone off.

    python benchmarks/only_time.py --max_time 10m --seeds 0 1 2
    python benchmarks/only_time.py --iterations 20000 --device cuda
    python benchmarks/only_time.py --raw raw/Dataset101_ACDC --test patient081 patient082 --max_time 10m --home acdc

Stopped, the same command goes on where it was. With `--raw`, samples of one patient count as subjects of their own in
the intervals of the table, and the folds of the cohort do not keep them together: only the held-out numbers count.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longflow.commands import Command, run_command
from longflow.compare.targets import link_or_copy
from longflow.data.dataset import Scan, Series, image_path, training_series, write_description, write_scans
from longflow.demo.only_time import WITH_TIMES, WITHOUT_TIMES, write_only_time
from longflow.errors import LongflowError, unknown_name
from longflow.paths import folders_below
from longflow.reading import read_json

#: dataset, arguments of longflow_compare, rows of its table and how they are shown
PARTS = (
    (
        WITH_TIMES,
        ("--study", "time"),
        {
            "lci": "LCI",
            "cronos, no explicit time": "cronos, no explicit time",
            "cronos_discrete": "cronos_discrete, on a grid of real times",
            "cronos, as printed": "cronos, as printed",
            "cronos, no target code": "cronos, no target code",
            "cronos, no W X_0": "cronos, no W X_0",
            "cronos, no expected scan": "cronos, no expected scan",
            "cronos": "cronos (continuous)",
        },
    ),
    (WITHOUT_TIMES, ("-m", "cronos_discrete"), {"cronos_discrete": "cronos_discrete, no timestamps"}),
)
ORDER = (
    "LCI",
    "cronos_discrete, no timestamps",
    "cronos, no explicit time",
    "cronos_discrete, on a grid of real times",
    "cronos, as printed",
    "cronos, no target code",
    "cronos, no W X_0",
    "cronos, no expected scan",
    "cronos (continuous)",
)

#: frames of the grid (B.6.2)
GRID = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("only_time"), help="folder to work in (default: ./only_time)")
    parser.add_argument("--preset", default="tiny", help="default: tiny")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--max_time", help="of every training, as 10m")
    budget.add_argument("--iterations", help="of every training")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="default: 0")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--raw", type=Path, help="raw dataset to draw from (default: the phantom)")
    parser.add_argument("--test", nargs="+", default=[], metavar="SUBJECT", help="held-out subjects, with --raw")
    parser.add_argument("--draws", type=int, default=8, help="samples of each subject, with --raw (default: 8)")
    options = parser.parse_args()
    if bool(options.raw) != bool(options.test):
        parser.error("--raw and --test need each other")

    budget = ("--max_time", options.max_time) if options.max_time else ("--iterations", options.iterations)
    device = ("--device", options.device) if options.device else ()
    rows = {}
    for dataset, what, shown in PARTS:
        raw = options.home / "raw" / dataset
        write_cohort(raw, options, timestamps=dataset == WITH_TIMES)
        if not (options.home / "preprocessed" / dataset / "longflowPlans.json").is_file():
            run(Command("plan_and_preprocess", ("-d", dataset, "--preset", options.preset)), options.home)
        held_out = ("-i", str(raw / "imagesTs"), "--name", "held_out", "--seeds", *options.seeds)
        run(Command("compare", ("-d", dataset, *what, *budget, *held_out, *device)), options.home)
        table = read_json(options.home / "results" / dataset / "comparisons" / "held_out" / "comparison.json")["table"]
        rows |= {shown[line["variant"]]: line for line in table if line["variant"] in shown}

    lci = rows["LCI"]["nrmse"]["mean"]
    print(f"\n{'':44s} {'NRMSE':>8s} {'sd':>7s} {'of LCI':>7s} {'SSIM %':>7s} {'PSNR dB':>8s} {'steps':>7s}")
    for name in ORDER:
        line = rows[name]
        nrmse, ssim, psnr = (line[number]["mean"] for number in ("nrmse", "ssim", "psnr"))
        deviation, steps = line["nrmse"]["sd"], line["cost"]["iterations"]
        sd, steps = "" if deviation is None else f"{deviation:.4f}", "" if steps is None else f"{steps:.0f}"
        print(f"{name:44s} {nrmse:8.4f} {sd:>7s} {nrmse / lci:7.3f} {100 * ssim:7.2f} {psnr:8.2f} {steps:>7s}")


def write_cohort(raw: Path, options: argparse.Namespace, timestamps: bool) -> None:
    """Write the cohort of the phantom or of a raw dataset; end where it cannot be used."""
    try:
        if options.raw:
            write_drawn_grids(raw, options.raw, options.test, options.draws, timestamps)
        else:
            write_only_time(raw, timestamps)
    except LongflowError as error:
        sys.exit(f"Error: {error}")


def write_drawn_grids(raw: Path, source: Path, test: Sequence[str], draws: int, timestamps: bool) -> None:
    """Write a raw dataset of samples drawn from another one; keep a finished one.

    :param raw: to write.
    :param source: raw dataset; subjects with fewer than four scans are not used.
    :param test: held-out subjects, of whose samples the last scan is requested.
    :param draws: samples of each subject; the same in both datasets.
    :param timestamps: write the times of the scans; else 0, 1, 2, their order.
    """
    if (raw / "dataset.json").is_file():
        return
    description, series = training_series(source)
    long = {one.subject: one for one in series if len(one.scans) >= GRID}
    for subject in test:
        if subject not in long:
            raise unknown_name("subject", subject, long, hint=f"(Subjects of {source} with {GRID} scans or more.)")
    generator = np.random.default_rng(0)
    rows: dict[str, list[Scan]] = {"Tr": [], "Ts": []}
    for subject, one in long.items():
        part = "Ts" if subject in test else "Tr"
        for number in range(draws):
            name = f"{subject}_draw{number:02d}"
            for place, scan in enumerate(draw_of_grid(one, generator)):
                case = f"{name}_{place}"
                folder = raw / ("targetsTs" if part == "Ts" and place == 2 else f"images{part}")
                for channel, image in enumerate(scan.images):
                    link_or_copy(image, image_path(folder, case, channel, description))
                rows[part].append(Scan(case, name, scan.time if timestamps else float(place), ()))
    write_scans(rows["Tr"], raw / "scans.csv")
    write_scans(rows["Ts"], raw / "imagesTs" / "scans.csv")
    changes = {"labels": {}, "regions_class_order": [], "period": None}
    changes |= {} if timestamps else {"time_unit": "frames"}
    write_description(description.model_copy(update=changes), raw / "dataset.json")


def draw_of_grid(series: Series, generator: np.random.Generator) -> list[Scan]:
    """Draw two of the first frames of an even grid of four, and one of the frames after them (B.6.2)."""
    step = max(1, (len(series.scans) - 1) // GRID)
    first = int(generator.integers(len(series.scans) - (GRID - 1) * step))
    grid = series.scans[first : first + GRID * step : step]
    early, late = sorted(generator.choice(GRID - 1, 2, replace=False))
    return [grid[early], grid[late], grid[generator.integers(late + 1, GRID)]]


def run(command: Command, home: Path) -> None:
    """Run a command below the folder; end with it where it fails."""
    print(f"$ {command.typed}", flush=True)
    if code := run_command(command, folders_below(home)):
        sys.exit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    main()
