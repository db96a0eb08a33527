"""The base of the flow methods: transport of a stack of context scans to the broadcast target."""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.flow.grid import embed_on_grid, fill_forward, grid_slots
from longflow.flow.interpolant import (
    broadcast_target,
    change_weights,
    draw_flow_steps,
    interpolate,
    joint_weights,
    noisy_source,
    velocity,
    velocity_loss,
)
from longflow.flow.masks import as_weights
from longflow.flow.reduction import REDUCTIONS, reduce_scans
from longflow.flow.solvers import integrate
from longflow.flow.times import time_frequencies
from longflow.methods.batches import Batch
from longflow.methods.method import Method, Options
from longflow.networks.blocks import GROUPS
from longflow.networks.registry import NetworksFor, build_network
from longflow.plans import NetworkPlan, Plans, TemporalPlan

FREQUENCIES = 16

#: flow steps this far apart are distinguished
SMALLEST_STEP = 0.05


class Evaluation(NamedTuple):
    """The network's evaluation at one flow step of a prediction.

    :param tau: flow step, 0 to 1.
    :param stack: X_tau, (batch, places, channels, *spatial).
    :param velocity: v_theta(X_tau), likewise.
    """

    tau: float
    stack: Tensor
    velocity: Tensor


class FlowPath(NamedTuple):
    """The path of a prediction.

    :param evaluations: in order of tau, one for each function evaluation of the solver.
    :param end: X_1, (batch, places, channels, *spatial).
    :param mask: (batch, places), True where a place counts.
    :param times: of the places, (batch, places), as in the batch.
    """

    evaluations: list[Evaluation]
    end: Tensor
    mask: Tensor
    times: Tensor


