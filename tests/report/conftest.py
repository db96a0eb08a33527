import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import write_volume
from longflow.files import file_digest, write_csv, write_json
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
