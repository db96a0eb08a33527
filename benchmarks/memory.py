"""Compare the memory estimate with the measured peak of a training step.

    python benchmarks/memory.py [--device cpu|cuda] [--precision float32|bf16] [--threads 2] [--within 0.15]

On the CPU each shape is measured in a process of its own, a fork of this one, which has imported everything: the peak
of its resident memory (VmHWM) during two training steps (of each stage) as longflow_train does them, with optimizer and
averaged weights, less what was resident after a small step. On a GPU it is what the caching allocator reserved
(``torch.cuda.max_memory_reserved``); the context and the libraries' kernels, 0.3 to 0.6 GB, are not in it.

``--within 0.15`` ends with exit code 1 if an estimate differs from the measured peak by more than 15 %.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import torch

from longflow.methods.registry import build_method, method_class, samples_of
from longflow.networks.precision import channels_last, computes_bf16
from longflow.planning.memory import GB, training_memory
from longflow.plans import ChannelPlan, ConfigurationPlan, GridPlan, NetworkPlan, Plans, TemporalPlan, TrainingPlan
from longflow.private import return_freed_memory
from longflow.training.checkpoints import update_average
from longflow.training.run import optimizer_of

ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]
ISOTROPIC = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
SLICES = [[1, 1], [2, 2], [2, 2], [2, 2]]

#: method, scans, base features, strides, batch, patch, attention
SHAPES = {
    "tiny, two scans": ("cronos", 1, 16, ANISOTROPIC, 2, [8, 96, 96], False),
    "tiny, five scans": ("cronos", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "attention": ("cronos", 7, 32, ISOTROPIC, 2, [16, 80, 80], True),
    "wide": ("cronos", 5, 64, ISOTROPIC, 1, [32, 48, 48], True),
    "motion head": ("cronos_motion", 5, 32, ISOTROPIC, 2, [32, 64, 64], False),
    "motion head, tiny": ("cronos_motion", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "motion head, 2D": ("cronos_motion", 5, 32, SLICES, 4, [192, 192], False),
    "grid of 11 slots": ("cronos_discrete", 11, 32, ISOTROPIC, 1, [32, 64, 64], True),
    "TFM, 2D": ("tfm", 5, 32, SLICES, 4, [192, 192], False),
    "TFM, its own network": ("tfm-diffusion_unet", 5, 32, ISOTROPIC, 2, [16, 64, 64], False),
    "TFM, its own network, 2D": ("tfm-diffusion_unet", 5, 32, SLICES, 4, [160, 160], False),
    "TFM, without attention": ("tfm-concatenation_unet", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "TFM, cube": ("tfm", 6, 24, ISOTROPIC, 2, [40, 40, 40], True),
    "latent diffusion": ("latent_diffusion", 5, 32, ISOTROPIC, 2, [32, 64, 64], False),
    "latent diffusion, tiny": ("latent_diffusion", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "latent diffusion, 2D": ("latent_diffusion", 5, 32, SLICES, 4, [192, 192], False),
    "SimVP": ("simvp", 7, 32, ISOTROPIC, 2, [16, 96, 96], False),
    "SimVP, tiny": ("simvp", 8, 16, ANISOTROPIC, 2, [12, 96, 96], False),
    "SimVP, 2D": ("simvp", 5, 32, SLICES, 4, [192, 192], False),
    "ViViT": ("vivit", 7, 32, ISOTROPIC, 2, [16, 96, 96], False),
    "ViViT, tiny": ("vivit", 8, 16, ANISOTROPIC, 2, [12, 96, 96], False),
    "ViViT, 2D": ("vivit", 5, 32, SLICES, 4, [192, 192], False),
    "ConvLSTM": ("convlstm", 7, 32, ANISOTROPIC, 2, [16, 64, 64], False),
    "ConvLSTM, 2D": ("convlstm", 5, 32, SLICES, 8, [192, 192], False),
    "ODE-LSTM": ("ode_lstm", 5, 32, ISOTROPIC, 2, [32, 96, 96], False),
    "ODE-LSTM, 2D": ("ode_lstm", 5, 32, SLICES, 4, [192, 192], False),
    "U-Net": ("unet", 1, 32, ISOTROPIC, 2, [40, 64, 64], False),
    "U-Net, 2D": ("unet", 1, 32, SLICES, 8, [192, 192], False),
    "U-Net with pairs": ("unet_consistent", 1, 32, ISOTROPIC, 2, [32, 48, 48], False),
    "U-Net with pairs, tiny": ("unet_consistent", 1, 16, ANISOTROPIC, 2, [6, 112, 96], False),
    "spatiotemporal": ("spatiotemporal", 1, 32, ISOTROPIC, 2, [24, 32, 32], False),
    "context restoration": ("context_restoration", 1, 32, ISOTROPIC, 2, [24, 48, 48], False),
    "GLCL": ("glcl", 1, 32, ISOTROPIC, 2, [24, 32, 32], False),
    "LNE": ("lne", 1, 32, ISOTROPIC, 2, [24, 32, 32], False),
    "PatchNCE": ("patchnce", 1, 32, ISOTROPIC, 2, [24, 32, 32], False),
    "PCL": ("pcl", 1, 32, ISOTROPIC, 2, [24, 32, 32], False),
    "TimeResNet, 2D": ("mfm", 1, 32, SLICES, 4, [160, 160], False),
    "TimeResNet, 3D": ("mfm", 1, 16, ANISOTROPIC, 2, [16, 80, 80], False),
    "timed U-Net, 2D": ("mfm-unet", 1, 32, SLICES, 4, [192, 192], False),
    "timed U-Net, 3D": ("mfm-unet", 1, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "SegResNet, 2D": ("mfm-segresnet", 1, 32, SLICES, 4, [192, 192], False),
    "SegResNet, 3D": ("mfm-segresnet", 1, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "SwinUNETR, 2D": ("mfm-swin_unetr", 1, 48, SLICES, 2, [128, 128], False),
    "SwinUNETR, 3D": ("mfm-swin_unetr", 1, 24, ISOTROPIC, 1, [32, 64, 64], False),
    "U-Mamba, 2D": ("mfm-umamba_bot", 1, 32, SLICES, 4, [192, 192], False),
    "U-Mamba, 3D": ("mfm-umamba_bot", 1, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "DDPM": ("ddpm", 1, 32, SLICES, 4, [160, 160], False),
    "regression": ("regression", 1, 32, SLICES, 4, [160, 160], False),
}
#: shapes of users that take minutes; ``--only`` measures one
LARGE = {
    "ISLES-like": ("cronos", 7, 32, ISOTROPIC, 2, [16, 128, 128], True),
    "paper's ACDC": ("cronos", 11, 32, ISOTROPIC, 1, [32, 128, 128], True),
}


def plans_of(
    method: str, scans: int, base: int, strides: list[list[int]], batch: int, patch: list[int], attention: bool
) -> Plans:
    """Plans that hold nothing but one configuration."""
    task = method_class(method).task
    network = NetworkPlan(
        features_per_stage=[base * rate for rate in ((1, 1, 2, 4) if task == "forecast" else (1, 2, 4, 8))],
        strides=strides,
        kernel_sizes=[[3] * len(patch)] * 4,
        attention=attention,
    )
    grid = GridPlan(spacing=1, length=scans, overwritten=0, rounding_error=0, filled=0, clipped=0, score=0)
    return Plans(
        dataset_name="Dataset999_Benchmark",
        plans_name="benchmark",
        task=task,
        preset="M",
        gpu_memory=8,
        channel_names=["image"],
        labels={"background": 0, "one": 1, "other": 2} if task == "segment" else {},
        phases=["native", "arterial"] if task == "translate" else [],
        file_ending=".nii.gz",
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        temporal=TemporalPlan(
            time_unit="frames",
            time_scale=1,
            sequence_length=scans,
            shortest_interval=1,
            longest_span=scans,
            longest_horizon=scans,
            grid=grid,
            regular=True,
            reasons=[],
        ),
        channels=[ChannelPlan(name="image", normal_form="per_scan")],
        configurations={
            "measured": ConfigurationPlan(
                data_identifier="measured",
                spacing=[1, 1, 1],
                median_image_size=[1, 1, 1],
                patch_size=patch,
                batch_size=batch,
                network=network,
            )
        },
        training=TrainingPlan(epochs=1, iterations_per_epoch=1, learning_rate=1e-4),
    )


def train_steps(name: str, device: str, bf16: bool, smallest: bool) -> None:
    """Two steps at full size, or one at the smallest size that runs the same operations.

    A step is that of longflow/training/loop.py.
    """
    method, scans, base, strides, batch_size, patch, attention = (SHAPES | LARGE)[name]
    if smallest:
        patch, batch_size = [16] * len(patch), 1
    plans = plans_of(method, scans, base, strides, batch_size, patch, attention)
    model = build_method(method, plans, "measured").to(device).to(memory_format=channels_last(len(patch)))
    recipe = model.recipe
    average = {key: tensor.clone() for key, tensor in model.state_dict().items()} if recipe.ema_decay else {}
    optimizer = optimizer_of(recipe, model.parameters(), 1e-4)
    batch = samples_of(model).largest_batch(plans, "measured", batch_size).to(device)
    for stage in range(len(model.stages)):
        if stage:
            optimizer.zero_grad(set_to_none=True)
            optimizer.state.clear()
        for step in range(1 if smallest else 2):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                if stage and step == 0:
                    model.begin_stage(stage, batch)
                loss = model.training_step(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimizer.step()
            if average:
                update_average(average, model.state_dict(), recipe.ema_decay, step)


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_here(name: str, device: str, bf16: bool, work=train_steps) -> int:
    """Peak bytes of a training step, or of other work on a shape, in this process."""
    if device == "cpu":
        return_freed_memory()
    work(name, device, bf16, smallest=True)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        work(name, device, bf16, smallest=False)
        return torch.cuda.max_memory_reserved() - before
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before = resident("VmRSS")
    work(name, device, bf16, smallest=False)
    return resident("VmHWM") - before


def compare(name: str, device: str, bf16: bool) -> tuple[float, int]:
    """Estimate and measured peak, bytes. Measured first: nothing else ran in this process until then."""
    measured = measure_here(name, device, bf16)
    shape = (SHAPES | LARGE)[name]
    return training_memory(shape[0], plans_of(*shape), "measured", device, bf16), measured


def compare_apart(name: str, bf16: bool, options: argparse.Namespace) -> tuple[float, int]:
    """Compare in a process of its own, a fork; on a GPU in this process, since CUDA does not survive a fork."""
    if options.device == "cuda":
        return compare(name, "cuda", bf16)
    with ProcessPoolExecutor(1, get_context("fork"), torch.set_num_threads, (options.threads,)) as process:
        return process.submit(compare, name, "cpu", bf16).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", choices=["float32", "bf16"], help="default: both, where the device has bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=SHAPES | LARGE, default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--within", type=float, help="exit code 1 where an estimate is further off than this share")
    options = parser.parse_args()
    precisions = [options.precision] if options.precision else ["float32", "bf16"][: 1 + computes_bf16(options.device)]
    sys.stdout.write(f"{'shape':<24}{'precision':<11}{'estimate GB':>12}{'measured GB':>13}{'ratio':>8}\n")
    ratios = {}
    for name in options.only:
        for precision in precisions:
            estimate, measured = compare_apart(name, precision == "bf16", options)
            ratios[f"{name}, {precision}"] = estimate / measured
            sys.stdout.write(
                f"{name:<24}{precision:<11}{estimate / GB:>12.3f}{measured / GB:>13.3f}{estimate / measured:>8.2f}\n"
            )
            sys.stdout.flush()
    worst = max(ratios, key=lambda case: abs(ratios[case] - 1))
    sys.stdout.write(f"{len(ratios)} cases; furthest off: {worst}, {ratios[worst]:.2f}\n")
    if options.within is not None and abs(ratios[worst] - 1) > options.within:
        sys.exit(1)


if __name__ == "__main__":
    main()
