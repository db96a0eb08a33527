"""The task ``count``."""

from collections.abc import Mapping
from typing import ClassVar

from longflow.task import Task, Words

#: the package under its installed name
PACKAGE = "longflow_count"


class Count(Task):
    """Count the voxels of a structure."""

    name = "count"
    words = Words(
        summary="the number of voxels of a structure in every scan",
        verb="count",
        verbs="counts",
        done="counted",
        doing="Counting",
        one="count",
        several="counts",
        needs="at least 1 scan",
        help={
            "predict": "Counts: the number of bright voxels of every scan.",
            "evaluate": "Counts: compared with the labelled voxels.",
            "find_best": "Counts: the model with the lowest error.",
        },
    )
    default_method = "brightness"
    uses_labels = True
    samples: ClassVar[Mapping[str, str]] = {"counted": f"{PACKAGE}.samples:CountedSamples"}
    validations: ClassVar[Mapping[str, str]] = {"counted": f"{PACKAGE}.validation:CountValidation"}
    metrics: ClassVar[Mapping[str, str]] = {"count_error": f"{PACKAGE}.evaluation:COUNT_ERROR"}
    predictor_class = f"{PACKAGE}.predictor:Counter"

    def plan_time(self, fingerprint, longest_sequence):
        from longflow.planning.temporal import plan_without_time

        return plan_without_time(fingerprint, "Times: scans are counted one by one.")

    def preset(self, name, description, encoder):
        from longflow.planning.presets import preset

        return preset(name)

    def evaluate(self, job, progress=None):
        from .evaluation import evaluate_counts

        return evaluate_counts(job)

    def find_best(self, dataset, processes=None, progress=None, ensembles=True):
        from .evaluation import find_best

        return find_best(dataset)

    def show_best(self, best, console):
        console.print(f"Best: {best['candidate']}, error {best['count_error']:.1f} voxels")


TASK = Count()
