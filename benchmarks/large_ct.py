"""Measure the memory and the seconds of a prediction of a large CT, for each task, beside nnU-Net's own.

A synthetic CT (int16, 0.8 x 0.8 x 1 mm, smooth structures and noise) is predicted by ``longflow_predict`` in a process
of its own. The model is planned on small phantoms, preset tiny; its weights are random, on which memory does not
depend. The peak is that of the process' resident memory (VmHWM) above what it takes after everything is imported. A
thread of that process looks every 20 ms at what is done and how much memory is taken: a table of stages. ``--nnunet``
exports the model that segments and measures nnU-Net's predictor on the same scan. ``--stand_in`` takes multiples of the
image for what the network predicts: minutes instead of an hour, but the network's own memory is missing.

    python benchmarks/large_ct.py                                  # label map of 600 x 512 x 512 voxels
    python benchmarks/large_ct.py --nnunet --stand_in --spacing 1.25 1 1
    python benchmarks/large_ct.py --task translate forecast --shape 300 256 256
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

SPACING, NOISE, SMALL = (1.0, 0.8, 0.8), 15.0, (64, 112, 112)
SUBJECTS, SEED = 4, 0
NUMBERS = {"segment": 991, "translate": 992, "forecast": 993}
MODELS = {"segment": ("unet", "3d_fullres"), "translate": ("mfm", "2d"), "forecast": ("cronos", "3d_fullres")}
#: functions of longflow and nnU-Net that are a stage, the innermost that runs counts
STAGES = {
    **dict.fromkeys(("read_scan", "read_images"), "reading"),
    **dict.fromkeys(("input_warnings",), "checks"),
    **dict.fromkeys(("prepare_volumes", "run_case"), "preparing"),
    **dict.fromkeys(("weighted_slices", "weighted_mean", "predict_sliding_window_return_logits"), "network"),
    **dict.fromkeys(("export_slices", "linear_slices", "export_labels", "export_forecast"), "export"),
    **dict.fromkeys(("export_prediction_from_logits",), "export"),
    **dict.fromkeys(("write_volume", "write_seg"), "writing"),
    **dict.fromkeys(("structure_volumes",), "volumes"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512], help="z y x (default: 600 512 512)")
    parser.add_argument("--task", nargs="+", choices=NUMBERS, default=["segment"], help="default: segment")
    parser.add_argument("--spacing", type=float, nargs=3, help="of the model's grid, mm (default: that of the scan)")
    parser.add_argument("--step", type=float, default=1.0, help="between tiles, as a share of them (default: 1)")
    parser.add_argument("--nnunet", action="store_true", help="measure nnU-Net's predictor too")
    parser.add_argument("--stand_in", action="store_true", help="multiples of the image instead of a network")
    parser.add_argument("--work", type=Path, help="folder to work in and keep (default: a temporary one)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write("\n" + json.dumps(measured(*options.child)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.work or Path(temporary)).resolve()
        os.environ["LONGFLOW_HOME"] = str(home)
        for task in options.task:
            compare(task, home, options)


def compare(task: str, home: Path, options: argparse.Namespace) -> None:
    """Measure each tool on one scan, in a process of its own."""
    make_model(task, options)
    folder = make_scan(task, home / f"scan_{task}", tuple(options.shape))
    tools = ["longflow", *(["nnunet"] if options.nnunet and task == "segment" else [])]
    for tool in tools:
        command = [sys.executable, __file__, "--child", tool, task, str(folder), str(home / f"out_{task}_{tool}")]
        command += [str(options.step), *(["stand_in"] if options.stand_in else [])]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        show(tool, task, options.shape, json.loads(printed.splitlines()[-1]))


def show(tool: str, task: str, shape: list[int], found: dict) -> None:
    """Print what one tool took."""
    volume = 4 * np.prod(shape) / 1e9
    size = " x ".join(map(str, shape))
    sys.stdout.write(
        f"\n{tool}, {task}, {size} voxels (float32: {volume:.2f} GB): {found['peak']:.2f} GB above the import, "
        f"{found['peak'] / volume:.1f} volumes, {found['seconds']:.0f} s ({found['cpu']:.0f} s of the CPU); "
        f"the import takes {found['imported']:.2f} GB\n"
    )
    for stage, (seconds, peak) in found["stages"].items():
        sys.stdout.write(f"    {stage:<12}{seconds:>8.1f} s{peak:>8.2f} GB\n")
    sys.stdout.flush()


# ---- data and model


def make_scan(task: str, folder: Path, shape: tuple[int, ...]) -> Path:
    """Write the input folder: one scan, and for a forecast the row that is requested."""
    from longflow.data.dataset import Scan, write_scans

    rows = [Scan("large", "large", 0.0, (), covariates=phase_of(task, 0))]
    write_ct(folder / "large_0000.nii.gz", shape, SEED)
    if task == "forecast":
        rows.append(Scan("later", "large", 1.0, ()))
    write_scans(rows, folder / "scans.csv")
    return folder


def phase_of(task: str, position: int) -> dict[str, str]:
    return {"phase": ("native", "arterial")[position]} if task == "translate" else {}


def make_model(task: str, options: argparse.Namespace) -> None:
    """Plan on small phantoms and write random weights."""
    import torch

    from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
    from longflow.files import write_json
    from longflow.methods.registry import build_method
    from longflow.methods.weights import Checkpoint, write_checkpoint
    from longflow.paths import DatasetPaths
    from longflow.plans import read_plans, write_plans
    from longflow.reading import read_json

    paths = DatasetPaths(f"Dataset{NUMBERS[task]}_Large")
    further = {"labels": {"background": 0, "body": 1, "organ": 2}} if task == "segment" else {}
    further |= {"phases": ["native", "arterial"]} if task == "translate" else {}
    description = DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="years", task=task, **further
    )
    rows = []
    for number in range(SUBJECTS):
        for position in range(1 if task == "segment" else 2):
            case, time = f"p{number}_{position}", 0.0 if task == "translate" else float(position)
            rows.append(Scan(case, f"p{number}", time, (), covariates=phase_of(task, position)))
            label = paths.raw / "labelsTr" / f"{case}.nii.gz" if task == "segment" else None
            write_ct(paths.raw / "imagesTr" / f"{case}_0000.nii.gz", SMALL, 1 + number, 40.0 * position, label)
    write_scans(rows, paths.raw / "scans.csv")
    write_description(description, paths.raw / "dataset.json")
    script = "import sys; from longflow.cli.plan_and_preprocess import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", script, "-d", str(NUMBERS[task]), "--preset", "tiny"], check=True)
    method, configuration = MODELS[task]
    content = read_plans(paths.plans()).model_dump()
    content["inference"]["tile_step_size"] = options.step
    if options.spacing:
        content["configurations"][configuration]["spacing"] = options.spacing
    model = paths.model(method, content["plans_name"], configuration)
    write_json(content, model.plans)
    plans = read_plans(model.plans)
    write_plans(plans, model.plans)
    write_json(read_json(paths.raw / "dataset.json"), model.dataset_json)
    torch.manual_seed(SEED)
    network = build_method(method, plans, configuration)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    tensors = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    header = {"method": method, "plan_identity": plans.identity(configuration)}
    write_checkpoint(Checkpoint(tensors, header), model.fold(0).final)


def write_ct(path: Path, shape: tuple[int, ...], seed: int, brighter: float = 0.0, label: Path | None = None) -> None:
    """Write a phantom: air, an elliptic body with waves, an organ; Hounsfield units, whole numbers."""
    from longflow.data.images import Geometry, write_volume

    random = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    y, x = y[:, None], x[None]
    body = (y / 0.75) ** 2 + (x / 0.9) ** 2 < 1
    array, labels = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    for number, height in enumerate(z):
        organ = ((y - 0.2) / 0.3) ** 2 + ((x + 0.3) / 0.35) ** 2 + (height / 0.8) ** 2 < 1
        tissue = 40 + 30 * np.sin(9 * x + 4 * height) * np.cos(7 * y) + (60 + brighter) * organ
        plane = np.where(body, tissue, -1000) + NOISE * random.standard_normal(body.shape, dtype=np.float32)
        array[number] = np.rint(plane)
        labels[number] = body.astype(np.uint8) + organ
    geometry = Geometry(shape[::-1], SPACING[::-1], (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    write_volume(array, geometry, "int16", path)
    if label is not None:
        write_volume(labels, geometry, "uint8", label)


# ---- in the process that is measured


def measured(tool: str, task: str, source: str, output: str, step: str, network: str = "") -> dict:
    """Predict, and watch this process."""
    work = (
        with_nnunet(source, output, step, network) if tool == "nnunet" else with_longflow(task, source, output, network)
    )
    imported = resident("VmRSS")
    sampler = Sampler()
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    sampler.stop()
    return {
        "imported": imported,
        "peak": resident("VmHWM") - imported,
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "stages": {stage: (seconds, peak - imported) for stage, (seconds, peak) in sampler.stages.items()},
    }


def multiples(image):
    """As many outputs as the phantom has labels, of the same places: what a network costs is left out."""
    import torch

    return torch.cat([image * factor for factor in (1, 2, -1)], dim=1)


def use_stand_in(task: str) -> None:
    """Leave out what the network of a task costs."""
    from longflow.methods.registry import method_class
    from longflow.networks.unet import UNet

    def predict(method, batch):
        scan = batch.source if task == "translate" else batch.context[:, -1]
        return dict.fromkeys(method.reductions, 1.01 * scan)

    if task == "segment":
        UNet.finest = lambda _, image: multiples(image)
    else:
        method_class(MODELS[task][0]).predict = predict


def with_longflow(task: str, source: str, output: str, network: str):
    """Import what ``longflow_predict`` does."""
    import nnunetv2.inference.sliding_window_prediction
    import nnunetv2.preprocessing.resampling.default_resampling
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer  # noqa: F401

    from longflow.cli.predict import main as predict
    from longflow.inference.predictor import load_predictor, predict_folder  # noqa: F401
    from longflow.task import get_task

    get_task(task).predictor()
    if network == "stand_in":
        use_stand_in(task)
    to = ["--to", "arterial"] if task == "translate" else []

    def work() -> None:
        sys.stdout = sys.stderr  # the caller reads the figures from the standard output
        arguments = ["-i", source, "-o", output, "-d", str(NUMBERS[task]), "--device", "cpu", "--overwrite", *to]
        if predict(arguments):
            raise SystemExit("longflow_predict failed")
        sys.stdout = sys.__stdout__

    return work


def with_nnunet(source: str, output: str, step: str, network: str):
    """Export the model and load it into nnU-Net's predictor, as it predicts one file after the other."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from longflow.inference.selection import select
    from longflow.tasks.segment.nnunet_export import export_to_nnunet

    model = Path(output) / "model"
    export_to_nnunet(select(str(NUMBERS["segment"]), None, None, None), model, overwrite=True)
    predictor = nnUNetPredictor(float(step), use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    if network == "stand_in":
        predictor.network = torch.nn.Identity()
        predictor.network.forward = multiples
        predictor.list_of_parameters = [{}]

    def work() -> None:
        sys.stdout = sys.stderr
        files, written = [[str(Path(source) / "large_0000.nii.gz")]], [str(Path(output) / "large")]
        predictor.predict_from_files_sequential(files, written, overwrite=True)
        sys.stdout = sys.__stdout__

    return work


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process, GB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(f"/proc/self/status has no {field}")


class Sampler:
    """Looks at this process every so often: which stage runs, and how much memory is taken."""

    def __init__(self, every: float = 0.02):
        self.stages: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._every, self._stopped = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        latest = time.perf_counter()
        while not self._stopped.wait(self._every):
            frames = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
            found = {stage for frame in frames if (stage := stage_of(frame))}
            name, now = " + ".join(sorted(found)) or "other", time.perf_counter()
            seconds, peak = self.stages[name]
            self.stages[name] = seconds + now - latest, max(peak, resident("VmRSS"))
            latest = now


def stage_of(frame) -> str | None:
    """The innermost stage of a stack."""
    while frame is not None:
        if stage := STAGES.get(frame.f_code.co_name):
            return stage
        frame = frame.f_back
    return None


if __name__ == "__main__":
    main()