class FlowMethod(Method):
    """Flow matching from the context to the target of the same subject (CRONOS algorithms 1 and 2; TFM algorithm 1).

    The coupling is paired: every stack is transported to its own subject's target. Subclasses make the stack of a batch
    (:meth:`stack`) and the network's conditioning code (:meth:`code`), to which covariates are appended.

    ``options``:

    - ``noise``: sigma of CRONOS eq. 4 (table 7), the standard deviation of the Gaussian noise that is added to X_tau in
      training, in units of the normal form. As in TorchCFM, the library of the paper, it is the same at every tau, and
      the velocity to be learnt stays X_1 - X_0. Nothing is added in prediction.
    - ``source_noise``: sigma of a noisy source, X_0 = context + sigma eps, in units of the normal form. eps is an image
      that is the same for all scans of a stack. The velocity to be learnt is X_1 - X_0, which contains it; so the
      noise has left at tau = 1. A prediction begins with the noise of its batch (``longflow_predict --samples``),
      others with the context itself, the centre of the source.
    - ``context``: "all" scans, or the "last" one alone: a stack of one scan, for which the network is built; everything
      else stays. That is "LCI + FM" of TFM (table 3: its U-Net with a single time channel) and the single context
      frame of CRONOS (B.6.1). A grid of one slot says nothing of the horizon; ``cronos`` knows it from its times.
    - ``features``: of the network's first stage, a multiple of 8 (CRONOS table 5); those of the other stages change in
      proportion. 0: those of the plan.
    - ``at_start``: share of the draws with tau = 0, the place where a prediction with one Euler step evaluates the
      network. The others are uniform, as all are in the paper.
    - ``change_weight``: w of :func:`~longflow.flow.interpolant.change_weights`: the loss of a voxel counts more where
      the target differs from the last context scan.

    :param scans: most scans of a stack.
    :param code_size: length of the conditioning code.
    :param network: a name in ``networks``; empty: the default.
    :raises ConfigurationError: an option has a value out of its range; the features do not fit.
    """

    task = "forecast"
    reductions = REDUCTIONS
    integrates = True
    uses_covariates = True
    networks = NetworksFor("flow")
    options: ClassVar[Options] = {
        "noise": 0.0,
        "source_noise": 0.0,
        "context": "all",
        "features": 0,
        "at_start": 0.0,
        "change_weight": 0.0,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"context": ("all", "last")}

    def __init__(
        self,
        plans: Plans,
        configuration: str,
        scans: int,
        code_size: int,
        options: Options | None = None,
        network: str = "",
    ):
        super().__init__(plans, configuration, options)
        for name in ("noise", "source_noise", "change_weight"):
            if not 0 <= self.options[name] < math.inf:
                raise ConfigurationError(f"The option '{name}' is {self.options[name]}, expected 0 or more.")
        if not 0 <= self.options["at_start"] <= 1:
            raise ConfigurationError(f"The option 'at_start' is {self.options['at_start']}, expected 0 to 1.")
        self.scans = 1 if self.options["context"] == "last" else scans
        channels = self.scans * len(plans.channel_names)
        plan = with_features(self.configuration.network, self.options["features"])
        code_size += covariate_features(plans)
        self.network = build_network(network or self.networks[0], channels, plan, code_size)

    @property
    def sees_earlier_scans(self) -> bool:
        """Whether it was trained with all context scans."""
        return self.options["context"] == "all"

    @property
    def stochastic(self) -> bool:
        """Whether it was trained from a noisy source."""
        return self.options["source_noise"] > 0

    @abstractmethod
    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Make the stack of a batch.

        :param batch: with or without target.
        :returns: X_0, (batch, scans, channels, *spatial), and which of its scans count, (batch, scans).
        """

    @abstractmethod
    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """Make the conditioning code.

        :param batch: with its times.
        :param tau: flow steps, (batch,).
        :returns: (batch, code_size).
        """

    def velocity(self, batch: Batch, stack: Tensor, mask: Tensor, tau: Tensor) -> Tensor:
        """Compute v_theta(X_tau); the network sees zeros where ``mask`` is False.

        :param batch: with its times.
        :param stack: X_tau, (batch, scans, channels, *spatial).
        :param mask: (batch, scans), True where a scan counts.
        :param tau: flow steps, (batch,).
        :returns: the shape of ``stack``.
        """
        observed = stack * as_weights(mask, stack)
        return self.network(observed.flatten(1, 2), with_covariates(self.code(batch, tau), batch)).view_as(stack)

    def training_step(self, batch: Batch) -> Tensor:
        """Draw one tau per sample and compute the mean squared error of the velocity (CRONOS eq. 4-6)."""
        batch = self._seen(batch)
        start, mask = self.stack(batch)
        if self.options["source_noise"]:
            start = noisy_source(start, self.options["source_noise"], torch.randn_like(batch.target))
        end = broadcast_target(batch.target, start.shape[1])
        tau = draw_flow_steps(start.shape[0], self.options["at_start"]).to(start.device, non_blocking=True)
        point = interpolate(start, end, tau, self.options["noise"])
        predicted = self.velocity(batch, point, mask, tau)
        weights = change_weights(batch.target, batch.context[:, -1], self.options["change_weight"])
        return velocity_loss(predicted, velocity(start, end), mask, joint_weights(weights, batch.weights))

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Integrate the stack to tau = 1 (CRONOS eq. 10) and return both reductions."""
        path = self.path(batch)
        return reduce_scans(path.end, path.mask)

    def path(self, batch: Batch, keep: bool = False) -> FlowPath:
        """Integrate the stack to tau = 1.

        :param batch: without target.
        :param keep: keep the evaluations, which take memory; without it the path has none.
        """
        batch, evaluations = self._seen(batch), []
        start, mask = self.stack(batch)
        if batch.noise is not None:
            start = noisy_source(start, self.options["source_noise"], batch.noise)

        def field(tau: Tensor, stack: Tensor) -> Tensor:
            found = self.velocity(batch, stack, mask, tau.expand(stack.shape[0]))
            if keep:
                evaluations.append(Evaluation(float(tau), stack, found))
            return found

        return FlowPath(evaluations, integrate(field, start, self.solver, self.steps), mask, self.place_times(batch))

    def place_times(self, batch: Batch) -> Tensor:
        """Return the times of the places of a stack, (batch, places), as in the batch."""
        return batch.context_times

    def _seen(self, batch: Batch) -> Batch:
        """Keep the context that the option allows; its last scan is always an observed one."""
        if self.options["context"] == "all":
            return batch
        context, times, mask = batch.context[:, -1:], batch.context_times[:, -1:], batch.context_mask[:, -1:]
        return replace(batch, context=context, context_times=times, context_mask=mask)


