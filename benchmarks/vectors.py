"""Designs of vectors from 500 measurements: braidkit beside simple regressions and a search within the data's range.

    python benchmarks/vectors.py --seeds 3 --out results/vectors

Each method sees the same rows: those measured, with noise of a quarter of the truth's deviation, below the 60 %
quantile. It gives 100 designs, which are judged by the exact truth. The regressions are a Gaussian process with one
length scale a column, a ridge regression on squares and products, and a forest; a genetic algorithm searches each
within the range of the columns. braidkit has its defaults; of 1,000 samples the 100 best lower bounds are taken, and
`without fine-tuning` the same of 1,000 samples of its prior. One JSON file a run lies in OUT, and is not computed
again while it is there; OUT/vectors.csv has all figures.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from braidkit import ConservativeDiffusionFinetuner

Values = NDArray[np.float64]
N_ROWS, N_DESIGNS, N_DRAWS, NOISE, QUANTILE = 500, 100, 1000, 0.25, 0.6


@dataclass(frozen=True)
class World:
    """Vectors that could be measured, and their truth."""

    draw: Callable[[int, np.random.Generator], Values]
    truth: Callable[[Values], Values]


def hartmann(X: Values) -> Values:
    """Hartmann's function of six variables (Dixon and Szegoe, 1978), to be maximised."""
    places = np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991]])
    places = np.vstack([places, [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]) / 1e4
    scales = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14]])
    scales = np.vstack([scales, [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]])
    return np.exp(-(scales * (X[:, None] - places) ** 2).sum(axis=2)) @ np.array([1, 1.2, 3, 3.2])


def friedman(X: Values) -> Values:
    """Friedman's first function (1991); half of its ten variables do nothing."""
    return 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def ackley(X: Values) -> Values:
    """Ackley's function (1987) with its optimum at 0.6, to be maximised."""
    z = 6 * (X - 0.6)
    return 20 * np.exp(-0.2 * np.sqrt((z**2).mean(axis=1))) + np.exp(np.cos(2 * np.pi * z).mean(axis=1)) - 20 - np.e


def recipes(X: Values) -> Values:
    """Quality of shares of five ingredients; a sum other than 1, or a negative share, costs 20 times the deviation."""
    off = np.abs(X.sum(axis=1) - 1) + (-X).clip(0).sum(axis=1)
    return 12 * X[:, 0] * X[:, 1] + 2 * X[:, 2] - 3 * X[:, 3] * X[:, 4] - X[:, 0] ** 2 - 20 * off


_MAP = np.random.default_rng(7).normal(size=(3, 12))
_PLACE = 1.5 * np.array([-1.0, 1.0, 1.0])


def on_a_surface(n: int, rng: np.random.Generator) -> Values:
    """Twelve readings that three hidden quantities make."""
    return np.tanh(0.6 * rng.normal(size=(n, 3)) @ _MAP) + 0.02 * rng.normal(size=(n, 12))


def surface(X: Values) -> Values:
    """Best at one place of the hidden quantities; readings that no quantities make cost their squared distance."""
    hidden = np.arctanh(X.clip(-0.999, 0.999)) / 0.6 @ np.linalg.pinv(_MAP)
    off = ((X - np.tanh(0.6 * hidden @ _MAP)) ** 2).sum(axis=1)
    return -((hidden - _PLACE) ** 2).sum(axis=1) / 4 - 5 * off


WORLDS = {
    "hartmann-6": World(lambda n, rng: rng.random((n, 6)), hartmann),
    "friedman-10": World(lambda n, rng: rng.random((n, 10)), friedman),
    "ackley-5": World(lambda n, rng: rng.random((n, 5)), ackley),
    "recipes-5": World(lambda n, rng: rng.dirichlet(np.ones(5), n), recipes),
    "surface-12": World(on_a_surface, surface),
}


