"""Take draws of a fine-tuned chain the rest of the way to the optimum that the chain approximates."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from braidkit.diffusion import MarkovLaw, MaskedDiffusion
from braidkit.finetuning.population import Population, Target
from braidkit.finetuning.solver_choice import may_temper
from braidkit.parameters import as_generator, check_number
from braidkit.progress import Progress

# Designs at a time: what the noise, the reward and its gradient need of memory.
BATCH = 256


def approximates_optimum(estimator: Any) -> bool:
    """Whether the chain is a Markov law that tempering fitted to the optimum (7), which is known up to a constant."""
    chains = (estimator.model_, estimator.pretrained_)
    laws_known = all(isinstance(chain, MaskedDiffusion) and chain.knows_law for chain in chains)
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

    A Markov law knows neighbours only. The optimum has whatever dependence the reward has: motifs whose parts lie far
    apart, or a word that must be nowhere. Moves that the fine-tuned chain calls impossible are not made.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        Of which `approximates_optimum` is true.
    points : Tensor of shape (n, length, n_letters)
    generator : torch.Generator

    Returns
    -------
    points : Tensor of shape (n, length, n_letters)
    """
    model, pretrained = estimator.model_, estimator.pretrained_
    own: MarkovLaw = model.prior
    target = Target.of_chain(pretrained, pretrained.prior, estimator._standardised_aim)
    target = dataclasses.replace(target, meets=lambda tokens: own.log_prob(tokens).isfinite())
    population = Population.at(points.argmax(dim=-1), target)
    for _ in range(target.n_moves):
        population = population.moved(target, 1 / estimator.alpha_, generator)
    return one_hot(population.tokens, target.law.n_letters).to(points)
