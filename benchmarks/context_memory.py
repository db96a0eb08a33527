"""Peak memory against the number of context scans, for every method of forecasting that trains (CRONOS figure 1b).

    python benchmarks/context_memory.py [--device cpu|cuda] [--scans 2 3 4] [--measure 2 6 11] [--out FOLDER]

The shape is the paper's for ACDC: patches of 32 x 128 x 128, 32 features, batches of one; scans stand on a regular grid
without gaps, so that grid methods have as many slots as there are scans. A training step is estimated by
``longflow.planning.memory``, with optimizer and averaged weights. A prediction is traced in the same way: weights,
scans and one evaluation of the network, of which nothing is kept for the next; the figure of the paper is of a "single
forward pass". ``--measure`` adds what was really taken, as ``benchmarks/memory.py`` measures it; of a prediction, with
two steps of the solver or sampler. Written are ``context_memory.csv`` and ``context_memory.png``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import cycle
from pathlib import Path
from unittest.mock import patch

import memory
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from longflow.compare.figures import COLOURS, MARKERS, outside_legend
from longflow.files import write_csv
from longflow.methods.batches import Batch
from longflow.methods.method import Method
from longflow.methods.registry import build_method, known_methods, method_class, samples_of
from longflow.networks.precision import computes_bf16
from longflow.planning.memory import GB, LiveBytes, training_memory
from longflow.plans import Plans
from longflow.private import fake_tensors
from longflow.report.drawing import save

#: of the paper: features of the first stage (C.3), patch (section 4.1), windowed attention at the bottleneck
FEATURES, PATCH, ATTENTION = 32, [32, 128, 128], True
DASHES = ("-", "--", ":")
KINDS = ("training", "prediction")
COLUMNS = ("method", "context_scans", "step", "estimated_gb", "measured_gb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="default: cpu")
    parser.add_argument("--scans", type=int, nargs="+", default=list(range(2, 12)), help="default: 2 to 11")
    parser.add_argument("--measure", type=int, nargs="*", default=[], help="numbers of scans to measure too")
    parser.add_argument("--methods", nargs="+", default=methods_that_train(), help="default: all that train")
    parser.add_argument("--bf16", action="store_true", help="in bf16 autocast (default: float32)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the table and the figure (default: here)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bf16 and (options.measure or options.one) and not computes_bf16(options.device):
        parser.error(f"longflow does not compute in bf16 on this {options.device}; measure in float32.")
    torch.set_num_threads(options.threads)
    if options.one:
        method, scans, kind = options.one
        memory.SHAPES[method] = shape(method, int(scans))
        work = {"training": memory.train_steps, "prediction": predict}[kind]
        sys.stdout.write(json.dumps(memory.measure_here(method, options.device, options.bf16, work)))
        return
    rows = []
    for method in options.methods:
        for scans in options.scans:
            rows += rows_of(method, scans, options)
            write_csv(COLUMNS, rows, options.out / "context_memory.csv")
    draw(rows, options.out / "context_memory.png", f"{'bf16' if options.bf16 else 'float32'}, {options.device}")


def methods_that_train() -> list[str]:
    """Names of the methods of forecasting that have something to learn."""
    kinds = {name: method_class(name) for name in known_methods()}
    return [name for name, kind in kinds.items() if kind.task == "forecast" and kind.trains and kind.predicts]


def shape(method: str, scans: int) -> tuple:
    """As one of ``memory.SHAPES``."""
    return (method, scans, FEATURES, memory.ISOTROPIC, 1, PATCH, ATTENTION)


def rows_of(method: str, scans: int, options: argparse.Namespace) -> list[dict]:
    """A row for a training step and one for a prediction."""
    plans = memory.plans_of(*shape(method, scans))
    estimates = {
        "training": training_memory(method, plans, "measured", options.device, options.bf16),
        "prediction": prediction_memory(method, plans, options.device, options.bf16),
    }
    rows = []
    for kind in KINDS:
        measured = measured_in_own_process(method, scans, kind, options) if scans in options.measure else None
        found = {"estimated_gb": estimates[kind] / GB, "measured_gb": measured and measured / GB}
        rows.append({"method": method, "context_scans": scans, "step": kind, **found})
        shown = "" if measured is None else f"{measured / GB:>10.3f}{estimates[kind] / measured:>8.2f}"
        sys.stdout.write(f"{method:<18}{scans:>4} {kind:<12}{estimates[kind] / GB:>10.3f}{shown}\n")
        sys.stdout.flush()
    return rows


def measured_in_own_process(method: str, scans: int, kind: str, options: argparse.Namespace) -> int:
    """Peak bytes of one method, number of scans and kind of step."""
    command = [sys.executable, __file__, "--one", method, str(scans), kind, "--device", options.device]
    command += ["--threads", str(options.threads), *(["--bf16"] if options.bf16 else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def prediction_memory(method: str, plans: Plans, device: str, bf16: bool) -> float:
    """Peak of a prediction, in bytes: weights and all that is alive while the network is evaluated once."""
    model = ready_to_predict(method, plans, {})
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    samples_of(model)  # imported before the mode is on
    with fake_tensors(), LiveBytes(device) as live, torch.inference_mode():
        batch = batch_to_predict(model, plans, "cpu")
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext(), one_evaluation():
            model.predict(batch)
    return live.peak + weights


@contextmanager
def one_evaluation() -> Iterator[None]:
    """Solver and sampler take one step; as they look at times, they cannot be traced on fake tensors."""
    diffusion = "longflow.methods.forecasting.latent_diffusion.denoised"
    with patch("longflow.flow.solvers.odeint", one_euler_step), patch(diffusion, one_denoising_step):
        yield


def one_euler_step(field, start: Tensor, times: Tensor, **settings) -> Tensor:
    """What torchdiffeq holds in a step: both ends of its solution, and the point that it has reached."""
    ends, point = start.new_empty(2, *start.shape), start.clone()
    ends[1] = point + field(torch.zeros(()), point)
    return ends


def one_denoising_step(scheduler, noise: Tensor, noise_in) -> Tensor:
    """What MONAI's sampler holds in a step: the noisy latent, the noise found in it, and the latent after it."""
    return noise - noise_in(noise, torch.zeros(len(noise), dtype=torch.long))


