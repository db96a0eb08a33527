"""Time and memory of the flow network: a training step, and forecasts with 1, 2, 5 and 10 Euler steps.

Each setting runs in a process of its own, one after the other, and is compared with the first: float32 with PyTorch's
usual memory layout. Ratios within a run mean something; absolute times depend on the machine.

    python benchmarks/flow_network.py                         # 11 scans of 32 x 128 x 128, 32 features
    python benchmarks/flow_network.py --shape 3 16 64 64 --repeat 10

With a checkout of the code published with CRONOS (github.com/MIC-DKFZ/Longitudinal4DMed), its network runs as well, as
its authors train it: float32, 32 features, multiples 1, 1, 2, 4.

    python benchmarks/flow_network.py --published Longitudinal4DMed
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from longflow.flow.solvers import integrate
from longflow.networks.film_unet import FiLMUNet
from longflow.networks.precision import autocast, computes_bf16
from longflow.plans import NetworkPlan

SETTINGS = ("float32", "float32 channels_last", "as longflow trains")
PUBLISHED = "published code"
EULER_STEPS = (1, 2, 5, 10)
CODE_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(11, 32, 128, 128), help="scans, z, y, x")
    parser.add_argument("--features", type=int, default=32, help="of the first stage")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs; the median is reported")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--published", type=Path, help="folder of the published code")
    parser.add_argument("--setting", choices=(*SETTINGS, PUBLISHED), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.setting:
        print(json.dumps(measure(options)))
        return
    shape = " x ".join(map(str, options.shape))
    precision = "bf16" if computes_bf16(options.device) else "float32"
    where = f"{options.device}, {torch.get_num_threads()} threads"
    print(f"{shape}, {options.features} features, {where}; longflow trains in {precision} here")
    settings = (*SETTINGS, PUBLISHED) if options.published else SETTINGS
    results = {setting: in_own_process(setting) for setting in settings}
    first = results[SETTINGS[0]]
    for quantity in first:
        print(f"\n{quantity}")
        for setting, result in results.items():
            ratio = result[quantity] / first[quantity]
            print(f"  {setting:24s} {result[quantity]:8.3f}   {ratio:5.2f} x")
        if options.published:
            ratio = results[PUBLISHED][quantity] / results[SETTINGS[-1]][quantity]
            print(f"  published code : as longflow trains {ratio:7.2f}")


def in_own_process(setting: str) -> dict[str, float]:
    """The figures of one setting."""
    command = [sys.executable, __file__, *sys.argv[1:], "--setting", setting]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds and GB in this process."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    scans, *spatial = options.shape
    network = published(options) if options.setting == PUBLISHED else ours(options)
    network = network.to(device)
    if options.setting not in ("float32", PUBLISHED):
        network = network.to(memory_format=torch.channels_last_3d)
    stack, code = torch.randn(1, scans, *spatial, device=device), torch.randn(1, CODE_SIZE, device=device)
    optimizer = torch.optim.AdamW(network.parameters())
    low_precision = options.setting == SETTINGS[-1]

    def velocity(x: Tensor) -> Tensor:
        if not low_precision:
            return network(x, code)
        with autocast(device):
            return network(x, code)

    def training_step() -> None:
        loss = (velocity(stack) - stack).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    before = memory(device)
    found = {"training step, s": timed(training_step, options.repeat, device)}
    found["memory above the start, GB"] = memory(device) - before
    with torch.inference_mode():
        for steps in EULER_STEPS:
            seconds = timed(lambda n=steps: integrate(lambda _, x: velocity(x), stack, "euler", n), 1, device)
            found[f"{steps} Euler steps, s"] = seconds
    return found


def ours(options: argparse.Namespace) -> torch.nn.Module:
    """FiLM U-Net of four scales."""
    scans, *spatial = options.shape
    return FiLMUNet(scans, plan(options.features, len(spatial)), CODE_SIZE)


def published(options: argparse.Namespace) -> torch.nn.Module:
    """Return the published network, called as ours; it gets times of scans, of which it makes its own code."""
    sys.path.insert(0, str(options.published / "src" / "methods" / "fm_utils"))
    from image_cond_unet import ConditionedUNet

    class Published(ConditionedUNet):
        def forward(self, stack: Tensor, code: Tensor) -> Tensor:
            return super().forward(code[:, : stack.shape[1]], [stack, None])

    multiples = [1, 1, 2, 4]
    return Published(dim=options.shape, num_channels=options.features, num_res_blocks=1, channel_mult=multiples)


def plan(features: int, dimensions: int) -> NetworkPlan:
    """Four scales with strides of 2, as in CRONOS C.3."""
    return NetworkPlan(
        features_per_stage=[features, features, 2 * features, 4 * features],
        strides=[[1] * dimensions, *[[2] * dimensions] * 3],
        kernel_sizes=[[3] * dimensions] * 4,
        attention=True,
    )


def timed(work, repeat: int, device: torch.device) -> float:
    """Median seconds, after one run that does not count."""
    seconds = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds[1:])[repeat // 2]


def memory(device: torch.device) -> float:
    """Peak memory so far, GB: of the process on a CPU, of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
