"""Sizes, intensities and remarks that plan a translation (Medical Flow Matching B.1 to B.4)."""

from collections.abc import Mapping
from dataclasses import replace

from rich.console import RenderableType

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.spatial import ChannelIntensities
from longflow.methods.registry import network_of
from longflow.networks.timeresnet import PAPER_BLOCKS, PAPER_FEATURES
from longflow.planning import presets as sizes
from longflow.planning.presets import Preset
from longflow.planning.summary import key_table
from longflow.plans import ChannelPlan, Plans, TrainingPlan

#: MFM B.3: what CT is limited to for translation, in HU; it is scaled to -1 ... 1
MFM_CLIP = (-1000.0, 1000.0)

#: HU that synthetic CT from another modality is limited to: the range of the challenge SynthRAD 2025
SYNTHETIC_CLIP = (-1024.0, 3000.0)

#: MFM B.4; its 30 epochs go through 34,992 slices (section 4) in batches of 2, and one of ours has 250 iterations
MFM_BATCH, MFM_LEARNING_RATE, MFM_EPOCHS = 2, 2e-5, 2100
#: what the features of the presets are divided by, against MFM's TimeResNet
SHARE_OF_PAPER = {"S": 4, "M": 2, "L": 1}
#: features and blocks of each stage with which the other networks have the paper's number of parameters (table 3; UNet:
#: table 1), which gives no sizes. Those of the last stage are chosen for the number alone. MONAI's UNet of 64 to 2048
#: features with two residual units, likely the paper's, has 104.23 million; the one here has nnU-Net's topology
PAPER_NETWORKS = {
    "unet": ((64, 128, 256, 512, 1024, 1736), (1, 1, 1, 1, 1, 1)),
    "segresnet": ((88, 176, 352, 704, 1408), ()),
    "umamba_bot": ((64, 128, 256, 512, 1024, 1096), (2, 2, 2, 2, 2, 2)),
}
#: the network that translates on a CPU; many small steps serve it more than a few large ones
TINY_FEATURES, TINY_BLOCKS = (16, 32, 64, 128), (1, 1, 1, 1)


def preset(name: str) -> Preset:
    """Return a preset for the networks that translate: L is the paper's (MFM B.4), the others are smaller.

    Of the paper's network, M has half the features and S a quarter. ``paper`` is L with the paper's number of
    parameters in all networks; in L the others have the features of TimeResNet, and half as many parameters.
    """
    paper = name == "paper"
    name = "L" if paper else name
    size = sizes.preset(name)
    features = TINY_FEATURES if name == "tiny" else [count // SHARE_OF_PAPER[name] for count in PAPER_FEATURES]
    training = TrainingPlan(epochs=1000, iterations_per_epoch=250, learning_rate=1e-4, weight_decay=0)
    if name == "tiny":
        training = size.training.model_copy(update={"weight_decay": 0})
    if name == "L":
        training = training.model_copy(update={"epochs": MFM_EPOCHS, "learning_rate": MFM_LEARNING_RATE})
    return replace(
        size,
        name="paper" if paper else size.name,
        networks=PAPER_NETWORKS if paper else {},
        base_features=features[0],
        expansion=tuple(count // features[0] for count in features),
        max_stages=len(features),
        attention=False,
        batch_size={"L": (MFM_BATCH, MFM_BATCH), "tiny": size.batch_size}.get(name, (2, 4)),
        more_slices=1 if name in ("tiny", "L") else size.more_slices,
        training=training,
        blocks=TINY_BLOCKS if name == "tiny" else tuple(PAPER_BLOCKS),
    )


def limited_channel(channel: ChannelPlan) -> ChannelPlan:
    """Limit CT to MFM's range and scale it to -1 ... 1; other channels stay as they are (MFM B.3)."""
    if not is_ct(channel.name):
        return channel
    low, high = MFM_CLIP
    start = channel.reason.split("; offset and scale are")[0]
    return ChannelPlan(
        name=channel.name,
        normal_form="absolute",
        offset=(low + high) / 2,
        scale=(high - low) / 2,
        clip=MFM_CLIP,
        reason=f"{start}; clipped to {low:g} to {high:g} HU, which become -1 to 1 (MFM B.3)",
    )


def plan_phase_channels(fingerprint: Fingerprint, description: DatasetDescription) -> dict[str, list[ChannelPlan]]:
    """Choose the normal form of each channel of each phase, where ``phase_channels`` of dataset.json names them.

    CT is ``absolute``: 1000 HU become 1, limited to ``SYNTHETIC_CLIP``. Every other channel has a map for each scan
    from mean and standard deviation of its body; translations into it are written by those of all training bodies,
    since the target's map is unknown.

    :param fingerprint: with the intensities of each phase.
    :param description: dataset.json.
    :returns: by phase; empty where the phases share their channels.
    """
    if not description.phase_channels:
        return {}
    return {
        phase: [
            _phase_channel(name, fingerprint.phases.intensities[phase][str(index)])
            for index, name in enumerate(description.channels_of(phase))
        ]
        for phase in fingerprint.phases.names
    }


def _phase_channel(name: str, found: ChannelIntensities) -> ChannelPlan:
    if is_ct(name):
        low, high = SYNTHETIC_CLIP
        reason = f"'{name}' is CT, whose units mean the same in every scan; limited to {low:g} to {high:g} HU"
        return ChannelPlan(
            name=name, normal_form="absolute", offset=0.0, scale=1000.0, clip=SYNTHETIC_CLIP, reason=reason
        )
    return ChannelPlan(
        name=name,
        normal_form="per_scan",
        offset=found.mean,
        scale=found.std or 1.0,
        reason="each scan has its own mean and standard deviation; translations are written by those of "
        f"{found.count:,} voxels of bodies of the training scans",
    )


def remarks_on_networks(estimate: Mapping[str, float], gpu_memory: float) -> list[str]:
    """Say what a step takes with networks other than the one that decided the patch.

    :param estimate: GB by method.
    :param gpu_memory: GB that the patch was planned for.
    """
    others = {network: needed for method, needed in estimate.items() if (network := network_of(method)[1])}
    if not others:
        return []
    shown = ", ".join(f"{network} {needed:.2f} GB" for network, needed in others.items())
    more = "; where there is not as much, set a smaller batch_size or patch_size in the plans"
    return [f"With other networks (--network): {shown}{more if max(others.values()) > gpu_memory else ''}."]


def phase_table(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    """Return the table of what is translated into what; times play no part."""
    table = key_table("Phases")
    for end, phase in enumerate(plans.phases):
        table.add_row(f"t = {end}", phase)
    table.add_row("pairs", f"{fingerprint.phases.pairs} of one subject and time; one network learns both directions")
    for part in fingerprint.phases.excluded():
        table.add_row("excluded", part)
    return table