def predict(name: str, device: str, bf16: bool, smallest: bool) -> None:
    """A prediction at full size, or at the smallest size that runs the same operations; as ``memory.train_steps``."""
    method, scans, base, strides, batch_size, size, attention = memory.SHAPES[name]
    size = [16] * len(size) if smallest else size
    plans = memory.plans_of(method, scans, base, strides, batch_size, size, attention)
    few = {"sampling_steps": 2} if "sampling_steps" in method_class(method).options else {}
    model = ready_to_predict(method, plans, few).to(device)
    model.steps = 2
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
        model.predict(batch_to_predict(model, plans, device))


def ready_to_predict(method: str, plans: Plans, options: dict) -> Method:
    """An untrained method, in the last of its stages."""
    model = build_method(method, plans, "measured", options).eval()
    model.stage = len(model.stages) - 1
    return model


def batch_to_predict(model: Method, plans: Plans, device: str) -> Batch:
    """A sample without its target, with noise where the method begins with it."""
    batch = samples_of(model).largest_batch(plans, "measured", 1).to(device)
    batch.noise, batch.target = batch.target if model.noise else None, None
    return batch


def draw(rows: list[dict], path: Path, note: str) -> None:
    """Estimates as lines, measured ones as crosses; a half each for training and prediction."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axis, kind in zip(axes, KINDS, strict=True):
        of_kind = [row for row in rows if row["step"] == kind]
        methods = dict.fromkeys(row["method"] for row in rows)
        styles = zip(methods, cycle(COLOURS), cycle(MARKERS), cycle(DASHES))  # methods of one network lie on each other
        for method, colour, marker, dashes in styles:
            own = [row for row in of_kind if row["method"] == method]
            scans, estimates = ([row[name] for row in own] for name in ("context_scans", "estimated_gb"))
            axis.plot(scans, estimates, color=colour, marker=marker, markersize=4, linestyle=dashes, label=method)
            measured = [(row["context_scans"], row["measured_gb"]) for row in own if row["measured_gb"]]
            if measured:
                axis.scatter(*zip(*measured, strict=True), color=colour, marker="x", s=60, linewidth=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("context scans")
        axis.set_title({"training": "a training step", "prediction": "a prediction"}[kind], fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("peak memory, GB")
    outside_legend(figure, *axes[0].get_legend_handles_labels())
    size = " x ".join(map(str, PATCH))
    figure.supxlabel(f"Patch {size}, batch of one, {note}. Lines: estimated. Crosses: measured.", fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
