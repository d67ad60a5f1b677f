"""Is the default reward as good as the best simple method, and does its bound hold where designs are chosen by it?

    python benchmarks/reward_evidence.py --data-home DATA --out results/reward_evidence.json

Landscapes: TFBind8 (CRX, GFI1, PAX4), GB1, generated and measured 5'UTRs (rows up to the 70 % quantile) and an
Ehrlich function (up to the 97 %). Printed for each, its number of rows and its draw: R2 and rank correlation on 2,000
fresh rows below the cut, of a `GPBonusReward` and of the simple methods (ridge on letters, and pairs of short ones,
Hamming kernel, 200 trees, five small CNNs); the deviation of the truth's z-scores; and of the 100 designs of the
highest bound among 12,000, for several c, the mean truth and the share above the bound.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from torch import nn
from torch.nn import functional as F

from braidkit import GPBonusReward, SequenceEncoder, make_utr
from braidkit.datasets import make_ehrlich

N_TEST, N_CANDIDATES, N_DESIGNS = 2000, 12_000, 100
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)
NOISE = {"generated 5'UTR": 0.4}


def landscape(name: str, home: Path) -> tuple[np.ndarray, np.ndarray]:
    """Designs and their true values, or all that is known of them."""
    if name == "GB1":
        table = pd.read_csv(home / "gb1_4site.csv.gz")
        return table["variant"].to_numpy(object), table["fitness"].to_numpy()
    if name == "measured 5'UTR":
        table = pd.read_csv(home / "utr_mrl.csv.gz").iloc[:150_000]
        return table["sequence"].to_numpy(object), table["mrl"].to_numpy()
    if name == "generated 5'UTR":
        return make_utr(20_000, noise=0.0, random_state=0)
    if name == "Ehrlich":
        return make_ehrlich(20_000, random_state=0)
    table = pd.read_csv(home / "tfbind8.csv.gz")
    return table["sequence"].to_numpy(object), table[name].to_numpy()


class CNN(nn.Module):
    """A small network of the kind that is fitted to a table first."""

    def __init__(self, n_letters: int, length: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(n_letters, 32, 5, padding=2), nn.ReLU(), nn.Conv1d(32, 32, 5, padding=2), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Linear(32 * length, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x.transpose(1, 2)))[:, 0]


def five_cnns(x: np.ndarray, y: np.ndarray, query: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mean of five networks, each with a tenth of the rows to stop by."""
    points, queries = (torch.from_numpy(part).float().reshape(-1, *shape) for part in (x, query))
    target, total = torch.from_numpy((y - y.mean()) / y.std()).float(), 0.0
    for seed in range(5):
        torch.manual_seed(seed)
        order, network, best = torch.randperm(len(y)), CNN(shape[1], shape[0]), (np.inf, 0, {})
        held, rows = order[: len(y) // 10], order[len(y) // 10 :]
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for epoch in range(60):
            for part in rows[torch.randperm(len(rows))].split(64):
                optimizer.zero_grad()
                F.mse_loss(network(points[part]), target[part]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = F.mse_loss(network(points[held]), target[held]).item()
            if loss < best[0]:
                best = (loss, epoch, {name: value.clone() for name, value in network.state_dict().items()})
            elif epoch - best[1] > 6:
                break
        network.load_state_dict(best[2])
        with torch.no_grad():
            total = total + network(queries).numpy() / 5
    return total * y.std() + y.mean()


def simple(x: np.ndarray, y: np.ndarray, query: np.ndarray, shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Predictions of the simple methods, on one-hot letters."""
    pairs = PolynomialFeatures(2, interaction_only=True, include_bias=False)
    few = shape[0] * shape[1] <= 100  # else the pairs of all letters do not fit into the memory
    ridge = make_pipeline(*([pairs] if few else []), RidgeCV(np.geomspace(1e-2, 1e4, 13)))
    hamming = GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel(), normalize_y=True)
    forest = RandomForestRegressor(200, random_state=0)
    for name, model in {"ridge": ridge, "Hamming GP": hamming, "forest": forest}.items():
        yield name, model.fit(x, y).predict(query)
    yield "five CNNs", five_cnns(x, y, query, shape)


def scores(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """R2 and rank correlation."""
    r2 = 1 - np.mean((prediction - truth) ** 2) / truth.var()
    return {"r2": float(r2), "spearman": float(spearmanr(prediction, truth)[0]) if prediction.std() else 0.0}


def compare(name: str, n: int, seed: int, home: Path, with_simple: bool) -> Iterator[dict[str, object]]:
    """One record for each method, and one for each weight of the penalty."""
    X, r = landscape(name, home)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    below = order[r[order] <= np.quantile(r, 0.97 if name == "Ehrlich" else 0.7)]
    rows, test = below[:n], below[n : n + N_TEST]
    y = r[rows] + NOISE.get(name, 0.0) * rng.normal(size=n)
    where: dict[str, object] = {"landscape": name, "rows": n, "seed": seed}
    start = time.process_time()
    reward = GPBonusReward(random_state=seed).fit(X[rows], y)
    seconds = time.process_time() - start
    mean, std = reward.predict(X[test], return_std=True)
    z = float(np.sqrt(np.mean(((r[test] - mean) / std) ** 2)))
    yield where | {"method": "GPBonusReward", "z": z, "seconds": seconds} | scores(mean, r[test])
    candidates = order[:N_CANDIDATES]
    mean, std = reward.predict(X[candidates], return_std=True)
    for c in WEIGHTS:
        best = np.argsort(c * std - mean)[:N_DESIGNS]
        truth, bound = r[candidates][best], (mean - c * std)[best]
        yield where | {"c": c, "truth": float(truth.mean()), "above the bound": float(np.mean(truth >= bound))}
    if with_simple:
        encoder = SequenceEncoder().fit(X[rows])
        encoded, queries = (np.asarray(encoder.transform(X[part])).reshape(len(part), -1) for part in (rows, test))
        length = len(X[0])
        for method, prediction in simple(encoded, y, queries, (length, encoded.shape[1] // length)):
            yield where | {"method": method} | scores(prediction, r[test])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    names = ["CRX", "GFI1", "PAX4", "GB1", "generated 5'UTR", "measured 5'UTR", "Ehrlich"]
    parser.add_argument("--landscapes", nargs="+", default=names, choices=names)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-simple", action="store_true", help="the reward alone")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    records = []
    for name in given.landscapes:
        for n in given.rows:
            for seed in range(given.seeds):
                for record in compare(name, n, seed, given.data_home, not given.no_simple):
                    print({k: round(v, 3) if isinstance(v, float) else v for k, v in record.items()}, flush=True)
                    records.append(record)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
