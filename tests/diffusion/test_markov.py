"""Markov laws: their posterior by enumeration, their fit, and their support."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from braidkit.diffusion import MarkovLaw
from braidkit.diffusion._jacobi import StickLaw


def random_law(length, n_letters, order, seed, zeros=0.3):
    """A law with random transitions, of which some are impossible; a letter of every context is always possible."""
    generator = torch.Generator().manual_seed(seed)
    law = MarkovLaw(length, n_letters, order)
    shape = law.transitions.shape
    table = torch.rand(shape, generator=generator, dtype=torch.float64)
    kept = torch.rand(shape, generator=generator) >= zeros
    kept |= one_hot(torch.randint(n_letters, shape[:2], generator=generator), n_letters).bool()
    table = table * kept
    law.transitions.copy_(table / table.sum(dim=2, keepdim=True))
    return law


def all_words(length, n_letters):
    return torch.tensor(list(itertools.product(range(n_letters), repeat=length)))


def law_by_context(law):
    """Log-probabilities of all words, letter by letter."""
    words = all_words(law.length, law.n_letters)
    total = torch.zeros(len(words), dtype=torch.float64)
    for n, word in enumerate(words.tolist()):
        for i, letter in enumerate(word):
            context = ([0] * law.order + word[:i])[-law.order :]
            number = sum(c * law.n_letters**p for p, c in enumerate(reversed(context)))
            total[n] += law.transitions[i, number, letter].log()
    return words, total


def posterior_by_enumeration(law, log_likelihoods):
    """Letters' log-probabilities (n, L, K) by the sum over all words."""
    words = all_words(law.length, law.n_letters)
    joint = law.log_prob(words) + log_likelihoods[:, torch.arange(law.length), words].sum(dim=2)
    weight = (joint - joint.amax(dim=1, keepdim=True)).exp()
    letters = torch.einsum("nw,wlk->nlk", weight, one_hot(words, law.n_letters).double())
    return (letters / letters.sum(dim=2, keepdim=True)).log()


