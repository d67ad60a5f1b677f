"""Options of ``braidkit design`` that limit designs: what they mean, what they refuse, and a run of them."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.cli import main
from braidkit.cli.limits import limited_space
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import Limits

SPACE = SequenceSpace("DNA", 8)
NONE = {"parent": None, "mutations": None, "forbidden": (), "sites": (), "max_homopolymer": None, "frame": None}


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, None),
        ({"parent": "acgtacgt", "mutations": "3"}, Limits("ACGTACGT", (0, 3), (), ())),
        ({"parent": "ACGTACGT", "mutations": "1 - 3"}, Limits("ACGTACGT", (1, 3), (), ())),
        ({"forbidden": ("ATG, gt", "CC")}, Limits(forbidden=("ATG", "GT", "CC"), sites=())),
        ({"sites": ("GAATTC,GGTCTC",), "max_homopolymer": 4}, Limits(None, None, (), ("GAATTC", "GGTCTC"), 4)),
        ({"frame": "3"}, Limits(None, None, (), (), None, (3, 8))),
        ({"frame": "1-6"}, Limits(None, None, (), (), None, (1, 6))),
    ],
)
def test_options_limit_designs_by_the_names_of_limits(options, limits):
    assert limited_space(SPACE, **NONE | options).limits == limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parent": "ACGTACGT", "mutations": "some"}, "--mutations has 'some'; give a number, or two such as 1-3"),
        ({"frame": "1,2"}, "--frame has '1,2'; give a number"),
        ({"forbidden": ("GAATTN",)}, "forbidden has 'GAATTN', which is not written in ACGT"),
    ],
)
def test_options_that_say_no_limit_are_refused(options, message):
    with pytest.raises(InvalidParameterError, match=message):
        limited_space(SPACE, **NONE | options)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """So few rows that no reward trains a network."""
    folder = tmp_path_factory.mktemp("limits")
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (58, 12))]
    y = [row.count("G") + 0.1 * rng.normal() for row in X]
    pd.DataFrame({"seq": X, "mrl": y}).to_csv(folder / "mpra.csv")
    return folder / "mpra.csv"


def call(table, out, *options):
    call = ["design", str(table), "--sequence", "seq", "--target", "mrl", "--n", "8", "--max-iter", "1"]
    return CliRunner().invoke(main, [*call, "--out", str(out), *options])


PARENT = "ACGTACGTACGT"


def test_all_designs_of_a_run_are_mutants_without_sites(table, tmp_path):
    limits = ["--parent", PARENT, "--mutations", "1-2", "--sites", "GTAC", "--max-homopolymer", "3"]
    result = call(table, tmp_path / "run", *limits)
    assert result.exit_code in (0, 3), result.output
    assert "limits: met by all 10,000 draws as they were made" in result.output
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")
    n_changes = [sum(a != b for a, b in zip(row, PARENT, strict=True)) for row in designs["sequence"]]
    assert len(designs) == 8 and set(n_changes) == {2}  # two sites to break
    assert not designs["sequence"].str.contains("GTAC").any()
    for row, said in zip(designs["sequence"], designs["mutations"], strict=True):
        made = list(PARENT)
        for change in said.split():
            assert made[int(change[1:-1]) - 1] == change[0]
            made[int(change[1:-1]) - 1] = change[-1]
        assert "".join(made) == row
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["limits"] == {
        "parent": PARENT, "mutations": [1, 2], "sites": ["GTAC"], "max_homopolymer": 3
    }  # fmt: skip
    assert record["choice"]["moved"] == {"mutations": 0, "sites": 0, "max_homopolymer": 0, "any": 0}


def test_draws_of_a_simplex_chain_that_break_limits_are_counted(table, tmp_path):
    rows = pd.read_csv(table)["seq"]
    chain = SimplexDiffusion(SequenceSpace("DNA", 12), n_steps=2).fit(rows, max_iter=2, random_state=0)
    chain.save_pretrained(tmp_path / "chain")
    result = call(table, tmp_path / "run", "--forbidden", "GG,ATG", "--pretrained", str(tmp_path / "chain"))
    assert result.exit_code in (0, 3), result.output
    assert "of 1,000 draws broke them (forbidden" in result.output
    assert not pd.read_csv(tmp_path / "run" / "designs.csv")["sequence"].str.contains("GG|ATG").any()


def test_a_table_of_several_lengths_has_designs_of_several_lengths(tmp_path):
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("ACGT"), rng.integers(5, 9))) for _ in range(58)]
    pd.DataFrame({"seq": X, "mrl": [row.count("G") / len(row) for row in X]}).to_csv(tmp_path / "mpra.csv")
    result = call(tmp_path / "mpra.csv", tmp_path / "run", "--padding", "left", "--forbidden", "AA")
    assert result.exit_code in (0, 3), result.output
    assert "DNA, 5 to 8 nt, padded on the left" in result.output
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")["sequence"]
    assert designs.str.fullmatch("[ACGT]{5,8}").all() and designs.str.len().nunique() > 1
    assert not designs.str.contains("AA").any() and (tmp_path / "run" / "report.html").is_file()
    assert "limits: met by all" in result.output
    unlimited = call(tmp_path / "mpra.csv", tmp_path / "other")
    assert unlimited.exit_code in (0, 3), unlimited.output
    assert "limits" not in unlimited.output  # padding alone is no limit that anyone asked for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parent", "ACGT", "--mutations", "1"], "Error: --parent has 4 letters, but designs are sequences of 12"),
        (["--mutations", "1"], "Error: --mutations needs parent beside it"),
        (["--template", "GAATTC______", "--sites", "GAATTC"], "held letters of the template (GAATTC______) and sites="),
        (
            ["--template", "C___________", "--parent", PARENT, "--mutations", "2"],
            "--parent has 'A' at position 1, where",
        ),
    ],
)
def test_limits_that_contradict_are_refused_before_anything_is_written(table, tmp_path, options, message):
    result = call(table, tmp_path / "run", *options)
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_as_the_parent_is_refused(table, tmp_path):
    (tmp_path / "parent.fasta").write_text(f">parent\n{PARENT}\n")
    result = call(table, tmp_path / "run", "--parent", tmp_path / "parent.fasta", "--mutations", "1")
    assert result.exit_code == 2 and "parent.fasta is a file; give the letters" in " ".join(result.stderr.split())
