"""Explicit time or none, where the requested time alone decides (CRONOS B.6.2 and table 9, on a phantom).

Writes the cohort of `longflow/demo/only_time.py` twice, with the times of its scans and with their order alone, plans
both alike, and runs `longflow_compare` on the held-out subjects. The rows:

- LCI;
- cronos_discrete without timestamps: trained on the order alone, as the paper's discrete model;
- cronos without explicit time (`--set explicit_time=off`): the same network without times;
- cronos_discrete on a grid of real times, which tells it of the horizon as far as its spacing allows;
- cronos.

    python benchmarks/only_time.py --max_time 10m --seeds 0 1 2
    python benchmarks/only_time.py --iterations 20000 --device cuda

Stopped, the same command goes on where it was.
"""

import argparse
import sys
from pathlib import Path

from longflow.commands import Command, run_command
from longflow.demo.only_time import WITH_TIMES, WITHOUT_TIMES, write_only_time
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
    "cronos (continuous)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("only_time"), help="folder to work in (default: ./only_time)")
    parser.add_argument("--preset", default="tiny", help="default: tiny")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--max_time", help="of every training, as 10m")
    budget.add_argument("--iterations", help="of every training")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="default: 0")
    parser.add_argument("--device", help="default: a GPU where there is one")
    options = parser.parse_args()

    budget = ("--max_time", options.max_time) if options.max_time else ("--iterations", options.iterations)
    device = ("--device", options.device) if options.device else ()
    rows = {}
    for dataset, what, shown in PARTS:
        raw = options.home / "raw" / dataset
        write_only_time(raw, timestamps=dataset == WITH_TIMES)
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


def run(command: Command, home: Path) -> None:
    """Run a command below the folder; end with it where it fails."""
    print(f"$ {command.typed}", flush=True)
    if code := run_command(command, folders_below(home)):
        sys.exit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    main()
