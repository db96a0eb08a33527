"""Compare longflow's `unet` with nnU-Net itself: Dice of one validation fold, and seconds per training step.

Both see the same scans, folds, target spacing, patch, batch, network, number of steps and seed: nnU-Net plans, and its
plan is put into longflow's. (nnU-Net draws its patches in unseeded processes, so that the seed governs its first
weights alone, and no two of its runs are equal.) nnU-Net's learning rate falls from epoch to epoch: the steps are cut
into 20. Seconds per step are those of training, waiting for data included; validation and files are not counted, nor is
the first quarter of the steps, in which processes start and queues fill. Dice of both comes from nnU-Net's
`compute_metrics_on_folder` on the label maps of the validation fold, which both predict with mirroring, with the
weights at the end. On a CPU nnU-Net trains in the precision of longflow: bf16 where that computes in it.

Before that, two ratios that other programs disturb least: both networks in one process, in turns, with the same
weights, loss, precision and threads. They are of a step without loader and augmentation, and of the prediction of an
image with mirroring.

The folder holds images and labels as in the Medical Segmentation Decathlon: imagesTr and labelsTr (or images and
labels) with files of the same names, or nnU-Net's names; one channel.

    python benchmarks/nnunet.py Task04_Hippocampus --subjects 40 --iterations 200 --features 16 --batch_size 2
    python benchmarks/nnunet.py Task04_Hippocampus --iterations 25000 --device cuda --workers 8
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

NAME, CONFIGURATION, ENDING, EPOCHS = "Dataset999_Benchmark", "3d_fullres", ".nii.gz", 20
UNTIMED = 0.25
TOOLS = ("nnunet", "longflow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with imagesTr and labelsTr")
    parser.add_argument("--iterations", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument("--fold", type=int, default=0, help="default: 0")
    parser.add_argument("--subjects", type=int, help="use the first so many (default: all)")
    parser.add_argument("--batch_size", type=int, help="instead of the planned one, for both")
    parser.add_argument("--features", type=int, help="of the first stage, instead of the planned 32, for both")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw patches, for each (default: 1)")
    parser.add_argument("--work", type=Path, help="folder to work in and keep (default: a temporary one)")
    parser.add_argument("--tool", choices=("plan", "alternate", *TOOLS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.iterations % EPOCHS:
        parser.error(f"--iterations must be a multiple of {EPOCHS}")
    if options.tool:
        tools = {"plan": plan_both, "alternate": alternate, "nnunet": train_nnunet, "longflow": train_longflow}
        tools[options.tool](options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.work = (options.work or Path(temporary)).resolve()
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Each tool in a process of its own, one after the other."""
    copy_raw_data(options)
    in_own_process("plan", options)
    in_turns = in_own_process("alternate", options)
    print(f"\n{in_turns['compared']}")
    for work in ("step", "prediction"):
        nnunet, longflow = in_turns[work]
        print(f"{work:10s} nnunet {nnunet:.3f} s, longflow {longflow:.3f} s: {longflow / nnunet:.2f} of its time")
    print(f"largest difference of the logits: {in_turns['difference']:.1e} of the largest logit\n")
    results = {tool: in_own_process(tool, options) for tool in TOOLS}
    print(f"\nfold {options.fold}, {options.iterations} steps, {options.device}")
    print(f"{'':10s} {'mean Dice':>10s} {'s per step':>11s}")
    for tool, result in results.items():
        print(f"{tool:10s} {result['dice']:10.4f} {result['seconds']:11.3f}   {result['by_label']}")
    nnunet, longflow = (results[tool] for tool in TOOLS)
    faster = nnunet["seconds"] / longflow["seconds"]
    print(f"longflow - nnunet: Dice {longflow['dice'] - nnunet['dice']:+.4f}; {faster:.2f} times as fast")


