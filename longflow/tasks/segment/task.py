"""The task ``segment``: structures in every scan of a subject, consistent over its scans (Ren et al.)."""

from collections.abc import Mapping
from typing import ClassVar

from longflow.task import RequestFlag, Task, Words


class Segment(Task):
    """Segment structures (nnU-Net; Ren et al., NeurIPS 2022)."""

    name = "segment"
    words = Words(
        summary="labels of structures in every scan, and their volumes over time",
        verb="segment",
        verbs="segments",
        done="segmented",
        doing="Segmenting",
        one="label map",
        several="label maps",
        needs="at least 1 scan",
        help={
            "plan": "Segmentation: the preset tiny plans for 2 GB; --encoder chooses nnU-Net's encoder.",
            "predict": "Segmentation: label maps of every scan, and volumes.csv.",
            "evaluate": "Segmentation: overlap with the reference label maps, consistency over a subject's scans "
            "compared with that of the reference, volumes over time.",
            "find_best": "Segmentation: method and configuration, or an ensemble of two, by the highest mean Dice; "
            "then whether structures keep their largest component alone.",
            "demo": "volumes of the brain over visits",
        },
    )
    default_method = "unet"
    uses_labels = True
    chooses_encoder = True
    draws_patches = True
    fixed_learning_rate = False
    region = "box"
    samples: ClassVar[Mapping[str, str]] = {
        "labelled": "longflow.tasks.segment.samples:LabelledSamples",
        "labelled_series": "longflow.tasks.segment.samples:LabelledSeriesSamples",
        "pairs": "longflow.tasks.segment.samples:PairSamples",
        "labelled_pairs": "longflow.tasks.segment.samples:LabelledPairSamples",
    }
    validations: ClassVar[Mapping[str, str]] = {"labels": "longflow.tasks.segment.validation:LabelValidation"}
    metrics: ClassVar[Mapping[str, str]] = {
        "dice": "longflow.tasks.segment.overlap:DICE",
        "iou": "longflow.tasks.segment.overlap:IOU",
        "hd95": "longflow.tasks.segment.overlap:HD95",
    }
    predictor_class = "longflow.tasks.segment.predictor:Segmenter"
    request_flags = (
        RequestFlag(
            "keep_all_components",
            ("--keep_all_components",),
            "Keeping all components (--keep_all_components) is for label maps",
            {
                "action": "store_true",
                "default": False,
                "help": "keep all connected components of structures, also where longflow_find_best found that the "
                "largest alone is better",
            },
        ),
    )
    demo = "longflow.demo.segmentation"

    def scan_count_problems(self, counts, table):
        from longflow.integrity.labels import single_scans

        return single_scans(counts, table)

    def training_flags(self, description, all_series):
        labelled = any(scan.label for series in all_series for scan in series.scans)
        return "" if labelled else " -m spatiotemporal"  # without labels there is nothing but pretraining

    def normal_form(self, description, maps):
        form, reason = super().normal_form(description, maps)
        return form, f"{reason}, as in nnU-Net"

    def adapt_channel(self, channel, intensities):
        limits = (intensities.percentile_00_5, intensities.percentile_99_5)
        reason = f"{channel.reason}; clipped to their percentiles 0.5 and 99.5, as in nnU-Net"
        return channel.model_copy(update={"clip": limits, "reason": reason})

    def plan_time(self, fingerprint, longest_sequence):
        from longflow.planning.temporal import plan_pairs

        return plan_pairs(fingerprint)

    def preset(self, name, description, encoder):
        from longflow.data.labels import structures
        from longflow.tasks.segment.planning import preset

        return preset(name, encoder or "plain", bool(structures(description.labels)))

    def inference(self, preset):
        from longflow.plans import InferencePlan

        # the eightfold work of mirroring is not for a CPU
        return InferencePlan(mirror=False if preset.name == "tiny" else None)

    def planned_methods(self, plans, has_pairs):
        from longflow.tasks.segment.planning import planned_methods

        return planned_methods(plans, has_pairs)

    def deciding_methods(self, plans, methods):
        from longflow.tasks.segment.planning import deciding_methods

        return deciding_methods(methods)

    def planning_remarks(self, plan, deciding, gpu_memory):
        from longflow.tasks.segment.planning import remarks

        return remarks(plan, gpu_memory)

    def plan_summary(self, fingerprint, plans):
        from longflow.planning.summary import time_table
        from longflow.tasks.segment.planning import structure_table

        return [structure_table(plans), time_table(plans)]

    def plan_identity(self, plans, plan):
        return {"labels": [plans.labels, plans.regions_class_order]}

    def evaluate(self, job, progress=None):
        from longflow.tasks.segment.evaluation import evaluate_segmentations

        return evaluate_segmentations(job, progress)

    def find_best(self, dataset, processes=None, progress=None, ensembles=True):
        from longflow.tasks.segment.best import find_best

        return find_best(dataset, processes, progress, ensembles)

    def show_best(self, best, console):
        from longflow.tasks.segment.tables import show_best

        show_best(best, console)


TASK = Segment()
