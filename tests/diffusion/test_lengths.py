"""Chains of sequences of several lengths: padding at its side exactly, and lengths with the law of the data."""

import numpy as np
import pytest
import torch

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.diffusion import DiffusionModel, SimplexDiffusion
from braidkit.spaces import Limits
from braidkit.theory.masked import masked_states, sequence_law

SIDES = pytest.mark.parametrize("side", ["right", "left"])
TOKENS = torch.cartesian_prod(*[torch.arange(4)] * 4)  # three letters, and padding as number 3


def rows_of(n=300, lengths=(2, 4), letters="ACG", seed=0):
    rng = np.random.default_rng(seed)
    shares = np.arange(1, lengths[1] - lengths[0] + 2, dtype=float)
    drawn = rng.choice(np.arange(lengths[0], lengths[1] + 1), n, p=shares / shares.sum())
    return ["".join(rng.choice(list(letters), size)) for size in drawn]


def letters_of(model):
    """The chain's letters in all partly masked sequences."""
    states = torch.nn.functional.one_hot(masked_states(4, 4), 5)[..., :4].float()
    return model.letter_log_probs(states).double()


def shifted(model):
    other = model.trainable_copy()
    generator = torch.Generator().manual_seed(1)
    for parameter in other.network.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return other.freeze()


@pytest.fixture(scope="module", params=["right", "left"])
def model(request):
    space = SequenceSpace("ACG", (2, 4), padding=request.param)
    return MaskedDiffusion(space, n_hidden=16).fit(rows_of(), max_iter=1, random_state=0)


def test_the_markov_law_has_padding_at_its_side_alone_and_the_lengths_of_the_data(model):
    law, fits = model.prior.log_prob(TOKENS).exp(), model.space.automaton.meets(TOKENS)
    assert float(law[~fits].sum()) == 0 and float(law.sum()) == pytest.approx(1)
    lengths = (TOKENS < 3).sum(dim=1)
    counts = np.bincount([len(row) for row in rows_of()], minlength=5) + np.array([0, 0, 0.5, 0.5, 0.5])
    shares = [float(law[lengths == n].sum()) for n in range(5)]
    np.testing.assert_allclose(shares, counts / counts.sum(), atol=1e-12)


def test_a_chain_of_the_law_alone_is_the_law(model):
    plain = shifted(model)
    for parameter in plain.network.parameters():
        parameter.data.zero_()
    law = sequence_law(letters_of(plain)).exp()
    torch.testing.assert_close(law, model.prior.log_prob(TOKENS).exp(), atol=1e-6, rtol=1e-5)


def test_no_weights_put_a_letter_beyond_padding(model):
    tuned = shifted(model)
    law, fits = sequence_law(letters_of(tuned)).exp(), model.space.automaton.meets(TOKENS)
    assert float(law[~fits].sum()) == 0 and float(law.sum()) == pytest.approx(1)
    drawn = tuned.sample(500, random_state=0)
    assert {len(row) for row in drawn} <= {2, 3, 4} and set("".join(drawn)) <= set("ACG")


@SIDES
def test_limits_and_padding_are_met_together_and_lengths_stay_as_they_are(side):
    rows = rows_of(200, (10, 30), "ACGT")
    space = SequenceSpace("DNA", (10, 30), padding=side)
    chain = MaskedDiffusion(space).fit(rows, max_iter=1, random_state=0)
    limited = chain.in_space(SequenceSpace("DNA", (10, 30), padding=side, limits=Limits(forbidden=["A" * 4])))
    drawn = limited.sample(400, random_state=0)
    assert not any("AAAA" in row for row in drawn)
    mean, expected = (np.mean([len(row) for row in some]) for some in (drawn, rows))
    assert abs(mean - expected) < 1.2  # three standard errors of both


@SIDES
def test_designs_of_a_simplex_chain_are_padded_at_its_side(side, tmp_path):
    space = SequenceSpace("ACG", (2, 4), padding=side)
    chain = SimplexDiffusion(space, n_steps=8).fit(rows_of(), max_iter=2, random_state=0)
    drawn = chain.sample(300, random_state=0)
    assert {len(row) for row in drawn} == {2, 3, 4}
    chain.save_pretrained(tmp_path / "model")
    assert DiffusionModel.from_pretrained(tmp_path / "model").sample(20, random_state=0) == drawn[:20]


@pytest.mark.parametrize(
    "reward", [GPBonusReward(max_iter=2), GPBonusReward(max_iter=2, lam=1), BootstrapReward(max_iter=2)]
)
def test_rewards_do_not_see_padding(reward):
    """What is written in the place of padding, the letter for it left out, changes no prediction."""
    rows = rows_of(80, (4, 8), "ACGT")
    y = np.array([row.count("G") for row in rows], dtype=float)
    reward = reward.set_params(random_state=0).fit(rows, y)
    x = reward.space_.encode(rows[:10])
    unseen = x.clone()
    unseen[..., -1] = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(0))
    assert torch.equal(reward.lower(x), reward.lower(unseen))
    assert reward.predict(rows)[:10] == pytest.approx(reward.mean_and_penalty(x)[0].numpy(), abs=1e-4)


@pytest.mark.parametrize("solver", ["auto", "trajectory_balance", "tempering"])
def test_strings_of_several_lengths_are_designed_from(solver):
    rows = rows_of(80, (5, 8), "ACGT")
    y = np.array([row.count("G") for row in rows], dtype=float)
    finetuner = ConservativeDiffusionFinetuner(
        reward=GPBonusReward(max_iter=2), solver=solver, max_iter=2, batch_size=8, random_state=0
    ).fit(rows, y)
    designs = finetuner.sample(60, random_state=0)
    assert finetuner.space_ == SequenceSpace("DNA", (5, 8))
    lengths = {len(row) for row in designs}
    assert len(lengths) > 1 and lengths <= {5, 6, 7, 8} and set("".join(designs)) <= set("ACGT")
    assert np.isfinite(finetuner.score(rows[:30], y[:30]))
