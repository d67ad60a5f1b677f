import itertools

import numpy as np
import pytest

from braidkit.oracles.utr_law import FORBIDDEN_WORDS, UTRLaw


@pytest.fixture(scope="module")
def short_law():
    """The law at six letters, all sequences, and the log-probability of each."""
    law = UTRLaw(6)
    tokens = np.array(list(itertools.product(range(4), repeat=6)))
    return law, tokens, law.log_prob(tokens)


def test_probabilities_sum_to_one(short_law):
    assert np.exp(short_law[2]).sum() == pytest.approx(1, abs=1e-12)


def test_forbidden_words_and_they_alone_are_impossible(short_law):
    _, tokens, log_prob = short_law
    strings = ["".join("ACGT"[t] for t in row) for row in tokens]
    forbidden = [any(word in s for word in FORBIDDEN_WORDS) for s in strings]
    np.testing.assert_array_equal(np.isneginf(log_prob), forbidden)


def test_draws_have_the_stated_probabilities(short_law):
    law, tokens, log_prob = short_law
    n = 200_000
    draws = law.sample(n, np.random.RandomState(0))
    counts = np.bincount(draws @ 4 ** np.arange(5, -1, -1), minlength=len(tokens))
    expected = n * np.exp(log_prob)
    assert counts[expected == 0].sum() == 0
    often = expected > 5
    chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert chi2 < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_the_stated_words_are_rare_or_frequent():
    tokens = UTRLaw(50).sample(4000, np.random.RandomState(0))
    text = "|".join("".join(row) for row in np.array(list("ACGT"))[tokens])
    share = {letter: text.count(letter) / tokens.size for letter in "ACGT"}
    over_expected = {
        word: text.count(word) / (4000 * (51 - len(word)) * np.prod([share[letter] for letter in word]))
        for word in ("CG", "TA", "TG", "CA")
    }
    assert max(over_expected["CG"], over_expected["TA"]) < 0.6
    assert min(over_expected["TG"], over_expected["CA"]) > 1.1
    assert text.count("ATG") / text.count("AT") < 0.7 * text.count("CTG") / text.count("CT")
    assert not any(word in text for word in FORBIDDEN_WORDS)
