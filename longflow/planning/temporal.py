"""Plan time: time scale, sequence length, the grid of discrete methods, regular or irregular.

Each choice carries the numbers that led to it. A grid (CRONOS A.1.1) is judged on random contexts. The
target is any scan except the first of its subject. The context is a subset of the latest scans before it, of which
twice the sequence length T are drawn from: its size is uniform from 1 to T, then the subset of that size is (CRONOS
C.2). The costs of a grid are expected values over this draw, exactly. Contexts of one scan are the same in every slot,
so they say nothing about a grid, and are not counted. Training draws from all earlier scans
(``tasks.forecast.context``), but of those before a grid it sees the latest alone.

Every subject weighs the same in every statistic, however many scans it has.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb

import numpy as np
import torch
from torch import Tensor

from longflow.errors import DataError
from longflow.fingerprint.recurrence import RecurrenceFingerprint
from longflow.fingerprint.temporal import TemporalFingerprint, interval_percentiles, weighted_percentiles
from longflow.flow.grid import grid_slots
from longflow.plans import CONTEXT_WINDOW, GridPlan, RecurrencePlan, TemporalPlan, TimeUnit
from longflow.schema import Period

#: costs of a grid; losing a scan is the unit
WEIGHTS = {"overwritten": 1.0, "rounding_error": 1.0, "clipped": 0.5, "filled": 0.1, "memory": 0.1}
#: scans within this share of a grid spacing of their slots make a dataset regular; scans at random are 0.25 away
REGULAR_RESIDUAL = 0.1
#: a grid that loses or clips more than this share of scans does not make a dataset regular
REGULAR_LOSS = 0.05
RUNNERS_UP = 3
MOST_CONTEXTS = 5000
#: scans repeat where the error of forecasts that assume it is at most this share of LCI's, and below LCI's in at least
#: this share of the subjects
RECURRENT_ERROR, RECURRENT_SHARE = 0.98, 0.75
#: spacings closer than this are the same
SAME = 1e-6


@dataclass(frozen=True)
class Contexts:
    """The scans that the contexts of a dataset are drawn from, padded at the front to one length.

    :param times: relative to the target, in time units, (contexts, scans), negative.
    :param mask: of the same shape.
    :param subjects: position of the subject of each context, (contexts,).
    :param most: most scans of a context, T.
    """

    times: Tensor
    mask: Tensor
    subjects: Tensor
    most: int

    @property
    def available(self) -> Tensor:
        """Numbers of scans that contexts are drawn from, (contexts,)."""
        return self.mask.sum(1)

    @property
    def drawn(self) -> Tensor:
        """Expected numbers of scans of the contexts, (contexts,): sizes are uniform from 2, where there are two."""
        largest = self.available.clamp(max=self.most).double()
        return (largest.clamp(max=2) + largest) / 2

    @property
    def weights(self) -> Tensor:
        """Weights with which the scans of every subject count the same, (contexts,); 1 if all have as many."""
        scans = torch.bincount(self.subjects, self.drawn)
        return (scans.max() / scans)[self.subjects]

    @property
    def of_several(self) -> "Contexts":
        """The contexts of more than one scan."""
        several = self.available.clamp(max=self.most) > 1
        return replace(self, times=self.times[several], mask=self.mask[several], subjects=self.subjects[several])

    @property
    def offsets(self) -> np.ndarray:
        """Distances of the scans from their targets, positive, in one dimension."""
        return -self.times[self.mask].numpy()

    @property
    def of_scans(self) -> Tensor:
        """The weight of each scan: that of its context, times the chance that it is drawn, (contexts, scans)."""
        chance = self.drawn / self.available
        return (self.weights * chance)[:, None] * self.mask

    @property
    def scan_weights(self) -> np.ndarray:
        """The weights of the scans, in the order of :attr:`offsets`."""
        return self.of_scans[self.mask].numpy()


def plan_series(fingerprint: TemporalFingerprint, longest_sequence: int) -> TemporalPlan:
    """Make all temporal choices for samples of a target and its context scans.

    :param longest_sequence: the cap on the sequence length, from the preset.
    :param fingerprint: of the times.
    :returns: the temporal plan.
    :raises DataError: no subject has two scans.
    """
    times = [np.asarray(one, dtype=np.float64) for one in fingerprint.times if len(one) > 1]
    if not times:
        raise DataError(
            f"None of the {len(fingerprint.times)} subjects has two scans, so there is nothing to forecast. "
            "Expected: several scans of a subject share one name in the column 'subject' of scans.csv."
        )
    intervals = np.concatenate([np.diff(one) for one in times])
    time_scale, shortest_interval = interval_percentiles(times, (50, 5)).tolist()
    sequence_length, length_reason = choose_sequence_length([len(one) for one in times], longest_sequence)
    grids = rank_grids(times, sequence_length)
    best = grids[0]
    contexts = contexts_of(times, sequence_length)
    regular, regular_reason = regularity(contexts, best)
    longest_span = float(max(one[-1] - one[0] for one in times))
    unit = fingerprint.time_unit
    return TemporalPlan(
        time_unit=unit,
        time_scale=time_scale,
        sequence_length=sequence_length,
        shortest_interval=shortest_interval,
        longest_span=longest_span,
        longest_horizon=longest_span,
        grid=best,
        runners_up=runners_up(grids),
        regular=regular,
        reasons=[
            f"Time scale {time_scale:g} {unit}: the median of {len(intervals)} intervals "
            f"({intervals.min():g} to {intervals.max():g} {unit}) of {len(times)} subjects with two scans or more"
            f"{_weighing(times)}.",
            length_reason,
            _grid_reason(best, contexts, unit),
            regular_reason,
        ],
    )


def with_period(plan: TemporalPlan, period: Period | None) -> TemporalPlan:
    """Add the period after which scans repeat.

    :param plan: of the times.
    :param period: of dataset.json; None: 1 for times in cycles, else not known.
    :returns: the plan with the period and its reason; the same plan where it is not known.
    """
    if period is None and plan.time_unit == "cycles":
        period, reason = 1.0, "Period 1: times count in cycles."
    elif isinstance(period, str):
        reason = f"Period of each subject: the column '{period}' of scans.csv, as dataset.json says."
    elif period is not None:
        reason = f"Period {period:g} {plan.time_unit}, as dataset.json says."
    else:
        return plan
    return plan.model_copy(update={"period": period, "reasons": [*plan.reasons, reason]})


def with_recurrence(plan: TemporalPlan, found: RecurrenceFingerprint | None) -> TemporalPlan:
    """Add that scans repeat, where the training scans are forecast better by it.

    :param plan: of the times.
    :param found: of the fingerprint; None: not measured.
    :returns: the plan with the reason for or against it.
    """
    if found is None:
        return plan
    recurrent = found.relative_error <= RECURRENT_ERROR and found.better >= RECURRENT_SHARE * found.subjects
    reason = (
        f"a forecast of training scans that assumes it has {found.relative_error:.2f} of the error of the last context "
        f"image (LCI), and less than LCI in {found.better} of {found.subjects} subjects"
    )
    if not recurrent:
        needed = f"needed are {RECURRENT_ERROR:g} and {RECURRENT_SHARE:.0%} of the subjects"
        reasons = [*plan.reasons, f"Scans are not taken to repeat: {reason}; {needed}."]
        return plan.model_copy(update={"reasons": reasons})
    likely = found.periods[np.argmax(found.probabilities)]
    own = f" Each subject's period is inferred from its scans, most often {likely:.3g} {plan.time_unit}."
    recurrence = RecurrencePlan(**found.model_dump(include=set(RecurrencePlan.model_fields)))
    reasons = [*plan.reasons, f"Scans repeat: {reason}.{own if plan.period is None else ''}"]
    return plan.model_copy(update={"recurrence": recurrence, "reasons": reasons})


def choose_sequence_length(scans: list[int], longest: int) -> tuple[int, str]:
    """Choose the most context scans of a sample: the 90th percentile of (scans of a subject - 1), capped.

    :param scans: of each subject.
    :param longest: cap.
    :returns: the number, and the reason.
    """
    needed = int(np.ceil(np.percentile(np.asarray(scans) - 1, 90)))
    chosen = max(1, min(needed, longest))
    reason = (
        f"Sequence length {chosen}: subjects have {min(scans)} to {max(scans)} scans, and 90 % of them at most "
        f"{needed} before the last"
    )
    return chosen, reason + (f"; the preset allows {longest}." if needed > longest else ".")


def contexts_of(times: list[np.ndarray], most: int) -> Contexts:
    """Collect what contexts are drawn from: the latest scans before every scan except the first of every subject.

    Of a very large dataset every n-th target is taken, so that planning takes seconds.

    :param times: of each subject, ascending.
    :param most: most scans of a context, T.
    :returns: the contexts.
    """
    window = CONTEXT_WINDOW * most
    targets = [(subject, target) for subject, one in enumerate(times) for target in range(1, len(one))]
    targets = targets[:: -(-len(targets) // MOST_CONTEXTS)]
    rows = [times[subject][max(0, target - window) : target] - times[subject][target] for subject, target in targets]
    padded = np.zeros((len(rows), window))
    mask = np.zeros((len(rows), window), dtype=bool)
    for index, row in enumerate(rows):
        padded[index, window - len(row) :] = row
        mask[index, window - len(row) :] = True
    subjects = torch.tensor([subject for subject, _ in targets])
    return Contexts(torch.from_numpy(padded), torch.from_numpy(mask), subjects, most)


def rank_grids(times: list[np.ndarray], sequence_length: int) -> list[GridPlan]:
    """Rank grids from the best to the worst, one for each spacing.

    Candidates for the spacing come from the intervals. Each is tried with several lengths, and the best ones once more
    with the spacing that fits their slots (least squares). Ties go to the spacing nearest the median interval.

    :param times: of each subject, ascending, at least two.
    :param sequence_length: most context scans of a sample.
    :returns: the grids.
    """
    scale = float(interval_percentiles(times, (50,))[0])
    longest = CONTEXT_WINDOW * sequence_length
    contexts = contexts_of(times, sequence_length).of_several
    if not len(contexts.times):
        return [GridPlan(spacing=scale, length=1, overwritten=0, rounding_error=0, filled=0, clipped=0, score=0)]

    def ranked(spacings: np.ndarray) -> list[GridPlan]:
        grids = [_best_length(contexts, spacing, scale, longest) for spacing in spacings]
        return sorted(grids, key=lambda grid: (round(grid.score, 9), abs(np.log(grid.spacing / scale)), grid.spacing))

    first = ranked(candidate_spacings(times, longest))
    refined = np.array([_fitted_spacing(contexts, grid) for grid in first[:5]])
    known = np.array([grid.spacing for grid in first])
    refined = refined[[not np.isclose(spacing, known, rtol=SAME, atol=0).any() for spacing in refined]]
    return ranked(np.concatenate([known, _distinct(refined)])) if len(refined) else first


def runners_up(ranked: list[GridPlan]) -> list[GridPlan]:
    """Choose the next best grids whose spacings differ from all better ones by more than a twentieth."""
    chosen = ranked[:1]
    for grid in ranked[1:]:
        if all(abs(grid.spacing - better.spacing) > 0.05 * better.spacing for better in chosen):
            chosen.append(grid)
    return chosen[1 : 1 + RUNNERS_UP]


def candidate_spacings(times: list[np.ndarray], longest: int) -> np.ndarray:
    """List candidates for the spacing, distinct and sorted, in time units.

    They are percentiles of the intervals and simple fractions of their median; their greatest common divisor, for times
    on a grid of which every neighbouring pair lacks a scan; spans divided by numbers of slots.

    :param times: of each subject, ascending, at least two.
    :param longest: most slots.
    :returns: (candidates,).
    """
    percentiles = interval_percentiles(times, (0, 1, 5, 10, 25, 40, 50, 60, 75, 90, 100))
    median = interval_percentiles(times, (50,))[0]
    fractions = median * np.array([1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 3 / 2, 2])
    spans = np.median([one[-1] - one[0] for one in times]) / np.arange(1, longest + 1)
    divisor = common_divisor(np.concatenate([np.diff(one) for one in times]))
    candidates = np.concatenate([percentiles, fractions, spans, [divisor] if divisor else []])
    # a grid that does not cover two median intervals shows the last scan alone
    return _distinct(candidates[candidates * longest >= min(2 * median, candidates.max())])


def common_divisor(values: np.ndarray, tolerance: float = 1e-4) -> float | None:
    """Find the greatest number that divides all values, up to a tolerance (relative to their median).

    :param values: positive.
    :param tolerance: relative to the median.
    :returns: the divisor; None where it is less than a hundredth of the median, as for values without any order.
    """
    values = np.unique(values)
    smallest = tolerance * np.median(values)
    divisor = values[0]
    for value in values[1:]:
        larger = value
        while divisor > smallest and (rest := larger - divisor * np.round(larger / divisor)):
            if abs(rest) <= smallest:
                break
            larger, divisor = divisor, abs(rest)
    return float(divisor) if divisor >= 0.01 * np.median(values) else None


def judge_grid(contexts: Contexts, spacing: float, length: int, scale: float, longest: int) -> GridPlan:
    """Compute the expected costs of a grid on contexts: eq. 13-16 and 19.

    :param scale: the median interval.
    :param longest: most slots that a grid may have.
    :param spacing: of the grid.
    :param length: number of slots.
    :returns: the grid with its costs.
    """
    times, mask = contexts.times, contexts.mask
    target = torch.zeros(len(times), dtype=times.dtype)
    slots = grid_slots(times, target, spacing, length)
    competing = torch.zeros(len(times), length, dtype=torch.long).scatter_add(1, slots, mask.long())
    occupied = occupancy(contexts.most)[contexts.available[:, None], competing]
    position = times / spacing + length
    before = (position < -0.5 - SAME) & mask
    weights, of_scans = contexts.weights, contexts.of_scans
    scans, shown = float(of_scans.sum()), float((weights[:, None] * occupied).sum())
    inside = of_scans * ~before
    rounded = float(((position - slots).abs() * inside).sum()) / (float(inside.sum()) or 1)
    costs = {
        "overwritten": 1 - shown / scans,
        "rounding_error": rounded * spacing / scale,
        "clipped": float((of_scans * before).sum()) / scans,
        "filled": 1 - shown / (length * float(weights.sum())),
    }
    costs = {name: _clean(cost) for name, cost in costs.items()}
    score = sum(WEIGHTS[name] * cost for name, cost in costs.items()) + WEIGHTS["memory"] * length / longest
    return GridPlan(spacing=float(spacing), length=length, score=_clean(score), **costs)


@lru_cache(maxsize=8)
def occupancy(most: int) -> Tensor:
    """Compute how often a slot holds a scan in drawn contexts.

    Of n available scans, c fall into the slot. A subset of s scans leaves it empty with the chance
    C(n - c, s) / C(n, s). Sizes s are uniform from 2 to min(n, ``most``); of a single scan, s = 1.

    :param most: most scans of a context, T.
    :returns: chance that the slot is occupied, (n, c), float64, n and c from 0 to twice ``most``.
    """
    window = CONTEXT_WINDOW * most
    chances = torch.zeros(window + 1, window + 1, dtype=torch.float64)
    for available in range(1, window + 1):
        largest = min(available, most)
        sizes = range(min(2, largest), largest + 1)
        for within in range(1, available + 1):
            empty = sum(comb(available - within, size) / comb(available, size) for size in sizes)
            chances[available, within] = 1 - empty / len(sizes)
    return chances


def grid_residual(contexts: Contexts, spacing: float) -> float:
    """Compute the mean distance of scans from a grid through their targets, as a share of its spacing.

    :param contexts: of the dataset.
    :param spacing: of the grid.
    :returns: 0 for scans on the grid, 0.25 at random.
    """
    position = contexts.offsets / spacing
    return _clean(float(np.average(np.abs(position - np.round(position)), weights=contexts.scan_weights)))


def _best_length(contexts: Contexts, spacing: float, scale: float, longest: int) -> GridPlan:
    reach = torch.floor(-contexts.times / spacing + 0.5 - SAME).masked_fill(~contexts.mask, 0).amax(1)
    reaches = weighted_percentiles(reach.numpy(), contexts.weights.numpy(), (50, 75, 90, 95, 100))
    lengths = sorted({int(length) for length in np.ceil(reaches).clip(1, longest)})
    grids = [judge_grid(contexts, spacing, length, scale, longest) for length in lengths]
    return min(grids, key=lambda grid: (round(grid.score, 9), grid.length))


def _fitted_spacing(contexts: Contexts, grid: GridPlan) -> float:
    """Fit the spacing to the slots of the scans within a grid, by least squares."""
    offsets = contexts.offsets
    steps = np.round(offsets / grid.spacing)
    used = (steps >= 1) & (steps <= grid.length)
    if not used.any():
        return grid.spacing
    offsets, steps, weights = offsets[used], steps[used], contexts.scan_weights[used]
    return float((offsets * steps * weights).sum() / (np.square(steps) * weights).sum())


def _distinct(spacings: np.ndarray) -> np.ndarray:
    spacings = np.sort(spacings[spacings > 0])
    return spacings[np.concatenate([[True], np.diff(spacings) > SAME * spacings[:-1]])] if len(spacings) else spacings


def _clean(value: float) -> float:
    """Round off the last digits, which differ between machines."""
    return round(value, 9) + 0.0


def plan_without_time(fingerprint: TemporalFingerprint, reason: str) -> TemporalPlan:
    """Make the temporal plan of samples in which time plays no part. :param reason: that the plan states."""
    return _alone(fingerprint.time_unit, [np.arange(2.0)], reason)


def plan_pairs(fingerprint: TemporalFingerprint) -> TemporalPlan:
    """Make the temporal plan of single scans and pairs of neighbouring scans: the time scale alone."""
    times = [np.asarray(one, dtype=np.float64) for one in fingerprint.times if len(one) > 1]
    unit, subjects = fingerprint.time_unit, len(fingerprint.times)
    reason = "Scans by themselves: no subject has two, so nothing can be learned from neighbouring scans."
    if times:
        intervals, scale = sum(len(one) - 1 for one in times), interval_percentiles(times, (50,))[0]
        reason = (
            f"Time scale {scale:g} {unit}: the median of {intervals} intervals of the {len(times)} of {subjects} "
            f"subjects that have two scans or more{_weighing(times)}; pairs of neighbouring scans are drawn from them."
        )
    return _alone(unit, times or [np.arange(2.0)], reason)


def _weighing(times: list[np.ndarray]) -> str:
    """Return the part of a reason that says how subjects with different numbers of scans are weighed."""
    return ", where every subject weighs the same" if len({len(one) for one in times}) > 1 else ""


def _alone(unit: TimeUnit, times: list[np.ndarray], reason: str) -> TemporalPlan:
    """Make the plan of samples without context. :param times: of each subject, at least two."""
    scale, shortest_interval = interval_percentiles(times, (50, 5)).tolist()
    longest_span = float(max(one[-1] - one[0] for one in times))
    return TemporalPlan(
        time_unit=unit,
        time_scale=scale,
        sequence_length=1,
        shortest_interval=shortest_interval,
        longest_span=longest_span,
        longest_horizon=longest_span,
        grid=GridPlan(spacing=scale, length=1, overwritten=0, rounding_error=0, filled=0, clipped=0, score=0),
        regular=False,
        reasons=[reason],
    )


def _grid_reason(grid: GridPlan, contexts: Contexts, unit: str) -> str:
    if not len(contexts.of_several.times):
        return (
            f"Grid of 1 slot: every context is a single scan, which is the same in every slot; Δ = {grid.spacing:g} "
            f"{unit} is the median interval."
        )
    return (
        f"Grid of {grid.length} slots, Δ = {grid.spacing:g} {unit}: {grid.overwritten:.1%} of context scans "
        f"overwritten, {grid.clipped:.1%} before the first slot, times rounded by {grid.rounding_error:.1%} of a "
        f"median interval, {grid.filled:.1%} of slots filled; the lowest sum of costs, {grid.score:.3f}."
    )


def regularity(contexts: Contexts, grid: GridPlan) -> tuple[bool, str]:
    """Check whether scans are close enough to a grid that discrete methods are recommended.

    :param contexts: of the dataset.
    :param grid: the best one.
    :returns: whether they are, and the reason.
    """
    residual = grid_residual(contexts, grid.spacing)
    regular = residual <= REGULAR_RESIDUAL and grid.overwritten <= REGULAR_LOSS and grid.clipped <= REGULAR_LOSS
    numbers = f"scans lie {residual:.1%} of Δ from the grid on average (at random: 25 %)"
    lost = f"{grid.overwritten + grid.clipped:.1%}"
    if regular:
        return True, f"Regular: {numbers}, and {lost} are lost or clipped; discrete methods suit."
    if residual > REGULAR_RESIDUAL:
        return False, f"Irregular: {numbers}; continuous methods are recommended."
    return False, f"Irregular: {numbers}, but {lost} of scans are lost or clipped; continuous methods are recommended."
