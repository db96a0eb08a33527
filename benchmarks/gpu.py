"""Measure training on a GPU: three tasks, presets M and L, phantoms of a usual size; a Markdown table and JSON.

    python benchmarks/gpu.py                                                 # a CUDA GPU, at most ten minutes
    python benchmarks/gpu.py --preset L                                      # rows for which there was no time
    python benchmarks/gpu.py --device cpu --preset tiny --steps 5            # tests this script

Each row is a process of its own that plans, prepares phantoms and trains by longflow's own loop, without validation.
The steps before the measured ones compile the network and fill the queues. Columns:

- step: milliseconds, waiting for data included; the median, as that of plain;
- data: share of the time in which the loop waits for a batch;
- busy: share of the time in which the GPU computes anything (nvidia-smi, every 100 ms);
- peak: GB that torch reserved on the GPU, or GB of resident memory less that before the training on a CPU;
- plan: GB that the plan promises for this method;
- plain: milliseconds of the same step in the usual way: float32, PyTorch's layout, not compiled, the loss read in every
  step, one batch that stays on the device. It has neither augmentation nor averaged weights.

The last row is a step of nnU-Net itself and of longflow's `unet` with nnU-Net's plan (`benchmarks/nnunet.py`).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from longflow.cli.train import default_workers
from longflow.data.dataset import DatasetDescription, Scan, Series
from longflow.data.images import Geometry, Volume, write_volume
from longflow.distributed import Processes
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.phases import PhaseFingerprint
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.fingerprint.temporal import temporal_fingerprint
from longflow.job import FoldJob, FoldSettings
from longflow.methods.registry import samples_of
from longflow.paths import DatasetPaths
from longflow.planning.plan import make_plans
from longflow.plans import Plans
from longflow.preprocessing.prepared import RawSeries
from longflow.preprocessing.series import prepare_volumes, save_prepared
from longflow.stop import StopSignal
from longflow.task import get_task
from longflow.training import loop
from longflow.training.cost import peak_memory
from longflow.training.run import optimizer_of, set_up_run
from longflow.training.splits import Cohort

#: scans of a subject, voxels of a scan, mm
PHANTOMS = {
    "forecast": (16, (32, 192, 192), (5.0, 1.4, 1.4)),
    "segment": (2, (128, 160, 160), (1.0, 1.0, 1.0)),
    "translate": (2, (48, 320, 320), (3.0, 0.8, 0.8)),
}
SMALL = {"forecast": (6, (8, 48, 48)), "segment": (2, (24, 48, 48)), "translate": (2, (8, 64, 64))}
SUBJECTS, SPACE = 5, "3d_fullres"
#: steps before the measured ones, by device; seconds of all rows together: a row that is not done is left out
UNTIMED, LIMIT = {"cuda": 40, "cpu": 3}, 590


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=UNTIMED, default="cuda", help="default: cuda")
    parser.add_argument("--preset", nargs="+", default=["M", "L"], help="default: M L")
    parser.add_argument("--task", nargs="+", default=[*PHANTOMS], help="default: all three, and nnU-Net with segment")
    parser.add_argument("--steps", type=int, default=100, help="measured steps of each row (default: 100)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON of all rows (default: gpu.json)")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(*options.row, options.device, options.steps)))
        return
    begun = time.monotonic()
    options.end = begun + LIMIT
    first, *others = options.preset
    rows = [row_of(task, first, options) for task in options.task]
    nnunet = compare_with_nnunet(options) if "segment" in options.task else {}
    rows += [row_of(task, preset, options) for preset in others for task in options.task]
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    options.out.write_text(json.dumps({"device": name, "rows": rows, "nnunet": nnunet}, indent=1))
    print(f"\n{name}, torch {torch.__version__}, {options.steps} steps, {time.monotonic() - begun:.0f} s in all\n")
    print(table(rows))
    print(nnunet.get("result", "not compared with nnU-Net"))


def row_of(task: str, preset: str, options: argparse.Namespace) -> dict:
    """The figures of a row; the reason where there are none."""
    print(f"{task}, {preset} ...", flush=True)
    arguments = ["--row", task, preset, "--device", options.device, "--steps", str(options.steps)]
    printed, failure = in_own_process([__file__, *arguments], options.end)
    return {"task": task, "preset": preset, "failed": failure} if failure else json.loads(printed[-1])


def in_own_process(command: list[str], end: float) -> tuple[list[str], str]:
    """The lines that a script prints, and why it failed."""
    try:
        left = max(1.0, end - time.monotonic())
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return [], "no time left"
    return done.stdout.splitlines(), (done.stderr.splitlines() or ["failed"])[-1] if done.returncode else ""


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    columns = ("task", "preset", "method", "patch", "batch", "step", "data", "busy", "peak", "plan", "plain")
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        lines.append(" | ".join(str(row.get(name, row.get("failed", ""))) for name in columns))
    return "\n".join(f"| {line} |" for line in lines)


# ---- one row


def measure(task: str, preset: str, device: str, steps: int) -> dict:
    """Plan, prepare, train, compare; in this process."""
    scans, shape, spacing = PHANTOMS[task]
    if preset == "tiny":
        scans, shape = SMALL[task]
    with tempfile.TemporaryDirectory() as folder:
        plans = plan(task, preset, scans, shape, spacing)
        cohort = prepare(plans, Path(folder), scans, shape, spacing)
        method = get_task(task).default_method
        settings = FoldSettings(
            iterations=UNTIMED[device] + steps, device=device, workers=default_workers(device), checkpoint_every=1e9
        )
        job = FoldJob(DatasetPaths(plans.dataset_name), plans, SPACE, method, 0, settings)
        row = {"task": task, "preset": preset, "method": method, "patch": job.plan.patch_size}
        row |= {"batch": job.plan.batch_size, "plan": job.plan.memory_estimate[method]}
        row |= train(job, cohort, steps)
    return row | {"plain": round(plain_step(job, min(steps, 20)), 1)}


def plan(task: str, preset: str, scans: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Plans:
    """What longflow_plan decides for such a dataset."""
    intensities = ChannelIntensities(
        mean=1.0, median=1.0, std=0.5, min=0.0, max=3.0, percentile_99_5=2.5, percentile_00_5=0.0, count=10**6,
        data_types=["float32"],
    )  # fmt: skip
    series = Series("s", tuple(Scan(str(time), "s", time, ()) for time in times_of(task, scans)))
    sizes = {"shapes_before_crop": [list(shape)] * SUBJECTS, "shapes_after_crop": [list(shape)] * SUBJECTS}
    phases = PhaseFingerprint(names=["native", "arterial"], pairs=SUBJECTS, without_pair=[], single=[], other_phases={})
    fingerprint = Fingerprint(
        dataset_name="Dataset999_Phantoms",
        raw_digest="0",
        subjects=[f"s{number}" for number in range(SUBJECTS)],
        spatial=SpatialFingerprint(
            spacings=[list(spacing)] * SUBJECTS,
            **sizes,
            median_relative_size_after_cropping=1,
            foreground_intensity_properties_per_channel={"0": intensities},
        ),
        temporal=temporal_fingerprint([series] * SUBJECTS, "days"),
        phases=phases if task == "translate" else None,
    )
    labels = {"background": 0, "inner": 1, "outer": 2} if task == "segment" else {}
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task=task, labels=labels
    )
    return make_plans(fingerprint, description, preset)


def times_of(task: str, scans: int) -> list[float]:
    """Both phases of a translation have one time."""
    return [0.0] * scans if task == "translate" else [30.0 * number for number in range(scans)]


def phantom(shape: tuple[int, ...], subject: int, scan: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy ellipsoid that grows from scan to scan, and its labels: inner 1, outer 2."""
    axes = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    distance = sum(axis**2 for axis in axes) ** 0.5
    noise = np.random.default_rng([subject, scan]).normal(0, 0.1, shape)
    label = (distance < 0.9).astype(np.int16) * 2
    label[distance < 0.3 + 0.02 * scan] = 1
    return (np.array([0.0, 2.0, 1.0])[label] + noise * (label > 0)).astype(np.float32), label


