"""Designs of a round beside their measurements."""

import numpy as np
import pandas as pd
import pytest

from braidkit.evaluation import check_round
from braidkit.exceptions import InvalidParameterError


def designs(n=12):
    sequences = [f"{'ACGT'[i % 4]}{'ACGT'[i // 4]}AA" for i in range(n)]
    mean = np.linspace(4, 6, n)
    return pd.DataFrame({"id": range(n), "sequence": sequences, "mean": mean, "lower": mean - 1, "flags": ""})


def test_only_measured_designs_are_compared_and_duplicates_averaged():
    table = designs()
    check = check_round(table, ["AAAA", "caaa", "CAAA", "TTTT"], [4.0, 1.0, 2.0, 9.0])
    assert check.table["sequence"].tolist() == ["AAAA", "CAAA"]
    assert check.table["measured"].tolist() == [4.0, 1.5]
    assert check.table["holds"].tolist() == [True, False] and check.coverage == 0.5
    assert check.n_designs == 12 and list(check.table) == ["id", "sequence", "mean", "lower", "measured", "holds"]
    assert not check.failed  # two designs tell nothing
    assert "Of the 12 designs of the round before, 2 were measured: 2.75 on average" in check.sentences()[0]
    (said,) = check_round(check.table, check.table["sequence"][:1], [4.0]).sentences()
    assert said.startswith("Of the 2 designs of the round before, 1 was measured: 4 on average")


@pytest.mark.parametrize(("shift", "failed"), [(-2.0, True), (-1.0, False), (0.0, False)])
def test_a_round_fails_where_measurements_lie_plainly_below_the_bounds(shift, failed):
    table = designs()
    measured = table["mean"] + shift + 0.3 * np.random.default_rng(0).normal(size=len(table))
    check = check_round(table, table["sequence"].tolist(), measured)
    assert check.failed is failed and (check.warning is not None) is failed
    assert "rank correlation of prediction and measurement among them is 0.9" in check.sentences()[1]


def test_a_round_of_which_nothing_was_measured_says_so():
    check = check_round(designs(), ["TTTT"], [1.0])
    assert check.sentences() == ["None of the 12 designs of the round before was measured: nothing to compare."]
    assert not check.failed and np.isnan(check.coverage)


def test_tables_of_other_columns_are_refused():
    with pytest.raises(InvalidParameterError, match="designs has no column 'lower'"):
        check_round(designs().drop(columns="lower"), ["AAAA"], [1.0])
