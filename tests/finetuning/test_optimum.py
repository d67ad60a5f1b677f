"""Candidates that are moved from the chain's draws to the optimum have its law, which no Markov law has."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import TemperingSolver
from braidkit.finetuning.optimum import approximates_optimum, draw_from_optimum, moved_to_optimum
from tests.finetuning.test_tempering import LENGTH, WORDS, chain, distance, frequencies, measured, table_reward, tilted
from tests.worlds import problem_on

__all__ = ["chain"]


@pytest.fixture(scope="module")
def tempered(chain):
    """A chain with the Markov law of the optimum of a reward that is not Markov, as a fitted estimator has it."""
    reward = table_reward()
    problem = problem_on(chain, reward, alpha=0.5, batch_size=512)
    solver = TemperingSolver().setup(problem)
    for i in range(12):
        solver.update(i)
    estimator = SimpleNamespace(
        model_=problem.model,
        pretrained_=chain,
        space_=chain.space,
        solver="auto",
        alpha_=0.5,
        _standardised_aim=reward,
    )
    return estimator, solver


@pytest.mark.theorem
def test_moved_draws_follow_the_optimum_more_closely_than_the_chain(chain, tempered):
    """Equation (7)."""
    estimator, _ = tempered
    generator = torch.Generator().manual_seed(1)
    draws = estimator.model_.sample_points(chain.draw_noise(40_000, generator))
    moved = moved_to_optimum(estimator, draws, generator)
    law = tilted(chain, table_reward(), 2.0)
    before, after = (distance(frequencies(points.argmax(dim=2)), law) for points in (draws, moved))
    assert before > 0.05
    assert after < 0.75 * before


def test_designs_of_an_estimator_are_moved_draws(chain, tempered):
    """The same as moving the chain's draws by hand, for any number of designs at once."""
    estimator, _ = tempered
    estimator.verbose, estimator.model_.kind = 0, "strings"
    designs = draw_from_optimum(estimator, 20, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    draws = estimator.model_.sample_points(estimator.model_.draw_noise(20, generator))
    assert designs == chain.space.decode(moved_to_optimum(estimator, draws, generator), "strings")
    assert len(draw_from_optimum(estimator, 300, 0)) == 300
    with pytest.raises(InvalidParameterError, match="n_samples"):
        draw_from_optimum(estimator, 0, 0)


def test_moved_draws_stay_possible_under_the_chain(tempered):
    estimator, _ = tempered
    generator = torch.Generator().manual_seed(2)
    moved = moved_to_optimum(estimator, one_hot(WORDS[:1].expand(300, -1), 4).float(), generator)
    assert estimator.model_.log_prob(moved).isfinite().all()


@pytest.mark.theorem
def test_own_designs_of_tempering_are_the_optimum_with_its_kl(chain, tempered):
    _, solver = tempered
    designs, kl = solver.own_designs()
    law, start = tilted(chain, table_reward(), 2.0), chain.prior.log_prob(WORDS)
    exact = float((law * (law.log() - start)).nan_to_num(0.0).sum())
    assert kl == pytest.approx(exact, abs=0.2)
    reward = float(table_reward()(designs).mean())
    assert reward == pytest.approx(float(law @ table_reward()(one_hot(WORDS, 4).float()).double()), abs=0.2)


def test_only_a_markov_law_that_tempering_fitted_is_taken_further():
    rows = measured(120)
    y = [float(row.count("G")) for row in rows]
    space = SequenceSpace("DNA", LENGTH)
    chain = MaskedDiffusion(space, n_hidden=8).fit(rows, max_iter=1, learning_rate=1e-9, random_state=0)
    settings = {"reward": GPBonusReward(nn.Flatten()), "random_state": 0}
    tempered = ConservativeDiffusionFinetuner(chain, max_iter=6, **settings).fit(rows, y)
    assert approximates_optimum(tempered)
    assert tempered.sample(40, 0) == draw_from_optimum(tempered, 40, 0)
    tempered.alpha_ = math.inf  # the pretrained model was kept
    assert not approximates_optimum(tempered)
    assert tempered.sample(40, 0) == tempered.model_.sample(40, 0)
    exact = ConservativeDiffusionFinetuner(**settings).fit(rows, y)
    assert not approximates_optimum(exact)
