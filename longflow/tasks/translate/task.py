"""The task ``translate``: a scan in one contrast phase into the other (Medical Flow Matching)."""

from collections.abc import Mapping
from typing import ClassVar

from longflow.task import RequestFlag, Task, Words


class Translate(Task):
    """Translate between two contrast phases (Medical Flow Matching)."""

    name = "translate"
    words = Words(
        summary="a scan in the other contrast phase",
        verb="translate",
        verbs="translates",
        done="translated",
        doing="Translating",
        one="translation",
        several="translations",
        needs="a pair of scans, one in each phase at one time",
        help={
            "predict": "Translation: the scans that are not in the phase of --to.",
            "evaluate": "Translation: compared with the scan of the same subject and time in the requested phase, next "
            "to the untranslated scan; for translations there and back, -r names the folder of those there.",
            "find_best": "Translation: method, network and configuration, or an ensemble of two, by the lowest MAE in "
            "the body; then solver and steps of the best flow, on a few validation pairs.",
            "demo": "CT of the abdomen without contrast from CT with it, and back",
        },
    )
    default_method = "mfm"
    usual_configuration = "2d"  # slices, as in MFM
    least_scans = 2  # pairs alone are prepared
    uses_phases = True
    requires_images = True
    requires_units = True
    own_slices = True
    evaluates_structures = True
    region = "body"
    samples: ClassVar[Mapping[str, str]] = {"phases": "longflow.tasks.translate.samples:PhaseSamples"}
    validations: ClassVar[Mapping[str, str]] = {"phases": "longflow.tasks.translate.validation:PhaseValidation"}
    metrics: ClassVar[Mapping[str, str]] = {
        "body_mae": "longflow.tasks.translate.metrics:BODY_MAE",
        "mae": "longflow.tasks.translate.metrics:MAE",
        "psnr": "longflow.tasks.translate.metrics:PSNR",
        "psnr_mfm": "longflow.tasks.translate.metrics:PSNR_MFM",
        "ssim": "longflow.tasks.translate.metrics:SSIM",
        "ssim_mfm": "longflow.tasks.translate.metrics:SSIM_MFM",
        "through_plane_error": "longflow.tasks.translate.metrics:THROUGH_PLANE_ERROR",
        "mae_synthrad": "longflow.tasks.translate.metrics:MAE_SYNTHRAD",
        "psnr_synthrad": "longflow.tasks.translate.metrics:PSNR_SYNTHRAD",
        "ms_ssim_synthrad": "longflow.tasks.translate.metrics:MS_SSIM_SYNTHRAD",
    }
    predictor_class = "longflow.tasks.translate.predictor:Translator"
    request_flags = (
        RequestFlag(
            "to",
            ("--to",),
            "A phase (--to) is for translations",
            {
                "metavar": "PHASE",
                "help": "requested contrast phase; the phase of each scan stands in scans.csv (default: the other "
                "one, where all scans are in one phase)",
            },
        ),
    )
    demo = "longflow.demo.translation"

    def prediction_flags(self, description, test_scans):
        """Where the test scans are in both phases, those of the second phase are translated to the first."""
        from longflow.data.phases import phases_of_dataset

        phases = {scan.phase for series in test_scans for scan in series.scans}
        return ("--to", phases_of_dataset(description, test_scans)[0]) if len(phases) > 1 else ()

    def adapt_channel(self, channel, intensities):
        from longflow.tasks.translate.planning import limited_channel

        return limited_channel(channel)

    def plan_phase_channels(self, fingerprint, description):
        from longflow.tasks.translate.planning import plan_phase_channels

        return plan_phase_channels(fingerprint, description)

    def plan_time(self, fingerprint, longest_sequence):
        from longflow.planning.temporal import plan_without_time

        reason = "Times: they tell which scans are a pair, and nothing else; scans of one time are translated."
        return plan_without_time(fingerprint, reason)

    def preset(self, name, description, encoder):
        from longflow.tasks.translate.planning import preset

        return preset(name)

    def inference(self, preset):
        from longflow.plans import InferencePlan

        return InferencePlan(solver="heun2", steps=1)  # RK2 (1), the best of MFM's table 5

    def planned_methods(self, plans, has_pairs):
        return ["mfm", "mfm-unet", "mfm-segresnet", "mfm-swin_unetr", "mfm-umamba_bot"]

    def deciding_methods(self, plans, methods):
        return [self.default_method]  # with its default network

    def planning_remarks(self, plan, deciding, gpu_memory):
        from longflow.tasks.translate.planning import remarks_on_networks

        return remarks_on_networks(plan.memory_estimate, gpu_memory)

    def plan_summary(self, fingerprint, plans):
        from longflow.tasks.translate.planning import phase_table

        return [phase_table(fingerprint, plans)]

    def plan_identity(self, plans, plan):
        return {"phases": plans.phases, "own_grid": plan.own_grid}

    def evaluate(self, job, progress=None):
        from longflow.tasks.translate.evaluation import evaluate_translations

        return evaluate_translations(job, progress)

    def find_best(self, dataset, processes=None, progress=None, ensembles=True):
        from longflow.tasks.translate.best import find_best

        return find_best(dataset, processes, progress, ensembles)

    def show_best(self, best, console):
        from longflow.tasks.translate.best_tables import show_best

        show_best(best, console)


TASK = Translate()
