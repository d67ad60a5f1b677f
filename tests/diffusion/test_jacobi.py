"""Laws of noised sticks against closed forms, an eigenfunction series, finite differences and draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import simpson
from scipy.special import betaln, eval_jacobi

from braidkit.diffusion._jacobi import (
    N_CELLS,
    StickLaw,
    break_sticks,
    log_lineage_law,
    tabulate_stick,
)

# All sticks of DNA (b = 3, 2, 1) and of proteins (b = 19, ..., 1).
ALL_B = list(range(1, 20))
TIMES = [0.01, 0.03, 0.1, 0.4, 1.0, 2.0, 4.0]


def moments(b: float, t: float, start: int) -> tuple[float, float]:
    """Closed-form E[v_t] and E[v_t^2] of ``dv = (s/2) [1 - (1 + b) v] dt + sqrt(s v (1 - v)) dB``."""
    s, mean = 2 / (1 + b), 1 / (1 + b)
    first = mean + (start - mean) * math.exp(-t)
    # M2' = s (2 M1 - (2 + b) M2): a stationary part, one that follows the mean, one of its own rate.
    stationary, rate = 2 * mean / (2 + b), s * (2 + b)
    following = 2 * s * (start - mean) / (rate - 1)
    second = stationary + following * math.exp(-t) + (start - stationary - following) * math.exp(-rate * t)
    return first, second


@pytest.mark.parametrize("start", [0, 1])
def test_lineage_mixture_has_closed_form_moments(start):
    for b in ALL_B:
        for t in TIMES:
            q = np.exp(log_lineage_law(b, 2 * t / (1 + b)))
            m = np.arange(len(q))
            alpha, beta = (1 + m, b + 0 * m) if start else (1 + 0 * m, b + m)
            first = alpha / (alpha + beta)
            second = first * (alpha + 1) / (alpha + beta + 1)
            assert q.sum() == pytest.approx(1, abs=1e-9)
            np.testing.assert_allclose([q @ first, q @ second], moments(b, t, start), rtol=1e-9)


@pytest.mark.parametrize("b", [1, 3, 19])
@pytest.mark.parametrize("tau", [0.15, 0.5, 2.0])
def test_lineage_law_equals_the_alternating_series(b, tau):
    mp = pytest.importorskip("mpmath")
    theta = 1 + b
    with mp.workdps(120):
        for m in (1, 2, 5):
            terms = [
                (-1) ** (k - m)
                * (theta + 2 * k - 1)
                * mp.rf(theta + m, k - 1)
                / (mp.factorial(m) * mp.factorial(k - m))
                * mp.exp(-mp.mpf(k * (k + theta - 1)) * tau / 2)
                for k in range(m, m + 120)
            ]
            assert log_lineage_law(b, tau)[m] == pytest.approx(float(mp.log(mp.fsum(terms))), abs=1e-9)


def test_lineage_law_holds_deep_in_the_tail():
    # Thousands of nats down no series helps, but the forward equation does, q_1' = r_2 q_2 - r_1 q_1 with
    # r_m = m (m + b) / 2, and so does Varadhan's limit: tau log q_1 tends to -pi^2 / 2, pi the distance from 0 to 1.
    b, tau, step = 1, 1e-3, 1e-9
    log_q = log_lineage_law(b, tau)
    slope = (log_lineage_law(b, tau + step)[1] - log_lineage_law(b, tau - step)[1]) / (2 * step)
    assert slope == pytest.approx(3 * math.exp(log_q[2] - log_q[1]) - 1, rel=1e-5)
    assert log_q[1] == pytest.approx(-(math.pi**2) / 2 / tau, rel=0.01)


def series(b: float, t: float, start: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Density of v_t relative to Beta(1, b), and v (1 - v) times the slope of its logarithm, by eigenfunctions."""
    tau = 2 * t / (1 + b)
    x, x_start = 2 * v - 1, 2 * start - 1
    ratio, slope = np.zeros_like(v), np.zeros_like(v)
    for n in range(400):
        decay = math.exp(-n * (n + b) * tau / 2)
        # Squared norm of P_n^(b-1, 0) under Beta(1, b).
        norm = b / (2 * n + b)
        factor = decay * eval_jacobi(n, b - 1, 0, x_start) / norm
        ratio += factor * eval_jacobi(n, b - 1, 0, x)
        if n:
            slope += factor * (n + b) * eval_jacobi(n - 1, b, 1, x)
        if n > 5 and decay * (n + 1.0) ** (2 * b + 2) < 1e-25:
            break
    return ratio, v * (1 - v) * slope / ratio