def prepare(plans: Plans, folder: Path, scans: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Cohort:
    """The prepared phantoms."""
    geometry = Geometry(shape[::-1], spacing[::-1], (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    cases, task = {}, plans.task
    for subject in range(SUBJECTS):
        name = f"s{subject}"
        cases[name] = [f"{name}_{scan}" for scan in range(scans)]
        made = [phantom(shape, subject, scan) for scan in range(scans)]
        volumes = [Volume(image[None], geometry, "float32") for image, _ in made]
        labels = [label if task == "segment" else None for _, label in made]
        further = {"phases": plans.phases} if task == "translate" else {}
        raw = RawSeries(name, cases[name], times_of(task, scans), volumes, labels, **further)
        save_prepared(prepare_volumes(raw, plans, SPACE), folder, plans.configuration(SPACE).patch_size)
    return Cohort(folder, cases)


def train(job: FoldJob, cohort: Cohort, steps: int) -> dict:
    """longflow's loop without validation and log; only the last steps are measured."""
    device = torch.device(job.settings.device)
    resident = 0 if device.type == "cuda" else peak_memory(device)
    run = set_up_run(job, Processes(0, 1, device), None)
    samples = samples_of(run.method)(cohort, job.plans, job.configuration, job.settings.seed, run.method.augmented)
    watch, times = Watch(device), []
    batches = loop.training_batches
    loop.training_batches = lambda *given: watch.waited_for(batches(*given))

    def after_step(share: float, state) -> None:
        if state.iteration == UNTIMED[device.type]:
            watch.begin()
        times.append(time.perf_counter())

    loop.validate = loop.save_state = lambda run: None
    with StopSignal() as run.stop:
        loop._loop(run, samples, None, after_step, lambda folder: None)
    seconds, waited, busy = watch.end()
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory(device) - resident
    return {
        "step": round(1e3 * float(np.median(np.diff(times[-steps - 1 :]))), 1),
        "data": f"{waited / seconds:.0%}",
        "busy": "" if busy is None else f"{busy:.0%}",
        "peak": round(peak / 1024**3, 2),
    }


class Watch:
    """The time of the measured steps, that spent waiting for batches, and how busy the GPU was."""

    def __init__(self, device: torch.device):
        self.on_gpu, self.waited, self.sampler = device.type == "cuda", 0.0, None

    def waited_for(self, batches):
        """The same batches; the time that each takes is added up."""
        batches = iter(batches)
        while True:
            begun = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - begun
            yield batch

    def begin(self) -> None:
        self._synchronize()
        self.waited, self.begun = 0.0, time.perf_counter()
        if self.on_gpu and shutil.which("nvidia-smi"):
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
            index = str(torch.cuda.current_device())
            self.sampler = subprocess.Popen(["nvidia-smi", "-i", index, *query], stdout=subprocess.PIPE, text=True)

    def end(self) -> tuple[float, float, float | None]:
        """Seconds, seconds of waiting, busy share."""
        self._synchronize()
        seconds, busy = time.perf_counter() - self.begun, None
        if self.sampler:
            self.sampler.terminate()
            found = [int(line) for line in self.sampler.communicate()[0].split() if line.isdigit()]
            busy = sum(found) / len(found) / 100 if found else None
        return seconds, self.waited, busy

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def plain_step(job: FoldJob, steps: int) -> float:
    """Milliseconds of the same training step in the usual way; the median."""
    device = torch.device(job.settings.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    run = set_up_run(replace(job, settings=replace(job.settings, compile=False)), Processes(0, 1, device), None)
    method = run.method.to(memory_format=torch.contiguous_format)
    optimizer = optimizer_of(run.recipe, method.parameters(), run.learning_rate)
    batch = samples_of(method).largest_batch(job.plans, job.configuration, job.plan.batch_size).to(device)
    seconds = []
    for _ in range(3 + steps):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = method.training_step(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), run.recipe.gradient_clip)
        optimizer.step()
        loss.item()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(seconds[3:]))


# ---- nnU-Net


def compare_with_nnunet(options: argparse.Namespace) -> dict:
    """Run benchmarks/nnunet.py on phantoms with single scans."""
    small = "tiny" in options.preset
    shape = SMALL["segment"][1] if small else PHANTOMS["segment"][1]
    steps = max(20, options.steps // 20 * 20)
    print("nnU-Net ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        geometry = Geometry(shape[::-1], (1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        for number in range(SUBJECTS):
            image, label = phantom(shape, number, 0)
            write_volume(image, geometry, "float32", data / "imagesTr" / f"p{number}_0000.nii.gz")
            write_volume(label, geometry, "int16", data / "labelsTr" / f"p{number}.nii.gz")
        labels = {"background": 0, "inner": 1, "outer": 2}
        (data / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "labels": labels}))
        command = [str(Path(__file__).with_name("nnunet.py")), str(data), "--iterations", str(steps)]
        command += ["--device", options.device, "--workers", str(default_workers(options.device) or 1)]
        command += ["--features", "8", "--batch_size", "2"] if small else []
        lines, failure = in_own_process(command, options.end)
    if failure:
        return {"result": f"nnU-Net: {failure}"}
    seconds = {line.split()[0]: float(line.split()[2]) for line in lines if re.match(r"(nnunet|longflow) +\d", line)}
    return {**seconds, "result": lines[-1]}


if __name__ == "__main__":
    main()
