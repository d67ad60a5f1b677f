"""The tabular chain against Bayes' rule and the law of the data, exactly."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit import SequenceSpace, TabularDiffusion, VectorSpace
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError, NotTrainedError
from braidkit.finetuning import rollout
from braidkit.theory.finite import FiniteChain

SPACE = SequenceSpace("ACG", length=2)
WORDS = ["AA", "AC", "AG", "CA", "CC", "CG", "GA", "GC", "GG"]


def exact(model):
    """The chain as the exact theory takes it."""
    n_designs = model.state_shape[0]
    return FiniteChain(torch.full((n_designs,), -math.log(n_designs)), model.log_policies())


@st.composite
def fitted(draw):
    """Counts of the nine words, the chain fitted to them, and the smoothed law."""
    counts = np.array(draw(st.lists(st.integers(0, 20), min_size=9, max_size=9)))
    counts[draw(st.integers(0, 8))] += 1
    smoothing, n_steps = draw(st.sampled_from([1e-3, 1.0, 30.0])), draw(st.integers(1, 12))
    model = TabularDiffusion(SPACE, n_steps=n_steps, smoothing=smoothing).fit(np.repeat(WORDS, counts).tolist())
    return model, torch.from_numpy((counts + smoothing / 9) / (counts.sum() + smoothing))


@settings(max_examples=40)
@given(fitted())
def test_the_law_of_the_chain_is_that_of_the_smoothed_data_at_every_step(case):
    model, law = case
    for t, log_marginal in enumerate(exact(model).log_marginals()):
        kept = 1 - t / model.n_steps
        assert torch.allclose(log_marginal.exp(), kept * law + (1 - kept) / 9, atol=1e-5)


@settings(max_examples=40)
@given(fitted())
def test_the_policies_reverse_the_noising(case):
    """Turned round again, they are the noising: stay, or be replaced by a uniform draw."""
    model, _ = case
    for t, log_posterior in enumerate(exact(model).log_posteriors(), start=1):
        replaced = 1 / (model.n_steps - t + 1)
        noising = (1 - replaced) * torch.eye(9, dtype=torch.float64) + replaced / 9
        assert torch.allclose(log_posterior.exp(), noising, atol=1e-5)


@pytest.fixture(scope="module")
def model():
    return TabularDiffusion(SPACE, n_steps=5).fit(["AC"] * 30 + ["CA"] * 20 + ["GG"] * 10)


def test_the_start_tells_nothing_of_the_design(model):
    first = model.log_policies()[-1]
    assert torch.allclose(first, first[:1].expand_as(first), atol=1e-6)


def test_samples_have_the_law_of_the_chain(model):
    n = 20_000
    drawn = model.sample(n, random_state=0, batch_size=n)
    shares = torch.tensor([drawn.count(word) / n for word in WORDS], dtype=torch.float64)
    assert torch.allclose(shares, exact(model).log_marginals()[0].exp(), atol=4 * 0.5 / n**0.5)


def test_designs_do_not_depend_on_how_many_are_drawn_at_once(model):
    assert model.sample(9, random_state=3) == model.sample(9, random_state=3, batch_size=2)


def test_policies_are_rows_of_the_tables(model):
    states = torch.eye(9)
    for t, log_policy in enumerate(model.log_policies(), start=1):
        for j in range(9):
            log_probs = model.policy(states, t).log_prob(states[j].expand(9, 9))
            assert torch.allclose(log_probs.double(), log_policy[:, j], atol=1e-5)
    uniform = model.initial(9)
    assert torch.allclose(uniform.log_prob(states), torch.full((9,), -math.log(9)))


def test_the_readout_is_the_design_that_a_state_stands_for(model):
    assert model.space.decode(model.readout(torch.eye(9))) == WORDS
    weights = torch.randn(9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.readout(weights[None])[0, 1, 2], weights)
    assert torch.equal(gradient, torch.tensor([float(word[1] == "G") for word in WORDS]))


def test_denoise_is_the_mean_design_of_the_rest_of_the_chain(model):
    policies, law = model.log_policies(), torch.eye(9, dtype=torch.float64)
    designs = SPACE.encode(WORDS).double()
    for t in range(1, 6):
        # law is that of x_0 given x_t: the next table comes in front.
        law = policies[t - 1].exp() @ law
        expected = torch.einsum("ns,slk->nlk", law, designs)
        assert torch.allclose(model.denoise(torch.eye(9), t).double(), expected, atol=1e-5)


def test_every_row_counts_and_the_settings_of_fit_do_not(model):
    again = TabularDiffusion(SPACE, n_steps=5)
    again.fit(["GG"] * 10 + ["AC"] * 30 + ["CA"] * 20, max_iter=1, validation_fraction=0.5, random_state=7)
    assert torch.equal(again.network.logits, model.network.logits)


def test_a_copy_can_be_fitted_anew(model):
    with pytest.raises(IncompatibleModelError, match="copy.deepcopy"):
        model.fit(["AA"])
    before = model.network.logits.clone()
    other = copy.deepcopy(model).fit(["AA"] * 1000)
    assert float(exact(other).log_marginals()[0][0].exp()) > 0.99
    assert torch.equal(model.network.logits, before)


def test_a_model_survives_saving(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = DiffusionModel.from_pretrained(tmp_path)
    assert isinstance(loaded, TabularDiffusion) and loaded.frozen and loaded.smoothing == 1.0
    assert loaded.sample(5, random_state=0) == model.sample(5, random_state=0)


def test_a_fine_tuned_copy_pays_the_kl_of_its_tables(model):
    tuned = model.trainable_copy()
    assert tuned.decoder is None and tuned.network.logits.requires_grad
    noise = model.draw_noise(50, torch.Generator().manual_seed(0))
    path = rollout(tuned, model, noise)
    assert torch.equal(path.kl, torch.zeros(50))
    (gradient,) = torch.autograd.grad(path.point[:, 0, 0].sum(), tuned.network.logits)
    assert bool((gradient.abs().sum(dim=(1, 2)) > 0).all())  # straight-through, into the tables of all steps
    with torch.no_grad():
        tuned.network.logits[2, :, 0] += 1.0
    states = torch.eye(9)
    log_p, log_q = tuned.log_policies()[2], model.log_policies()[2]
    kl = tuned.policy(states, 3).kl(model.policy(states, 3))
    assert torch.allclose(kl.double(), (log_p.exp() * (log_p - log_q)).sum(dim=1), atol=1e-6) and bool((kl > 0).all())


def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidParameterError, match=r"at most 1,024; the space has 4,096: use a MaskedDiffusion"):
        TabularDiffusion(SequenceSpace("DNA", 6))
    assert TabularDiffusion(SequenceSpace("DNA", 5)).state_shape == (1024,)
    for smoothing in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidParameterError, match=f"smoothing must be a number above 0; got {smoothing}"):
            TabularDiffusion(SPACE, smoothing=smoothing)
    with pytest.raises(InvalidParameterError, match="n_steps must be a whole number of at least 1; got 0"):
        TabularDiffusion(SPACE, n_steps=0)
    with pytest.raises(InvalidParameterError, match="needs a SequenceSpace"):
        TabularDiffusion(VectorSpace(2))
    for call in (TabularDiffusion(SPACE).log_policies, TabularDiffusion(SPACE).sample):
        with pytest.raises(NotTrainedError, match="never trained"):
            call()


def test_noised_states_are_kept_or_uniform():
    model = TabularDiffusion(SPACE, n_steps=4)
    x = SPACE.encode(["CG"] * 20_000)
    t = torch.arange(20_000) % 5
    states = model.noised(x, t, torch.Generator().manual_seed(0))
    assert torch.equal(states.sum(dim=1), torch.ones(20_000))
    for level in range(5):
        law = states[t == level].mean(dim=0)
        expected = torch.full((9,), level / 4 / 9)
        expected[WORDS.index("CG")] += 1 - level / 4
        assert torch.allclose(law, expected, atol=0.025)
    assert torch.equal(model.as_points(states[t == 0], 0), x[t == 0])
