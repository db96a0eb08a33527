"""Validate counts on the labelled scans of the validation subjects."""

import numpy as np
import torch

from longflow.data.dataset import training_series
from longflow.inference.output import write_sidecar, write_table
from longflow.preprocessing.series import read_properties
from longflow.training.validation import ProgressColumns, Score, out_of_fold_settings

from .method import CountBatch
from .predictor import CountRequest, count_scan, prepare_scan, write_count
from .samples import counted_scan, labelled_scans


class CountValidation:
    """Mean absolute error of the counts."""

    progress = ProgressColumns("error [voxels]")

    def __init__(self, job, cohort, device):
        self.job, self.folder, self.device = job, cohort.folder, device
        self.scans = labelled_scans(cohort)

    @torch.no_grad()
    def score(self, method) -> Score:
        errors = []
        for subject, scan in self.scans:
            image, count = counted_scan(self.folder, subject, scan)
            batch = CountBatch(torch.from_numpy(image)[None]).to(self.device)
            errors.append(abs(float(method.predict(batch)["count"]) - count))
        mean = float(np.mean(errors))
        return Score(mean, {"count_error": mean}, f"error {mean:.1f} voxels")

    def finish(self, method) -> None:
        description, all_series = training_series(self.job.dataset.raw)
        scans = {scan.case: scan for series in all_series for scan in series.scans}
        folder, items = self.job.paths.validation("counts"), []
        for subject, scan in self.scans:
            item = CountRequest(scans[read_properties(self.folder, subject).cases[scan]])
            count = count_scan([method], prepare_scan(item, self.job.plans, self.job.configuration))
            write_count(count, item, folder)
            write_sidecar(item, folder, {**out_of_fold_settings(self.job, method), "count": count})
            items.append(item)
        write_table(items, folder, description)
