"""Replicates, standard errors and weights of a table: means, and the noise that it tells."""

import numpy as np
import pandas as pd
import pytest

from braidkit.datasets import read_table
from braidkit.datasets._targets import moderated_variance, parse_target
from braidkit.exceptions import InvalidParameterError, InvalidTargetError

SEQUENCES = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (200, 8))]
TRUTH = np.array([float(row.count("G")) for row in SEQUENCES])


def write(path, **columns):
    path = path / "table.csv"
    pd.DataFrame({"sequence": SEQUENCES, **columns}).to_csv(path, index=False)
    return path


def replicates(n=3, noise=0.5):
    values = TRUTH[:, None] + noise * np.random.default_rng(1).normal(size=(200, n))
    return {f"rep{i + 1}": column for i, column in enumerate(values.T)}


def test_replicates_are_averaged_and_tell_the_noise(tmp_path):
    columns = replicates()
    table = read_table(write(tmp_path, **columns), target="rep1,rep2,rep3")
    np.testing.assert_allclose(table.y, np.mean(list(columns.values()), axis=0))
    assert table.targets == ("rep1,rep2,rep3",) and table.sample_weight is None
    np.testing.assert_allclose(table.y_error, 0.5 / 3**0.5, rtol=0.15)
    assert "replicates of rep1,rep2,rep3 differ by 0.486 (standard deviation)" in table.describe()
    assert "of the variance of means" in table.describe()


def test_a_missing_replicate_leaves_the_others(tmp_path):
    columns = replicates()
    columns["rep1"][0] = columns["rep1"][1] = np.nan
    columns["rep2"][0] = columns["rep2"][1] = columns["rep3"][1] = np.nan
    table = read_table(write(tmp_path, **columns), target="load=rep1,rep2,rep3")
    assert table.y[0] == pytest.approx(columns["rep3"][0])
    assert table.y_error[0] == pytest.approx(table.y_error[5] * 3**0.5, rel=0.1)  # one value against three
    assert table.dropped == {"without load": 1} and len(table.y) == 199


def test_repeated_rows_are_replicates_where_there_are_enough(tmp_path):
    path = tmp_path / "table.csv"
    values = TRUTH + 0.3 * np.random.default_rng(2).normal(size=200)
    for n_repeated, told in ((5, False), (60, True)):
        again = TRUTH[:n_repeated] + 0.3 * np.random.default_rng(3).normal(size=n_repeated)
        pd.DataFrame({"sequence": SEQUENCES + SEQUENCES[:n_repeated], "load": [*values, *again]}).to_csv(path)
        table = read_table(path, target="load")
        assert table.n_averaged == n_repeated and (table.y_error is not None) == told
    np.testing.assert_allclose(table.y_error[60:], 0.3, rtol=0.2)
    np.testing.assert_allclose(table.y_error[:60].mean(), 0.3 / 2**0.5, rtol=0.2)
    pd.DataFrame({"sequence": SEQUENCES * 2, "load": [*values, *values]}).to_csv(path)
    assert read_table(path, target="load").y_error is None  # copies tell nothing


def test_standard_errors_and_weights_of_rows_are_of_means(tmp_path):
    path = tmp_path / "table.csv"
    rows = {"sequence": [*SEQUENCES, SEQUENCES[0]], "load": [*TRUTH, TRUTH[0] + 3.0]}
    pd.DataFrame(rows | {"se": [1.0] * 200 + [2.0], "reads": [30.0] * 199 + [0.0] + [10.0]}).to_csv(path)
    table = read_table(path, target="load", target_se="se")
    assert table.y[0] == pytest.approx(TRUTH[0] + 3 / 5)  # by inverse variances
    assert table.y_error[:2].tolist() == [pytest.approx((1 + 1 / 4) ** -0.5), 1.0] and table.sample_weight is None
    table = read_table(path, target="load", weight="reads")
    assert table.y[0] == pytest.approx(TRUTH[0] + 3 / 4)
    assert table.sample_weight[:2].tolist() == [40.0, 30.0] and table.dropped == {"of weight 0": 1}
    assert list(table.told) == ["sample_weight"]


def test_variances_by_few_replicates_are_drawn_to_that_of_all():
    rng = np.random.default_rng(0)
    d = np.full(4000, 2)
    same = moderated_variance(4.0 * rng.chisquare(2, 4000), d)
    np.testing.assert_allclose(same, 4.0, rtol=0.25)  # what varies by chance alone
    truth = 4.0 * 5 / rng.chisquare(7, 4000)  # inverse gamma of mean 4 and a squared coefficient of variation 2 / 3
    within = truth * rng.chisquare(2, 4000)
    np.testing.assert_allclose(moderated_variance(within, d), (5 * 4 + within) / (5 + 2), rtol=0.15)
    some = moderated_variance(np.array([0.0, 0.0, 30.0, 1.0]), np.array([2, 0, 2, 2]))
    assert (some > 0).all() and some[1] > some[0]


