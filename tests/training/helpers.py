"""A tiny dataset that is ready for training, and finished models that need none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, Scan, image_path, training_series, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.files import write_json
from longflow.job import FoldJob, FoldSettings
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, write_checkpoint
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import InferencePlan, Plans, read_plans, write_plans
from longflow.preprocessing.series import prepare_series, save_prepared
from longflow.reading import read_json
from tests.methods.helpers import conditioned_plans, minimal_plans

SHAPE = (5, 10, 12)
TIMES = (0.0, 10.0, 25.0, 40.0)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def geometry(shape=SHAPE, spacing=(1.0, 1.0, 1.0)) -> Geometry:
    """:param spacing: (z, y, x)."""
    return Geometry(tuple(reversed(shape)), tuple(reversed(spacing)), (3.0, -4.0, 5.0), OBLIQUE)


def scan_array(subject: int, index: int, shape=SHAPE, channel: int = 0) -> np.ndarray:
    """Whole numbers above 0; what changes over time lies in the corner of high z, y and x."""
    array = np.random.default_rng([subject, channel]).integers(100, 200, shape).astype(np.float32)
    array[-2:, -4:, -4:] += 100 * index
    return array


def make_dataset(subjects=6, scans=4, shape=SHAPE, channels=1, dimensions=3, prepare=True, **plan) -> DatasetPaths:
    """``Dataset001_Test`` below LONGFLOW_HOME: raw, planned and, by default, preprocessed."""
    paths = DatasetPaths("Dataset001_Test")
    plans = minimal_plans(channels=channels, dimensions=dimensions, **plan)
    description = DatasetDescription(
        channel_names={str(index): name for index, name in enumerate(plans.channel_names)},
        file_ending=".nii.gz",
        time_unit="days",
    )
    rows = []
    for subject in range(subjects):
        for index in range(scans):
            case = f"s{subject}_{index}"
            files = tuple(image_path(paths.raw / "imagesTr", case, channel, description) for channel in range(channels))
            for channel, file in enumerate(files):
                write_volume(scan_array(subject, index, shape, channel), geometry(shape), "int16", file)
            rows.append(Scan(case, f"s{subject}", TIMES[index], files))
    write_scans(rows, paths.raw / "scans.csv")
    write_description(description, paths.raw / "dataset.json")
    write_plans(plans, paths.plans())
    if prepare:
        prepare_all(paths, plans)
    return paths


def conditioned_dataset(**plan) -> DatasetPaths:
    """:func:`make_dataset` with a period (column rr) and the covariates age and treatment: :func:`add_conditions`."""
    paths = make_dataset(prepare=False, **plan)
    add_conditions(paths.raw / "scans.csv")
    columns = {"period": "rr", "covariates": ["age", "treatment"]}
    write_json({**read_json(paths.raw / "dataset.json"), **columns}, paths.raw / "dataset.json")
    plans = conditioned_plans(period="rr", names=("age", "treatment"))
    write_plans(plans, paths.plans())
    prepare_all(paths, plans)
    return paths


def add_conditions(table: Path) -> None:
    """Add columns to a table of cases s{number}_{scan}: rr 20 + number, age 50 + number + scan, treatment 1 or unknown.

    The scans 1 and 3 are treated. A subject whose name has no number counts as 0.
    """
    first, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},rr,age,treatment", *map(_with_cells, lines)]) + "\n")


def _with_cells(line: str) -> str:
    subject, scan = line.split(",")[0][1:].split("_")
    number = int(subject or 0)
    return f"{line},{20 + number},{50 + number + int(scan)},{'1' if int(scan) % 2 else ''}"


def prepare_all(paths: DatasetPaths, plans: Plans) -> None:
    (name,) = plans.configurations
    plan = plans.configuration(name)
    for series in training_series(paths.raw)[1]:
        cache = paths.cache(plans.plans_name, plan.data_identifier)
        save_prepared(prepare_series(series, plans, name), cache, plan.patch_size)


def job_of(dataset, method="cronos", fold=0, configuration="3d_fullres", **settings) -> FoldJob:
    """A fold of a model with the dataset's own plans.

    :param settings: of ``FoldSettings``.
    """
    job = FoldJob.resolve(dataset, "longflowPlans", configuration, method, fold)
    return replace(job, settings=FoldSettings(**settings))


def plan_steps(dataset: DatasetPaths, steps: int, solver="euler") -> None:
    """Plan a number of solver steps; with one, validations have none to choose."""
    plans = read_plans(dataset.plans())
    write_plans(plans.model_copy(update={"inference": InferencePlan(solver=solver, steps=steps)}), dataset.plans())


def trained_model(paths: DatasetPaths, plans: Plans, method="cronos") -> None:
    """:func:`finished_model` with its best weights, which a training has when it writes out-of-fold predictions."""
    fold = finished_model(paths, plans, method).fold(0)
    shutil.copy(fold.final, fold.best)


def finished_model(
    paths: DatasetPaths, plans: Plans, method="cronos", configuration="3d_fullres", fold=0, random=False, seed=0
) -> ModelPaths:
    """A finished fold without training: LCI as it starts, or with random weights in every layer."""
    model = paths.model(method, plans.plans_name, configuration)
    write_plans(plans, model.plans)
    write_json(read_json(paths.raw / "dataset.json"), model.dataset_json)
    torch.manual_seed(seed)
    network = build_method(method, plans, configuration)
    if random:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    tensors = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    header = {"method": method, "plan_identity": plans.identity(configuration)}
    write_checkpoint(Checkpoint(tensors, header), model.fold(fold).final)
    return model
