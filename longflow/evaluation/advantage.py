"""With which probability a choice is better than the best baseline on new subjects.

The best of several candidates was lucky on the subjects that it was chosen on. So the whole choice is repeated on
resampled subjects, and judged on those that are not in the sample (about 37 % of them): the out-of-bag bootstrap
(Efron & Tibshirani, JASA 92, 1997). The best baseline is chosen again, too. The share of resamples in which the choice
has the lower mean error is the probability.

It is cautious. If no candidate is better than the baseline, what a sample favours is disfavoured by the subjects that
are left out, since all together have no difference. And the judges are few. So chance alone brings a probability of 0.9
in less than a tenth of cohorts whose errors are about symmetric (``tests/evaluation/test_advantage.py``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT

#: below this probability the baseline is recommended
LEVEL = 0.9

RESAMPLES = 2000
_SEED = 0
#: numbers in memory at a time
_AT_A_TIME = 4_000_000


def probability_better(errors: np.ndarray, baselines: Sequence[int], resamples: int = RESAMPLES) -> float | None:
    """Estimate the probability that the best of several variants is better than the best baseline on new subjects.

    :param errors: (variants, subjects), mean error of each subject; lower is better. Baselines are among them.
    :param baselines: positions of variants.
    :param resamples: of subjects, drawn from one seed.
    :returns: share of resamples; where the choice is a baseline itself, or equally good, it is not better. None with
        fewer than six subjects.
    """
    number, subjects = errors.shape
    if subjects < FEWEST_FOR_A_VERDICT:
        return None
    generator, places = np.random.default_rng(_SEED), np.asarray(baselines)
    times = generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)
    times = times[(times == 0).any(axis=1)]  # else nobody is left to judge
    better, portion = 0, max(1, _AT_A_TIME // number)
    for start in range(0, len(times), portion):
        drawn = times[start : start + portion]
        means = drawn @ errors.T
        chosen, baseline = means.argmin(axis=1), places[means[:, places].argmin(axis=1)]
        difference = ((errors[chosen] - errors[baseline]) * (drawn == 0)).sum(axis=1)
        better += int((difference < 0).sum())
    return better / len(times)


def advantage(errors: np.ndarray, baselines: Sequence[int], baseline: str, level: float = LEVEL) -> dict[str, Any]:
    """Say whether a choice or the best baseline is recommended; JSON-ready.

    :param errors: as of :func:`probability_better`.
    :param baselines: likewise.
    :param baseline: name of the best baseline.
    :param level: smallest probability with which the choice is recommended.
    :returns: baseline, probability, level, subjects, and recommended: "choice" or "baseline"; None with too few
        subjects.
    """
    probability = probability_better(errors, baselines)
    recommended = None if probability is None else "choice" if probability >= level else "baseline"
    found = {"baseline": baseline, "probability": probability, "level": level}
    return {**found, "subjects": errors.shape[1], "recommended": recommended}


def advantage_in_words(found: dict[str, Any], baseline: str) -> str:
    """Say the probability and the recommendation in a sentence or two.

    :param found: of :func:`advantage`.
    :param baseline: what the best baseline is called.
    """
    if found["recommended"] is None:
        return (
            f"Whether the choice is better than {baseline} on new subjects cannot be said: that takes "
            f"{FEWEST_FOR_A_VERDICT} subjects, and these are {found['subjects']}."
        )
    text = (
        f"On new subjects, the choice is better than {baseline} with a probability of {found['probability']:.0%} "
        f"(bootstrap over {found['subjects']} subjects, the choice repeated in each resample)."
    )
    if found["recommended"] == "baseline":
        text += f" That is less than {found['level']:.0%}: recommended is {baseline}."
    return text