@pytest.mark.parametrize("b", [1, 2, 3, 10, 19])
@pytest.mark.parametrize("t", [0.1, 0.4, 1.0, 2.5])
def test_tables_equal_the_eigenfunction_series(b, t):
    tau = 2 * t / (1 + b)
    table = tabulate_stick(b, tau, log_lineage_law(b, tau))[1:-1]
    v = np.sin(np.linspace(0, math.pi / 2, N_CELLS + 1)[1:-1]) ** 2
    for start, lineages, log_ratio, pull in (
        (0, table[:, 0], table[:, 2], -v * table[:, 0]),
        (1, table[:, 1], table[:, 3], (1 - v) * table[:, 1]),
    ):
        ratio, slope = series(b, t, start, v)
        # The series is a difference of large terms: it is worth nothing far below its largest value.
        sound = ratio > 1e-7 * ratio.max()
        np.testing.assert_allclose(np.exp(log_ratio)[sound], ratio[sound], rtol=1e-6)
        np.testing.assert_allclose(pull[sound], slope[sound], rtol=1e-5, atol=1e-6 * (1 + lineages.max()))


@pytest.mark.parametrize("b", [1, 3, 19])
@pytest.mark.parametrize("t", [1 / 400, 0.02, 0.4, 4.0])
def test_scores_are_slopes_of_the_log_densities(b, t):
    tau, n_cells = 2 * t / (1 + b), 4096
    table = tabulate_stick(b, tau, log_lineage_law(b, tau), n_cells)
    angle = np.linspace(0, math.pi / 2, n_cells + 1)
    inner = slice(40, -40)
    v, h = np.sin(angle) ** 2, angle[1]

    def slope(f: np.ndarray) -> np.ndarray:
        """Fourth-order central differences in the angle, turned into v (1 - v) times the slope in v."""
        central = (8 * (f[3:-1] - f[1:-3]) - (f[4:] - f[:-4])) / (12 * h)
        return np.pad(central, 2) * np.sin(2 * angle) / 4

    for exact, log_ratio in ((-v * table[:, 0], table[:, 2]), ((1 - v) * table[:, 1], table[:, 3])):
        np.testing.assert_allclose(slope(log_ratio)[inner], exact[inner], rtol=1e-4, atol=1e-6 / tau)


@pytest.mark.parametrize("t", [1 / 400, 0.01, 0.1, 0.4, 1.0, 4.0])
def test_densities_have_mass_one_and_closed_form_moments(t):
    n_cells = 4096
    angle = np.linspace(0, math.pi / 2, n_cells + 1)
    v = np.sin(angle) ** 2
    for b in (1, 2, 3, 10, 19):
        tau = 2 * t / (1 + b)
        table = tabulate_stick(b, tau, log_lineage_law(b, tau), n_cells)
        stationary = b * np.cos(angle) ** (2 * b - 2) * np.sin(2 * angle)
        for start in (0, 1):
            density = np.exp(table[:, 2 + start]) * stationary
            integrals = [simpson(density * v**power, x=angle) for power in (0, 1, 2)]
            np.testing.assert_allclose(integrals, [1, *moments(b, t, start)], atol=1e-6)


def test_all_is_stationary_in_the_end():
    law = StickLaw(4, [15.0])
    v = torch.linspace(0.01, 0.99, 50)[:, None].expand(-1, 3)[None]
    evidence = law.evidence(v, 0)
    for part in evidence:
        assert part.abs().max() < 1e-4
    x = torch.nn.functional.one_hot(torch.zeros(4000, 1, dtype=torch.long), 4).float()
    drawn = law.noise(x, torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(0))
    for stick, b in enumerate((3, 2, 1)):
        assert stats.kstest(drawn[:, 0, stick].numpy(), stats.beta(1, b).cdf).pvalue > 1e-3


@pytest.mark.parametrize("n_letters", [4, 20])
def test_draws_have_closed_form_moments(n_letters):
    times = [0.01, 0.1, 0.5, 1.5, 4.0]
    law = StickLaw(n_letters, times)
    n = 4000
    x = torch.eye(n_letters).expand(n, -1, -1)  # one position for each letter
    generator = torch.Generator().manual_seed(1)
    for number, t in enumerate(times):
        v = law.noise(x, torch.full((n,), number), generator).double().numpy()
        for stick in range(n_letters - 1):
            b = n_letters - 1 - stick
            for letter in range(n_letters):
                if stick > letter:
                    first, second = 1 / (1 + b), 2 / ((1 + b) * (2 + b))
                else:
                    first, second = moments(b, t, int(stick == letter))
                drawn = v[:, letter, stick]
                # 5 standard errors of 7,000 comparisons; the variance of the squares is taken from the draws.
                error = math.sqrt((second - first**2) / n)
                assert abs(drawn.mean() - first) < 5 * error + 1e-7, (t, stick, letter)
                error = (drawn**2).std() / math.sqrt(n)
                assert abs((drawn**2).mean() - second) < 5.5 * error + 1e-7, (t, stick, letter)


@pytest.mark.parametrize("t", [0.02, 0.4, 2.0])
def test_draws_have_the_tabulated_density(t):
    law = StickLaw(4, [t])
    x = torch.eye(4).expand(4000, -1, -1)
    v = law.noise(x, torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(2)).numpy()
    angle = np.linspace(0, math.pi / 2, 4097)
    for stick, b in enumerate((3, 2, 1)):
        tau = 2 * t / (1 + b)
        table = tabulate_stick(b, tau, log_lineage_law(b, tau), 4096)
        stationary = b * np.cos(angle) ** (2 * b - 2) * np.sin(2 * angle)
        for letter, log_ratio in ((3, table[:, 2]), (stick, table[:, 3])):
            density = np.exp(log_ratio) * stationary
            cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) * angle[1]
            drawn = np.arcsin(np.sqrt(v[:, letter, stick]))
            uniform = np.interp(drawn, angle, cdf)
            assert stats.kstest(uniform, "uniform").pvalue > 1e-3, (stick, letter)


