"""A comparison on the tiny dataset, with simulated commands."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longflow.compare.comparison import Budget, Comparison, Run
from longflow.compare.targets import targets_of_fold
from longflow.compare.variants import Variant
from longflow.data.dataset import image_path, read_description
from longflow.data.images import read_scan, write_volume
from longflow.files import write_csv, write_json
from longflow.methods.registry import build_method
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.tasks.forecast.requests import forecast_requests
from tests.training.helpers import finished_model

CRONOS, LCI, NOISY = Variant("cronos", "cronos"), Variant("lci", "lci"), Variant("noisy", "cronos", {"noise": 0.1})
MEAN = Variant("cronos, mean", "cronos", reduction="mean")


def comparison_of(dataset, *variants, folds=(0,), seeds=(0,), **budget) -> Comparison:
    plans = read_plans(dataset.plans())
    paths = dataset.comparison("test")
    targets = {fold: targets_of_fold(dataset, plans, "3d_fullres", fold, paths.targets(fold)) for fold in folds}
    return Comparison(
        dataset=dataset,
        paths=paths,
        plans=plans,
        configuration="3d_fullres",
        variants=variants,
        budget=Budget(**(budget or {"iterations": 3})),
        folds=folds,
        seeds=seeds,
        targets=targets,
        device="cpu",
    )


def trained(dataset, results: Path, method="cronos", fold=0, options=None, **settings) -> ModelPaths:
    """Write a finished fold with the files of a training. Its first weights predict LCI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("longflow_results", str(results))
        plans = read_plans(dataset.plans())
        model = finished_model(dataset, plans, method, fold=fold)
    settings = {"iterations": 3, "seed": 0, "device": "cpu", "options": options or {}} | settings
    options = {**build_method(method, plans, "3d_fullres").options, **(options or {})}
    cost = {"parameters": 9, "iterations": settings["iterations"], "seconds": 2.5, "peak_memory": 10**9}
    write_json({"settings": settings, "options": options, "cost": cost}, model.fold(fold).run)
    rows = [{"epoch": n, "iteration": n, "seconds": n, "loss": 1 / n, "learning_rate": 1} for n in (1, 2)]
    rows = [{**row, "epoch_seconds": 1, "data_wait_share": 0, "nrmse": 0.1, "lci_nrmse": 0.2} for row in rows]
    write_csv(list(rows[0]), rows, model.fold(fold).progress_csv)
    return model


class Player:
    """Simulate the commands of a comparison.

    :param codes: exit codes, by a part of the typed command; such a command does nothing else.
    """

    def __init__(self, dataset: DatasetPaths, codes: dict[str, int] | None = None):
        self.dataset, self.codes, self.ran = dataset, codes or {}, []

    def __call__(self, command, folders: dict[str, str]) -> int:
        self.ran.append(command)
        for part, code in self.codes.items():
            if part in command.typed:
                return code
        {"train": self.train, "predict": self.predict}[command.name](command.arguments, folders)
        return 0

    def names(self) -> list[str]:
        return [command.name for command in self.ran]

    def train(self, arguments, folders) -> None:
        options = dict(text.removeprefix("--set=").split("=") for text in arguments if text.startswith("--set="))
        options = {name: float(value) for name, value in options.items()}
        given = dict(pairwise(arguments))
        settings = {"iterations": int(given["--iterations"]), "seed": int(given["--seed"])}
        trained(self.dataset, Path(folders["longflow_results"]), given["-m"], int(arguments[2]), options, **settings)

    def predict(self, arguments, folders) -> None:
        """Predict LCI, or the context mean for that reduction; keep finished forecasts."""
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        (record,) = Path(folders["longflow_results"]).glob("*/best.json")
        mean, out = read_json(record)["reduction"] == "mean", Path(given["-o"])
        description = description_of(self.dataset)
        for request in forecast_requests(Path(given["-i"]), description, ()):
            sidecar = out / f"{request.target.case}.json"
            if not sidecar.is_file():
                volumes = [read_scan(scan.images) for scan in request.context]
                last = volumes[-1]
                array = np.mean([volume.array for volume in volumes], axis=0) if mean else last.array
                image = image_path(out, request.target.case, 0, description)
                write_volume(array[0], last.geometry, "float32", image)
                write_json(request.provenance(), sidecar)


def description_of(dataset):
    return read_description(dataset.raw / "dataset.json")


def of(comparison: Comparison, variant: Variant, fold=0, seed=0) -> Run:
    return Run(variant, fold, seed)


def tick() -> None:
    """Make files written from now on newer than the earlier ones."""
    time.sleep(0.02)


def table(comparison: Comparison) -> dict:
    return read_json(comparison.paths.table_json)