def in_own_process(tool: str, options: argparse.Namespace) -> dict:
    """What a tool found, which it leaves as JSON in the working folder."""
    folders = {f"nnUNet_{kind}": str(options.work / "nnunet" / kind) for kind in ("raw", "preprocessed", "results")}
    environment = (
        os.environ
        | folders
        | {
            "LONGFLOW_HOME": str(options.work / "longflow"),
            "nnUNet_n_proc_DA": str(options.workers),
            "nnUNet_def_n_proc": "2",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    )
    arguments = [*sys.argv[1:], "--work", str(options.work), "--tool", tool]
    print(f"{tool} ...", flush=True)
    with open(options.work / f"{tool}.log", "w") as log:
        done = subprocess.run([sys.executable, __file__, *arguments], env=environment, stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"{tool} failed:\n" + "\n".join((options.work / f"{tool}.log").read_text().splitlines()[-25:]))
    result = options.work / f"{tool}.json"
    return json.loads(result.read_text()) if result.is_file() else {}


def copy_raw_data(options: argparse.Namespace) -> None:
    """The raw dataset of both tools; longflow's has a table of scans, each a subject of its own."""
    images = next(path for name in ("imagesTr", "images") if (path := options.data / name).is_dir())
    labels = options.data / images.name.replace("images", "labels")
    cases = sorted(path.name.removesuffix(ENDING) for path in labels.glob(f"[!.]*{ENDING}"))[: options.subjects]
    if not cases:
        sys.exit(f"There are no label images ({ENDING}) in {labels}.")
    described = options.data / "dataset.json"
    content = json.loads(described.read_text()) if described.is_file() else {}
    names = content.get("labels") or {"background": 0, "anterior": 1, "posterior": 2}
    if "0" in names:  # as the Decathlon has it
        names = {name: int(value) for value, name in names.items()}
    dataset = {
        "channel_names": content.get("channel_names") or content.get("modality") or {"0": "MRI"},
        "labels": names,
        "numTraining": len(cases),
        "file_ending": ENDING,
    }
    for tool, more in (("nnunet", {}), ("longflow", {"task": "segment", "time_unit": "days"})):
        raw = options.work / tool / "raw" / NAME
        for folder in ("imagesTr", "labelsTr"):
            (raw / folder).mkdir(parents=True, exist_ok=True)
        for case in cases:
            image = images / f"{case}{ENDING}"
            image = image if image.is_file() else images / f"{case}_0000{ENDING}"
            shutil.copyfile(image, raw / "imagesTr" / f"{case}_0000{ENDING}")
            shutil.copyfile(labels / f"{case}{ENDING}", raw / "labelsTr" / f"{case}{ENDING}")
        (raw / "dataset.json").write_text(json.dumps(dataset | more))
        if tool == "longflow":
            rows = ["case,subject,time", *(f"{case},{case},0" for case in cases)]
            (raw / "scans.csv").write_text("\n".join(rows) + "\n")


def plan_both(options: argparse.Namespace) -> None:
    """nnU-Net's plan, with the requested batch and features, for both; the same folds; both preprocess."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.utilities.crossval_split import generate_crossval_split
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from longflow.cli import extract_fingerprint, plan, preprocess
    from longflow.paths import DatasetPaths
    from longflow.plans import read_plans, write_plans

    number = int(NAME[7:10])
    extract_fingerprints([number], num_processes=2, show_progress_bar=False)
    plan_experiments([number])
    theirs = options.work / "nnunet" / "preprocessed" / NAME
    planned = json.loads((theirs / "nnUNetPlans.json").read_text())
    configuration = planned["configurations"][CONFIGURATION]
    network = configuration["architecture"]["arch_kwargs"]
    if options.batch_size:
        configuration["batch_size"] = options.batch_size
    if options.features:
        share = options.features / network["features_per_stage"][0]
        network["features_per_stage"] = [round(share * features) for features in network["features_per_stage"]]
    (theirs / "nnUNetPlans.json").write_text(json.dumps(planned))
    preprocessor = PlansManager(planned).get_configuration(CONFIGURATION).preprocessor_class(verbose=False)
    preprocessor.run(number, CONFIGURATION, "nnUNetPlans", num_processes=2)
    raw = options.work / "nnunet" / "raw" / NAME
    shutil.copytree(raw / "labelsTr", theirs / "gt_segmentations", dirs_exist_ok=True)

    dataset = DatasetPaths(NAME)
    for command in (extract_fingerprint, plan):
        if command.main(["-d", NAME]):
            sys.exit(1)
    plans = read_plans(dataset.plans())
    ours = plans.configuration(CONFIGURATION)
    before = ours.model_dump()
    ours.spacing, ours.patch_size = configuration["spacing"], configuration["patch_size"]
    ours.batch_size = configuration["batch_size"]
    for name in ("features_per_stage", "strides", "kernel_sizes"):
        setattr(ours.network, name, network[name])
    ours.network.encoder, ours.network.blocks_per_stage = "plain", network["n_conv_per_stage"]
    plans.transpose_forward, plans.transpose_backward = planned["transpose_forward"], planned["transpose_backward"]
    print("longflow planned:", {key: before[key] for key, value in ours.model_dump().items() if before[key] != value})
    print("replaced by nnU-Net's:", {key: value for key, value in ours.model_dump().items() if before[key] != value})
    plans.training.iterations_per_epoch = max(1, round(options.iterations * UNTIMED))
    write_plans(plans, dataset.plans())
    cases = sorted(path.name.removesuffix(ENDING) for path in (raw / "labelsTr").iterdir())
    folds = json.dumps(
        [
            {key: list(map(str, value)) for key, value in one.items()}
            for one in generate_crossval_split(cases, seed=12345, n_splits=min(5, len(cases)))
        ]
    )
    (theirs / "splits_final.json").write_text(folds)
    dataset.splits.write_text(folds)
    if preprocess.main(["-d", NAME, "-c", CONFIGURATION]):
        sys.exit(1)


def alternate(options: argparse.Namespace) -> None:
    """Median seconds of a step and of a prediction of both networks in turns, and how far their logits differ."""
    import numpy as np
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from longflow.inference.windows import WindowSettings
    from longflow.methods.batches import ScanBatch
    from longflow.methods.registry import build_method
    from longflow.networks.precision import autocast, channels_last, computes_bf16
    from longflow.networks.unet import describe_architecture
    from longflow.nnunet import build_network
    from longflow.paths import DatasetPaths
    from longflow.plans import read_plans
    from longflow.tasks.segment.windows import predict_logits

    plans, device = read_plans(DatasetPaths(NAME).plans()), torch.device(options.device)
    configuration = plans.configuration(CONFIGURATION)
    patch, batch = configuration.patch_size, configuration.batch_size
    ours = build_method("unet", plans, CONFIGURATION).to(device).to(memory_format=channels_last(len(patch)))
    outputs = ours.label_manager.num_segmentation_heads
    theirs = build_network(describe_architecture(configuration.network), len(plans.channel_names), outputs).to(device)
    theirs.load_state_dict(ours.network.unet.state_dict())
    image = torch.randn(batch, len(plans.channel_names), *patch, device=device)
    scales = [logits.shape[2:] for logits in theirs(image)]
    labels = [torch.randint(0, outputs, (batch, 1, *scale), device=device).float() for scale in scales]

    def step_of(parameters, loss_of):
        optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.99, nesterov=True, weight_decay=3e-5)

        def step():
            optimizer.zero_grad(set_to_none=True)
            with autocast(device):
                loss = loss_of()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 12)
            optimizer.step()

        return step

    steps = (
        step_of(list(theirs.parameters()), lambda: ours.supervised_loss(theirs(image), labels)),
        step_of(list(ours.parameters()), lambda: ours.training_step(ScanBatch(image=image, labels=labels))),
    )
    found = {"step": in_turns(steps, device)}
    theirs.load_state_dict(ours.network.unet.state_dict())
    theirs.decoder.deep_supervision = False
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=False, allow_tqdm=False)
    predictor.network, predictor.configuration_manager = theirs.eval(), SimpleNamespace(patch_size=patch)
    predictor.allowed_mirroring_axes = tuple(range(len(patch)))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=outputs)
    predictor.list_of_parameters = [theirs.state_dict()]
    shape = (len(plans.channel_names), patch[0] + patch[0] // 2, *patch[1:])  # two tiles
    case = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    predictions = (
        lambda: predictor.predict_logits_from_preprocessed_data(torch.from_numpy(case)).numpy(),
        lambda: predict_logits([ours.eval()], case, WindowSettings(device, 0.5, True)),
    )
    found["prediction"] = in_turns(predictions, device)
    expected, predicted = (predict().astype(np.float32) for predict in predictions)
    found["difference"] = float(abs(expected - predicted).max() / abs(expected).max())
    edges = " x ".join(map(str, case.shape[1:]))
    found["compared"] = (
        f"in turns, {options.device}, {torch.get_num_threads()} threads: a step in "
        f"{'bf16' if computes_bf16(device) else 'float32'} of {batch} x {' x '.join(map(str, patch))}, features "
        f"{configuration.network.features_per_stage}; a prediction of {edges} with mirroring"
    )
    (options.work / "alternate.json").write_text(json.dumps(found))


def in_turns(works, device, rounds: int = 3) -> list[float]:
    """Median seconds of each of several works, done one after the other in each round; the first does not count."""
    import torch

    seconds = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, mine in zip(works, seconds, strict=True):
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            mine.append(time.perf_counter() - begun)
    return [sorted(mine[1:])[rounds // 2] for mine in seconds]


def train_nnunet(options: argparse.Namespace) -> None:
    """nnU-Net's trainer with a chosen number of steps."""
    import numpy as np
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from longflow.networks.precision import autocast

    class ShortTrainer(nnUNetTrainer):
        """So many steps, cut into epochs; one step of validation after each; no files but the label maps."""

        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = EPOCHS
            self.num_iterations_per_epoch = options.iterations // EPOCHS
            self.num_val_iterations_per_epoch = 1
            self.disable_checkpointing = True
            self.seconds, self.steps = 0.0, 0

        def train_step(self, batch):
            with autocast(self.device) if self.device.type == "cpu" else nullcontext():
                return super().train_step(batch)

        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            self.begun = time.monotonic()

        def on_train_epoch_end(self, train_outputs):
            if self.current_epoch >= UNTIMED * self.num_epochs:
                self.seconds += time.monotonic() - self.begun
                self.steps += len(train_outputs)
            super().on_train_epoch_end(train_outputs)

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(options.seed)
    folder = options.work / "nnunet" / "preprocessed" / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    dataset = json.loads((options.work / "nnunet" / "raw" / NAME / "dataset.json").read_text())
    trainer = ShortTrainer(plans, CONFIGURATION, options.fold, dataset, torch.device(options.device))
    trainer.run_training()
    trainer.perform_actual_validation()
    report("nnunet", options, Path(trainer.output_folder) / "validation", trainer.seconds / trainer.steps)


def train_longflow(options: argparse.Namespace) -> None:
    """longflow_train with the same number of steps."""
    from longflow.cli import train
    from longflow.paths import DatasetPaths
    from longflow.tasks.segment.validation import LabelValidation
    from longflow.training.logbook import read_progress

    score, validated = LabelValidation.score, []

    def timed(self, method):
        begun = time.monotonic()
        found = score(self, method)
        validated.append(time.monotonic() - begun)
        return found

    LabelValidation.score = timed
    flags = {
        "--iterations": options.iterations,
        "--seed": options.seed,
        "--device": options.device,
        "-np": options.workers,
    }
    arguments = [text for flag, value in flags.items() for text in (flag, str(value))]
    if train.main([NAME, CONFIGURATION, str(options.fold), "-m", "unet", "--overwrite", *arguments]):
        sys.exit(1)
    fold = DatasetPaths(NAME).model("unet", "longflowPlans", CONFIGURATION).fold(options.fold)
    first, *_, last = read_progress(fold.progress_csv)
    # what the log counts holds validation, of which the first belongs to the quarter that is not timed
    seconds = (last.seconds - first.seconds - sum(validated[1:])) / (last.iteration - first.iteration)
    report("longflow", options, fold.validation("labels"), seconds)


def report(tool: str, options: argparse.Namespace, predicted: Path, seconds: float) -> None:
    """Dice of label maps, by nnU-Net's own code for both tools, as JSON in the working folder."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    raw = options.work / "nnunet" / "raw" / NAME
    names = json.loads((raw / "dataset.json").read_text())["labels"]
    values = [value for name, value in names.items() if name not in ("background", "ignore")]
    metrics = compute_metrics_on_folder(
        str(raw / "labelsTr"), str(predicted), None, SimpleITKIO(), ENDING, values, num_processes=2
    )
    found = {
        "dice": metrics["foreground_mean"]["Dice"],
        "by_label": {
            name: round(metrics["mean"][value]["Dice"], 4) for name, value in names.items() if value in values
        },
        "scans": len(metrics["metric_per_case"]),
        "seconds": seconds,
    }
    (options.work / f"{tool}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
