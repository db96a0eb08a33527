"""Continuous CRONOS: real-valued times, observed scans only (section 3.3, algorithm 1, eq. 9-11)."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from longflow.flow.masks import as_weights
from longflow.flow.times import encode_times, fourier_features, harmonic_features, interpolate_times
from longflow.methods.batches import Batch, expected_scan
from longflow.methods.forecasting._flow import FREQUENCIES, FlowMethod, flow_step_frequencies, planned_frequencies
from longflow.methods.method import Options
from longflow.networks.scan_mixing import ScanMixing
from longflow.plans import Plans

#: harmonics of a period that times are encoded with: a heart's contraction is well described by as many
HARMONICS = 4


class Cronos(FlowMethod):
    """Continuous CRONOS.

    Time reaches the network as in the paper, Enc(T_tau) of equation 11. That code alone loses information that a
    forecast depends on, so time enters in two further ways. Each is an option; with both switched off the method is the
    paper's as printed:

    - ``target_code``: the encoded target time is concatenated to the code. At tau = 0 equation 9 gives the context's
      times, which say nothing of the target's. So the first evaluation (the only one with a single Euler step) could
      not depend on the requested time.
    - ``mixing``: equation 11 is a mean over the scans, from which it is hard to tell which scan belongs to which time.
      A linear term W(t_1 ... t_T, t_target) X_0, with weights made of every scan's own time, is added to the network's
      velocity: v = v_theta(X_tau, T_tau) + W X_0. It starts at zero, as the network does.

    Frequencies cover the dataset's shortest interval and longest span or horizon (:func:`planned_frequencies`). Where
    the plans have a period P, gamma(t) has ``HARMONICS`` harmonics of it as well, so that times one period apart are
    alike there. They are zero for a subject whose period is not known.

    A further option is ``explicit_time``. Switched off, no time enters (table 9 and B.6.2, where the variant called
    discrete "receives no timestamps" and everything else is equal). The code is then gamma(tau), as in discrete CRONOS
    (C.3), since Enc(T_tau) and gamma(t_target) are made of times. The linear term is excluded for the same reason: the
    two options above have no effect. Only the order of the scans and their number remain of time.
    """

    summary = "continuous CRONOS: transport of all context scans at their real times (default)"

    options: ClassVar[Options] = {
        **FlowMethod.options,
        "explicit_time": True,
        "mixing": True,
        "target_code": True,
        "recurrence": True,
    }

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None, network: str = ""):
        temporal = plans.temporal
        chosen = {**type(self).options, **(options or {})}
        features = 2 * (FREQUENCIES + (HARMONICS if temporal.repeats else 0))
        of_times = features * (2 if chosen["target_code"] else 1)
        code_size = of_times if chosen["explicit_time"] else 2 * FREQUENCIES
        sees_all = chosen["context"] == "all" and chosen["explicit_time"]
        expects = chosen["recurrence"] and sees_all and temporal.recurrence is not None
        scans = temporal.sequence_length + int(expects)
        super().__init__(plans, configuration, scans, code_size, options, network)
        self.expects = expects
        if not self.options["explicit_time"]:
            self.register_buffer("frequencies", flow_step_frequencies())
            return
        self.register_buffer("frequencies", planned_frequencies(temporal))
        if self.options["mixing"]:
            self.mixing = ScanMixing(self.scans, features, features)

    def _seen(self, batch: Batch) -> Batch:
        """Add the scan that is expected because scans repeat: a further scan, the last, at the target time."""
        batch = super()._seen(batch)
        if not self.expects:
            return batch
        return replace(
            batch,
            context=torch.cat([batch.context, expected_scan(batch.context, batch.recurrence)[:, None]], dim=1),
            context_times=torch.cat([batch.context_times, batch.target_time[:, None]], dim=1),
            context_mask=torch.cat([batch.context_mask, torch.ones_like(batch.context_mask[:, :1])], dim=1),
        )

    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take the observed scans as they are (section 3.1: observed context only, without padding)."""
        return batch.context, batch.context_mask

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """Make [Enc(T_tau), gamma(t_target)], or what the options leave of it."""
        if not self.options["explicit_time"]:
            return fourier_features(tau, self.frequencies)
        times = interpolate_times(batch.context_times, batch.target_time, tau)
        encoded = encode_times(self.features(times, batch), batch.context_mask)
        if not self.options["target_code"]:
            return encoded
        return torch.cat([encoded, self.features(batch.target_time, batch)], dim=1)

    def features(self, times: Tensor, batch: Batch) -> Tensor:
        """Make gamma(t), and the harmonics of the period where the plans have one.

        :param times: (batch,) or (batch, scans).
        :param batch: with its period.
        :returns: (*times.shape, features).
        """
        found = fourier_features(times, self.frequencies)
        if batch.period is None:
            return found
        return torch.cat([found, harmonic_features(times, batch.period, HARMONICS)], dim=-1)

    def velocity(self, batch: Batch, stack: Tensor, mask: Tensor, tau: Tensor) -> Tensor:
        """Compute v_theta(X_tau, T_tau) + W(t, t_target) X_0, or what the options leave of it."""
        velocity = super().velocity(batch, stack, mask, tau)
        if self.expects:
            velocity = velocity + (batch.context[:, -1:] - batch.context) * as_weights(mask, stack)
        if not (self.options["explicit_time"] and self.options["mixing"]):
            return velocity
        times = self.features(batch.context_times, batch)
        target = self.features(batch.target_time, batch)
        return velocity + self.mixing(batch.context, times, target, mask)


METHOD = Cronos
