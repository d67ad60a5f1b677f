"""`braidkit score` and `braidkit sample`: what a finished run says of sequences, and more of its designs."""

import gzip
import io
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import ConservativeDiffusionFinetuner
from braidkit.cli import main
from braidkit.diffusion import DiffusionModel


def ask(*args):
    return CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "asked.fasta"
    path.write_text(">parent\nacgu acgu\n>=1+1\nGGGGGGGG\n")
    return path


def test_score_gives_what_the_run_thinks_of_any_sequences(configured, folder, fasta):
    result = ask("score", configured, fasta)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(io.StringIO(result.stdout))
    assert table["sequence"].tolist() == ["ACGTACGT", "GGGGGGGG"]
    assert table["id"].tolist() == ["parent", "'=1+1"]
    finetuner = ConservativeDiffusionFinetuner.load(configured)
    sequences = table["sequence"].tolist()
    np.testing.assert_allclose(table["lower"], finetuner.reward_.predict_lower(sequences), rtol=1e-5)
    np.testing.assert_allclose(table["mean"] - table["penalty"], table["lower"], rtol=1e-4)
    np.testing.assert_allclose(table["judge"], finetuner.judge_.predict(sequences), rtol=1e-5)
    measured = pd.read_csv(folder / "t.csv").set_index("sequence")["mrl"]
    np.testing.assert_allclose(table["nearest_value"], measured[table["nearest"]], rtol=1e-5)
    assert np.isfinite(table["log_likelihood"]).all()


def test_designs_of_a_run_score_as_they_did_in_it(configured):
    designs = pd.read_csv(configured / "designs.csv")
    table = pd.read_csv(io.StringIO(ask("score", configured, configured / "designs.csv").stdout))
    assert table["id"].tolist() == designs["id"].tolist()
    for column in ("mean", "penalty", "lower", "judge", "nearest_value", "distance"):
        np.testing.assert_allclose(table[column], designs[column], rtol=1e-5)


def test_score_writes_to_a_file_and_replaces_none(configured, fasta, tmp_path):
    out = tmp_path / "scores.csv"
    assert ask("score", configured, fasta, "--out", out).exit_code == 0
    assert len(pd.read_csv(out)) == 2
    again = ask("score", configured, fasta, "--out", out)
    assert again.exit_code == 2 and "is there already" in again.stderr


def test_sample_draws_from_the_fine_tuned_model(configured, folder, tmp_path):
    result = ask("sample", configured, "--n", "20", "--seed", "3")
    assert result.exit_code == 0, result.output
    rows = result.stdout.split()
    assert rows[::2] == [f">sample_{i}" for i in range(1, 21)]
    assert rows[1::2] == DiffusionModel.from_pretrained(configured / "model").sample(20, 3)
    chain = ask("sample", folder / "chain", "--n", "3", "--out", tmp_path / "s.fasta")
    assert chain.exit_code == 0 and chain.stdout == ""
    assert (tmp_path / "s.fasta").read_text().count(">") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">a\nACGT\n", "line 1 of .*: the sequence has 4 letters, and designs have 8"),
        (">a\nACGTACGT\n>b\nACGTACGX\n", "line 3 of .*: 'X' at position 8 is not in the alphabet ACGT"),
        (">a\nACGTACGN\n", "'N' at position 8 is not in the alphabet ACGT; drop or correct such rows\\.$"),
        ("seq\nACGTACGT\n", "has no column 'sequence'; its columns are: seq"),
        ("sequence\n", "has a header but no rows"),
        ("", "is empty"),
    ],
)
def test_sequences_that_no_run_can_score_are_refused_by_line(configured, tmp_path, text, message):
    path = tmp_path / "asked.txt"
    path.write_text(text)
    result = ask("score", configured, path)
    assert result.exit_code == 2
    assert pd.Series([result.stderr]).str.contains(message).all(), result.stderr


def test_directories_that_hold_no_run_are_refused(configured, fasta, tmp_path):
    for run, message in ((tmp_path, "holds no saved estimator"), (tmp_path / "nowhere", "holds no saved estimator")):
        result = ask("score", run, fasta)
        assert result.exit_code == 2 and message in result.stderr, result.output
    result = ask("sample", tmp_path / "nowhere")
    assert result.exit_code == 2 and "nowhere is not a directory" in result.stderr
    copy = tmp_path / "copy"
    shutil.copytree(configured, copy)
    (copy / "measured.csv.gz").write_bytes(b"no gzip")
    result = ask("score", copy, fasta)
    assert result.exit_code == 2 and "measured.csv.gz is damaged" in result.stderr
    rows = ["ACGT,1", "NNNNNNNN,1", "ACGTACGT,x", "ACGTACGT,nan", ",1"]
    texts = [f"sequence,measured: mrl\n{row}\nACGTACGA,2\n" for row in rows]
    texts += [f"sequence,measured: mrl,weight\nACGTACGT,1,{weight}\n" for weight in ("x", -1, 0)]
    texts.append("sequence,measured: mrl,standard error: mrl\nACGTACGT,1,-1\n")
    for text in texts:
        (copy / "measured.csv.gz").write_bytes(gzip.compress(text.encode()))
        result = ask("score", copy, fasta)
        assert result.exit_code == 2 and "measured.csv.gz is damaged" in result.stderr, text
    os.remove(copy / "measured.csv.gz")
    result = ask("score", copy, fasta)
    assert result.exit_code == 2 and "has no measured.csv.gz" in result.stderr
