from typing import NamedTuple

import numpy as np
import pytest

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion


class Run(NamedTuple):
    """A fitted finetuner and what it was fitted on."""

    finetuner: ConservativeDiffusionFinetuner
    X: list[str]
    y: np.ndarray


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def run():
    """A small run on 10-letter DNA, where each G counts one and each A counts a half."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (232, 10))]
    y = np.array([row.count("G") + 0.5 * row.count("A") for row in X]) + 0.1 * rng.normal(size=len(X))
    chain = SimplexDiffusion(SequenceSpace("DNA", 10), n_steps=5).fit(X, max_iter=50, random_state=0)
    reward = GPBonusReward(max_iter=50)
    finetuner = ConservativeDiffusionFinetuner(
        chain, 1e-3, reward=reward, max_iter=8, batch_size=64, learning_rate=3e-3, random_state=0
    )
    return Run(finetuner.fit(X, y), X, y)
