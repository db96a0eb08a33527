"""Tiny cohorts of contrast phases, raw and prepared."""

from longflow.data.dataset import training_series
from longflow.paths import DatasetPaths
from longflow.plans import Plans, write_plans
from longflow.preprocessing.series import prepared_subjects
from longflow.training.splits import Cohort
from tests.data.helpers import edit_description, write_phase_dataset
from tests.inference.helpers import plans_to_translate
from tests.training.helpers import prepare_all

#: of the raw dataset; the plans have the same grid
SPACING = (5.0, 1.5, 1.5)


def phase_plans(dimensions=3, batch_size=2, **further) -> Plans:
    """Plans whose patches are 4 x 8 x 8 (or 8 x 8) voxels of the files' grid.

    :param further: of ``plans_to_translate``.
    """
    plans = plans_to_translate(dimensions, own_grid=dimensions == 2, **further)
    (plan,) = plans.configurations.values()
    plan.spacing, plan.batch_size = list(SPACING), batch_size
    return plans


def make_pairs(plans: Plans | None = None, **raw) -> tuple[DatasetPaths, Cohort]:
    """``Dataset104_Phases`` below LONGFLOW_HOME, raw, planned and prepared, and the cohort of all its subjects.

    :param raw: of ``write_phase_dataset``.
    """
    paths, plans = DatasetPaths("Dataset104_Phases"), plans or phase_plans()
    write_phase_dataset(paths.raw, channel=plans.channel_names[0], **raw)
    edit_description(paths.raw, phases=plans.phases)
    write_plans(plans, paths.plans())
    prepare_all(paths, plans)
    cache = paths.cache(plans.plans_name, "3d_fullres")
    cases = {series.subject: [scan.case for scan in series.scans] for series in training_series(paths.raw)[1]}
    return paths, Cohort(cache, {subject: cases[subject] for subject in prepared_subjects(cache)})
