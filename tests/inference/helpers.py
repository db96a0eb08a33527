"""A finished model that segments, without training."""

from longflow.files import read_json, write_json
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import Plans
from tests.methods.helpers import minimal_plans
from tests.training.helpers import finished_model

LABELS = {"background": 0, "core": 1, "rim": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def plans_to_segment(labels=LABELS, regions_class_order=(), channels=1, dimensions=3) -> Plans:
    content = minimal_plans(channels=channels, dimensions=dimensions).model_dump()
    further = {"task": "segment", "labels": labels, "regions_class_order": list(regions_class_order)}
    return Plans.model_validate({**content, **further})


def segmentation_model(dataset: DatasetPaths, plans: Plans | None = None, **further) -> ModelPaths:
    """A fold of ``unet`` with random weights in every layer; the raw dataset becomes one that has labels."""
    plans = plans or plans_to_segment()
    content = read_json(dataset.raw / "dataset.json")
    further_keys = {"task": "segment", "labels": plans.labels, "regions_class_order": plans.regions_class_order}
    write_json({**content, **further_keys}, dataset.raw / "dataset.json")
    return finished_model(dataset, plans, "unet", **{"random": True, **further})
