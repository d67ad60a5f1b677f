import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.evaluation import metrics
from braidkit.exceptions import InvalidDesignError, InvalidParameterError

SETS = st.lists(st.text("ACGT", min_size=3, max_size=12), min_size=1, max_size=6)


def random_sequences(rng, n, length, p=(0.25, 0.25, 0.25, 0.25)):
    return ["".join(row) for row in rng.choice(list("ACGT"), (n, length), p=p)]


@settings(max_examples=50, deadline=None)
@given(SETS, st.integers(1, 4))
def test_kmer_counts_equal_counting_by_hand(sequences, k):
    counts = metrics.kmer_counts(sequences, k, letters="TGCA").toarray()
    kmers = ["".join(letters) for letters in itertools.product("TGCA", repeat=k)]
    for row, sequence in zip(counts, sequences, strict=True):
        seen = Counter(sequence[i : i + k] for i in range(len(sequence) - k + 1))
        assert row.tolist() == [seen[kmer] for kmer in kmers]


def test_kmer_counts_refuses_letters_and_lengths_that_make_no_sense():
    with pytest.raises(InvalidDesignError, match="'N' is not in the alphabet ACGT"):
        metrics.kmer_counts(["ACN"], 2, letters="ACGT")
    with pytest.raises(InvalidParameterError, match="k must be a whole number of at least 1; got 0"):
        metrics.kmer_counts(["ACG"], 0)


@settings(max_examples=100, deadline=None)
@given(SETS, SETS)
def test_jensen_shannon_is_a_symmetric_divergence_in_bits(A, B):
    divergence = metrics.kmer_jensen_shannon(A, B)
    assert 0 <= divergence <= 1
    assert divergence == pytest.approx(metrics.kmer_jensen_shannon(B, A), abs=1e-12)
    assert metrics.kmer_jensen_shannon(A, A[::-1]) == pytest.approx(0, abs=1e-12)


def test_jensen_shannon_and_pearson_by_hand():
    # Spectra (3/4, 1/4) and (1/4, 3/4) over A and C: 1 - H(1/4) = 0.18872 bits.
    assert metrics.kmer_jensen_shannon(["AAAC"], ["CCCA"], k=1) == pytest.approx(0.188721875540867)
    assert metrics.kmer_pearson(["AAAC"], ["CCCA"], k=1) == pytest.approx(-1)
    # (3, 1, 0, 0) against (1, 0, 3, 0) over A, C, G, T.
    expected = np.corrcoef([3, 1, 0, 0], [1, 0, 2, 1])[0, 1]
    assert metrics.kmer_pearson(["AAAC"], ["AGGT"], k=1) == pytest.approx(expected)
    assert np.isnan(metrics.kmer_pearson(["ACGT"], ["ACGG"], k=1))
    with pytest.raises(InvalidDesignError, match="no sequence has 3 letters"):
        metrics.kmer_jensen_shannon(["AC"], ["ACGT"])


def test_gc_novelty_by_hand():
    assert metrics.gc_content(["GGCA", "AUUA"]).tolist() == [0.75, 0]
    assert metrics.gc_kolmogorov_smirnov(["GG", "GA"], ["GA", "AA"]) == 0.5
    assert metrics.gc_kolmogorov_smirnov(["GG"], ["AA", "AT"]) == 1
    assert metrics.novelty(["AC", "AC", "AG", "AT"], ["AG", "AA"]) == 0.75


def test_diversity_by_hand_and_on_a_sample(rng):
    # Pairs: 1 of 4 letters, all 4 of 4, 4 of 4.
    assert metrics.diversity(["AAAA", "AAAC", "TTTT"]) == pytest.approx((0.25 + 1 + 1) / 3)
    # Against a longer one: 4 letters of 8.
    assert metrics.diversity(["AAAA", "AAAATTTT"]) == pytest.approx(0.5)
    sequences = random_sequences(rng, 120, 20)
    sampled = metrics.diversity(sequences, n_samples=60, random_state=0)
    assert sampled == metrics.diversity(sequences, n_samples=60, random_state=0)
    assert sampled == pytest.approx(metrics.diversity(sequences, n_samples=120), abs=0.03)
    with pytest.raises(InvalidDesignError, match="at least two"):
        metrics.diversity(["ACGT"])


def test_discriminability_is_half_for_one_law_and_one_for_two(rng):
    A, B = random_sequences(rng, 200, 30), random_sequences(rng, 200, 30)
    G = random_sequences(rng, 200, 30, p=(0.05, 0.05, 0.85, 0.05))
    assert metrics.discriminability(A, B, k=3, random_state=0) == pytest.approx(0.5, abs=0.1)
    assert metrics.discriminability(A, G, k=3, random_state=0) > 0.99
    # A copy of a set cannot be told from it, although each sequence is seen with both labels.
    assert metrics.discriminability(A, A[::-1], k=3, random_state=0) == pytest.approx(0.5, abs=1e-9)
    with pytest.raises(InvalidDesignError, match="need 5 different sequences in each set; got 1"):
        metrics.discriminability(A, ["ACGT"] * 30)


def near_copies(rng, centre, n, n_edits):
    """The centre with some letters replaced, n times."""
    copies = []
    for _ in range(n):
        letters = list(centre)
        for place in rng.choice(len(letters), n_edits, replace=False):
            letters[place] = rng.choice([letter for letter in "ACGT" if letter != letters[place]])
        copies.append("".join(letters))
    return copies