def test_targets_are_read_as_they_are_named():
    assert parse_target("affinity= a , b").columns == ("a", "b")
    for text in ("", "a,,b", "=a", "a,a"):
        with pytest.raises(InvalidParameterError, match="name a column, columns of replicates as"):
            parse_target(text)


ALIKE = {"rep1": TRUTH, "rep2": TRUTH, "rep3": TRUTH}
WRONG = [
    (
        ALIKE,
        {"target": "rep1,rep2,rep3"},
        InvalidTargetError,
        "rep1, rep2, rep3 are the same in all rows: they are one",
    ),
    (ALIKE, {"target": "rep1,rep4"}, InvalidParameterError, "has no column 'rep4'; its columns are: sequence, rep1"),
    (ALIKE, {"target": ["rep1", "rep1"]}, InvalidParameterError, "target 'rep1' is named twice; name each once"),
    (
        {"y": TRUTH, "se": [0.0] + [1.0] * 199},
        {"target": "y", "target_se": "se"},
        InvalidTargetError,
        "line 2 of .*: 'se' is 0.0; no measurement is exact",
    ),
    ({"y": TRUTH, "se": ["1"] * 199 + [""]}, {"target": "y", "target_se": "se"}, InvalidTargetError, "'se' is blank;"),
    (
        {"y": TRUTH, "w": [-1.0] + [1.0] * 199},
        {"target": "y", "weight": "w"},
        InvalidTargetError,
        "'w' is -1.0; weights",
    ),
    (
        {"y": TRUTH, "w": TRUTH},
        {"target": "y", "weight": "w", "target_se": "w"},
        InvalidParameterError,
        "both tell the",
    ),
    (replicates(), {"target": "rep1,rep2", "weight": "rep3"}, InvalidParameterError, "weight and the replicates of"),
    (replicates(), {"target": ["rep1", "rep2"], "target_se": "rep3"}, InvalidParameterError, "names 1 columns for 2"),
]


@pytest.mark.parametrize(("columns", "options", "error", "text"), WRONG)
def test_what_cannot_be_is_refused_with_its_place(tmp_path, columns, options, error, text):
    with pytest.raises(error, match=text):
        read_table(write(tmp_path, **columns), **options)


@pytest.mark.data
def test_replicates_of_tite_seq(data_dir):
    targets = [
        f"{name}={','.join(f'{column}_rep{i}' for i in (1, 2, 3))}"
        for name, column in (("affinity", "minus_log10_kd"), ("expression", "expression"))
    ]
    table = read_table(data_dir / "antibody_titeseq.csv.gz", target=targets)
    assert table.targets == ("affinity", "expression") and table.y.shape == table.y_error.shape
    noise = (table.y_error**2).mean(axis=0) / table.y.var(axis=0)
    # Replicates of affinity correlate at 0.78 to 0.86, of expression at 0.17 to 0.43.
    assert noise[0] < 0.15 < 0.3 < noise[1]


def test_several_targets_of_fasta(tmp_path):
    path = tmp_path / "measured.fasta"
    path.write_text(
        "".join(f">s{i} on={v} off:{2 * v} 7\n{row}\n" for i, (row, v) in enumerate(zip(SEQUENCES, TRUTH, strict=True)))
    )
    table = read_table(path, target=["on", "off"])
    np.testing.assert_allclose(table.y, np.c_[TRUTH, 2 * TRUTH])
    with pytest.raises(InvalidTargetError, match="has no values: write them into the headers, as in '>s0 of=1.2'"):
        read_table(path, target=["on", "of"])
    values = tmp_path / "values.csv"
    pd.DataFrame({"id": [f"s{i}" for i in range(200)], "a": TRUTH, "b": 1 - TRUTH}).to_csv(values, index=False)
    table = read_table(path, target=["a", "b"], values=values)
    np.testing.assert_allclose(table.y, np.c_[TRUTH, 1 - TRUTH])


def test_positive_targets_with_few_very_large_values_are_better_as_logarithms(tmp_path):
    normal = np.random.default_rng(3).normal(size=200)
    path = write(tmp_path, kd=10 ** (2 + normal), log_kd=normal, shifted=normal + 10)
    table = read_table(path, target=["kd", "log_kd", "shifted"])
    assert [text.split(" is above 0")[0] for text in table.advice()] == ["kd"]
    assert "learned better as logarithms" in table.advice()[0]
    assert not read_table(path, target="log_kd").advice()
