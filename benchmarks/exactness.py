"""Every solver against optima that are known exactly: nats to the optimum against seconds and calls of the reward.

    PYTHONPATH=. python benchmarks/exactness.py --out results/exactness --figure docs/figures/exactness.png
    PYTHONPATH=. python benchmarks/exactness.py --few-steps

Worlds (alpha in units of the reward):

- ``linear``: N(0, I) in 4 dimensions, 20 steps, reward w.x; closed form.
- ``quadratic``: N(0, 1), 50 steps, reward -k x^2 / 2 with k / alpha = 10; closed form. Policies of fixed variance
  cannot reach the optimum; the excess over the best of them is given beside the gap, and how that floor falls with the
  number of steps.
- ``tabular``: the 64 trinucleotides, 6 steps, a random reward; by enumeration.
- ``tfbind8``: a masked chain trained on the lower half of SIX6's 65,536 8-mers; the reward is the learned lower bound,
  and alpha such that the optimum moves its mean by two of its pretrained standard deviations; by dynamic programming.
- ``tfbind8-raw``: the same chain with the measured table as the reward, too rugged for a small network.

With ``--few-steps`` only what few steps of the simplex chain can reach is computed (`few_steps.py`), in under a minute.

One file a run (world, solver, seed) in OUT, skipped where it is there. Rates of learning fall linearly to zero. Seconds
are those of the processor in updates alone. TFBind8 is read from $BRAIDKIT_DATA or ../shared/data.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from few_steps import few_steps
from torch import Tensor

from braidkit import GaussianDiffusion, GPBonusReward, MaskedDiffusion, SequenceSpace, TabularDiffusion, theory
from braidkit.baselines import twisted_smc
from braidkit.diffusion import DiffusionModel, sample_path
from braidkit.finetuning import (
    AdjointMatchingSolver,
    DirectSolver,
    PolicyGradientSolver,
    Problem,
    Solver,
    TrajectoryBalanceSolver,
)
from braidkit.theory import LinearGaussianChain, Quadratic

SOLVERS: dict[str, Callable[[], Solver]] = {
    "direct": lambda: DirectSolver(truncation=1000),
    "direct, random": DirectSolver,
    "adjoint_matching": AdjointMatchingSolver,
    "policy_gradient": PolicyGradientSolver,
    "trajectory_balance": lambda: TrajectoryBalanceSolver(n_replay=16_384),
    "trajectory_balance, fresh": lambda: TrajectoryBalanceSolver(n_replay=0),
}
# Updates, trajectories an update, learning rate.
SETTINGS = {
    "linear": dict.fromkeys(SOLVERS, (300, 128, 0.01)),
    "quadratic": dict.fromkeys(SOLVERS, (400, 128, 0.01)),
    "tabular": {
        "direct": (400, 256, 0.03),
        "direct, random": (400, 256, 0.03),
        "policy_gradient": (600, 256, 0.02),
        "trajectory_balance": (4000, 256, 0.1),
        "trajectory_balance, fresh": (4000, 256, 0.1),
    },
    "tfbind8": {
        "direct": (800, 256, 1e-3),
        "direct, random": (800, 256, 1e-3),
        "policy_gradient": (200, 512, 1e-3),
        "trajectory_balance": (800, 512, 8e-3),
        "trajectory_balance, fresh": (6500, 512, 8e-3),
    },
    "tfbind8-raw": {"trajectory_balance, fresh": (1500, 512, 8e-3)},
}


@dataclass
class World:
    """A chain, a reward, and what is exact about them."""

    pretrained: DiffusionModel
    reward: Callable[[Tensor], Tensor]
    alpha: float
    measure: Callable[[DiffusionModel], dict[str, float]]
    facts: dict[str, float]


def gaussian_chain(model: DiffusionModel) -> LinearGaussianChain:
    """The exact coefficients of a linear-Gaussian model."""
    zeros, ones = torch.zeros(1, *model.state_shape), torch.ones(1, *model.state_shape)
    steps = range(1, model.n_steps + 1)
    slope = torch.cat([model.policy(ones, t).mean - model.policy(zeros, t).mean for t in steps])
    return LinearGaussianChain(slope, torch.stack([model.policy(ones, t).std for t in steps])[:, None].expand_as(slope))


def gaussian_world(n_features: int, n_steps: int, reward: Quadratic, alpha: float, seed: int) -> World:
    """N(0, I) with a reward whose optimum has a closed form."""
    pretrained = GaussianDiffusion.standard_normal(n_features, n_steps=n_steps, random_state=seed)
    chain = gaussian_chain(pretrained)
    optimum = chain.optimum(reward, alpha)
    floor = float(chain.variance_floor(reward, alpha))
    noise = pretrained.draw_noise(4096, torch.Generator().manual_seed(seed + 1000))

    @torch.no_grad()
    def measure(model: DiffusionModel) -> dict[str, float]:
        path = sample_path(model, noise)
        start = model.initial(len(noise))
        gap = optimum.step_kl(n_steps + 1, path[n_steps], start.mean, start.std).mean()
        for t in range(1, n_steps + 1):
            policy = model.policy(path[t], t)
            gap = gap + optimum.step_kl(t, path[t], policy.mean, policy.std).mean()
        return {"gap": float(gap), "excess": float(gap) - floor}

    facts = {
        "variance_floor": floor,
        "untilted_start": float(chain.optimum(reward, alpha, tilt_initial=False).path_kl(optimum)),
        "log_c": float(chain.soft_values(reward, alpha)[1]) / alpha,
    }
    return World(pretrained, lambda x: reward(x).float(), alpha, measure, facts)


def tabular_world(seed: int) -> World:
    """Trinucleotides with rewards drawn at random."""
    generator = np.random.default_rng(seed)
    X = ["".join(row) for row in generator.choice(list("ACGT"), (1000, 3), p=[0.4, 0.3, 0.2, 0.1])]
    pretrained = TabularDiffusion(SequenceSpace("DNA", 3), n_steps=6).fit(X)
    table = torch.from_numpy(generator.normal(size=64))
    alpha = 0.5
    chain = finite_chain(pretrained)
    target = theory.tilted(chain.log_marginals()[0], table, alpha).exp()

    def measure(model: DiffusionModel) -> dict[str, float]:
        tuned = finite_chain(model)
        distance = (tuned.log_marginals()[0].exp() - target).abs().sum() / 2
        return {"gap": float(theory.gap(tuned, chain, table, alpha)), "tv": float(distance)}

    def reward(point: Tensor) -> Tensor:
        # Products of letters: differentiable, and the table itself on designs.
        weights = point[:, 0, :, None, None] * point[:, 1, None, :, None] * point[:, 2, None, None, :]
        return weights.flatten(1) @ table.float()

    return World(
        pretrained, reward, alpha, measure, {"log_c": float(theory.soft_values(chain, table, alpha)[1]) / alpha}
    )


def finite_chain(model: TabularDiffusion) -> theory.FiniteChain:
    """A tabular chain for the exact answers."""
    n = model.state_shape[0]
    return theory.FiniteChain(torch.full((n,), -np.log(n), dtype=torch.float64), tuple(model.log_policies()))


@functools.cache
def tfbind8(seed: int) -> tuple[MaskedDiffusion, GPBonusReward, Tensor, Tensor]:
    """A masked chain and a reward trained on the lower half; the reward's bound and the raw table, standardised."""
    folder = Path(os.environ.get("BRAIDKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    data = pd.read_csv(folder / "tfbind8.csv.gz").sort_values("sequence")
    X, y = data["sequence"].to_numpy(), data["SIX6"].to_numpy()
    lower_half = y <= np.median(y)
    space = SequenceSpace("DNA", 8)
    pretrained = MaskedDiffusion(space).fit(X[lower_half], max_iter=2000, batch_size=512, random_state=seed)
    reward = GPBonusReward(space=space, random_state=seed).fit(X[lower_half], y[lower_half])
    with torch.no_grad():
        bound = torch.cat([reward.lower(part) for part in space.encode(X).split(8192)]) / reward.y_std_
    return pretrained, reward, bound.double(), torch.from_numpy((y - y.mean()) / y[lower_half].std())


def tfbind8_world(raw: bool, seed: int) -> World:
    """All 8-mers, with the exact laws of the trained network by dynamic programming."""
    pretrained, learned, bound, measured = tfbind8(seed)
    rewards = measured if raw else bound
    states = torch.nn.functional.one_hot(theory.masked_states(8, 4), 5)[..., :4].float()
    letters = pretrained.letter_log_probs(states)
    law = theory.sequence_law(letters)
    alpha = alpha_for_shift(law, rewards, 2.0)
    target = theory.tilted(law, rewards, alpha).exp()
    place = 4 ** torch.arange(7, -1, -1)
    table = rewards.float()

    def measure(model: DiffusionModel) -> dict[str, float]:
        assert isinstance(model, MaskedDiffusion)
        tuned = model.letter_log_probs(states)
        distance = (theory.sequence_law(tuned).exp() - target).abs().sum() / 2
        return {"gap": float(theory.masked_gap(tuned, letters, rewards, alpha)), "tv": float(distance)}

    def reward(point: Tensor) -> Tensor:
        return table[(point.argmax(dim=2) * place).sum(dim=1)] if raw else learned.lower(point) / learned.y_std_

    facts = {
        "alpha": alpha,
        "position_floor": float(theory.position_floor(letters, rewards, alpha)),
        "kl_of_designs": float(theory.kl_divergence(target.log(), law)),
        "log_c": float((law + rewards / alpha).logsumexp(dim=0)),
    }
    return World(pretrained, reward, alpha, measure, facts)


def alpha_for_shift(log_law: Tensor, rewards: Tensor, deviations: float) -> float:
    """The alpha at which the tilt moves the mean reward by so many of its standard deviations."""
    law = log_law.exp()
    mean = (law * rewards).sum()
    goal = mean + deviations * (law * (rewards - mean).square()).sum().sqrt()
    low, high = 1e-3, 1e3
    for _ in range(60):
        alpha = (low * high) ** 0.5
        moved = (theory.tilted(log_law, rewards, alpha).exp() * rewards).sum()
        low, high = (alpha, high) if moved > goal else (low, alpha)
    return alpha


WORLDS: dict[str, Callable[[int], World]] = {
    "linear": lambda seed: gaussian_world(4, 20, Quadratic(linear=torch.tensor([1.0, 1.0, -1.0, 0.5])), 1.0, seed),
    "quadratic": lambda seed: gaussian_world(1, 50, Quadratic(curvature=10.0), 1.0, seed),
    "tabular": tabular_world,
    "tfbind8": functools.partial(tfbind8_world, False),
    "tfbind8-raw": functools.partial(tfbind8_world, True),
}


def run(world: World, name: str, solver: Solver, settings: tuple[int, int, float], seed: int) -> dict:
    """Fine-tune, and measure the distance to the optimum a dozen times on the way."""
    n_updates, batch_size, learning_rate = settings
    calls = 0

    def counted(point: Tensor) -> Tensor:
        nonlocal calls
        calls += len(point)
        return world.reward(point)

    model = world.pretrained.trainable_copy()
    solver.setup(Problem(model, world.pretrained, counted, world.alpha, batch_size, learning_rate, 1.0, seed))
    curve = [{"updates": 0, "seconds": 0.0, "calls": 0, **world.measure(model)}]
    checkpoints = sorted({round(n_updates * share) for share in np.geomspace(0.02, 1, 12)})
    seconds = 0.0
    for i in range(n_updates):
        for group in solver.optimizer.param_groups:
            group["lr"] = learning_rate * (1 - i / n_updates)
        start = time.process_time()
        solver.update(i)
        seconds += time.process_time() - start
        if i + 1 in checkpoints:
            curve.append({"updates": i + 1, "seconds": seconds, "calls": calls, **world.measure(model)})
    return {"solver": name, "seed": seed, "settings": settings, "facts": world.facts, "curve": curve}


def smc_table(names: list[str], seed: int) -> pd.DataFrame:
    """The sampler without training: effective sample size, and the error of its log C."""
    rows = []
    for name in names:
        world = WORLDS[name](seed)
        for n in (1024, 16_384):
            particles = twisted_smc(world.pretrained, world.reward, world.alpha, n, torch.Generator().manual_seed(seed))
            rows.append((name, n, float(particles.ess[0]), particles.log_z, world.facts["log_c"]))
    return pd.DataFrame(rows, columns=["world", "particles", "ess share", "log C, SMC", "log C, exact"])


def floors() -> pd.DataFrame:
    """How the gap of the best chain of fixed variances falls with the number of steps: k / alpha = 10."""
    rows = []
    for n_steps in (10, 20, 50, 100, 200, 400):
        chain = gaussian_chain(GaussianDiffusion.standard_normal(1, n_steps=n_steps))
        floor = float(chain.variance_floor(Quadratic(curvature=10.0), 1.0))
        rows.append((n_steps, floor, n_steps * floor))
    return pd.DataFrame(rows, columns=["steps", "floor, nats", "steps x floor"])


def table(results: list[dict]) -> pd.DataFrame:
    """The last point of every run: median over seeds, and the range of the gap."""
    rows = [
        {"world": r["world"], "solver": r["solver"], **r["curve"][-1], "start": r["curve"][0]["gap"]} for r in results
    ]
    groups = pd.DataFrame(rows).groupby(["world", "solver"], sort=False)
    columns = ["start", "gap", "excess", "tv", "seconds", "calls"]
    summary = groups[[name for name in columns if name in rows[0] or any(name in row for row in rows)]].median()
    summary.insert(2, "lowest", groups["gap"].min())
    summary.insert(3, "highest", groups["gap"].max())
    return summary.assign(seeds=groups.size())


def draw(results: list[dict], path: Path) -> None:
    """Nats to the optimum against seconds, one panel a world."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    worlds = [name for name in WORLDS if any(r["world"] == name for r in results)]
    figure, axes = plt.subplots(1, len(worlds), figsize=(3.1 * len(worlds), 3.2), sharey=True, layout="constrained")
    colours = dict(zip(SOLVERS, ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"), strict=True))
    for axis, world in zip(np.atleast_1d(axes), worlds, strict=True):
        for r in results:
            if r["world"] == world:
                curve = pd.DataFrame(r["curve"][1:])
                axis.plot(curve["seconds"], curve["gap"], color=colours[r["solver"]], lw=1.2, label=r["solver"])
        facts = next(r["facts"] for r in results if r["world"] == world)
        floor = facts.get("variance_floor", 0.0) or facts.get("position_floor", 0.0)
        if floor > 1e-4:
            axis.axhline(floor, color="0.5", ls=":", lw=1)
        axis.set(xscale="log", yscale="log", title=world, xlabel="seconds")
    np.atleast_1d(axes)[0].set_ylabel("nats to the optimum")
    handles = {label: h for a in np.atleast_1d(axes) for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/exactness"))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--few-steps", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pd.options.display.width = 160
    if arguments.few_steps:
        print(few_steps().round(3).to_string(index=False))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)

    results = []
    for seed in range(arguments.seeds):
        for name in arguments.worlds:
            world = None
            for solver in SETTINGS[name]:
                file = arguments.out / f"{name}-{solver.replace(', ', '-')}-{seed}.json"
                if not file.exists() and solver in arguments.solvers:
                    world = world or WORLDS[name](seed)
                    result = {"world": name} | run(world, solver, SOLVERS[solver](), SETTINGS[name][solver], seed)
                    file.write_text(json.dumps(result))
                    last = result["curve"][-1]
                    print(f"{name:12} {solver:18} seed {seed}: {last}", flush=True)
                if file.exists():
                    results.append(json.loads(file.read_text()))
    print(table(sorted(results, key=lambda r: list(WORLDS).index(r["world"]))).round(4).to_string())
    print(floors().round(4).to_string(index=False))
    print(smc_table(arguments.worlds, 0).round(3).to_string(index=False))
    if arguments.figure:
        draw(results, arguments.figure)


if __name__ == "__main__":
    main()