class GridFlowMethod(FlowMethod):
    """A flow whose stack is the planned temporal grid, every empty slot filled with the nearest earlier scan.

    A further option is ``filling``, the content of empty slots (CRONOS table 4):

    - "locf": the nearest earlier scan (A.1.2);
    - "masking": zeros that only the network sees, without loss and without part in a reduction ("training only on the
      given frames", B.1);
    - "none": zeros that count like scans, in the loss and in the reductions ("as they are given").

    Zeros are those of the normal form. With "none" a forecast does not start at LCI: an untrained one is, under
    ``last``, a zero image wherever the last slot is empty.

    :param code_size: length of the conditioning code.
    :param network: a name in ``networks``; empty: the default.
    """

    options: ClassVar[Options] = {**FlowMethod.options, "filling": "locf"}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**FlowMethod.choices, "filling": ("locf", "masking", "none")}

    def __init__(
        self, plans: Plans, configuration: str, code_size: int, options: Options | None = None, network: str = ""
    ):
        grid = plans.temporal.grid
        super().__init__(plans, configuration, grid.length, code_size, options, network)
        self.grid_length = self.scans
        self.grid_spacing = grid.spacing / plans.temporal.time_scale

    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Make X_0 = LOCF(embed(scans)) (CRONOS eq. 8; TFM section 2.4); every slot counts.

        With the filling "masking" or "none" X_0 = embed(scans) (eq. 17, 18). With "masking" only occupied slots count
        (eq. 15).
        """
        slots = grid_slots(batch.context_times, batch.target_time, self.grid_spacing, self.grid_length)
        embedded, occupied = embed_on_grid(batch.context, slots, batch.context_mask, self.grid_length)
        if self.options["filling"] == "masking":
            return embedded, occupied
        filled = fill_forward(embedded, occupied) if self.options["filling"] == "locf" else embedded
        return filled, torch.ones_like(occupied)

    def place_times(self, batch: Batch) -> Tensor:
        """Return the times of the slots, (batch, slots): the last is one spacing before the target."""
        back = torch.arange(self.grid_length, 0, -1, device=batch.target_time.device)
        return batch.target_time.unsqueeze(1) - back * self.grid_spacing


def with_features(plan: NetworkPlan, first: int) -> NetworkPlan:
    """Change the features of all stages in proportion.

    :param plan: of the network.
    :param first: features of the first stage; 0: those of the plan.
    :returns: the changed plan.
    :raises ConfigurationError: the features of a stage would not be a multiple of 8.
    """
    if first == 0:
        return plan
    scaled = [features * first / plan.features_per_stage[0] for features in plan.features_per_stage]
    if first < 0 or any(features % GROUPS for features in scaled):
        raise ConfigurationError(
            f"The option 'features' is {first}, expected a multiple of {GROUPS} that leaves a multiple of {GROUPS} in "
            f"each stage; the plan has {plan.features_per_stage}. 0 takes those of the plan."
        )
    return plan.model_copy(update={"features_per_stage": [int(features) for features in scaled]})


def covariate_features(plans: Plans) -> int:
    """Return the length of what :func:`with_covariates` appends: value and presence of each covariate."""
    return 2 * len(plans.covariates)


def with_covariates(code: Tensor, batch: Batch) -> Tensor:
    """Append the covariates of a batch to a conditioning code.

    :param code: (batch, features).
    :param batch: with or without covariates.
    :returns: (batch, features + 2 n); without covariates the code itself.
    """
    return code if batch.covariates is None else torch.cat([code, batch.covariates], dim=1)


def flow_step_frequencies() -> Tensor:
    """Return frequencies f_k of gamma(tau), for codes of the flow step alone: (FREQUENCIES,)."""
    return time_frequencies(SMALLEST_STEP, 1.0, FREQUENCIES)


def planned_frequencies(temporal: TemporalPlan) -> Tensor:
    """Return frequencies f_k for a dataset's times, from its shortest interval to its longest span or horizon.

    :param temporal: of the plans.
    :returns: (FREQUENCIES,), in turns per unit of the time scale.
    """
    longest = max(temporal.longest_span, temporal.longest_horizon)
    return time_frequencies(
        temporal.shortest_interval / temporal.time_scale, longest / temporal.time_scale, FREQUENCIES
    )
