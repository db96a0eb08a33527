"""Sizes of networks and runs: tiny (CPU, tests, demo), S, M, L; a task may have further ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longflow.errors import unknown_name
from longflow.plans import Encoder, PresetName, TrainingPlan


@dataclass(frozen=True)
class Preset:
    """The numbers of a size.

    :param gpu_memory: GB that a training step may take, where the user does not say.
    :param base_features: of the first stage; CRONOS C.3 has 32.
    :param expansion: features of a stage over those of the first; the last number holds for all deeper stages.
    :param max_stages: most scales of the U-Net; CRONOS has four.
    :param attention: windowed self-attention at the bottleneck.
    :param longest_sequence: most context scans of a sample; CRONOS has 7 and 11.
    :param batch_size: least and most samples of a step, as memory allows; CRONOS has 4.
    :param most_features: of a stage, by the number of dimensions; empty: no limit.
    :param encoder: kind of encoder.
    :param blocks: of each stage of the encoder; empty: the network's own number.
    :param fewest_stages: of which the network can be built.
    :param more_slices: factor by which a batch of the 2d configuration may be larger: slices are cheap.
    :param networks: features and blocks of each stage of networks that have a size of their own, by name.
    :param dataset_share: most voxels of a batch, as a share of the dataset's; None: no limit.
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
    networks: Mapping[str, tuple[Sequence[int], Sequence[int]]] = field(default_factory=dict)
    dataset_share: float | None = None

    def features(self, stages: int, dimensions: int = 3) -> list[int]:
        """Return the features of each stage."""
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


def preset(name: str) -> Preset:
    """Find a preset by name.

    :param name: tiny, S, M or L.
    :returns: the preset.
    :raises NotFoundError: there is no such preset; the nearest name is in the message.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, list(PRESETS))
    return PRESETS[name]