@st.composite
def laws(draw):
    """A law, and likelihoods of which some forbid letters; what they leave is possible."""
    length, n_letters, order = draw(st.integers(1, 5)), draw(st.integers(2, 3)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 10_000))
    law = random_law(length, n_letters, order, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    log_likelihoods = 5 * torch.randn(4, length, n_letters, generator=generator, dtype=torch.float64)
    words = law.sample(torch.rand(4, length, generator=generator))
    forbidden = torch.rand(log_likelihoods.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return law, log_likelihoods.masked_fill(forbidden & ~one_hot(words, n_letters).bool(), -torch.inf)


@settings(max_examples=40, deadline=None)
@given(laws())
def test_posterior_is_that_of_all_sequences(case):
    law, log_likelihoods = case
    expected = posterior_by_enumeration(law, log_likelihoods)
    torch.testing.assert_close(law.posterior(log_likelihoods), expected, atol=1e-9, rtol=1e-9)
    single = law.posterior(log_likelihoods.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(laws())
def test_log_prob_is_the_product_of_transitions_and_sums_to_one(case):
    law, _ = case
    words, expected = law_by_context(law)
    torch.testing.assert_close(law.log_prob(words), expected)
    assert float(law.log_prob(words).exp().sum()) == pytest.approx(1, abs=1e-12)
    assert law.n_possible() == (expected > -torch.inf).sum()


@pytest.mark.parametrize(("order", "zeros"), [(1, 0.0), (1, 0.4), (2, 0.4)])
def test_posterior_has_the_gradient_of_finite_differences(order, zeros):
    law = random_law(4, 3, order, seed=3, zeros=zeros)
    generator = torch.Generator().manual_seed(0)
    log_likelihoods = torch.randn(3, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    zero = law.posterior(log_likelihoods).detach().isinf()

    def probable(log_likelihoods):
        return law.posterior(log_likelihoods).masked_fill(zero, 0)

    assert torch.autograd.gradcheck(probable, log_likelihoods)


def test_gradients_are_finite_where_letters_are_forbidden():
    law = random_law(6, 3, 1, seed=5, zeros=0.5)
    words = law.sample(torch.rand(8, 6, generator=torch.Generator().manual_seed(0)))
    log_likelihoods = one_hot(words, 3).float().log()
    log_likelihoods[:, 2:4] = 0
    log_likelihoods.requires_grad_(True)
    law.posterior(log_likelihoods).exp().square().sum().backward()
    assert log_likelihoods.grad.isfinite().all()


@pytest.mark.parametrize("size", [50.0, 500.0, 1e4])
def test_posterior_is_finite_where_likelihoods_contradict_the_law(size):
    """Neighbours that the law forbids, each certain by its own likelihood."""
    law = MarkovLaw(6, 2)
    law.transitions.copy_(torch.eye(2, dtype=torch.float64).expand(6, 2, 2))  # all letters alike, the first a 0
    log_likelihoods = size * one_hot(torch.tensor([[1, 1, 0, 0, 1, 0]]), 2).float()
    log_likelihoods.requires_grad_(True)
    log_q = law.posterior(log_likelihoods)
    assert not log_q.isnan().any()
    torch.testing.assert_close(log_q.exp().sum(dim=2), torch.ones(1, 6))
    log_q.exp().square().sum().backward()
    assert log_likelihoods.grad.isfinite().all()
    certain = one_hot(torch.tensor([[1, 1, 0, 0, 1, 0]]), 2).float()
    torch.testing.assert_close(law.posterior(certain.log()).exp(), certain)


def test_draws_have_the_posterior_law():
    law = random_law(3, 3, 2, seed=1)
    words = all_words(3, 3)
    generator = torch.Generator().manual_seed(0)
    log_likelihoods = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    joint = law.log_prob(words) + log_likelihoods[0, torch.arange(3), words].sum(dim=1)
    n = 20_000
    drawn = law.sample(torch.rand(n, 3, generator=generator), log_likelihoods.expand(n, -1, -1))
    share = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27) / n
    expected = joint.softmax(dim=0)
    assert (share[expected == 0] == 0).all()
    assert ((share - expected).abs() < 5 * (expected / n).sqrt() + 1e-9).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(4)))
def test_revealing_one_position_after_another_gives_the_law_in_any_order(seed, order):
    """The masked chain with exact letters: its law is the Markov law, whatever the order of the positions."""
    law = random_law(4, 3, 1, seed)
    words = all_words(4, 3)
    revealed = torch.zeros(len(words), 4, 3, dtype=torch.float64)
    total = torch.zeros(len(words), dtype=torch.float64)
    for position in order:
        log_q = law.posterior(revealed)[:, position]
        total += log_q.gather(1, words[:, position, None])[:, 0]
        revealed[:, position] = one_hot(words[:, position], 3).double().log()
    expected = law.log_prob(words)
    possible = expected > -torch.inf
    torch.testing.assert_close(total[possible], expected[possible])
    assert (total[~possible] == -torch.inf).all()


def test_posterior_average_of_stick_scores_is_the_gradient_of_the_sticks_density():
    """`log sum_x p(x) prod_i e^{l_i(x_i)}` has the q-average of the letters' scores as its gradient (Markov law)."""
    law, sticks = random_law(3, 3, 1, seed=2), StickLaw(3, [0.5])
    words = all_words(3, 3)
    generator = torch.Generator().manual_seed(0)
    v = (0.1 + 0.8 * torch.rand(2, 3, 2, generator=generator)).requires_grad_(True)
    log_likelihoods = sticks.evidence(v, 0).log_likelihoods()
    joint = law.log_prob(words) + log_likelihoods[:, torch.arange(3), words].double().sum(dim=2)
    (score,) = torch.autograd.grad(joint.logsumexp(dim=1).sum(), v, retain_graph=True)
    q = law.posterior(log_likelihoods).exp().detach()
    (average,) = torch.autograd.grad((q * log_likelihoods).sum(), v)
    torch.testing.assert_close(score, average, atol=1e-4, rtol=1e-4)


def banned_walks(n, rng, n_letters=20, length=32, n_banned=6):
    """Tokens of a chain some of whose transitions never occur, and which do."""
    transitions = rng.rand(n_letters, n_letters)
    for letter, row in enumerate(transitions):
        row[rng.permutation(np.delete(np.arange(n_letters), letter))[:n_banned]] = 0
    transitions /= transitions.sum(axis=1, keepdims=True)
    law = MarkovLaw(length, n_letters)
    law.transitions.copy_(torch.from_numpy(transitions))
    law.transitions[0] = 1 / n_letters
    tokens = law.sample(torch.from_numpy(rng.rand(n, length)))
    return tokens.numpy(), transitions > 0


def uniform(n, length, seed=0):
    return torch.rand(n, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_banned_transitions_are_found_and_few_held_out_rows_are_lost():
    tokens, possible = banned_walks(4000, np.random.RandomState(0))
    valid, kept = {}, {}
    for n in (250, 2000):
        law, _ = MarkovLaw.fit(tokens[:n], 20)
        drawn = law.sample(uniform(1000, 32)).numpy()
        valid[n] = possible[drawn[:, :-1], drawn[:, 1:]].all(axis=1).mean()
        kept[n] = law.log_prob(torch.from_numpy(tokens[2000:])).isfinite().float().mean()
    assert valid[250] > 0.97
    assert valid[2000] > 0.999
    assert kept[250] > 0.85
    assert kept[2000] > 0.98


def test_short_tables_of_proteins_lose_no_pairs():
    # 500 rows of 4 free sites show only a part of the 400 pairs: none may be called impossible.
    rng = np.random.RandomState(0)
    law, _ = MarkovLaw.fit(rng.randint(20, size=(500, 4)), 20)
    assert law.log_prob(torch.from_numpy(rng.randint(20, size=(5000, 4)))).isfinite().all()


def test_no_row_that_was_fitted_is_impossible_and_all_sums_to_one():
    rng = np.random.RandomState(1)
    for n_letters, length in ((2, 2), (4, 9), (20, 4), (25, 40)):
        for n in (1, 2, 7, 60):
            tokens = rng.randint(n_letters, size=(n, length))
            tokens[:, 0] = 1
            law, held_out = MarkovLaw.fit(tokens, n_letters)
            assert law.log_prob(torch.from_numpy(tokens)).isfinite().all()
            torch.testing.assert_close(law.transitions.sum(dim=2), torch.ones(law.transitions.shape[:2]).double())
            assert all(np.isfinite(list(held_out.values())))


def test_constant_positions_are_certain_and_rare_letters_stay_possible():
    rng = np.random.RandomState(0)
    tokens = rng.randint(4, size=(400, 10))
    tokens[:, 3] = 2
    tokens[:, 7] = np.where(rng.rand(400) < 0.01, rng.randint(4, size=400), 1)
    law, _ = MarkovLaw.fit(tokens, 4)
    drawn = law.sample(uniform(2000, 10)).numpy()
    assert (drawn[:, 3] == 2).all()
    seen = rng.randint(4, size=(2000, 10))
    seen[:, 3], seen[:, 7] = 2, rng.choice(tokens[:, 7], 2000)
    assert law.log_prob(torch.from_numpy(seen)).isfinite().all()


def test_one_mutant_of_a_protein_does_not_forbid_the_others():
    """A table of single and double mutants: letters that no row has at a position are still possible."""
    rng = np.random.RandomState(0)
    wild_type = rng.randint(20, size=60)

    def mutants(n):
        tokens = np.tile(wild_type, (n, 1))
        for row in tokens:
            row[rng.choice(60, 2, replace=False)] = rng.randint(20, size=2)
        return tokens

    law, _ = MarkovLaw.fit(mutants(500), 20)
    assert law.log_prob(torch.from_numpy(mutants(2000))).isfinite().all()


def test_the_order_is_that_of_the_data():
    rng = np.random.RandomState(0)
    independent = rng.choice(4, p=[0.1, 0.2, 0.3, 0.4], size=(600, 20))
    second = rng.randint(4, size=(600, 20))
    for i in range(2, 20):
        second[:, i] = np.where(rng.rand(600) < 0.8, (second[:, i - 1] + second[:, i - 2]) % 4, second[:, i])
    law, held_out = MarkovLaw.fit(second, 4)
    assert law.order == 2
    assert held_out[2] < held_out[1] - 0.2
    law, held_out = MarkovLaw.fit(independent, 4)
    assert held_out[0] == pytest.approx(1.28, abs=0.02)
    assert (law.transitions == law.transitions[:, :1]).all()


def test_weights_count_rows_as_often():
    rng = np.random.RandomState(0)
    tokens = rng.randint(3, size=(400, 6))
    weights = np.where(tokens == 0, 3.0, 1.0).prod(axis=1)
    law, _ = MarkovLaw.fit(tokens, 3, weights=weights)
    twice, _ = MarkovLaw.fit(tokens, 3, weights=2 * weights)
    drawn = law.sample(uniform(2000, 6))
    expected = (weights[:, None] * (tokens == 0)).sum() / weights.sum() / 6
    assert float((drawn == 0).double().mean()) == pytest.approx(expected, abs=0.03)
    assert torch.equal(law.transitions, twice.transitions)


def test_held_out_likelihood_is_that_of_fresh_rows():
    tokens, _ = banned_walks(3000, np.random.RandomState(2), n_letters=4, length=20, n_banned=1)
    law, held_out = MarkovLaw.fit(tokens[:1000], 4)
    fresh = -law.log_prob(torch.from_numpy(tokens[1000:])) / 20
    assert held_out[law.order] == pytest.approx(float(fresh.mean()), abs=4 * float(fresh.std()) / 1000**0.5)


@given(st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=20)
def test_substitutions_are_differences_of_log_probabilities(order, seed):
    law, words = random_law(4, 3, order, seed), all_words(4, 3)
    log_probs = law.log_prob(words)
    possible = words[log_probs.isfinite()][:10]
    log_prob, difference = law.substitutions(possible)
    torch.testing.assert_close(log_prob, law.log_prob(possible))
    for position, letter in itertools.product(range(4), range(3)):
        changed = possible.clone()
        changed[:, position] = letter
        torch.testing.assert_close(difference[:, position, letter], law.log_prob(changed) - log_prob)


def test_a_widened_law_and_the_normaliser_of_likelihoods():
    law, words = random_law(4, 3, 1, 0), all_words(4, 3)
    torch.testing.assert_close(law.widened(3).log_prob(words), law.log_prob(words))
    likelihoods = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (law.log_prob(words) + likelihoods[torch.arange(4), words].sum(dim=1)).logsumexp(dim=0)
    assert law.widened(2).log_normaliser(likelihoods) == pytest.approx(float(expected))


def test_a_law_within_another_has_its_order_and_nothing_that_it_lacks():
    outer = random_law(5, 4, 2, seed=3, zeros=0.5)
    tokens = outer.sample(torch.rand(60, 5, generator=torch.Generator().manual_seed(0)))
    inner, _ = MarkovLaw.fit(tokens, 4, within=outer)
    assert inner.order == 2
    words = all_words(5, 4)
    assert not (inner.log_prob(words).isfinite() & outer.log_prob(words).isinf()).any()
    assert inner.log_prob(tokens).isfinite().all()
    assert float(inner.log_prob(words).exp().sum()) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(laws())
def test_moments_of_log_probability_are_those_of_all_sequences(case):
    law, log_likelihoods = case
    words = all_words(law.length, law.n_letters)
    log_prob = law.log_prob(words)
    for logs in log_likelihoods:
        weight = (log_prob + logs[torch.arange(law.length), words].sum(dim=1)).softmax(dim=0)
        finite = log_prob.masked_fill(weight == 0, 0.0)
        mean = float(weight @ finite)
        deviation = float(weight @ (finite - mean).square()) ** 0.5
        assert law.log_prob_moments(logs) == pytest.approx((mean, deviation), abs=1e-6)
