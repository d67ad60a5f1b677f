"""The simplex chain: what it reads from a state, what it learns, and what users do with it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.simplex_quality import compare, make_sequences, shuffle_letters
from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel
from braidkit.diffusion._jacobi import StickLaw, break_sticks
from braidkit.diffusion.simplex import EPS
from braidkit.exceptions import InvalidParameterError, NotTrainedError
from tests.diffusion.simplex_chains import DNA, model_of, random_model


def test_readout_is_the_likeliest_letter_with_an_unbiased_gradient():
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    model = model_of("letters", probabilities)
    n = 20_000
    letters = torch.randint(4, (n, 2), generator=torch.Generator().manual_seed(0))
    x = nn.functional.one_hot(letters, 4).float()
    v = model.law.noise(x, torch.zeros(n, dtype=torch.long), torch.Generator().manual_seed(1))
    v = v.clamp(2 * EPS, 1 - 2 * EPS).requires_grad_()
    point = model.readout(v)
    torch.testing.assert_close(point.sum(dim=-1), torch.ones(n, 2))
    likelihoods = model.law.evidence(v.detach().clamp(EPS, 1 - EPS), 0).log_likelihoods()
    assert torch.equal(point.argmax(dim=-1), (likelihoods + probabilities.log()).argmax(dim=-1))
    # What stands in backwards: break_sticks(m + e^t (v - m)), whose mean over the noise is the clean point.
    weights = torch.randn(4, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((point @ weights).sum(), v)
    stationary = torch.tensor([1 / 4, 1 / 3, 1 / 2])
    estimate = break_sticks(stationary + math.exp(model.times[0]) * (v - stationary))
    (expected,) = torch.autograd.grad((estimate @ weights).sum(), v)
    torch.testing.assert_close(gradient, expected)
    for letter in range(4):
        chosen = estimate.detach()[letters == letter]
        error = chosen.std(dim=0) / math.sqrt(len(chosen))
        assert ((chosen.mean(dim=0) - torch.eye(4)[letter]).abs() < 5 * error + 1e-4).all()


@pytest.mark.parametrize("head", ["letters", "score"])
def test_readout_is_by_the_pretrained_network(head):
    model = random_model(head)
    model.kind = "strings"
    model.freeze()
    tuned = model.trainable_copy()
    state = torch.rand(4, *model.state_shape)
    with torch.no_grad():
        for parameter in tuned.network.parameters():
            parameter.add_(0.3)
    torch.testing.assert_close(tuned.readout(state), model.readout(state))
    point = model.readout(state)
    assert (point >= 0).all()
    torch.testing.assert_close(point.sum(dim=-1), torch.ones(4, 5))
    means = [chain.policy(state, 3).rsample(torch.zeros_like(state)) for chain in (tuned, model)]
    assert not torch.allclose(*means)


def test_denoise_gives_the_posterior_of_the_letters():
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    model, n = model_of("letters", probabilities), 20_000
    letters = torch.multinomial(probabilities, 2 * n, replacement=True, generator=torch.Generator().manual_seed(0))
    x = nn.functional.one_hot(letters.reshape(n, 2), 4).float()
    for t in (1, 10, 50):
        v = model.law.noise(x, torch.full((n,), t), torch.Generator().manual_seed(t)).clamp(EPS, 1 - EPS)
        mean = model.denoise(v, t)
        # Bayes' rule in each row; over rows, a posterior's mean is the prior and its errors are fair.
        joint = model.law.evidence(v, t).log_likelihoods().exp() * probabilities
        assert torch.allclose(mean, joint / joint.sum(dim=-1, keepdim=True), atol=1e-4)
        assert torch.allclose((mean * (x - mean)).mean(dim=(0, 1)), torch.zeros(4), atol=0.01)


@pytest.mark.parametrize("head", ["letters", "score"])
def test_denoise_is_by_the_fine_tuned_network(head):
    model = random_model(head).freeze()
    tuned, v = model.trainable_copy(), torch.rand(4, *model.state_shape, generator=torch.Generator().manual_seed(0))
    mean = tuned.denoise(v, 5)
    assert torch.equal(mean, model.denoise(v, 5))
    assert bool((mean >= 0).all()) and torch.allclose(mean.sum(dim=-1), torch.ones(4, 5), atol=1e-5)
    with torch.no_grad():
        tuned.network.last[-1].bias[2] += 3.0
    assert tuned.denoise(v, 5)[..., 2].mean() > mean[..., 2].mean() + 0.05


@pytest.mark.parametrize("head", ["letters", "score"])
def test_fit_learns_which_letters_go_together(head):
    words = ["ACGTA", "CCGGA", "TTTAC"]
    model = SimplexDiffusion(DNA, head=head, n_steps=20)
    model.fit(words * 100, max_iter=150, batch_size=64, learning_rate=3e-3, validation_fraction=0, random_state=0)
    designs = model.sample(300, random_state=1)
    shares = [designs.count(word) / 300 for word in words]
    # Letters drawn independently, each position by its own frequencies, make up one of the words 1 time in 14.
    assert sum(shares) > 0.8 and min(shares) > 0.15, shares


def test_fit_saves_loads_and_samples_the_same(tmp_path):
    space = SequenceSpace("ACDEF", length=3)
    model = SimplexDiffusion(space, n_steps=5, max_time=3.0, min_time=0.3)
    model.fit(["ACD", "FED", "CCC"] * 10, max_iter=3, random_state=0)
    designs = model.sample(7, random_state=2)
    assert model.sample(7, random_state=2, batch_size=3) == designs
    model.save_pretrained(tmp_path)
    loaded = DiffusionModel.from_pretrained(tmp_path)
    assert loaded.times == model.times and loaded.sample(7, random_state=2) == designs
    again = SimplexDiffusion(space, n_steps=5, max_time=3.0, min_time=0.3)
    assert again.fit(["ACD", "FED", "CCC"] * 10, max_iter=3, random_state=0).sample(7, random_state=2) == designs


def test_a_trained_model_takes_other_steps(tmp_path):
    words = ["ACGTA", "CCGGA", "TTTAC"]
    model = SimplexDiffusion(DNA).fit(words * 100, max_iter=200, batch_size=64, validation_fraction=0, random_state=0)
    weights = copy.deepcopy(model.state_dict())
    other = model.with_steps(40, "euler")
    assert (other.n_steps, other.scheme, other.frozen) == (40, "euler", True)
    assert (other.times[0], other.times[-1]) == (model.times[0], model.times[-1])
    for chain in (other, model.with_steps(10)):
        designs = chain.sample(300, random_state=1)
        shares = [designs.count(word) / 300 for word in words]
        assert sum(shares) > 0.8 and min(shares) > 0.2, shares
    other.save_pretrained(tmp_path / "other")
    assert DiffusionModel.from_pretrained(tmp_path / "other").sample(5, random_state=1) == other.sample(
        5, random_state=1
    )
    assert other.with_steps(25, "bridge").sample(5, random_state=0) == model.sample(5, random_state=0)
    tuned = model.trainable_copy()
    tuned.with_steps(20).network.last[-1].bias.data.add_(1)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert tuned.with_steps(20).decoder is not None
    with pytest.raises(NotTrainedError):
        SimplexDiffusion(DNA).with_steps(10)


def test_training_loss_is_the_mean_over_the_chain_times():
    # The cross-entropy of the exact network is the conditional entropy of the letter, averaged over e^-t.
    probabilities = torch.tensor([0.6, 0.25, 0.1, 0.05])
    model = model_of("letters", probabilities, length=20, n_steps=4)
    generator = torch.Generator().manual_seed(0)
    letters = torch.multinomial(probabilities, 20 * 3000, replacement=True, generator=generator).reshape(3000, 20)
    x = nn.functional.one_hot(letters, 4).float()
    loss = model._loss(x, generator).item()
    weights = np.exp(-np.array(model.times))
    entropies = []
    for number in range(5):
        v = model.law.noise(x, torch.full((3000,), number), generator).clamp(EPS, 1 - EPS)
        log_q = (model.law.evidence(v, number).log_likelihoods() + probabilities.log()).log_softmax(dim=-1)
        entropies.append(-(log_q * x).sum(dim=-1).mean().item())
    assert loss == pytest.approx(np.average(entropies, weights=weights), rel=0.02)
    assert entropies[0] < 0.2 < entropies[-1]


def test_default_number_of_steps_follows_the_head():
    chains = [SimplexDiffusion(DNA, **one) for one in ({}, {"head": "score"}, {"scheme": "euler"}, {"n_steps": 7})]
    assert [(chain.scheme, chain.n_steps) for chain in chains] == [
        ("bridge", 25),
        ("euler", 50),
        ("euler", 50),
        ("bridge", 7),
    ]


def test_arguments_are_checked():
    for arguments, message in (
        ({"head": "logits"}, 'head must be "letters" or "score"; got \'logits\''),
        ({"scheme": "heun"}, 'scheme must be "bridge" or "euler"; got \'heun\''),
        ({"scheme": "bridge", "head": "score"}, 'takes letters; pass head="letters"'),
        ({"network": "huge"}, 'network must be "small" or "paper"; got'),
        ({"min_time": 5.0}, "below max_time; got 5.0 and 4.0"),
        ({"min_time": 0.0}, "at least 0.001"),
        ({"n_steps": 0}, "n_steps must be"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            SimplexDiffusion(DNA, **arguments)
    with pytest.raises(InvalidParameterError, match="needs a SequenceSpace"):
        SimplexDiffusion(3)
    with pytest.raises(NotTrainedError, match="never trained"):
        SimplexDiffusion(DNA).policy(torch.rand(1, 5, 3), 3)


def test_paper_network_has_the_authors_size():
    model = SimplexDiffusion(DNA, network="paper")
    network = model._build_network()
    # 13.27 million weights, the fixed frequencies and the unused scale left out.
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(13.27e6, rel=1e-3)
    assert [block.conv.dilation[0] for block in network.blocks] == [1, 1, 4, 16, 64] * 4


@pytest.mark.slow
@pytest.mark.parametrize("head", ["letters", "score"])
def test_samples_are_close_to_held_out_data(head):
    """Between the floor of two held-out halves and a third of what shuffling the letters costs."""
    rng = np.random.default_rng(0)
    data, held_out, other = (make_sequences(n, rng) for n in (10_000, 2000, 2000))
    model = SimplexDiffusion(SequenceSpace("DNA", length=50), head=head)
    model.fit(data, max_iter=400, batch_size=128, learning_rate=3e-3, random_state=0)
    samples = compare(model.sample(1000, random_state=0), held_out)
    floor, shuffled = compare(other, held_out), compare(shuffle_letters(other, rng), held_out)
    assert floor["js_3mer_bits"] < samples["js_3mer_bits"] < shuffled["js_3mer_bits"] / 3
    assert floor["frequencies_mean_abs"] < samples["frequencies_mean_abs"] < shuffled["frequencies_mean_abs"] / 2


def test_law_is_shared_between_models_of_one_grid():
    first, second = SimplexDiffusion(DNA), SimplexDiffusion(SequenceSpace("RNA", length=9))
    assert first.law.cells.data_ptr() == second.law.cells.data_ptr()
    assert isinstance(first.law, StickLaw)
    assert not any(name.startswith("law") for name in first.state_dict())


def test_noised_states_have_the_exact_mean_of_their_time():
    """E[v_t | v_0] = m + exp(-t) (v_0 - m), m = 1 / (1 + b), as (a + b) s / 2 = 1."""
    model = SimplexDiffusion(SequenceSpace("DNA", length=1), n_steps=10, scheme="euler")
    x = torch.eye(4)[2].expand(40_000, 1, 4)
    t = torch.arange(40_000) % 2 * 4
    states = model.noised(x, t, torch.Generator().manual_seed(0))
    stationary, start = 1 / (1 + model.law.b), torch.tensor([0.0, 0.0, 1.0])
    for number in (0, 4):
        expected = stationary + math.exp(-model.times[number]) * (start - stationary)
        assert torch.allclose(states[t == number].mean(dim=(0, 1)), expected, atol=0.01)


def test_points_of_noised_states_are_calibrated():
    """Of equally likely letters, those that a point gives probability p are right with frequency p; one-hot at last."""
    model = SimplexDiffusion(SequenceSpace("DNA", length=1), n_steps=10)
    letters = torch.arange(40_000) % 4
    x = torch.eye(4)[letters][:, None]
    for t in (0, 2, 10):
        points = model.as_points(model.noised(x, t, torch.Generator().manual_seed(t)), t)[:, 0]
        assert torch.allclose(points.sum(dim=1), torch.ones(40_000), atol=1e-5)
        assert float(points.gather(1, letters[:, None]).mean()) == pytest.approx(
            float(points.square().sum(dim=1).mean()), abs=0.01
        )
        likely = points[:, 2] > 0.5
        if t < 10:
            assert float((letters[likely] == 2).float().mean()) == pytest.approx(
                float(points[likely, 2].mean()), abs=0.02
            )
