"""Take draws of a fine-tuned chain the rest of the way to the optimum that the chain approximates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from braidkit.finetuning.solver_choice import may_temper
from braidkit.finetuning.tempering import target_of
from braidkit.parameters import as_generator, check_number
from braidkit.progress import Progress

# Designs at a time: what the noise, the reward and its gradient need of memory.
BATCH = 256


def approximates_optimum(estimator: Any) -> bool:
    """Whether the chain is a law that tempering fitted to the optimum (7), which is known up to a constant."""
    chains = (estimator.model_, estimator.pretrained_)
    laws_known = all(chain.default_solver == "tempering" and chain.knows_law for chain in chains)
    return may_temper(estimator.solver) and laws_known and math.isfinite(estimator.alpha_)


def draw_from_optimum(estimator: Any, n_samples: int, random_state: Any) -> Any:
    """Draw designs from the chain and move them to the optimum.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        Of which `approximates_optimum` is true.
    n_samples : int
    random_state : int, RandomState, torch.Generator or None

    Returns
    -------
    designs : list of str, or ndarray
    """
    check_number("n_samples", n_samples, low=1, whole=True)
    model, generator = estimator.model_, as_generator(random_state)
    points = []
    with Progress(n_samples, "designs", shown=bool(estimator.verbose)) as progress:
        for start in range(0, n_samples, BATCH):
            noise = model.draw_noise(min(BATCH, n_samples - start), generator)
            drawn = estimator.space_.discretise(model.sample_points(noise))
            points.append(moved_to_optimum(estimator, drawn, generator))
            progress.update(len(drawn))
    return model.space.decode(torch.cat(points), model.kind)


def moved_to_optimum(estimator: Any, points: Tensor, generator: torch.Generator) -> Tensor:
    """Move draws of the chain by Metropolis-Hastings steps that leave the optimum (7) of `reward_` as it is.

    A Markov law knows neighbours only, and a mixture has few components. The optimum has whatever dependence the reward
    has: motifs whose parts lie far apart, or a word that must be nowhere. Moves that the fine-tuned chain calls
    impossible are not made.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        Of which `approximates_optimum` is true.
    points : Tensor of shape (n, \\*space.shape)
    generator : torch.Generator

    Returns
    -------
    points : Tensor of shape (n, \\*space.shape)
    """

    def aim(x: Tensor) -> Tensor:
        return estimator._standardised_aim(estimator.space_.discretise(x))

    target = target_of(estimator.pretrained_, aim).supported_by(estimator.model_)
    population = target.at(target.states(points))
    for _ in range(target.n_moves):
        population = target.moved(population, 1 / estimator.alpha_, generator)
    return target.points(population.state)
