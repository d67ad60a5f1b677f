"""Chains whose space holds letters: their law is the conditional one; steps and KL are of free positions alone."""

import copy

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.baselines import twisted_smc
from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, GuidedDiffusion, MarkovLaw
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import sample_with_kl
from braidkit.theory.masked import masked_gap, masked_soft_values, masked_states, sequence_law

LETTERS, LENGTH = "ACG", 4
TEMPLATE = "_G_A"
HELD = [-1, 2, -1, 0]
WORDS = torch.cartesian_prod(*[torch.arange(3)] * LENGTH)
FITS = ((torch.tensor(HELD) == WORDS) | (torch.tensor(HELD) < 0)).all(dim=1)
FREE = [0, 2]


def chain_of_a_law(kind, **settings):
    """A chain whose letters are exactly those of a Markov law with strong memory."""
    model = kind(SequenceSpace(LETTERS, LENGTH), **settings)
    rows = torch.randint(3, (50, LENGTH), generator=torch.Generator().manual_seed(0)).numpy()
    model.fit(rows, max_iter=1, random_state=0)  # so few rows leave the network zero
    law = MarkovLaw(LENGTH, 3)
    transitions = torch.tensor([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6], [0.05, 0.8, 0.15]], dtype=torch.float64)
    law.transitions.copy_(transitions)
    law.transitions[0] = torch.tensor([0.5, 0.2, 0.3])
    model.prior = law
    return model.freeze()


def conditional(law):
    """The law's probabilities of the free letters, given those that are held."""
    given = law.log_prob(WORDS[FITS]).exp()
    return given / given.sum()


def free_letters(model):
    """The chain's letters at the free positions of all partly masked sequences that have the held ones."""
    states = torch.nn.functional.one_hot(masked_states(LENGTH, 3, HELD), 4)[..., :3].float()
    return model.letter_log_probs(states)[:, FREE].double()


def shifted(model, scale=1.0):
    """A copy with other weights, as after fine-tuning."""
    other = model.trainable_copy()
    generator = torch.Generator().manual_seed(1)
    for parameter in other.network.parameters():
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator))
    return other.freeze()


@pytest.fixture(scope="module")
def whole():
    return chain_of_a_law(MaskedDiffusion)


@pytest.fixture(scope="module")
def held(whole):
    return whole.in_space(SequenceSpace(LETTERS, template=TEMPLATE))


def test_masked_chain_with_held_letters_has_the_conditional_law(whole, held):
    law = sequence_law(free_letters(held)).exp()
    torch.testing.assert_close(law, conditional(whole.prior), atol=1e-6, rtol=1e-5)
    drawn = held.sample(20_000, random_state=0)
    counts = np.bincount(3 * drawn[:, 0].astype(int) + drawn[:, 2], minlength=9) / len(drawn)
    np.testing.assert_allclose(counts, law.numpy(), atol=0.012)  # three deviations of the largest share
    assert (drawn[:, 1] == 2).all() and (drawn[:, 3] == 0).all()


def test_masked_chain_steps_through_free_positions_only(whole, held):
    assert (whole.n_steps, held.n_steps, whole.space.template) == (4, 2, None)
    first = held.initial(1).rsample(None)[0]
    assert first.sum(dim=1).tolist() == [0, 1, 0, 1]
    assert held.in_space(whole.space).n_steps == 4
    assert MaskedDiffusion(held.space).n_steps == 2
    two_a_step = MaskedDiffusion(SequenceSpace("DNA", 8), n_steps=4)
    assert two_a_step.in_space(SequenceSpace("DNA", template="AC__T___")).n_masked == [0, 2, 3, 5]
    with pytest.raises(InvalidParameterError, match="n_steps must be at most the number of free positions, 2"):
        MaskedDiffusion(held.space, n_steps=3)


def test_masked_chain_is_trained_with_its_held_letters_in_sight(held):
    x = held.space.hold(torch.nn.functional.one_hot(WORDS, 3).float())
    for t, n_masked in enumerate(held.n_masked):
        masked = held.noised(x, t, torch.Generator().manual_seed(t)).sum(dim=2) == 0
        assert (masked.sum(dim=1) == n_masked).all() and not masked[:, [1, 3]].any()


