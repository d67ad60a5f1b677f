"""What a user would do instead: simple models of sequences, and simple searches for their best designs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

Tokens = NDArray[np.int64]
Values = NDArray[np.float64]
ALL_PAIRS = 10  # letters of the longest sequences whose every pair of positions is a feature; else neighbours alone


class Model(Protocol):
    """A regression on numbers of letters."""

    def fit(self, tokens: Tokens, y: Values) -> Model: ...

    def predict(self, tokens: Tokens) -> Values: ...


def letters_of(tokens: Tokens, n_letters: int) -> NDArray[np.float32]:
    """One-hot letters (n, length * n_letters)."""
    return np.eye(n_letters, dtype=np.float32)[tokens].reshape(len(tokens), -1)


class PairRidge:
    """Ridge regression on letters and pairs of letters by position; its penalty by leave-one-out errors."""

    def __init__(self, n_letters: int, seed: int) -> None:
        self.n_letters = n_letters
        self.model = RidgeCV(np.logspace(-2, 4, 13))

    def features(self, tokens: Tokens) -> NDArray[np.float32]:
        length = tokens.shape[1]
        pairs = [(i, j) for i, j in itertools.combinations(range(length), 2) if length <= ALL_PAIRS or j == i + 1]
        products = np.stack([tokens[:, i] * self.n_letters + tokens[:, j] for i, j in pairs], axis=1)
        return np.hstack([letters_of(tokens, self.n_letters), letters_of(products, self.n_letters**2)])[:, self.kept]

    kept: slice | NDArray[np.bool_] = slice(None)

    def fit(self, tokens: Tokens, y: Values) -> PairRidge:
        features = self.features(tokens)
        self.kept = features.any(axis=0)
        self.model.fit(features[:, self.kept], y)
        return self

    def predict(self, tokens: Tokens) -> Values:
        parts = np.array_split(tokens, max(1, len(tokens) // 4096))
        return np.concatenate([self.model.predict(self.features(part)) for part in parts])


class HammingGP:
    """A Gaussian process whose kernel is exp(-distance / scale); scale and noise by marginal likelihood on a grid."""

    def __init__(self, n_letters: int, seed: int) -> None:
        self.n_letters = n_letters

    def fit(self, tokens: Tokens, y: Values) -> HammingGP:
        self.letters, self.length, self.mean = letters_of(tokens, self.n_letters), tokens.shape[1], y.mean()
        n, best = len(y), np.inf
        for scale in self.length * np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6]):
            values, vectors = np.linalg.eigh(self._kernel(self.letters, scale))
            projected = (vectors.T @ (y - self.mean)) ** 2
            for noise in np.logspace(-2, 1.5, 15):
                spectrum = values.clip(0) + noise
                variance = (projected / spectrum).mean()
                loss = n * np.log(variance) + np.log(spectrum).sum()
                if loss < best:
                    best, self.scale, self.noise, self.variance = loss, scale, noise, variance
        gram = self._kernel(self.letters, self.scale) + self.noise * np.eye(n)
        self.factor = np.linalg.cholesky(gram)
        self.weights = cho_solve((self.factor, True), y - self.mean)
        return self

    def predict(self, tokens: Tokens) -> Values:
        parts = np.array_split(letters_of(tokens, self.n_letters), max(1, len(tokens) // 4096))
        return np.concatenate([self._kernel(part, self.scale) @ self.weights for part in parts]) + self.mean

    def std(self, tokens: Tokens) -> Values:
        """Posterior standard deviation of the noiseless value."""
        cross = self._kernel(letters_of(tokens, self.n_letters), self.scale)
        explained = (cross * cho_solve((self.factor, True), cross.T).T).sum(axis=1)
        return np.sqrt(self.variance * (1 - explained).clip(0))

    def _kernel(self, letters: NDArray[np.float32], scale: float) -> Values:
        return np.exp((letters @ self.letters.T - self.length).astype(np.float64) / scale)


class Forest:
    """A forest of 200 trees on letters by position."""

    def __init__(self, n_letters: int, seed: int) -> None:
        self.n_letters = n_letters
        self.model = RandomForestRegressor(200, max_features=1 / 3, random_state=seed)

    def fit(self, tokens: Tokens, y: Values) -> Forest:
        self.model.fit(letters_of(tokens, self.n_letters), y)
        return self

    def predict(self, tokens: Tokens) -> Values:
        return self.model.predict(letters_of(tokens, self.n_letters))


class _CNN(nn.Module):
    def __init__(self, n_letters: int, length: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_letters, 32, 5, padding=2), nn.ReLU(), nn.Conv1d(32, 32, 5, padding=2), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Linear(32 * length + 32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        return self.head(torch.cat([hidden.flatten(1), hidden.amax(dim=2)], dim=1))[:, 0]


class CNNs:
    """The mean of five small convolutional networks, each stopped by a tenth of the rows of its own."""

    def __init__(self, n_letters: int, seed: int) -> None:
        self.n_letters, self.seed = n_letters, seed

    def fit(self, tokens: Tokens, y: Values) -> CNNs:
        x, target = self._encode(tokens), torch.from_numpy(y).float()
        self.networks = [self._train(x, target, 5 * self.seed + i) for i in range(5)]
        return self

    @torch.no_grad()
    def predict(self, tokens: Tokens) -> Values:
        parts = self._encode(tokens).split(4096)
        return np.concatenate([torch.stack([f(x) for f in self.networks]).mean(dim=0).numpy() for x in parts]).astype(
            np.float64
        )

    def _encode(self, tokens: Tokens) -> Tensor:
        return nn.functional.one_hot(torch.from_numpy(tokens), self.n_letters).float().transpose(1, 2)

    def _train(self, x: Tensor, y: Tensor, seed: int, epochs: int = 100, patience: int = 15) -> _CNN:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _CNN(self.n_letters, x.shape[2])
            held, rows = torch.randperm(len(x), generator=generator).split([len(x) // 10, len(x) - len(x) // 10])
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
            best, kept, since = torch.inf, network.state_dict(), 0
            for _ in range(epochs):
                network.train()
                for batch in rows[torch.randperm(len(rows), generator=generator)].split(64):
                    optimizer.zero_grad()
                    (network(x[batch]) - y[batch]).square().mean().backward()
                    optimizer.step()
                network.eval()
                with torch.no_grad():
                    loss = float((network(x[held]) - y[held]).square().mean())
                since += 1
                if loss < best:
                    best, kept, since = loss, {k: v.clone() for k, v in network.state_dict().items()}, 0
                if since >= patience:
                    break
        network.load_state_dict(kept)
        return network.eval().requires_grad_(False)


MODELS: dict[str, Callable[[int, int], Model]] = {
    "ridge": PairRidge,
    "hamming gp": HammingGP,
    "forest": Forest,
    "cnns": CNNs,
}


def genetic_algorithm(
    score: Callable[[Tokens], Values],
    tokens: Tokens,
    y: Values,
    n_letters: int,
    seed: int,
    *,
    seen_pairs: bool = False,
    n_designs: int = 100,
    population: int = 400,
    generations: int = 30,
) -> Tokens:
    """The best different designs that a genetic algorithm meets on its way up a score, from the best measured rows.

    With `seen_pairs` a child with a pair of neighbours that no row has is not let in.
    """
    rng = np.random.default_rng(seed)
    length = tokens.shape[1]
    seen = np.zeros((n_letters, n_letters), dtype=bool)
    seen[tokens[:, :-1], tokens[:, 1:]] = True
    start = tokens[np.argsort(-y)[:population]]
    known: dict[bytes, float] = dict(zip(map(bytes, start.astype(np.uint8)), score(start), strict=True))
    for _ in range(generations):
        best = sorted(known, key=lambda key: -known[key])[:n_designs]
        parents = np.frombuffer(b"".join(best), np.uint8).reshape(len(best), length).astype(np.int64)
        first, second = (parents[rng.integers(len(parents), size=population)] for _ in range(2))
        children = np.where(np.arange(length) < rng.integers(length + 1, size=(population, 1)), first, second)
        mutated = rng.random(children.shape) < 1.5 / length
        children = np.where(mutated, rng.integers(n_letters, size=children.shape), children)
        if seen_pairs:
            children = children[seen[children[:, :-1], children[:, 1:]].all(axis=1)]
        new = {bytes(child) for child in children.astype(np.uint8)} - known.keys()
        if new:
            rows = np.frombuffer(b"".join(new), np.uint8).reshape(-1, length).astype(np.int64)
            known |= dict(zip(new, score(rows), strict=True))
    best = sorted(known, key=lambda key: -known[key])[:n_designs]
    return np.frombuffer(b"".join(best), np.uint8).reshape(len(best), length).astype(np.int64)


def exhaustive(score: Callable[[Tokens], Values], n_letters: int, length: int, n_designs: int = 100) -> Tokens:
    """The best of all designs."""
    everything = np.stack(np.unravel_index(np.arange(n_letters**length), [n_letters] * length), axis=1)
    return everything[np.argsort(-score(everything), kind="stable")[:n_designs]]
