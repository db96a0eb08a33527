"""The task ``forecast``: the scan of a subject at a later time, from its earlier scans."""

from collections.abc import Mapping
from typing import ClassVar

from longflow.task import RequestFlag, Task, Words


def _time(text: str) -> float:
    """Parse a time of ``-t``."""
    import argparse

    try:
        if "_" in text:
            raise ValueError  # float reads 2019_01 as 201901
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number. Times count in the time unit of the dataset, from the same day as scans.csv "
            "(365, not a date), with decimals after a point"
        ) from error


class Forecast(Task):
    """Forecast a scan (CRONOS, Temporal Flow Matching)."""

    name = "forecast"
    words = Words(
        summary="the scan of a subject at a later time",
        verb="forecast",
        verbs="forecasts",
        done="forecast",
        doing="Forecasting",
        one="forecast",
        several="forecasts",
        needs="at least 2 scans",
        help={
            "predict": "Forecasts: the rows of scans.csv without an image, the times of -t, or the stored test "
            "protocol of imagesTs.",
            "evaluate": "Forecasts: compared with the acquired scans, next to the forecasts without training (last "
            "context image, context mean, linear, motion, periodic).",
            "find_best": "Forecasts: method (trained or not), configuration, ensemble of two, reduction and shrinkage "
            "towards the last context image (LCI), by the lowest NRMSE; the rule that takes context scans; for a flow, "
            "the cheapest solver of those that are alike.",
            "demo": "the next scans of beating hearts",
        },
    )
    default_method = "cronos"
    least_scans = 2
    plans_grid = True
    uses_conditions = True
    uses_segmenter = True
    evaluates_structures = True
    compares_methods = True
    predicts_new_scans = True
    region = "nonzero"
    sees_single_scans = False
    samples: ClassVar[Mapping[str, str]] = {"forecast": "longflow.tasks.forecast.samples:ForecastSamples"}
    validations: ClassVar[Mapping[str, str]] = {"forecast": "longflow.tasks.forecast.validation:ForecastValidation"}
    metrics: ClassVar[Mapping[str, str]] = {
        "rmse": "longflow.tasks.forecast.metrics:RMSE",
        "mae": "longflow.tasks.forecast.metrics:MAE",
        "nrmse": "longflow.tasks.forecast.metrics:NRMSE",
        "matched_nrmse": "longflow.tasks.forecast.metrics:MATCHED_NRMSE",
        "psnr": "longflow.tasks.forecast.metrics:PSNR",
        "ssim": "longflow.tasks.forecast.metrics:SSIM",
        "changed_share": "longflow.tasks.forecast.metrics:CHANGED_SHARE",
        "changed_rmse": "longflow.tasks.forecast.metrics:CHANGED_RMSE",
        "changed_mae": "longflow.tasks.forecast.metrics:CHANGED_MAE",
        "changed_nrmse": "longflow.tasks.forecast.metrics:CHANGED_NRMSE",
        "changed_null": "longflow.tasks.forecast.metrics:CHANGED_NULL",
        "edges": "longflow.tasks.forecast.metrics:EDGES",
        "skill": "longflow.tasks.forecast.metrics:SKILL",
    }
    predictor_class = "longflow.tasks.forecast.predictor:Forecaster"
    request_flags = (
        RequestFlag(
            "times",
            ("-t", "--times"),
            "Times (-t) are for forecasts",
            {
                "type": _time,
                "nargs": "+",
                "default": (),
                "help": "requested times for every subject, in the dataset's time unit",
            },
        ),
        RequestFlag(
            "samples",
            ("--samples",),
            "Samples (--samples) are for forecasts",
            {
                "type": int,
                "metavar": "N",
                "help": "make N forecasts of each target that differ as the model is uncertain (2 or more): the "
                "forecast is their mean; the map of their standard deviation and they themselves are in OUTPUT/samples",
            },
        ),
        RequestFlag(
            "spread",
            ("--spread",),
            "What samples differ by (--spread) is for forecasts",
            {
                "nargs": "+",
                "metavar": "SOURCE",
                "help": "what samples differ by: folds (a network each), noise (at the source of a flow that was "
                "trained with source_noise), context (subsets of the scans); default: all that the model has",
            },
        ),
        RequestFlag(
            "seed",
            ("--seed",),
            "The seed of samples (--seed) is for forecasts",
            {"type": int, "default": 0, "help": "of noise and subsets of the samples (default: 0)"},
        ),
        RequestFlag(
            "hide_context",
            ("--hide_context",),
            "Hidden context scans (--hide_context) are for forecasts",
            {
                "metavar": "first:K|last:K",
                "help": "forecast without the first or the last K context scans, to measure what they are worth",
            },
        ),
    )
    demo = "longflow.demo.forecasting"

    def scan_count_problems(self, counts, table):
        from longflow.integrity.problems import warning

        advice = "Such subjects are not used for forecasting; other tasks can use them."
        return [
            warning(table, f"subject {subject}", "1 scan", "at least 2", advice)
            for subject, scans in sorted(counts.items())
            if scans < self.least_scans
        ]

    def test_problems(self, raw, description):
        from longflow.integrity.problems import warning
        from longflow.paths import protocol_path
        from longflow.tasks.forecast.protocol import protocol_misfit

        problem = protocol_misfit(raw, description)
        if problem is None:
            return []
        advice = "Training can go on, prediction cannot. Restore the scans, or delete the file and draw it again."
        return [warning(protocol_path(raw).name, "targets", problem, "targets and context scans of imagesTs", advice)]

    def write_test_protocol(self, raw, description, contexts, **settings):
        from longflow.tasks.forecast.protocol import ProtocolSettings, write_protocol

        path, protocol = write_protocol(raw, description, ProtocolSettings(contexts, **settings))
        subjects = len({target.subject for target in protocol.targets})
        return path, f"{len(protocol.targets)} targets of {subjects} test subjects ({protocol.settings})"

    def normal_form(self, description, maps):
        from longflow.planning.channels import form_of_visits
        from longflow.plans import ONE_ACQUISITION

        unit = description.time_unit
        if unit in ONE_ACQUISITION:
            return "per_subject", f"times in {unit} are one acquisition: changes of intensity are signal"
        form, reason = form_of_visits(maps)
        return form, f"times in {unit} are separate visits, {reason}"

    def plan_time(self, fingerprint, longest_sequence):
        from longflow.planning.temporal import plan_series

        return plan_series(fingerprint, longest_sequence)

    def preset(self, name, description, encoder):
        from longflow.planning.presets import preset

        return preset(name)

    def planned_methods(self, plans, has_pairs):
        return ["cronos", "cronos_discrete", "tfm", "simvp", "vivit", "convlstm", "ode_lstm"]

    def deciding_methods(self, plans, methods):
        # the method whose stack of scans is the largest
        temporal = plans.temporal
        return ["cronos_discrete" if temporal.grid.length >= temporal.sequence_length else "cronos"]

    def plan_summary(self, fingerprint, plans):
        from longflow.planning.summary import time_table

        return [time_table(plans)]

    def volumes_of_predictions(self, predictor, segmenter, device=None):
        from longflow.tasks.forecast.volumes import ForecastVolumes

        return ForecastVolumes.load(predictor, segmenter, device)

    def calibrate(self, selection, segmenter, level, device=None, progress=None, retest=None):
        from longflow.tasks.forecast.calibration import calibrate_volumes

        return calibrate_volumes(selection, segmenter, level, device, progress or (lambda *_: None), retest)

    def show_calibration(self, record, console):
        from longflow.tasks.forecast.calibration_table import show_calibration

        show_calibration(record, console)

    def evaluate(self, job, progress=None):
        from longflow.tasks.forecast.evaluation import evaluate_forecasts

        return evaluate_forecasts(job, progress)

    def find_best(self, dataset, processes=None, progress=None, ensembles=True):
        from longflow.tasks.forecast.best import find_best
        from longflow.tasks.forecast.rules import choose_rule
        from longflow.tasks.forecast.solvers import choose_solver

        best = choose_rule(dataset, find_best(dataset, processes, progress, ensembles), progress)
        return choose_solver(dataset, best, progress)

    def show_best(self, best, console):
        from longflow.tasks.forecast.tables import show_best

        show_best(best, console)


TASK = Forecast()