def test_discriminability_is_half_for_honest_samples_of_one_law():
    scores = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        A, B = random_sequences(rng, 150, 50), random_sequences(rng, 300, 50)
        scores.append(metrics.discriminability(A, B, random_state=seed))
    assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / np.sqrt(6) + 0.01
    assert min(scores) > 0.4 and max(scores) < 0.6


def test_discriminability_refuses_a_collapsed_set(rng):
    natural = random_sequences(rng, 300, 50)
    collapsed = [natural[0]] * 290 + random_sequences(rng, 9, 50)
    for sets in ((collapsed, natural[1:]), (natural[1:], collapsed)):
        with pytest.raises(InvalidDesignError, match="got 1.06 .*: the set has collapsed"):
            metrics.discriminability(*sets, random_state=0)


@pytest.mark.parametrize("n_edits", [1, 5])
def test_discriminability_recognises_near_copies_of_one_design(rng, n_edits):
    natural = random_sequences(rng, 300, 50)
    collapsed = [*near_copies(rng, natural[0], 290, n_edits), *random_sequences(rng, 9, 50)]
    assert metrics.discriminability(collapsed, natural[1:], random_state=0) > 0.9


def test_validity_measures_say_what_a_collapsed_set_is(rng):
    natural = random_sequences(rng, 300, 50)
    collapsed = [natural[0]] * 290 + random_sequences(rng, 9, 50)
    measures = metrics.validity_measures(collapsed, natural[1:], random_state=0)
    assert np.isnan(measures["discriminability (AUROC)"])
    assert measures["different (share)"] == 10 / 299
    assert measures["different (effective number)"] == pytest.approx(1.06, abs=0.01)
    honest = metrics.validity_measures(random_sequences(rng, 299, 50), natural[1:], random_state=0)
    assert honest["discriminability (AUROC)"] == pytest.approx(0.5, abs=0.1)
    assert honest["different (share)"] == 1 and honest["different (effective number)"] > 290


@pytest.mark.parametrize("both", [False, True])
def test_discriminability_keeps_families_of_near_copies_together(both):
    scores = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        centres = random_sequences(rng, 400, 50)
        A = [row for centre in centres[:25] for row in near_copies(rng, centre, 12, 4)]
        B = [row for centre in centres[25:50] for row in near_copies(rng, centre, 12, 4)] if both else centres[50:350]
        scores.append(metrics.discriminability(A, B, random_state=seed))
    # Where families leak between folds, they are recognised: above 0.9.
    assert np.mean(scores) == pytest.approx(0.5, abs=0.12)


def test_mutants_of_one_protein_are_not_taken_for_one_design(rng):
    centre = "".join(rng.choice(list("ACGT"), 100))
    A, B = near_copies(rng, centre, 100, 6), near_copies(rng, centre, 100, 6)
    assert metrics.discriminability(A, B, random_state=0) == pytest.approx(0.5, abs=0.15)
    other = [row[:40] + "G" * 5 + row[45:] for row in B]
    assert metrics.discriminability(A, other, random_state=0) > 0.9


def dinucleotides(sequence):
    return Counter(zip(sequence, sequence[1:], strict=False))


@settings(max_examples=200, deadline=None)
@given(st.text("ACGT", min_size=1, max_size=40), st.integers(0, 2**31 - 1))
def test_shuffling_keeps_dinucleotides_and_ends(sequence, seed):
    [shuffled] = metrics.shuffle_dinucleotides([sequence], seed)
    assert dinucleotides(shuffled) == dinucleotides(sequence)
    assert (shuffled[0], shuffled[-1]) == (sequence[0], sequence[-1])


def test_shuffling_draws_all_arrangements_equally_often():
    sequence = "ACAGATAAC"
    arrangements = {
        sequence[0] + "".join(middle) + sequence[-1]
        for middle in itertools.permutations(sequence[1:-1])
        if dinucleotides(sequence[0] + "".join(middle) + sequence[-1]) == dinucleotides(sequence)
    }
    n = 4000
    seen = Counter(metrics.shuffle_dinucleotides([sequence] * n, random_state=0))
    assert set(seen) == arrangements
    expected = n / len(arrangements)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    # Mean and standard deviation of chi-square with k degrees of freedom: k and sqrt(2 k).
    degrees = len(arrangements) - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees)


def test_shuffling_is_seeded(rng):
    sequences = random_sequences(rng, 10, 40)
    assert metrics.shuffle_dinucleotides(sequences, 3) == metrics.shuffle_dinucleotides(sequences, 3)
    assert metrics.shuffle_dinucleotides(sequences, 3) != metrics.shuffle_dinucleotides(sequences, 4)


def test_validity_report_sets_designs_beside_natural_and_shuffled(rng):
    natural = [row[:10] + "ACGTTGCA" + row[10:] for row in random_sequences(rng, 200, 20)]
    copies = natural[:40]
    report = metrics.validity_report(copies, natural, k=4, random_state=0)
    assert list(report.columns) == ["designs", "held out", "shuffled"]
    # Half of the copies are in the reference half; no held-out sequence is.
    assert report.loc["novelty (share unseen)", "designs"] < 0.8
    assert report.loc["novelty (share unseen)", "held out"] == 1
    divergence = report.loc["4-mer Jensen-Shannon divergence (bits)"]
    assert divergence["held out"] < divergence["shuffled"] / 2
    assert report.loc["discriminability (AUROC)", "shuffled"] > 0.8
