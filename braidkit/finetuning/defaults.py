"""What "auto" comes to, by the number of rows."""

from __future__ import annotations

# Designs that a listed space keeps at least: a lighter alpha would give a few of them again and again.
N_EFFECTIVE = 1000
# Standard deviations by which designs' log-probability may lie below that of the pretrained model's own draws.
MAX_RARITY = 1.5


def auto_alpha(n_rows: int, *, is_least: bool = False) -> float:
    """The weight of the KL: designs must stay nearer to the data where a reward of few rows is soon fooled.

    With `is_least` it is where a solver starts from that raises it by itself.
    """
    return 0.1 if n_rows < 1000 and not is_least else 0.02


def auto_max_iter(n_rows: int) -> int:
    """Updates for a number of rows: measured at 500 (``benchmarks/few_rows_updates.py``), the thresholds judgement."""
    if n_rows < 250:
        return 20
    return 60 if n_rows < 1000 else 200
