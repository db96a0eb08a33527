"""Sizes of networks and runs: tiny (CPU, tests, demo), S, M, L."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from longflow.errors import unknown_name
from longflow.networks.timeresnet import PAPER_BLOCKS, PAPER_FEATURES
from longflow.plans import Encoder, PresetName, TrainingPlan


@dataclass(frozen=True)
class Preset:
    """What a size stands for.

    :param gpu_memory: GB that a training step may take, where the user does not say.
    :param base_features: of the first stage; CRONOS C.3 has 32.
    :param expansion: features of a stage over those of the first; the last number holds for all deeper stages.
    :param max_stages: most scales of the U-Net; CRONOS has four.
    :param attention: windowed self-attention at the bottleneck.
    :param longest_sequence: most context scans that a sample holds; CRONOS has 7 and 11.
    :param batch_size: samples of a step: as many as memory allows between the two; CRONOS has 4.
    :param most_features: of a stage, by the number of dimensions; empty: no limit.
    :param encoder: kind of encoder, and :param blocks: of each of its stages; empty: the network's own number.
    :param fewest_stages: that the network can be built of.
    :param more_slices: how many times more samples a batch of the 2d configuration may hold: slices are cheap.
    :param dataset_share: most voxels that a batch may hold, as a share of the dataset's; None: no limit.
    """

    name: PresetName
    gpu_memory: float
    base_features: int
    expansion: tuple[int, ...]
    max_stages: int
    attention: bool
    longest_sequence: int
    batch_size: tuple[int, int]
    training: TrainingPlan
    most_features: Mapping[int, int] = field(default_factory=dict)
    encoder: Encoder = "plain"
    blocks: tuple[int, ...] = ()
    fewest_stages: int = 1
    more_slices: int = 4
    dataset_share: float | None = None

    def features(self, stages: int, dimensions: int = 3) -> list[int]:
        """Features per stage."""
        rates = self.expansion + self.expansion[-1:] * stages
        most = self.most_features.get(dimensions, self.base_features * max(rates))
        return [min(most, self.base_features * rates[stage]) for stage in range(stages)]


_PAPER_TRAINING = TrainingPlan(epochs=1000, iterations_per_epoch=250, learning_rate=1e-4)

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            gpu_memory=0.5,
            base_features=16,
            expansion=(1, 1, 2, 4),
            max_stages=4,
            attention=False,
            longest_sequence=8,
            batch_size=(2, 2),
            training=TrainingPlan(epochs=40, iterations_per_epoch=50, learning_rate=1e-3, ema_decay=0.99),
        ),
        Preset(
            name="S",
            gpu_memory=4,
            base_features=16,
            expansion=(1, 1, 2, 4, 8),
            max_stages=5,
            attention=False,
            longest_sequence=8,
            batch_size=(2, 4),
            training=_PAPER_TRAINING,
        ),
        Preset(
            name="M",
            gpu_memory=8,
            base_features=32,
            expansion=(1, 1, 2, 4, 8),
            max_stages=6,
            attention=True,
            longest_sequence=11,
            batch_size=(2, 4),
            training=_PAPER_TRAINING,
        ),
        Preset(
            name="L",
            gpu_memory=24,
            base_features=64,
            expansion=(1, 1, 2, 4, 8),
            max_stages=6,
            attention=True,
            longest_sequence=15,
            batch_size=(2, 4),
            training=_PAPER_TRAINING,
        ),
    )
}

#: nnU-Net's numbers (ExperimentPlanner, ResEncUNetPlanner); its planners read folders when they are made, so the
#: numbers are written here, and tests/planning/test_presets.py compares them with its
NNUNET_BASE_FEATURES = 32
NNUNET_MOST_FEATURES = {2: 512, 3: 320}
NNUNET_BLOCKS: dict[Encoder, tuple[int, ...]] = {"plain": (2,) * 14, "residual": (1, 3, 4, *(6,) * 10)}
NNUNET_SMALLEST_BATCH = 2
NNUNET_DATASET_SHARE = 0.05
#: no planned network has more stages than nnU-Net has numbers of blocks for
NNUNET_MOST_STAGES = min(len(blocks) for blocks in NNUNET_BLOCKS.values())
#: nnU-Net has no upper limit but the memory and the share of the dataset; this one ends the search
MOST_SAMPLES = 64

#: stages of the smallest U-Net, for tests and CPUs; its memory, and that of pretraining alone (large projectors)
TINY_STAGES, TINY_MEMORY, TINY_PRETRAINING_MEMORY = 4, 1, 2

#: MFM B.4; its 30 epochs go through 34,992 slices (section 4) in batches of 2, and one of ours has 250 iterations
MFM_BATCH, MFM_LEARNING_RATE, MFM_EPOCHS = 2, 2e-5, 2100
#: what the features of the presets are divided by, against MFM's TimeResNet
SHARE_OF_PAPER = {"S": 4, "M": 2, "L": 1}
#: the network that translates on a CPU; many small steps serve it more than a few large ones
TINY_FEATURES, TINY_BLOCKS = (16, 32, 64, 128), (1, 1, 1, 1)

#: steps as in nnUNetTrainer; of the rest, each method has its own recipe
_NNUNET_TRAINING = TrainingPlan(
    epochs=1000, iterations_per_epoch=250, learning_rate=1e-2, weight_decay=3e-5, warmup=0, ema_decay=0
)


def preset(name: str) -> Preset:
    """A preset by name; an unknown one is an error that names the nearest."""
    if name not in PRESETS:
        raise unknown_name("preset", name, get_args(PresetName))
    return PRESETS[name]


def segmentation_preset(name: str, encoder: Encoder = "plain", labelled: bool = True) -> Preset:
    """A preset for nnU-Net's U-Nets: its numbers within the preset's memory; tiny is smaller in all.

    :param labelled: whether there is anything to segment, or pretraining alone.
    """
    tiny = name == "tiny"
    size = preset(name)
    return replace(
        size,
        gpu_memory=(TINY_MEMORY if labelled else TINY_PRETRAINING_MEMORY) if tiny else size.gpu_memory,
        base_features=16 if tiny else NNUNET_BASE_FEATURES,
        expansion=tuple(2**stage for stage in range(NNUNET_MOST_STAGES)),
        max_stages=TINY_STAGES if tiny else NNUNET_MOST_STAGES,
        attention=False,
        batch_size=size.batch_size if tiny else (NNUNET_SMALLEST_BATCH, MOST_SAMPLES),
        training=_NNUNET_TRAINING.model_copy(
            update={"epochs": size.training.epochs, "iterations_per_epoch": size.training.iterations_per_epoch}
        ),
        most_features=NNUNET_MOST_FEATURES,
        encoder=encoder,
        blocks=NNUNET_BLOCKS[encoder],
        fewest_stages=2,
        dataset_share=NNUNET_DATASET_SHARE,
    )


def translation_preset(name: str) -> Preset:
    """A preset for the networks that translate: L is the paper's (MFM B.4), the others are smaller.

    Of the paper's network, M has half the features and S a quarter.
    """
    size = preset(name)
    features = TINY_FEATURES if name == "tiny" else [count // SHARE_OF_PAPER[name] for count in PAPER_FEATURES]
    training = TrainingPlan(epochs=1000, iterations_per_epoch=250, learning_rate=1e-4, weight_decay=0)
    if name == "tiny":
        training = size.training.model_copy(update={"weight_decay": 0})
    if name == "L":
        training = training.model_copy(update={"epochs": MFM_EPOCHS, "learning_rate": MFM_LEARNING_RATE})
    return replace(
        size,
        base_features=features[0],
        expansion=tuple(count // features[0] for count in features),
        max_stages=len(features),
        attention=False,
        batch_size={"L": (MFM_BATCH, MFM_BATCH), "tiny": size.batch_size}.get(name, (2, 4)),
        more_slices=1 if name in ("tiny", "L") else size.more_slices,
        training=training,
        blocks=TINY_BLOCKS if name == "tiny" else tuple(PAPER_BLOCKS),
    )
