"""Compare the memory estimate with the measured peak of a training step.

    python benchmarks/memory.py [--device cpu|cuda] [--threads 2]

On the CPU each shape is measured in a process of its own: the peak of its resident memory (VmHWM) during two training
steps (of each stage) with the method's optimizer and averaged weights, less what was resident after imports and a small
step. On a GPU it is ``torch.cuda.max_memory_allocated``.
"""

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from longflow.methods.registry import build_method, method_class, samples_of
from longflow.networks.precision import computes_bf16
from longflow.planning.memory import GB, training_memory
from longflow.plans import ChannelPlan, ConfigurationPlan, GridPlan, NetworkPlan, Plans, TemporalPlan, TrainingPlan
from longflow.training.run import optimizer_of

ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]
ISOTROPIC = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
SLICES = [[1, 1], [2, 2], [2, 2], [2, 2]]

#: method, scans, base features, strides, batch, patch, attention
SHAPES = {
    "tiny, two scans": ("cronos", 1, 16, ANISOTROPIC, 2, [8, 96, 96], False),
    "tiny, five scans": ("cronos", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "ISLES-like": ("cronos", 7, 32, ISOTROPIC, 2, [16, 128, 128], True),
    "grid of 11 slots": ("cronos_discrete", 11, 32, ISOTROPIC, 1, [32, 96, 96], True),
    "paper's ACDC": ("cronos", 11, 32, ISOTROPIC, 1, [32, 128, 128], True),
    "2D": ("tfm", 5, 32, [[1, 1], [2, 2], [2, 2], [2, 2]], 8, [192, 192], False),
    "wide": ("cronos", 5, 64, ISOTROPIC, 1, [32, 64, 64], True),
    # the shapes below had no part in the calibration of longflow/planning/memory.py
    "held out, anisotropic": ("cronos", 3, 16, ANISOTROPIC, 2, [12, 128, 128], False),
    "held out, cube": ("tfm", 6, 24, ISOTROPIC, 2, [48, 48, 48], True),
    "held out, 2D": ("cronos", 2, 32, [[1, 1], [2, 2], [2, 2], [2, 2]], 4, [256, 256], True),
    "held out, grid": ("cronos_discrete", 9, 32, ISOTROPIC, 2, [24, 80, 80], False),
    "latent diffusion": ("latent_diffusion", 5, 32, ISOTROPIC, 2, [32, 96, 96], False),
    "latent diffusion, tiny": ("latent_diffusion", 5, 16, ANISOTROPIC, 2, [16, 96, 96], False),
    "latent diffusion, 2D": ("latent_diffusion", 5, 32, SLICES, 8, [192, 192], False),
    "SimVP": ("simvp", 7, 32, ISOTROPIC, 2, [16, 128, 128], False),
    "SimVP, tiny": ("simvp", 8, 16, ANISOTROPIC, 2, [12, 96, 96], False),
    "SimVP, 2D": ("simvp", 5, 32, SLICES, 8, [192, 192], False),
    "ViViT": ("vivit", 7, 32, ISOTROPIC, 2, [16, 128, 128], False),
    "ViViT, tiny": ("vivit", 8, 16, ANISOTROPIC, 2, [12, 96, 96], False),
    "ViViT, 2D": ("vivit", 5, 32, SLICES, 8, [192, 192], False),
    "U-Net": ("unet", 1, 32, ISOTROPIC, 2, [48, 96, 96], False),
    "U-Net, 2D": ("unet", 1, 32, [[1, 1], [2, 2], [2, 2], [2, 2]], 8, [192, 192], False),
    "U-Net with pairs": ("unet_consistent", 1, 32, ISOTROPIC, 2, [48, 64, 64], False),
    "tiny U-Net with pairs": ("unet_consistent", 1, 16, ANISOTROPIC, 2, [6, 160, 144], False),
    "pretraining": ("spatiotemporal", 1, 32, ISOTROPIC, 2, [48, 64, 64], False),
    "TimeResNet, tiny": ("mfm", 1, 16, SLICES, 4, [256, 256], False),
    "TimeResNet, 2D": ("mfm", 1, 32, SLICES, 4, [320, 320], False),
    "TimeResNet, 3D": ("mfm", 1, 16, ANISOTROPIC, 2, [16, 128, 128], False),
    "timed U-Net": ("mfm-unet", 1, 32, SLICES, 4, [320, 320], False),
    "SegResNet": ("mfm-segresnet", 1, 32, SLICES, 4, [320, 320], False),
    "SwinUNETR": ("mfm-swin_unetr", 1, 48, SLICES, 4, [256, 256], False),
    "U-Mamba": ("mfm-umamba_bot", 1, 32, SLICES, 4, [320, 320], False),
    "ConvLSTM": ("convlstm", 7, 32, ANISOTROPIC, 2, [16, 96, 96], False),
    "ODE-LSTM": ("ode_lstm", 5, 32, ISOTROPIC, 2, [32, 96, 96], False),
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
    """Two steps at full size, or one at the smallest size that runs the same operations."""
    method, scans, base, strides, batch_size, patch, attention = SHAPES[name]
    if smallest:
        patch, batch_size = [16] * len(patch), 1
    plans = plans_of(method, scans, base, strides, batch_size, patch, attention)
    model = build_method(method, plans, "measured").to(device)
    averaged = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = optimizer_of(model.recipe, model.parameters(), 1e-4)
    batch = samples_of(model).largest_batch(plans, "measured", batch_size).to(device)
    for stage in range(len(model.stages)):
        if stage:  # as longflow/training/trainer.py begins it
            optimizer.state.clear()
        for step in range(1 if smallest else 2):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                if stage and step == 0:
                    model.begin_stage(stage, batch)
                loss = model.training_step(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for mean, parameter in zip(averaged, model.parameters(), strict=True):
                    mean.lerp_(parameter, 0.01)


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_here(name: str, device: str, bf16: bool, work=train_steps) -> int:
    """Peak bytes of a training step, or of other work on a shape, in this process."""
    work(name, device, bf16, smallest=True)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(name, device, bf16, smallest=False)
        return torch.cuda.max_memory_allocated() - before
    before = resident("VmRSS")
    work(name, device, bf16, smallest=False)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SHAPES)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        sys.stdout.write(json.dumps(measure_here(options.measure, options.device, options.bf16)))
        return
    sys.stdout.write(f"{'shape':<22}{'precision':<11}{'estimate GB':>12}{'measured GB':>13}{'ratio':>8}\n")
    precisions = (False, True) if computes_bf16(options.device) else (False,)
    for name in [options.only] if options.only else SHAPES:
        method, scans, base, strides, batch_size, patch, attention = SHAPES[name]
        plans = plans_of(method, scans, base, strides, batch_size, patch, attention)
        for bf16 in precisions:
            estimate = training_memory(method, plans, "measured", options.device, bf16)
            command = [sys.executable, __file__, "--measure", name, "--device", options.device]
            command += ["--threads", str(options.threads), *(["--bf16"] if bf16 else [])]
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            sys.stdout.write(
                f"{name:<22}{'bf16' if bf16 else 'float32':<11}{estimate / GB:>12.3f}{measured / GB:>13.3f}"
                f"{estimate / measured:>8.2f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
