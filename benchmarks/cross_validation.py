"""Where the time of a training goes: which share of a fold, or of a whole cross-validation, is not training steps.

Trains with `longflow_train` in this process, from scratch, and prints seconds of the clock and of the processor, and
the share of each part: training steps (with the waiting for their data), validations, out-of-fold predictions, figures,
checkpoints, and the rest (start and imports). Results are written to `longflow_results` as by the command.

    longflow_demo                                   # makes and prepares the cohort, in longflow_demo_forecast
    export LONGFLOW_HOME=$PWD/longflow_demo_forecast
    python benchmarks/cross_validation.py 900 3d_fullres 0 --iterations 500
    python benchmarks/cross_validation.py 900 3d_fullres all --iterations 500 --device cpu

Further arguments are those of `longflow_train`. With a GPU, seconds of the processor say little.
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module

#: part, module and function; a function that is called within another part counts there alone
PARTS = (
    ("training steps", "longflow.training.loop", "train_step"),
    ("waiting for data", "longflow.training.loop", "next"),  # the loop gets a measured one of its own
    ("validations", "longflow.training.loop", "validate"),
    ("out-of-fold predictions", "longflow.training.loop", "predict_out_of_fold"),
    ("figures", "longflow.report.drawing", "progress_figure"),
    ("checkpoints", "longflow.training.loop", "save_state"),
)


class Times:
    """Seconds of the clock and of the processor that each part took, and how often it was begun."""

    def __init__(self):
        self.begun = time.perf_counter(), time.process_time()
        self.parts = {part: [0, 0.0, 0.0] for part, _, _ in PARTS}
        self.within = False

    def timed(self, part: str, function: Callable) -> Callable:
        """Return the function, measured."""

        def measured(*arguments, **further):
            if self.within:
                return function(*arguments, **further)
            self.within, begun = True, (time.perf_counter(), time.process_time())
            try:
                return function(*arguments, **further)
            finally:
                self.within = False
                spent = self.parts[part]
                spent[0] += 1
                spent[1] += time.perf_counter() - begun[0]
                spent[2] += time.process_time() - begun[1]

        return measured

    def show(self) -> None:
        """Print the table and the share that is not training steps."""
        whole = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]
        rest = [whole[place] - sum(spent[place + 1] for spent in self.parts.values()) for place in (0, 1)]
        print(f"\n{'part':<26}{'times':>7}{'clock, s':>11}{'share':>8}{'processor, s':>14}{'share':>8}")
        for part, (count, *seconds) in {**self.parts, "start and rest": [1, *rest]}.items():
            cells = "".join(
                f"{one:>{width}.1f}{one / of:>8.1%}" for one, of, width in zip(seconds, whole, (11, 14), strict=True)
            )
            print(f"{part:<26}{count:>7}{cells}")
        clock, processor = (1 - self.parts["training steps"][place + 1] / whole[place] for place in (0, 1))
        print(f"Not training steps: {clock:.1%} of the clock, {processor:.1%} of the processor.")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    times = Times()
    train = import_module("longflow.cli.train")
    for part, module, function in PARTS:
        owner = import_module(module)
        setattr(owner, function, times.timed(part, getattr(owner, function, next)))
    code = train.main([*sys.argv[1:], "--overwrite"])
    times.show()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
