import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.oracles import UTRLandscape
from braidkit.oracles import utr_landscape as constants

# A leader of 24 letters without AUG, hairpin or A-rich tract, ending in a good context.
LEADER = "TTCTTACATTTCTCACTTGCCACC"


@pytest.fixture(scope="module")
def landscape() -> UTRLandscape:
    return UTRLandscape()


def load(sequence: str) -> float:
    return UTRLandscape(len(sequence)).predict([sequence])[0]


def replace(sequence: str, i: int, word: str) -> str:
    return sequence[:i] + word + sequence[i + len(word) :]


def slow_load(sequence: str) -> float:
    """The model of the docstring, one ribosome path and one helix at a time."""
    c = constants
    code = {letter: i for i, letter in enumerate("ACGT")}
    transcript = sequence + "ATGG"
    length = len(sequence)

    def start(i: int) -> float:
        log_odds = c.START_LOG_ODDS
        for offset, weights in c.CONTEXT.items():
            if i + offset >= 0:
                log_odds += weights.get(code[transcript[i + offset]], 0.0)
        return 1 / (1 + math.exp(-log_odds))

    def translated(i: int) -> tuple[float, float]:
        """Coding and upstream load of ribosomes that arrive at position i scanning."""
        if i == length:
            return c.CODING_LOAD * start(i), 0.0
        coding, upstream = translated(i + 1)
        if transcript[i : i + 3] != "ATG" or i > length - 3:
            return coding, upstream
        p = start(i)
        stops = [k for k in range(i, length, 3) if transcript[k : k + 3] in ("TAA", "TAG", "TGA")]
        if stops:
            started = c.REINITIATION * c.CODING_LOAD * start(length), c.UPSTREAM_LOAD
        elif (length - i) % 3 == 0:
            started = c.EXTENDED_SHARE * c.CODING_LOAD, 0.0
        else:
            started = 0.0, c.UPSTREAM_LOAD
        return (1 - p) * coding + p * started[0], (1 - p) * upstream + p * started[1]

    partition = 1.0
    for i in range(length):
        for j in range(i + 1, length):
            energy = c.CAP_ENERGY * math.exp(-i / c.CAP_REACH)
            for k in range(length):  # the helix of k + 1 pairs whose outer pair is (i, j)
                a, b = i + k, j - k
                if b - a - 1 < c.MIN_LOOP or code[sequence[a]] + code[sequence[b]] != 3:
                    break
                energy += c.STACKING[code[sequence[a - 1]], code[sequence[a]]] if k else 0.0
                loop = c.LOOP_ENERGY + 1.75 * c.RT * math.log((b - a - 1) / c.MIN_LOOP)
                partition += math.exp(-(energy + loop) / c.RT)
    hairpin = -c.RT * math.log(partition)

    def step(distance: float, width: float) -> float:
        return 1 / (1 + math.exp(-distance / width))

    gc = sum(letter in "CG" for letter in sequence) / length
    tract = max(sequence[i : i + c.TRACT].count("A") for i in range(length - c.TRACT + 1))
    scan = 1 - c.STALLED_SHARE * step(c.STALLING_ENERGY - hairpin, c.STALLING_WIDTH)
    scan *= step(c.GC_HALF - gc, c.GC_WIDTH) * step(c.TRACT_HALF - tract, c.TRACT_WIDTH)
    return scan * sum(translated(0))


@settings(max_examples=80)
@given(st.lists(st.sampled_from(["A", "C", "G", "T", "ATG", "TAA", "GGGC", "GCCC", "AAAA"]), min_size=12, max_size=18))
def test_load_equals_the_model_spelt_out(words):
    sequence = "".join(words)
    assert load(sequence) == pytest.approx(slow_load(sequence), rel=1e-9)
    assert 0 < load(sequence) < constants.CODING_LOAD


def test_load_of_many_equals_load_of_each(landscape):
    X = landscape.sample(9000, 0)
    y = landscape.predict(X)
    assert y.shape == (9000,) and y.dtype == np.float64
    picked = [0, 8191, 8192, 8999]
    np.testing.assert_allclose(y[picked], [load(X[i]) for i in picked], rtol=1e-12)


def test_upstream_start_costs_by_its_frame():
    out_of_frame = replace(LEADER, 7, "ATG")
    in_frame = replace(LEADER, 6, "ATG")
    closed = replace(replace(LEADER, 7, "ATG"), 13, "TAA")
    assert load(out_of_frame) < load(closed) < load(in_frame) < load(LEADER)


def test_start_codon_context():
    assert load(LEADER) > load(replace(LEADER, 21, "G")) > load(replace(LEADER, 21, "T"))
    assert load(LEADER) > load(replace(LEADER, 22, "TT"))


def test_hairpin_costs_more_near_the_cap():
    def with_hairpin(i: int) -> str:
        return replace("TTCTTACATTTCTCACTTATCTTTCTTCATTCTACTCTTCTTTTGCCACC", i, "GCAGCCTTTTGGCTGC")

    def same_letters(i: int) -> str:
        return replace("TTCTTACATTTCTCACTTATCTTTCTTCATTCTACTCTTCTTTTGCCACC", i, "GCAGCCTTTTCGTCGG")

    cost_at_cap = 1 - load(with_hairpin(0)) / load(same_letters(0))
    cost_inside = 1 - load(with_hairpin(24)) / load(same_letters(24))
    assert cost_at_cap > cost_inside > 0.02


def test_gc_and_a_rich_tract_cost():
    assert load("CTCCACCCTCCTCCCCTCGCCACC") < load(LEADER)
    assert load(replace(LEADER, 6, "AAACAAAAAC")) < load(replace(LEADER, 6, "TTACTATTTC"))


def test_stacking_is_the_same_read_from_either_strand():
    np.testing.assert_array_equal(constants.STACKING, constants.STACKING[::-1, ::-1].T)


def test_validity(landscape):
    draws = landscape.sample(4000, random_state=1)
    assert landscape.is_valid(draws).mean() == pytest.approx(0.99, abs=0.008)
    uniform = np.random.RandomState(0).randint(0, 4, size=(4000, 50))
    assert landscape.is_valid(uniform).mean() < 0.25
    log_prob = landscape.log_prob(draws)
    np.testing.assert_array_equal(landscape.is_valid(draws), log_prob >= landscape.min_log_prob)
    assert np.isneginf(landscape.log_prob([replace(draws[0], 10, "GAATTC")])).all()


def test_there_is_room_above_the_offline_data(landscape):
    y = landscape.predict(landscape.sample(4000, random_state=0))
    cut = np.quantile(y, 0.6)
    assert y.std() > 1.3
    best = "TTCTTACATTTCTCACTTATCTTTCTTCATTCTACTCTTCTTTTGCCACC"
    assert load(best) > cut + 2 and landscape.is_valid([best]).all()


def test_seed_decides(landscape):
    assert landscape.sample(5, random_state=1) == landscape.sample(5, random_state=1)
    assert landscape.sample(5, random_state=1) != landscape.sample(5, random_state=2)


def test_bad_input(landscape):
    with pytest.raises(InvalidDesignError, match="length"):
        landscape.predict([LEADER])
    with pytest.raises(InvalidDesignError, match="'U' at position 1"):
        landscape.predict(["U" * 50])
    with pytest.raises(InvalidParameterError, match="length must be a whole number of at least 12"):
        UTRLandscape(length=11)