def test_kl_of_a_held_masked_chain_is_that_of_its_free_positions(held):
    tuned = shifted(held)
    noise = held.draw_noise(20_000, torch.Generator().manual_seed(0))
    kl = sample_with_kl(tuned, held, noise, batch_size=5000).kl.double()
    # With no reward the gap is the path KL to the pretrained chain itself.
    exact = masked_gap(free_letters(tuned), free_letters(held), torch.zeros(9), 1.0)
    assert float(exact) > 0.05
    assert float(kl.mean()) == pytest.approx(float(exact), abs=4 * float(kl.std()) / len(kl) ** 0.5)


def test_smc_with_held_letters_estimates_the_constant_of_the_conditional_law(held):
    reward = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = torch.nn.functional.one_hot(WORDS[FITS], 3).float()

    def reward_of(x):
        return reward[(3 * x[:, 0].argmax(dim=1) + x[:, 2].argmax(dim=1))]

    assert torch.equal(reward_of(points), reward)
    particles = twisted_smc(held, reward_of, 0.5, 20_000, torch.Generator().manual_seed(0), batch_size=20_000)
    _, log_c = masked_soft_values(free_letters(held), reward, 0.5)
    assert particles.log_z == pytest.approx(float(log_c), abs=0.05)


def test_simplex_chain_with_held_letters_has_about_the_conditional_law():
    whole = chain_of_a_law(SimplexDiffusion, n_steps=40)
    held = whole.in_space(SequenceSpace(LETTERS, template=TEMPLATE))
    drawn = held.sample(1500, random_state=0, batch_size=1500)
    counts = np.bincount(3 * drawn[:, 0].astype(int) + drawn[:, 2], minlength=9) / len(drawn)
    exact = conditional(whole.prior).numpy()
    free = whole.sample(1500, random_state=0, batch_size=1500)
    unconditional = np.bincount(3 * free[:, 0].astype(int) + free[:, 2], minlength=9) / len(free)
    assert np.abs(counts - exact).max() < 0.03 < np.abs(unconditional - exact).max()


@pytest.mark.parametrize("scheme", ["bridge", "euler"])
def test_held_positions_of_a_simplex_chain_carry_no_kl(scheme):
    whole = chain_of_a_law(SimplexDiffusion, n_steps=5, scheme=scheme)
    held = whole.in_space(SequenceSpace(LETTERS, template=TEMPLATE))
    x = held.initial(16).rsample(held.draw_noise(16, torch.Generator().manual_seed(0))[:, 0])
    policy, twin = (model.policy(x, 3) for model in (shifted(held, 0.1), held))
    kl = policy.kl(twin)
    assert float(kl.min()) > 0
    some = [step.mapped(lambda part: part[:, FREE]) for step in (policy, twin)]
    torch.testing.assert_close(some[0].kl(some[1]), kl)


def test_a_chain_of_listed_designs_has_the_conditional_law():
    rows = WORDS[torch.randint(81, (400,), generator=torch.Generator().manual_seed(0))].numpy()
    whole = EnumeratedDiffusion(SequenceSpace(LETTERS, LENGTH)).fit(rows)
    held = whole.in_space(SequenceSpace(LETTERS, template=TEMPLATE))
    law = whole.table().log_probs().exp()[FITS]
    torch.testing.assert_close(held.table().log_probs().exp(), law / law.sum())
    with pytest.raises(IncompatibleModelError, match="lists the designs of"):
        held.in_space(SequenceSpace(LETTERS, template="C___"))


def test_a_guided_chain_holds_what_its_chain_holds(whole, held):
    guided = GuidedDiffusion(whole, lambda x, time: x[:, 0, 1], strength=2.0).in_space(held.space)
    drawn = guided.sample(200, random_state=0)
    assert guided.n_steps == 2 and (drawn[:, 1] == 2).all() and (drawn[:, 3] == 0).all()


def test_a_held_masked_chain_survives_saving_and_fine_tuning(whole, held, tmp_path):
    held.save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.n_steps == 2 and (loaded.sample(20, random_state=0) == held.sample(20, random_state=0)).all()
    before = copy.deepcopy(whole.state_dict())
    rows = WORDS[torch.randint(81, (60,), generator=torch.Generator().manual_seed(0))].numpy()
    finetuner = ConservativeDiffusionFinetuner(
        whole, space=held.space, reward=GPBonusReward(max_iter=5), max_iter=2, batch_size=8, random_state=0
    ).fit(rows, rows[:, 0] + 0.1 * rows[:, 2])
    drawn = finetuner.sample(50, random_state=0)
    assert finetuner.model_.n_steps == 2 and (drawn[:, 1] == 2).all() and (drawn[:, 3] == 0).all()
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
