"""Dynamic programming over partly masked sequences, against the enumeration of all paths."""

import itertools
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.theory import (
    best_letters,
    kl_divergence,
    masked_gap,
    masked_objective,
    masked_soft_values,
    masked_states,
    position_floor,
    sequence_law,
    tilted,
)
from tests.theory.finite_worlds import random_law

LENGTH = 3
WORLDS = given(st.integers(0, 2**31), st.sampled_from([2, 3]))


def random_table(length, n_letters, generator, zeros=0.0):
    return random_law((n_letters + 1) ** length, length, n_letters, generator=generator, zeros=zeros)


def random_problem(seed, n_letters, zeros=0.0):
    generator = torch.Generator().manual_seed(seed)
    pretrained = random_table(LENGTH, n_letters, generator, zeros)
    reward = torch.randn(n_letters**LENGTH, generator=generator, dtype=torch.float64)
    alpha = 0.1 * 30 ** float(torch.rand(1, generator=generator))
    return pretrained, reward, alpha, generator


def rival_of(table, generator):
    return (table + torch.randn(table.shape, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)


def state_number(state, n_letters):
    return sum(digit * (n_letters + 1) ** place for place, digit in enumerate(reversed(state)))


def enumerate_paths(table):
    """Yield (order, sequence) and the log-probability of each path, in a fixed order."""
    _, length, n_letters = table.shape
    rows = table.tolist()
    for order in itertools.permutations(range(length)):
        for sequence in itertools.product(range(n_letters), repeat=length):
            state, log_p = [n_letters] * length, -math.lgamma(length + 1)
            for position in order:
                log_p += rows[state_number(state, n_letters)][position][sequence[position]]
                state[position] = sequence[position]
            yield sequence, log_p


def sequence_number(sequence, n_letters):
    return sum(digit * n_letters**place for place, digit in enumerate(reversed(sequence)))


def consistent_table(log_law, length, n_letters):
    """Letters' log-probabilities given the others, from one law of sequences: the same in every order."""
    p = log_law.exp().reshape((n_letters,) * length)
    for axis in range(length):
        p = torch.cat([p, p.sum(dim=axis, keepdim=True)], dim=axis)  # the mask stands for any letter
    table = []
    for axis in range(length):
        letters = p.narrow(axis, 0, n_letters)
        letters = (letters / letters.sum(dim=axis, keepdim=True)).movedim(axis, -1).unsqueeze(axis)
        table.append(letters.expand(*[n_letters + 1] * length, n_letters).reshape(-1, n_letters))
    return torch.stack(table, dim=1).log()


def test_states_count_in_base_k_plus_one():
    states = masked_states(3, 2)
    assert states.tolist() == [list(state) for state in itertools.product(range(3), repeat=3)]
    assert [state_number(state, 2) for state in states.tolist()] == list(range(27))


@settings(max_examples=20)
@WORLDS
def test_sequence_law_is_that_of_the_enumerated_paths(seed, n_letters):
    table, _, _, _ = random_problem(seed, n_letters, zeros=0.2)
    expected = torch.zeros(n_letters**LENGTH, dtype=torch.float64)
    for sequence, log_p in enumerate_paths(table):
        expected[sequence_number(sequence, n_letters)] += math.exp(log_p)
    assert torch.allclose(sequence_law(table).exp(), expected, rtol=1e-10, atol=0)
    assert math.isclose(expected.sum(), 1, rel_tol=1e-10)


@settings(max_examples=20)
@WORLDS
def test_equation_6_and_8_are_those_of_the_enumerated_paths(seed, n_letters):
    """log C, the objective, and the gap as the KL of path laws; the optimum's is q exp(reward / alpha) / C."""
    pretrained, reward, alpha, generator = random_problem(seed, n_letters, zeros=0.2)
    table = rival_of(pretrained, generator)
    paths = [log_p for _, log_p in enumerate_paths(table)]
    plain_paths = list(enumerate_paths(pretrained))
    rewards = [float(reward[sequence_number(sequence, n_letters)]) for sequence, _ in plain_paths]
    log_c = math.log(sum(math.exp(log_q + r / alpha) for (_, log_q), r in zip(plain_paths, rewards, strict=True)))
    objective = distance = 0.0
    for log_p, (_, log_q), r in zip(paths, plain_paths, rewards, strict=True):
        if log_p > -math.inf:
            objective += math.exp(log_p) * (r - alpha * (log_p - log_q))
            distance += math.exp(log_p) * (log_p - (log_q + r / alpha - log_c))
    values, value = masked_soft_values(pretrained, reward, alpha)
    assert math.isclose(value, log_c, abs_tol=1e-10)
    assert math.isclose(values[-1], alpha * log_c, abs_tol=1e-10)
    assert math.isclose(masked_objective(table, pretrained, reward, alpha), objective, abs_tol=1e-10)
    assert math.isclose(masked_gap(table, pretrained, reward, alpha), distance, abs_tol=1e-10)
    designs = kl_divergence(sequence_law(table), tilted(sequence_law(pretrained), reward, alpha))
    assert designs <= masked_gap(table, pretrained, reward, alpha) + 1e-10


@settings(max_examples=20)
@WORLDS
def test_best_letters_attain_the_floor_and_nothing_goes_below(seed, n_letters):
    pretrained, reward, alpha, generator = random_problem(seed, n_letters, zeros=0.2)
    best, value = best_letters(pretrained, reward, alpha)
    floor = position_floor(pretrained, reward, alpha)
    assert floor >= -1e-10
    assert math.isclose(masked_gap(best, pretrained, reward, alpha), floor, abs_tol=1e-10)
    assert math.isclose(masked_objective(best, pretrained, reward, alpha), alpha * value, abs_tol=1e-10)
    for rival in (pretrained, rival_of(pretrained, generator), rival_of(best, generator)):
        assert masked_gap(rival, pretrained, reward, alpha) >= floor - 1e-9


@pytest.mark.theorem
@settings(max_examples=20)
@WORLDS
def test_theorem_1_where_the_conditionals_belong_to_one_law(seed, n_letters):
    """Then positions need no tilt: the conditionals of the tilted law are the optimum."""
    _, reward, alpha, generator = random_problem(seed, n_letters)
    law = random_law(n_letters**LENGTH, generator=generator)
    pretrained = consistent_table(law, LENGTH, n_letters)
    assert torch.allclose(sequence_law(pretrained), law, atol=1e-10)
    assert abs(position_floor(pretrained, reward, alpha)) < 1e-10
    optimum = consistent_table(tilted(law, reward, alpha), LENGTH, n_letters)
    assert abs(masked_gap(optimum, pretrained, reward, alpha)) < 1e-10
    best, _ = best_letters(pretrained, reward, alpha)
    assert torch.allclose(sequence_law(best), tilted(law, reward, alpha), atol=1e-10)


def test_a_chain_of_inconsistent_conditionals_has_a_floor():
    """Orders that prefer other sequences: letters alone cannot choose the better order."""
    pretrained, reward, alpha, _ = random_problem(0, 2)
    assert position_floor(pretrained, reward, alpha) > 1e-3


def test_entries_that_are_not_masked_are_not_used():
    pretrained, reward, alpha, generator = random_problem(1, 2)
    table = rival_of(pretrained, generator)
    masked = (masked_states(LENGTH, 2) == 2)[:, :, None]
    changed = [torch.where(masked, x, math.nan) for x in (table, pretrained)]
    assert torch.equal(sequence_law(changed[0]), sequence_law(table))
    assert torch.equal(masked_gap(*changed, reward, alpha), masked_gap(table, pretrained, reward, alpha))
    assert torch.equal(position_floor(changed[1], reward, alpha), position_floor(pretrained, reward, alpha))


def test_forbidden_sequences_get_no_mass():
    pretrained, reward, alpha, _ = random_problem(2, 2)
    reward[::2] = -torch.inf  # only sequences that end on letter 1
    best, value = best_letters(pretrained, reward, alpha)
    assert (sequence_law(best)[::2] == -torch.inf).all()
    assert math.isfinite(value) and math.isfinite(masked_gap(best, pretrained, reward, alpha))
    assert masked_gap(pretrained, pretrained, reward, alpha) == torch.inf
    with pytest.raises(ValueError, match="allow at least one"):
        masked_soft_values(pretrained, torch.full_like(reward, -torch.inf), alpha)


def test_eight_positions_of_four_letters_take_seconds():
    """All 390,625 states of an 8-letter DNA site, on one core."""
    generator = torch.Generator().manual_seed(0)
    law = random_law(4**8, generator=generator)
    table = consistent_table(law, 8, 4)
    reward = torch.randn(4**8, generator=generator, dtype=torch.float64)
    start = time.perf_counter()
    designs = sequence_law(table)
    distance = masked_gap(consistent_table(tilted(law, reward, 0.5), 8, 4), table, reward, 0.5)
    floor = position_floor(table, reward, 0.5)
    assert time.perf_counter() - start < 30
    assert torch.allclose(designs, law, atol=1e-9)
    assert abs(distance) < 1e-10 and abs(floor) < 1e-10


def test_errors_name_the_rule_and_the_value():
    table = torch.zeros(9, 2, 2).log_softmax(dim=-1)
    with pytest.raises(ValueError, match=r"shape ..K . 1. .. L, L, K.; got .8, 2, 2."):
        sequence_law(table[:8])
    with pytest.raises(ValueError, match="sum to 1; off by 1. Normalise them"):
        sequence_law(torch.zeros(9, 2, 2))
    with pytest.raises(ValueError, match=r"reward must have shape .4,., one entry a complete sequence; got .3,."):
        masked_soft_values(table, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="not NaN"):
        masked_soft_values(table, torch.full((4,), math.nan), 1.0)
    with pytest.raises(ValueError, match="`alpha` must be > 0; got -1"):
        masked_gap(table, table, torch.zeros(4), -1.0)
    with pytest.raises(ValueError, match="both chains need one shape"):
        masked_objective(table, torch.zeros(27, 3, 2).log_softmax(dim=-1), torch.zeros(4), 1.0)
