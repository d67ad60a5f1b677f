"""Exact answers on finite, masked, linear-Gaussian and angular chains, for tests and benchmarks.

It uses numpy and torch alone, and no other part of braidkit uses it. `finite`, `masked`, `gaussian` and `angles` are
kinds of chains; `regret` has Theorem 2 and Corollary 1. Laws are tensors of log-probabilities; alpha is in units of the
reward.
"""

from braidkit.theory.angles import AngleChain, LettersOptimum, letters_optimum
from braidkit.theory.finite import (
    FiniteChain,
    expectation,
    gap,
    initial_bias,
    kl_divergence,
    objective,
    optimal_chain,
    path_kl,
    soft_values,
    tilted,
)
from braidkit.theory.gaussian import LinearGaussianChain, Quadratic
from braidkit.theory.masked import (
    best_letters,
    masked_gap,
    masked_objective,
    masked_soft_values,
    masked_states,
    position_floor,
    sequence_law,
)
from braidkit.theory.regret import (
    RegretBound,
    concentrability,
    corollary_bound,
    effective_dimension,
    linear_penalty,
    regret_bound,
    relative_condition_number,
    self_normalised_beta,
    soft_regret,
    soft_value,
)

__all__ = [
    "AngleChain",
    "FiniteChain",
    "LettersOptimum",
    "LinearGaussianChain",
    "Quadratic",
    "RegretBound",
    "best_letters",
    "concentrability",
    "corollary_bound",
    "effective_dimension",
    "expectation",
    "gap",
    "initial_bias",
    "kl_divergence",
    "letters_optimum",
    "linear_penalty",
    "masked_gap",
    "masked_objective",
    "masked_soft_values",
    "masked_states",
    "objective",
    "optimal_chain",
    "path_kl",
    "position_floor",
    "regret_bound",
    "relative_condition_number",
    "self_normalised_beta",
    "sequence_law",
    "soft_regret",
    "soft_value",
    "soft_values",
    "tilted",
]
