"""How often a judge would veto equal checkpoints, and whether its deviations are those of its errors.

Rewards and judges of generated 5'UTRs, whose exact loads are known; 21 sets of designs that climb the reward ever
further by single letters, a stand-in for the checkpoints of a run. The judge's errors, its means less the truth, are
the scores of a run whose checkpoints are all equal. Printed: the root mean square of the errors of differences over
their claimed deviations, before and after calibration, and the share of runs in which any two of the 21 are "surely"
apart, in either order.

    python benchmarks/judge_veto.py --rows 125 --runs 12
"""

import argparse

import numpy as np
import torch

from braidkit import GPBonusReward, make_utr
from braidkit.finetuning.choice import sure_deviations
from braidkit.finetuning.held_out import split_for_judge
from braidkit.finetuning.judge import N_DIRECTIONS, CalibratedJudge, backtest_spread
from braidkit.oracles import UTRLandscape

N_DESIGNS, N_STEPS = 128, 25


def climb(reward, space, start, seed):
    """Sets of designs by Metropolis steps on exp(beta * standardised mean), beta from 0 to 20."""
    rng = np.random.default_rng(seed)
    letters = space.encode(start).argmax(dim=2).numpy()

    def points(rows):
        return torch.nn.functional.one_hot(torch.from_numpy(rows), 4).float()

    sets, mean = [points(letters)], reward.standardised(points(letters))[0].numpy()
    for beta in np.linspace(1, 20, 20):
        for _ in range(N_STEPS):
            new = letters.copy()
            new[np.arange(len(new)), rng.integers(new.shape[1], size=len(new))] = rng.integers(4, size=len(new))
            new_mean = reward.standardised(points(new))[0].numpy()
            taken = np.log(rng.random(len(new))) < beta * (new_mean - mean)
            letters[taken], mean[taken] = new[taken], new_mean[taken]
        sets.append(points(letters))
    return sets


@torch.no_grad()
def one_run(n_judge, seed):
    """Errors of differences over claimed deviations (pairs,), and the judge's spread."""
    X, y = make_utr(4 * n_judge, random_state=seed)
    for_reward, for_judge = split_for_judge(y, 0.25, seed)
    with torch.enable_grad():
        reward = GPBonusReward(random_state=seed).fit(X[for_reward], y[for_reward])
        judge = GPBonusReward(random_state=seed + 1).fit(X[for_judge], y[for_judge])
    points = judge.space_.points(X)
    parts = [part for rows in (for_judge, for_reward) for part in (points.take(rows), y[rows])]
    spread = backtest_spread(judge, *parts, seed)
    sets = climb(reward, judge.space_, X[np.random.default_rng(seed).choice(len(X), N_DESIGNS, replace=False)], seed)
    loads = np.array([UTRLandscape().predict(judge.space_.decode(part, "strings")).mean() for part in sets])
    truth = (loads - judge.y_mean_) / judge.y_std_
    ratios = []
    for k in range(len(sets)):
        for j in range(k):
            difference, std = CalibratedJudge(judge).mean_difference(sets[k], sets[j])
            ratios.append((difference - (truth[k] - truth[j])) / std)
    return np.abs(ratios), spread


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[125, 500, 1500], help="rows of the judge")
    parser.add_argument("--runs", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sure = sure_deviations(21, N_DIRECTIONS)
    for n in options.rows:
        runs = [one_run(n, seed) for seed in range(options.runs)]
        before, after = ([ratios / scale for ratios, scale in kind] for kind in ([(r, 1) for r, _ in runs], runs))
        print(f"{n:,} rows: spread {np.mean([s for _, s in runs]):.2f}")
        for name, ratios in (("posterior's deviation", before), ("calibrated", after)):
            size = np.sqrt(np.mean(np.square(ratios)))
            two, limit = (np.mean([(one > q).any() for one in ratios]) for q in (2, sure))
            print(f"  {name}: error / deviation {size:.2f}; false vetoes at 2: {two:.2f}, at {sure:.2f}: {limit:.2f}")


if __name__ == "__main__":
    main()
