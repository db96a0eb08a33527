"""A minimal plan and batches for tests of methods."""

import torch

from longflow.methods import Batch
from longflow.plans import (
    ChannelPlan,
    ConfigurationPlan,
    CovariatePlan,
    GridPlan,
    NetworkPlan,
    Plans,
    TemporalPlan,
    TrainingPlan,
)


def minimal_plans(scans: int = 4, channels: int = 1, grid_length: int = 5, dimensions: int = 3) -> Plans:
    """Plans for patches of 4 x 8 x 8 voxels (or 8 x 8), times in days, one interval = 10 days."""
    network = NetworkPlan(
        features_per_stage=[8, 8],
        strides=[[1] * dimensions, [2] * dimensions],
        kernel_sizes=[[3] * dimensions] * 2,
        attention=False,
    )
    grid = GridPlan(spacing=10, length=grid_length, overwritten=0, rounding_error=0, filled=0, clipped=0, score=0)
    names = [f"channel {index}" for index in range(channels)]
    return Plans(
        dataset_name="Dataset001_Test",
        plans_name="longflowPlans",
        task="forecast",
        preset="tiny",
        gpu_memory=1,
        channel_names=names,
        file_ending=".nii.gz",
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        temporal=TemporalPlan(
            time_unit="days",
            time_scale=10,
            sequence_length=scans,
            shortest_interval=5,
            longest_span=60,
            longest_horizon=60,
            grid=grid,
            regular=True,
            reasons=[],
        ),
        channels=[ChannelPlan(name=name, normal_form="per_scan") for name in names],
        configurations={
            "3d_fullres" if dimensions == 3 else "2d": ConfigurationPlan(
                data_identifier="3d_fullres",
                spacing=[1, 1, 1],
                median_image_size=[4, 8, 8],
                patch_size=[4, 8, 8][-dimensions:],
                batch_size=2,
                network=network,
            )
        },
        training=TrainingPlan(epochs=1, iterations_per_epoch=2, learning_rate=1e-3),
    )


def conditioned_plans(period: float | str | None = None, names: tuple[str, ...] = (), **plan) -> Plans:
    """:func:`minimal_plans` with a period, and covariates of mean 60 and standard deviation 10."""
    plans = minimal_plans(**plan)
    numbers = {"mean": 60, "standard_deviation": 10, "minimum": 40, "maximum": 80}
    plans.covariates = [CovariatePlan(name=name, **numbers) for name in names]
    plans.temporal.period = period
    return plans


def random_batch(scans: int = 3, channels: int = 1, size: int = 2, shape: tuple[int, ...] = (4, 8, 8)) -> Batch:
    """A batch with times one interval apart and a horizon of one and a half."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        context=torch.randn(size, scans, channels, *shape, generator=generator),
        context_times=torch.arange(1.0 - scans, 1.0).expand(size, scans),
        context_mask=torch.ones(size, scans, dtype=torch.bool),
        target_time=torch.full((size,), 1.5),
        target=torch.randn(size, channels, *shape, generator=generator),
    )
