"""Report once in a command where predicted motion folds: at such voxels a forecast is not anatomy."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)


def report_folds(shares: Sequence[tuple[str, float]]) -> None:
    """Log how many forecasts have motion that folds, and the worst; nothing where none folds.

    :param shares: of each forecast: its subject, and the largest share of voxels at which its motion folds.
    """
    folded = [(share, subject) for subject, share in shares if share > 0]
    if not folded:
        return
    worst, subject = max(folded)
    logger.warning(
        "Motion folds in %d of %d forecasts, at worst in %.2g %% of the voxels (%s): what is forecast there is not "
        "anatomy. The scans of such subjects may be too far apart in time, or not aligned (longflow_register).",
        *(len(folded), len(shares), 100 * worst, subject),
    )


def fold_warning(share: float) -> list[str]:
    """Return the warning of one forecast for its sidecar; none where its motion does not fold.

    :param share: of voxels at which its motion folds.
    """
    if not share:
        return []
    return [f"The predicted motion folds in {100 * share:.2g} % of the voxels: what is forecast there is not anatomy."]
