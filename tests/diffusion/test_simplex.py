"""The simplex chain: its steps against the formulas, its law against exact ones, and what users do with it."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks.simplex_quality import compare, make_sequences, shuffle_letters
from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel
from braidkit.diffusion._jacobi import StickLaw, break_sticks
from braidkit.diffusion.simplex import EPS, StationaryAngles, StationarySticks
from braidkit.exceptions import InvalidParameterError, NotTrainedError
from braidkit.kernels.simplex import sum_after
from tests.worlds import IndependentLetters

DNA = SequenceSpace("DNA", length=5)
DNA_STICKS = (5, 3)


class ExactScore(nn.Module):
    """The exact score in x of independent letters, for head "score"."""

    def __init__(self, model: SimplexDiffusion, probabilities: Tensor) -> None:
        super().__init__()
        self.law, self.times, self.scale = model.law, torch.tensor(model.times), model.score_scale
        self.log_prior = probabilities.log()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        number = int((self.times - t).abs().argmin())
        v = (x[..., :-1] / x.flip(-1).cumsum(-1).flip(-1)[..., :-1]).clamp(EPS, 1 - EPS)
        evidence = self.law.evidence(v, number)
        letters = (evidence.log_likelihoods() + self.log_prior).softmax(dim=-1)
        one, zero = letters[..., :-1] * evidence.lineages_one, sum_after(letters) * evidence.lineages_zero
        # Solve (1 - v_i) y_i - v_i sum_{j>i} y_j = (1 - v_i) one_i - v_i zero_i from the last stick to the first.
        y, after = [torch.zeros_like(x[..., 0])], torch.zeros_like(x[..., 0])
        for i in reversed(range(v.shape[-1])):
            y.insert(0, one[..., i] + v[..., i] * (after - zero[..., i]) / (1 - v[..., i]))
            after = after + y[0]
        return torch.stack(y, dim=-1) / x.clamp(min=1e-12) / self.scale[number]


def model_of(
    head: str, probabilities: Tensor, length: int = 2, n_steps: int = 50, scheme: str = "euler", **arguments
) -> SimplexDiffusion:
    """A frozen chain with the exact network of independent letters."""
    arguments |= {"n_steps": n_steps, "scheme": scheme}
    alphabet = "ACDEFGHIKLMNPQRSTVWY"[: len(probabilities)]
    model = SimplexDiffusion(SequenceSpace(alphabet, length=length), head=head, **arguments)
    model.network = IndependentLetters(probabilities) if head == "letters" else ExactScore(model, probabilities)
    model.kind = "tokens"
    model.freeze()
    return model


def random_model(
    head: str, space: SequenceSpace = DNA, n_steps: int = 10, scheme: str = "euler", **arguments
) -> SimplexDiffusion:
    """A chain with random weights."""
    torch.manual_seed(0)
    model = SimplexDiffusion(space, head=head, n_steps=n_steps, scheme=scheme, **arguments)
    model.network = model._build_network()
    return model


def test_stationary_sticks_are_beta():
    b = torch.tensor([3.0, 2.0, 1.0]).expand(4000, 1, 3)
    policy = StationarySticks(b)
    v = policy.rsample(torch.randn(4000, 1, 3, generator=torch.Generator().manual_seed(0)))
    for stick, b_stick in enumerate((3, 2, 1)):
        assert stats.kstest(v[:, 0, stick].numpy(), stats.beta(1, b_stick).cdf).pvalue > 1e-3
    expected = sum(stats.beta(1, 3 - stick).logpdf(v[:, 0, stick].numpy()) for stick in range(3))
    np.testing.assert_allclose(policy.log_prob(v), expected, rtol=1e-4, atol=1e-4)
    assert (policy.kl(policy) == 0).all()
    other = StationarySticks(torch.tensor([1.0, 2.0, 5.0]).expand(4000, 1, 3))
    estimate = policy.log_prob(v) - other.log_prob(v)
    assert policy.kl(other)[0].item() == pytest.approx(estimate.mean().item(), abs=5 * estimate.std().item() / 63)


def test_initial_draw_is_uniform_on_the_simplex():
    model = random_model("letters")
    noise = torch.randn(4000, *model.state_shape, generator=torch.Generator().manual_seed(0))
    x = break_sticks(model.initial(4000).rsample(noise))
    # A coordinate of the uniform law on the simplex of K letters is Beta(1, K - 1), whichever it is.
    for letter in range(4):
        assert stats.kstest(x[:, 0, letter].numpy(), stats.beta(1, 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("head", ["letters", "score"])
def test_policy_is_the_reverse_euler_step(head):
    model = random_model(head)
    v = 0.02 + 0.96 * torch.rand(6, *model.state_shape, generator=torch.Generator().manual_seed(1))
    t = 4
    clock = torch.tensor([model.times[t]])
    b = torch.tensor([3.0, 2.0, 1.0])
    s, h = 2 / (1 + b), model.times[t] - model.times[t - 1]
    x = break_sticks(v)
    if head == "letters":
        # math.md, section 3: the letters' average of the three conditional scores, position by position.
        evidence = model.law.evidence(v, t)
        likelihood = evidence.log_likelihoods()
        q = (likelihood + model.network(likelihood.softmax(dim=-1), clock)).softmax(dim=-1)
        zero = -(b - 1 + evidence.lineages_zero) / (1 - v)
        one = evidence.lineages_one / v - (b - 1) / (1 - v)
        stationary = -(b - 1) / (1 - v)
        score = torch.stack(
            [
                q[..., i + 1 :].sum(-1) * zero[..., i]
                + q[..., i] * one[..., i]
                + q[..., :i].sum(-1) * stationary[..., i]
                for i in range(3)
            ],
            dim=-1,
        )
    else:
        # gv_i = gx_i P_i - (sum_{j>i} gx_j x_j) / (1 - v_i) - (K - 2 - i) / (1 - v_i)
        gx = model.network(x, clock)
        gx = model.score_scale[t] * (gx - gx.mean(dim=-1, keepdim=True))
        left = torch.cat([torch.ones_like(v[..., :1]), (1 - v).cumprod(dim=-1)[..., :-1]], dim=-1)
        score = torch.stack(
            [gx[..., i] * left[..., i] - ((gx * x)[..., i + 1 :].sum(-1) + 2 - i) / (1 - v[..., i]) for i in range(3)],
            dim=-1,
        )
    mean = v - h * s * ((1 - v - b * v) / 2 - (1 - 2 * v) - v * (1 - v) * score)
    policy = model.policy(v, t)
    if head == "letters":
        policy = policy.normal
    torch.testing.assert_close(policy.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(policy.std, (h * s * v * (1 - v)).sqrt())


def test_kl_is_that_of_the_scores():
    model, other = random_model("score"), random_model("score")
    with torch.no_grad():
        other.network.last[2].bias += torch.randn(4)
    v, t = 0.1 + 0.8 * torch.rand(3, *model.state_shape), 7
    s, h = model.speed, model.times[t] - model.times[t - 1]
    pull, other_pull = model._pull(model.network, v, t), other._pull(other.network, v, t)
    expected = (h * s * (pull - other_pull).square() / (v * (1 - v)) / 2).flatten(1).sum(dim=1)
    torch.testing.assert_close(model.policy(v, t).kl(other.policy(v, t)), expected, rtol=1e-3, atol=1e-6)


def test_stationary_angles_are_those_of_stationary_sticks():
    b = torch.tensor([3.0, 2.0, 1.0])
    noise = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    angles, sticks = (law(b.expand(5, 1, 3)).rsample(noise) for law in (StationaryAngles, StationarySticks))
    torch.testing.assert_close(angles.sin().square(), sticks)
    grid = torch.linspace(1e-4, math.pi / 2 - 1e-4, 4001, dtype=torch.float64)
    for i in range(3):
        density = StationaryAngles(b[i].double().expand(4001, 1, 1)).log_prob(grid[:, None, None]).exp()
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-5)


def test_a_short_bridge_is_the_diffusion_that_a_short_euler_step_is():
    """Mean and variance of the sticks to first order in the step; of a normal angle both are in closed form."""
    chains = [random_model("letters", n_steps=1, min_time=1.0, max_time=1.001, scheme=s) for s in ("euler", "bridge")]
    v = 0.02 + 0.96 * torch.rand(50, *DNA_STICKS, generator=torch.Generator().manual_seed(1))
    euler, bridge = chains[0].policy(v, 1).normal, chains[1].policy(v.sqrt().asin(), 1).normal
    mean, std = bridge.mean.double(), bridge.std.double()
    first, second = ((-2 * k**2 * std**2).exp() * (2 * k * mean).cos() for k in (1, 2))  # E cos 2 k theta'
    moved = (1 - first) / 2 - v
    variance = (1 + second - 2 * first**2) / 8
    torch.testing.assert_close(moved, (euler.mean - v).double(), rtol=0.02, atol=2e-5)
    torch.testing.assert_close(variance, euler.std.square().double(), rtol=0.02, atol=1e-7)


def test_any_number_is_an_angle():
    model = random_model("letters", scheme="bridge")
    angle = 0.1 + 1.3 * torch.rand(4, *model.state_shape, generator=torch.Generator().manual_seed(1))
    policy = model.policy(angle, 4).normal
    for image in (-angle, math.pi - angle, angle + 2 * math.pi):
        torch.testing.assert_close(model.policy(image, 4).normal.mean, policy.mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.as_points(image, 4), model.as_points(angle, 4), atol=1e-4, rtol=1e-3)
    assert policy.std.shape == (3,) and model.constant_std and not random_model("letters").constant_std
    x = nn.functional.one_hot(torch.arange(5).expand(4, 5) % 4, 4).float()
    noised = [
        chain.noised(x, 3, torch.Generator().manual_seed(0)) for chain in (model, random_model("letters", n_steps=10))
    ]
    torch.testing.assert_close(noised[0].sin().square(), noised[1])


@pytest.mark.parametrize(("head", "scheme"), [("letters", "euler"), ("score", "euler"), ("letters", "bridge")])
def test_gradient_through_the_state_is_right(head, scheme):
    space = SequenceSpace("ACG", length=3)
    model = random_model(head, space, scheme=scheme).double()
    v = 0.05 + 0.9 * torch.rand(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for t in (1, 8):
        step = lambda v, t=t: model.policy(v, t).rsample(noise)  # noqa: E731
        assert torch.autograd.gradcheck(step, (v.requires_grad_(),), eps=1e-8, atol=1e-4, rtol=1e-4)


def test_states_outside_the_interval_are_read_at_its_edge():
    model = random_model("letters")
    outside = torch.full((1, *model.state_shape), -0.3, requires_grad=True)
    mean = model.policy(outside, 3).normal.mean
    torch.testing.assert_close(mean, model.policy(torch.full_like(outside, EPS), 3).normal.mean)
    mean.sum().backward()
    assert (outside.grad == 0).all()


@pytest.mark.parametrize(
    ("scheme", "head", "probabilities"),
    [
        ("euler", "letters", [0.7, 0.2, 0.09, 0.01]),
        ("euler", "letters", [0.01, 0.09, 0.2, 0.7]),
        ("euler", "letters", [0.3, 0.7]),
        ("euler", "letters", [0.02, 0.3, 0.05, 0.1, 0.13, 0.4]),
        ("euler", "score", [0.05, 0.15, 0.2, 0.6]),
        ("bridge", "letters", [0.7, 0.2, 0.09, 0.01]),
        ("bridge", "letters", [0.01, 0.09, 0.2, 0.7]),
        ("bridge", "letters", [0.3, 0.7]),
        ("bridge", "letters", [0.02, 0.3, 0.05, 0.1, 0.13, 0.4]),
    ],
)
def test_exact_network_gives_the_exact_law(scheme, head, probabilities):
    probabilities = torch.tensor(probabilities)
    model = model_of(head, probabilities, length=10, scheme=scheme, n_steps=50 if scheme == "euler" else 20)
    n = 1000
    drawn = model.sample(n, random_state=0).ravel()
    counts = np.bincount(drawn, minlength=len(probabilities))
    # What Euler's 50 steps, or 20 bridges, add to the sampling error is at most 0.006 of probability.
    error = (probabilities * (1 - probabilities) / len(drawn)).sqrt()
    assert ((torch.from_numpy(counts) / len(drawn) - probabilities).abs() < 4 * error + 0.006).all()


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


def test_pathwise_gradient_of_the_letters_frequency():
    # Adding theta to the logit of one letter changes its frequency; the pathwise gradient must agree with differences.
    probabilities, letter, n = torch.tensor([0.4, 0.3, 0.2, 0.1]), 2, 3000

    def frequency(theta: float, seed: int) -> tuple[Tensor, Tensor]:
        model = model_of("letters", probabilities, length=1, n_steps=20)
        decoder, tuned = model.network, copy.deepcopy(model.network)
        shift = torch.full((n, 1, 1), theta, requires_grad=True)
        tuned.forward = lambda x, t: decoder(x, t) + shift * torch.eye(4)[letter]
        model.network, model.decoder = tuned, decoder
        noise = model.draw_noise(n, torch.Generator().manual_seed(seed))
        state = model.initial(n).rsample(noise[:, 0])
        for t in range(20, 0, -1):
            state = model.policy(state, t).rsample(noise[:, t])
        return model.space.discretise(model.readout(state))[:, 0, letter], shift

    hard, shift = frequency(0.0, 0)
    (gradient,) = torch.autograd.grad(hard.sum(), shift)
    gradient = gradient.flatten()
    up, down = (torch.cat([frequency(sign * 0.25, seed)[0] for seed in (1, 2)]).detach() for sign in (1, -1))
    difference = (up - down) / 0.5
    error = math.sqrt(gradient.var().item() / n + difference.var().item() / len(difference))
    assert abs(gradient.mean().item() - difference.mean().item()) < 4 * error + 0.02
    assert gradient.mean() > 10 * gradient.std() / math.sqrt(n)


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
    model.fit(words * 100, max_iter=300, batch_size=64, learning_rate=3e-3, validation_fraction=0, random_state=0)
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
    model = SimplexDiffusion(DNA).fit(words * 100, max_iter=300, batch_size=64, validation_fraction=0, random_state=0)
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


def test_steps_suit_the_head():
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
        ({"network": "huge"}, "network must be one of small, paper; got 'huge'"),
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
@pytest.mark.parametrize(("scheme", "n_steps"), [("euler", 50), ("bridge", 25)])
def test_joint_law_of_dependent_letters(scheme, n_steps):
    """Three letters with a joint law of 27 words, sampled with their exact posterior."""
    space = SequenceSpace("ACG", length=3)
    words = torch.tensor(list(itertools.product(range(3), repeat=3)))
    one_hot = nn.functional.one_hot(words, 3).float()
    probabilities = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(27, 0.3))).float().clamp(min=1e-6)

    class Posterior(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            log_x = x.clamp(min=1e-30).log()
            weights = (torch.einsum("nlk,wlk->nw", log_x, one_hot) + probabilities.log()).softmax(dim=-1)
            return (torch.einsum("nw,wlk->nlk", weights, one_hot) / x.clamp(min=1e-30)).clamp(min=1e-30).log()

    model = SimplexDiffusion(space, n_steps=n_steps, scheme=scheme)
    model.network, model.kind = Posterior(), "tokens"
    model.freeze()
    drawn = model.sample(20_000, random_state=0)
    share = np.bincount(drawn @ np.array([9, 3, 1]), minlength=27) / 20_000
    assert np.abs(share - (probabilities / probabilities.sum()).numpy()).sum() / 2 < 0.03


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
