import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import write_volume
from longflow.evaluation.summary import summary
from longflow.files import file_digest, write_csv, write_json
from longflow.paths import DatasetPaths
from tests.tasks.conftest import GEOMETRY, SHAPE

#: a subject's name is a name of files, too, so it has no slash
HOSTILE = "<img src=x onerror=alert(1)> \"q\" 'é'"


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """A folder of forecasts of two subjects with hostile name, scans and references, as the commands leave it."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw, out = tmp_path / "raw" / "Dataset101_Tiny", tmp_path / "out"
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months", labels={"background": 0, "tumour": 1}
    )
    write_description(description, raw / "dataset.json")
    write_description(description, out / "dataset.json")
    generator, rows, given, forecasts = np.random.default_rng(0), [], [], []
    for subject in ("s1", HOSTILE):
        for time in (0.0, 1.5):
            case = f"{subject}_{time:g}"
            given.append(Scan(case, subject, time, ()))
            write_volume(generator.random(SHAPE), GEOMETRY, "float32", raw / "imagesTs" / f"{case}_0000.nii.gz")
        truth = generator.random(SHAPE)
        case, last = f"{subject}_4", f"{subject}_1.5_0000.nii.gz"
        forecasts.append(Scan(case, subject, 4.0, ()))
        write_volume(truth, GEOMETRY, "float32", raw / "targetsTs" / f"{case}_0000.nii.gz")
        write_volume(truth + 0.1, GEOMETRY, "float32", out / f"{case}_0000.nii.gz")
        write_volume(truth > 0.5, GEOMETRY, "uint8", raw / "labelsTs" / f"{case}.nii.gz")
        digests = {"inputs": {last: file_digest(raw / "imagesTs" / last)}}
        sidecar = {"case": case, "subject": subject, "target_time": 4.0, "horizon": 2.5, "dataset": "Dataset101_Tiny"}
        sidecar |= {"context": [f"{subject}_0", f"{subject}_1.5"], "context_times": [0.0, 1.5], "digests": digests}
        sidecar |= {"warnings": ["The horizon is <b>long</b>."], "horizon_outside_training": True}
        write_json(sidecar, out / f"{case}.json")
        rows.append({"case": case, "subject": subject, "method": "forecast", "rmse": 0.1234567890123})
    write_scans([*given, *forecasts], raw / "imagesTs" / "scans.csv")
    write_scans(forecasts, out / "scans.csv")
    write_csv(["case", "subject", "method", "rmse"], rows, out / "metrics.csv")
    write_json({"definitions": {"rmse": "root mean squared error"}}, out / "metrics.json")
    return out


@pytest.fixture
def studied(evaluated, tmp_path):
    """The dataset of the forecasts with what a study leaves: table, plans, a training, choice, results by subject."""
    paths = DatasetPaths("Dataset101_Tiny")
    training = [
        Scan(f"{HOSTILE}{number}_{time}", f"{HOSTILE}{number}", float(time), (), covariates={"sex": "FM"[number % 2]})
        for number in range(4)
        for time in (0, 3, 7)
    ]
    write_scans(training, paths.raw / "scans.csv")
    (paths.raw / "imagesTr").mkdir()
    problem = {"severity": "warning", "file": "<b>x</b>", "field": "time", "found": "1", "expected": "2"}
    write_csv([*problem, "advice"], [{**problem, "advice": "Look."}], paths.integrity)
    temporal = {"time_unit": "months", "longest_horizon": 7.0, "shortest_interval": 3.0}
    plans = {"channel_names": ["MR"], "temporal": {**temporal, "reasons": ["Time scale 3: <the> median."]}}
    plans |= {"channels": [{"name": "MR", "reason": "one acquisition"}], "excluded_covariates": {"age": "always 1"}}
    write_json(plans, paths.plans())
    intervals = {"count": 8, "minimum": 3.0, "median": 3.5, "maximum": 4.0}
    fingerprint = {"subjects": sorted({one.subject for one in training}), "temporal": {"intervals": intervals}}
    write_json(fingerprint, paths.fingerprint)
    model = paths.model("cronos", "longflowPlans", "3d_fullres")
    fold = model.fold(0)
    write_json({"settings": {"seed": 3}, "cost": {"seconds": 12.5, "parameters": 17}}, fold.run)
    columns = ("epoch", "loss", "epoch_seconds", "data_wait_share", "nrmse", "lci_nrmse", "context_mean_nrmse")
    values = [(1, 0.5, 2.0, 0.0, 0.4, 0.5, 0.6), (2, 0.4, 2.0, 0.0, 0.3, 0.5, 0.6)]
    write_csv(columns, [dict(zip(columns, one, strict=True)) for one in values], fold.progress_csv)
    fold.final.write_bytes(b"weights")
    member = {"method": "cronos", "plans_name": "longflowPlans", "configuration": "3d_fullres", "folds": [0]}
    best = {"candidate": "cronos__longflowPlans__3d_fullres", "members": [member], "nrmse": 0.3125, "folds": [0]}
    write_json({**best, "best_rung": "linear", "best_rung_nrmse": 0.375}, paths.best)
    write_csv(["candidate", "nrmse"], [{"candidate": best["candidate"], "nrmse": 0.3125}], paths.best_table)
    rows = [
        {"case": f"{subject}_4", "subject": subject, "method": method, "nrmse": error}
        for subject, errors in (("s1", (0.25, 0.5)), (HOSTILE, (0.75, 0.5)))
        for method, error in zip(("forecast", "lci"), errors, strict=True)
    ]
    write_csv(list(rows[0]), rows, evaluated / "metrics.csv")
    numbers = {
        name: {"nrmse": summary(["a", "b"], found)} for name, found in (("forecast", [0.25, 0.75]), ("lci", [0.5, 0.5]))
    }
    rung = {"name": "linear", "verdict": "tie"}
    results = {"overall": {"subjects": 2, "targets": 2, **numbers, "best_rung": rung}}
    results |= {"by_horizon": [{"from": 1.0, "to": 2.5, "subjects": 2, **numbers}], "time_unit": "months"}
    write_json({**results, "definitions": {"nrmse": "RMSE / range"}}, evaluated / "metrics.json")
    return paths
