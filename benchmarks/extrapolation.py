"""Theorem 2 and Corollary 1 beside each other as a comparator leaves the data.

Designs are the points of a line and their reward is linear. Every design in [-1, 1] was measured a few times, with
noise. The comparator is the best law of designs between -1 and a limit that moves to the right. Once it has mass on a
design that was not measured, C_pi is infinite and Theorem 2 is silent; its features stay in the range of those of the
data, so Cbar_pi and the bound of Corollary 1 stay finite. Prints a table and one line of JSON, and draws the figure of
docs/theory.md.

    python benchmarks/extrapolation.py --output docs/figures/extrapolation.png
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit import theory

X = torch.linspace(-3, 3, 61, dtype=torch.float64)
FEATURES = torch.stack([torch.ones_like(X), X], dim=1)
MEASURED = X.abs() <= 1 + 1e-9
THETA = torch.tensor([0.3, 1.0], dtype=torch.float64)
REWARD = FEATURES @ THETA
LOG_OFF = (MEASURED.double() / MEASURED.sum()).log()
PRETRAINED = (-(X / 0.7).square() / 2).log_softmax(dim=0)
NOISE, LAM, DELTA, ALPHA = 0.5, 1.0, 0.1, 0.3


class Problem(NamedTuple):
    """Offline data, what was learned of them, and the designs of the optimum."""

    n: int
    moment: Tensor
    beta: float
    penalty: Tensor
    calibrated: bool
    log_designs: Tensor


def learn(n_repeats: int, seed: int) -> Problem:
    """Ridge regression on noisy rows, its calibrated penalty, and the tilted law of the two."""
    generator = torch.Generator().manual_seed(seed)
    phi = FEATURES[MEASURED].repeat(n_repeats, 1)
    n = len(phi)
    y = phi @ THETA + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)
    moment = phi.T @ phi / n
    estimate = torch.linalg.solve(n * moment + LAM * torch.eye(2, dtype=torch.float64), phi.T @ y)
    beta = float(theory.self_normalised_beta(phi, LAM, NOISE, float(THETA.norm()), DELTA))
    penalty = theory.linear_penalty(FEATURES, phi, LAM, beta)
    mean = FEATURES @ estimate
    return Problem(
        n=n,
        moment=moment,
        beta=beta,
        penalty=penalty,
        calibrated=bool(((REWARD - mean).abs() <= penalty).all()),
        log_designs=theory.tilted(PRETRAINED, mean - penalty, ALPHA),
    )


def compare(problem: Problem, limit: float) -> dict[str, float]:
    """Regret against the best law of designs up to a limit, the constants and the bounds."""
    allowed = (X + 1 > -1e-9) & (X - limit < 1e-9)
    log_pi = theory.tilted(PRETRAINED, REWARD.masked_fill(~allowed, -torch.inf), ALPHA)
    pi_moment = FEATURES.T @ (log_pi.exp()[:, None] * FEATURES)
    bound = theory.regret_bound(log_pi, LOG_OFF, problem.penalty)
    return {
        "limit": limit,
        "regret": float(theory.soft_regret(log_pi, problem.log_designs, REWARD, PRETRAINED, ALPHA)),
        "on_comparator": float(bound.on_comparator),
        "theorem_2": float(bound.by_coverage),
        "corollary_1": float(theory.corollary_bound(pi_moment, problem.moment, LAM, problem.n, problem.beta)),
        "c_pi": float(theory.concentrability(log_pi, LOG_OFF)),
        "c_bar": float(theory.relative_condition_number(pi_moment, problem.moment)),
    }


def draw(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    limits = [row["limit"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4), sharex=True)
    for name, label, style in (
        ("regret", "regret", "k-"),
        ("on_comparator", r"$2\,E_\pi[\hat g]$", "C2:"),
        ("corollary_1", "Corollary 1", "C0-"),
        ("theorem_2", "Theorem 2", "C3--"),
    ):
        left.plot(limits, [finite_or_gap(row[name]) for row in rows], style, label=label)
    left.set_ylabel("reward")
    for name, label, style in (("c_bar", r"$\bar C_\pi$", "C0-"), ("c_pi", r"$C_\pi$", "C3--")):
        right.semilogy(limits, [finite_or_gap(row[name]) for row in rows], style, label=label)
    right.set_ylabel("constant of coverage")
    for axes in (left, right):
        axes.axvspan(min(limits), 1, color="0.92", zorder=0, label="measured designs")
        axes.set_xlabel("the comparator's designs reach up to")
        axes.set_xlim(min(limits), max(limits))
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def finite_or_gap(value: float) -> float:
    """NaN leaves a gap in a line where inf would raise."""
    return value if math.isfinite(value) else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each design in the data")
    parser.add_argument("--seeds", type=int, default=200, help="repetitions that count violations")
    parser.add_argument("--output", type=Path, help="where to draw the figure")
    options = parser.parse_args()

    limits = [round(0.1 * i, 1) for i in range(-5, 31)]
    problem = learn(options.repeats, seed=0)
    rows = [compare(problem, limit) for limit in limits]
    print(" limit   regret  2E[g]  corollary 1  theorem 2    Cbar     C_pi")
    for row in rows[::5]:
        print(
            f"{row['limit']:6.1f}  {row['regret']:7.3f}  {row['on_comparator']:5.2f}  {row['corollary_1']:11.2f}"
            f"  {row['theorem_2']:9.2f}  {row['c_bar']:6.2f}  {row['c_pi']:7.2f}"
        )

    calibrated = violations = 0
    for seed in range(options.seeds):
        again = learn(options.repeats, seed)
        calibrated += again.calibrated
        repeated = [compare(again, limit) for limit in limits[::5]]
        violations += any(row["regret"] > min(row["corollary_1"], row["theorem_2"]) for row in repeated)
    print(
        json.dumps(
            {
                "rows": problem.n,
                "last_finite_c_pi_at": max(row["limit"] for row in rows if math.isfinite(row["c_pi"])),
                "largest_c_bar": round(max(row["c_bar"] for row in rows), 2),
                "best_reward_in_data": round(float(REWARD[MEASURED].max()), 3),
                "mean_reward_of_designs": round(float(theory.expectation(problem.log_designs, REWARD)), 3),
                "share_of_designs_beyond_data": round(float(problem.log_designs.exp()[~MEASURED].sum()), 3),
                "repetitions": options.seeds,
                "calibrated": calibrated,
                "with_a_violated_bound": violations,
            }
        )
    )
    if options.output:
        draw(rows, options.output)


if __name__ == "__main__":
    main()
