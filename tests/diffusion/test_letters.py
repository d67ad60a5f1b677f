"""A Markov law as the base of the letters: the chains' laws, their support, and when the network adds to it."""

import copy

import numpy as np
import pytest
import torch

from braidkit import MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel, MarkovLaw
from braidkit.exceptions import InvalidParameterError
from braidkit.theory.masked import masked_states, sequence_law

N_LETTERS, LENGTH = 3, 4


def walks(n, seed=0, length=LENGTH):
    """Tokens of a chain over three letters in which 0 is never followed by 1, nor 2 by 0."""
    transitions = torch.tensor([[0.6, 0.0, 0.4], [0.2, 0.3, 0.5], [0.0, 0.7, 0.3]], dtype=torch.float64)
    law = MarkovLaw(length, N_LETTERS)
    law.transitions.copy_(transitions)
    law.transitions[0] = 1 / N_LETTERS
    generator = torch.Generator().manual_seed(seed)
    return law.sample(torch.rand(n, length, generator=generator, dtype=torch.float64)).numpy()


def is_possible(tokens):
    pairs = N_LETTERS * tokens[:, :-1] + tokens[:, 1:]
    return ~np.isin(pairs, (1, 6)).any(axis=1)


def fitted(kind, n=400, length=LENGTH, **settings):
    space = SequenceSpace("ACG", length)
    return kind(space).fit(walks(n, length=length), random_state=0, **{"max_iter": 30} | settings)


def perturbed(model):
    """A copy whose network has large random weights, as after much fine-tuning."""
    other = model.trainable_copy()
    generator = torch.Generator().manual_seed(1)
    for parameter in other.network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return other.freeze()


def letters_table(model):
    """The letters' log-probabilities at all partly masked sequences."""
    states = torch.nn.functional.one_hot(masked_states(LENGTH, N_LETTERS), N_LETTERS + 1)[..., :N_LETTERS]
    return model.letter_log_probs(states.float())


@pytest.fixture(scope="module")
def masked():
    return fitted(MaskedDiffusion)


def test_masked_chain_of_a_markov_law_alone_has_its_law(masked):
    model = copy.deepcopy(masked)
    for parameter in model.network.parameters():
        parameter.data.zero_()
    words = torch.cartesian_prod(*[torch.arange(N_LETTERS)] * LENGTH)
    law = sequence_law(letters_table(model).double()).exp()
    torch.testing.assert_close(law, model.prior.log_prob(words).exp(), atol=1e-5, rtol=1e-4)
    assert float(law[torch.from_numpy(~is_possible(words.numpy()))].sum()) == 0


def test_impossible_letters_have_no_probability_however_the_network_is_tuned(masked):
    tuned = perturbed(masked)
    words = torch.cartesian_prod(*[torch.arange(N_LETTERS)] * LENGTH).numpy()
    law = sequence_law(letters_table(tuned).double()).exp()
    assert float(law.sum()) == pytest.approx(1)
    assert float(law[torch.from_numpy(~is_possible(words))].sum()) == 0
    assert is_possible(tuned.sample(500, random_state=0)).all()


def test_kl_between_policies_with_zeros_is_finite_and_exact(masked):
    tuned = perturbed(masked)
    state = masked.space.encode(walks(20))
    state[:, 1:3] = 0
    policy, twin = tuned.policy(state, 2), masked.policy(state, 2)
    p, q = (step.logits.double().softmax(dim=2) for step in (policy, twin))
    terms = torch.where(p > 0, p * (p / q).log(), 0.0).sum(dim=2)
    assert (p == 0).any()
    torch.testing.assert_close(policy.kl(twin).double(), terms[:, 1:3].mean(dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [MaskedDiffusion, SimplexDiffusion])
def test_states_have_finite_gradients_through_the_prior(kind):
    model = fitted(kind, max_iter=2)
    noise = model.draw_noise(8, torch.Generator().manual_seed(0))
    x = model.initial(8).rsample(noise[:, 0]).requires_grad_(True)
    state = x
    for t in range(model.n_steps, 0, -1):
        state = model.policy(state, t).rsample(noise[:, t])
    model.space.discretise(model.readout(state))[:, :, 0].sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", [MaskedDiffusion, SimplexDiffusion])
def test_saved_chain_has_its_prior(kind, tmp_path):
    model = fitted(kind, max_iter=2)
    model.save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.prior.transitions, model.prior.transitions)
    assert (loaded.sample(10, random_state=0) == model.sample(10, random_state=0)).all()
    tuned = perturbed(model)
    tuned.save_pretrained(tmp_path / "tuned")
    loaded = DiffusionModel.from_pretrained(tmp_path / "tuned")
    assert (loaded.sample(10, random_state=0) == tuned.sample(10, random_state=0)).all()


def test_network_that_does_not_help_stays_zero(capsys):
    model = fitted(MaskedDiffusion, n=300, length=20, max_iter=40, learning_rate=0.3, verbose=1)
    assert (model.network(model.space.encode(walks(5, length=20))) == 0).all()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrained:"))
    assert line.startswith("pretrained: Markov order 1; 0.")
    assert line.endswith("a network does not help")


def test_network_learns_what_the_law_misses(capsys):
    rng = np.random.RandomState(0)
    tokens = rng.randint(4, size=(600, 10))
    tokens[:, 9] = tokens[:, 0]
    space = SequenceSpace("ACGT", 10)
    model = MaskedDiffusion(space, n_hidden=64).fit(tokens, max_iter=150, random_state=0, verbose=1)
    drawn = model.sample(300, random_state=0)
    assert (drawn[:, 9] == drawn[:, 0]).mean() > 0.8
    assert "+ network" in capsys.readouterr().out


def test_too_few_rows_leave_the_network_zero():
    model = fitted(MaskedDiffusion, n=40)
    assert (model.network(model.space.encode(walks(5))) == 0).all()
    assert is_possible(model.sample(100, random_state=0)).mean() > 0.7


def test_simplex_chain_draws_neighbours_that_the_data_have():
    model = fitted(SimplexDiffusion, n=400, length=12, max_iter=20)
    assert is_possible(model.sample(300, random_state=0)).mean() > 0.97


def test_unknown_prior_is_refused():
    with pytest.raises(InvalidParameterError, match="prior must be \"markov\" or None; got 'pairs'"):
        MaskedDiffusion(SequenceSpace("DNA", 4), prior="pairs")
    with pytest.raises(InvalidParameterError, match='head="letters"'):
        SimplexDiffusion(SequenceSpace("DNA", 4), head="score", prior="markov")
