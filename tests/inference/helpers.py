"""Methods with a known prediction; finished models that segment and that translate, without training."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_scans
from longflow.files import write_json
from longflow.methods.method import Method
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import ChannelPlan, InferencePlan, Plans
from longflow.reading import read_json
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


PHASES = ["native", "arterial"]


def plans_to_translate(dimensions=3, channel="CT", normal_form="absolute", own_grid=False) -> Plans:
    """Plans of one channel for patches of 4 x 8 x 8 voxels (or 8 x 8); MFM's numbers of a CT and its solver."""
    plans = minimal_plans(dimensions=dimensions).model_copy(update={"task": "translate", "phases": list(PHASES)})
    of_ct = {"offset": 0.0, "scale": 1000.0, "clip": (-1000.0, 1000.0)} if normal_form == "absolute" else {}
    plans.channel_names, plans.channels = [channel], [ChannelPlan(name=channel, normal_form=normal_form, **of_ct)]
    plans.inference = InferencePlan(solver="heun2", steps=1)
    for plan in plans.configurations.values():
        plan.own_grid, plan.spacing = own_grid, [5.0, 2.0, 2.0]
    return Plans.model_validate(plans.model_dump())


class OneConvolution(nn.Module):
    """A network that translates: a convolution that begins at zero, conditioned on time."""

    def __init__(self, channels_in, channels_out, plan):
        super().__init__()
        kind = nn.Conv3d if plan.dimensions == 3 else nn.Conv2d
        self.convolution = kind(channels_in, channels_out, 3, padding=1)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)

    def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.convolution(image).float() * (1 + time.view(-1, *[1] * (image.ndim - 1)))


def use_one_convolution(monkeypatch) -> None:
    """Methods that translate are built with :class:`OneConvolution`, whatever network is named."""
    where = "longflow.methods.translation._translation.build_network"
    monkeypatch.setattr(where, lambda name, *further: OneConvolution(*further))


def translation_model(dataset: DatasetPaths, plans: Plans | None = None, **further) -> ModelPaths:
    """A fold of ``mfm``: as it starts, or with ``random=True``."""
    return finished_model(dataset, plans or plans_to_translate(), "mfm", **further)


def method_of(function, reductions=("forecast",), dimensions=3, channels=1, noise=False):
    """A method whose forecast is ``function(batch)``, for patches of 4 x 8 x 8 or 8 x 8."""

    class Known(Method):
        task = "forecast"
        summary = "for tests"

        def predict(self, batch):
            predictions = function(batch)
            return predictions if isinstance(predictions, dict) else {"forecast": predictions}

    Known.reductions, Known.noise = reductions, noise
    plans = minimal_plans(channels=channels, dimensions=dimensions)
    return Known(plans, *plans.configurations)


def identity(batch):
    return batch.context[:, -1]


def patch_mean(batch):
    """The same number everywhere in a patch: what overlaps disagree on."""
    last = batch.context[:, -1]
    return last.mean(tuple(range(2, last.ndim)), keepdim=True).expand_as(last)


def coordinates(shape, scans=2, channels=1):
    """Every voxel holds its own place; scans and channels differ."""
    z, y, x = np.indices(shape)
    place = (10_000 * z + 100 * y + x).astype(np.float32)
    return np.stack([np.stack([place + 1e6 * s + 5e5 * c for c in range(channels)]) for s in range(scans)])


TWO_CHANNELS = DatasetDescription(channel_names={"0": "T1", "1": "T2"}, file_ending=".nii.gz", time_unit="days")


def write_input(folder: Path) -> Path:
    """Write an input folder: subject s has scans at 0, 10, 20 and 30, all empty files; 25 and 40 are requested."""
    scans = [Scan(f"s_{time}", "s", float(time), ()) for time in (0, 10, 20, 25, 30, 40)]
    write_scans(scans, folder / "scans.csv")
    for scan in scans:
        for channel in range(2) if scan.time not in (25, 40) else ():
            image_path(folder, scan.case, channel, TWO_CHANNELS).touch()
    return folder