def regressions(n_features: int, seed: int) -> dict[str, Any]:
    """What a user would fit instead."""
    kernel = ConstantKernel() * RBF(np.ones(n_features)) + WhiteKernel(0.1)
    return {
        "GP": make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True)),
        "ridge": make_pipeline(StandardScaler(), PolynomialFeatures(2), RidgeCV(np.logspace(-2, 4, 13))),
        "forest": RandomForestRegressor(200, random_state=seed),
    }


def search(score: Callable[[Values], Values], X: Values, y: Values, seed: int, n_generations: int = 40) -> Values:
    """The best of a population that a genetic algorithm moves up a score, within the range of the columns."""
    rng, low, high = np.random.default_rng(seed), X.min(axis=0), X.max(axis=0)
    population = X[np.argsort(-y)[:400]]
    scores = score(population)
    for _ in range(n_generations):
        best = np.argsort(-scores)[:N_DESIGNS]
        population, scores = population[best], scores[best]
        first, second = (population[rng.integers(len(population), size=400)] for _ in range(2))
        children = np.where(rng.random(first.shape) < 0.5, first, second)
        mutated = rng.random(children.shape) < 1.5 / X.shape[1]
        children = (children + mutated * rng.normal(size=children.shape) * 0.08 * (high - low)).clip(low, high)
        population, scores = np.vstack([population, children]), np.append(scores, score(children))
    return population[np.argsort(-scores)[:N_DESIGNS]]


def run(world: World, seed: int) -> dict[str, dict[str, float]]:
    """True means of the designs of all methods on the rows of one seed."""
    rng = np.random.default_rng(seed)
    X = world.draw(4000, rng)
    truth = world.truth(X)
    y = truth + NOISE * truth.std() * rng.normal(size=len(X))
    shown = np.flatnonzero(y <= np.quantile(y, QUANTILE))[:N_ROWS]
    X, y, truth = X[shown], y[shown], truth[shown]
    found: dict[str, dict[str, float]] = {"the best row": {"mean": truth.max()}}
    for name, model in regressions(X.shape[1], seed).items():
        start = time.process_time()
        designs = search(model.fit(X, y).predict, X, y, seed)
        found[name] = {"mean": world.truth(designs).mean(), "seconds": time.process_time() - start}
    start = time.process_time()
    finetuner = ConservativeDiffusionFinetuner(random_state=seed).fit(X, y)
    for name, chain in (("braidkit", finetuner), ("without fine-tuning", finetuner.pretrained_)):
        draws = np.asarray(chain.sample(N_DRAWS, random_state=seed))
        lower = finetuner.reward_.predict_lower(draws)
        best = np.argsort(-lower)[:N_DESIGNS]
        values = world.truth(draws[best])
        seconds = time.process_time() - start
        found[name] = {"mean": values.mean(), "seconds": seconds, "bound holds": (values >= lower[best]).mean()}
    return {name: {key: float(value) for key, value in values.items()} for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    records = []
    for seed in range(arguments.seeds):
        for name in arguments.worlds:
            path = arguments.out / f"{name}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(run(WORLDS[name], seed)))
            for method, values in json.loads(path.read_text()).items():
                records += [(name, seed, method, metric, value) for metric, value in values.items()]
    results = pd.DataFrame(records, columns=["world", "seed", "method", "metric", "value"])
    results.to_csv(arguments.out / "vectors.csv", index=False, float_format="%.5g")
    for metric in ("mean", "bound holds", "seconds"):
        part = results[results["metric"] == metric].groupby(["world", "method"], sort=False)["value"]
        cells = (
            part.mean().map("{:.2f}".format) + part.min().map(" ({:.2f} to ".format) + part.max().map("{:.2f})".format)
        )
        print(
            f"## {metric}: mean over {arguments.seeds} seeds (lowest to highest)",
            cells.unstack().to_string(),
            sep="\n\n",
        )


if __name__ == "__main__":
    main()
