"""The values of "auto" by number of rows."""

from __future__ import annotations

# Least effective number of designs. A smaller alpha would give the same few designs repeatedly. The number is small
# because the law of variants of a parent is narrow, and its best designs have left the parent's neighbourhood.
N_EFFECTIVE = 200
# Standard deviations by which designs' log-probability may lie below that of the pretrained model's own draws.
MAX_RARITY = 1.5


def auto_alpha(n_rows: int, *, is_least: bool = False) -> float:
    """The weight of the KL. It is larger for few rows, because designs soon exploit the errors of such a reward.

    With `is_least` it is the smallest alpha of a solver that raises alpha by itself.
    """
    if n_rows < 1000:
        return 0.02 if is_least else 0.1
    return 0.01 if is_least else 0.02


def auto_max_iter(n_rows: int) -> int:
    """Number of updates: measured at 500 rows (``benchmarks/few_rows_updates.py``); the thresholds are a judgement."""
    if n_rows < 250:
        return 20
    return 60 if n_rows < 1000 else 200