def test_likelihoods_give_calibrated_posteriors():
    # Bayes: given the noised sticks, letters must be distributed as prior times likelihood.
    prior = torch.tensor([0.5, 0.1, 0.1, 0.3])
    law = StickLaw(4, [0.3, 0.8])
    generator = torch.Generator().manual_seed(3)
    n = 40_000
    letters = torch.multinomial(prior, n, replacement=True, generator=generator)
    x = torch.nn.functional.one_hot(letters, 4).float()[:, None]
    for number in (0, 1):
        times = torch.full((n,), number)
        v = law.noise(x, times, generator).clamp(1e-5, 1 - 1e-5)
        posterior = (law.evidence(v, times).log_likelihoods() + prior.log()).softmax(dim=-1)
        residual = x - posterior
        for weight in (torch.ones_like(posterior), posterior, posterior.square()):
            product = (residual * weight)[:, 0]
            assert (product.mean(dim=0).abs() < 4.5 * product.std(dim=0) / math.sqrt(n)).all()


def test_interpolated_tables_are_close_to_exact_sums():
    times = [1 / 400, 0.1, 0.4, 2.0]
    law = StickLaw(4, times).double()
    v = torch.from_numpy(np.random.default_rng(0).beta(0.5, 0.5, size=(1, 200, 3))).clamp(1e-5, 1 - 1e-5)
    for number, t in enumerate(times):
        evidence = law.evidence(v, number)
        for stick, b in enumerate((3, 2, 1)):
            log_q = log_lineage_law(b, 2 * t / (1 + b))
            m = np.arange(len(log_q))
            column = v[0, :, stick, None].numpy()
            for log_weight, lineages, log_ratio in (
                (np.log1p(m / b) + m * np.log1p(-column), evidence.lineages_zero, evidence.log_ratio_zero),
                (betaln(1, b) - betaln(1 + m, b) + m * np.log(column), evidence.lineages_one, evidence.log_ratio_one),
            ):
                exact = log_q + log_weight
                top = exact.max(axis=1, keepdims=True)
                weight = np.exp(exact - top)
                log_sum = top[:, 0] + np.log(weight.sum(axis=1))
                mean = (weight * m).sum(axis=1) / weight.sum(axis=1)
                likely = log_sum > -40
                scale = law.mean_lineages[number, stick].item() + 1
                np.testing.assert_allclose(lineages[0, :, stick].numpy()[likely], mean[likely], atol=2e-4 * scale)
                np.testing.assert_allclose(log_ratio[0, :, stick].numpy()[likely], log_sum[likely], atol=5e-3)


def test_evidence_has_the_gradient_of_its_values():
    law = StickLaw(3, [0.05, 1.0]).double()
    generator = torch.Generator().manual_seed(4)
    v = (0.02 + 0.96 * torch.rand(2, 3, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    times = torch.tensor([0, 1])
    for part in range(4):
        assert torch.autograd.gradcheck(lambda v, part=part: law.evidence(v, times)[part], (v,), eps=1e-9, atol=1e-4)


@settings(max_examples=12)
@given(
    n_letters=st.integers(2, 20),
    letter=st.integers(0, 19),
    t=st.floats(0.01, 4.0),
    seed=st.integers(0, 2**31),
)
def test_any_alphabet_letter_and_time(n_letters, letter, t, seed):
    letter %= n_letters
    law = StickLaw(n_letters, [t])
    x = torch.nn.functional.one_hot(torch.full((64, 3), letter), n_letters).float()
    times = torch.zeros(64, dtype=torch.long)
    v = law.noise(x, times, torch.Generator().manual_seed(seed))
    assert torch.equal(v, law.noise(x, times, torch.Generator().manual_seed(seed)))
    assert v.shape == (64, 3, n_letters - 1) and (v >= 0).all() and (v <= 1).all()
    points = break_sticks(v)
    assert (points >= 0).all()
    torch.testing.assert_close(points.sum(dim=-1), torch.ones(64, 3))
    inner = v.clamp(1e-5, 1 - 1e-5)
    evidence = law.evidence(inner, times)
    assert all(torch.isfinite(part).all() for part in evidence)
    assert (evidence.lineages_zero >= 0).all() and (evidence.lineages_one >= 0).all()
    # A mean log-likelihood ratio is a relative entropy, so the true letter's is the largest of any, up to noise.
    mean = evidence.log_likelihoods().flatten(0, 1).mean(dim=0)
    assert (mean[letter] >= mean - 1).all()


def test_break_sticks():
    v = torch.tensor([[0.5, 0.5, 0.25]])
    torch.testing.assert_close(break_sticks(v), torch.tensor([[0.5, 0.25, 0.0625, 0.1875]]))
