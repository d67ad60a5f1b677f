"""Options of ``braidkit design`` that hold positions: what they mean, what they refuse, and a run of them."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.cli import main
from braidkit.cli.held import held_space
from braidkit.exceptions import InvalidParameterError

SPACE = SequenceSpace("DNA", 8)
ROWS = ["ACGTACGT", "ACGTTTTT", "ACCAGGTT"]


@pytest.mark.parametrize(
    ("options", "template"),
    [
        ({}, None),
        ({"template": "ac__ACGT"}, "AC__ACGT"),
        ({"template": "ACGTACGT", "hold": "1-2, 8"}, "AC_____T"),
        ({"template": "ACGTACGT", "free": "3-4,6"}, "AC__A_GT"),
        ({"hold": "1-2"}, "AC______"),
        ({"free": "3-7"}, "AC_____T"),
    ],
)
def test_options_hold_letters_by_position_from_one(options, template):
    options = {"template": None, "hold": None, "free": None} | options
    assert held_space(SPACE, ROWS, **options).template == template


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "ACGU____"}, "--template has 'U' at position 4, which is not in the alphabet ACGT"),
        ({"template": "AC__"}, "--template has 4 letters, but the sequences have 8"),
        ({"template": "ACGTACGT"}, "--template holds every position: .* name them by --free"),
        ({"template": "AC______", "hold": "1", "free": "3"}, "--hold and --free say the same"),
        ({"template": "AC______", "hold": "2-3"}, "--hold names position 3, which is free in --template"),
        ({"hold": "2-3"}, "--hold names position 3, which is not the same in all sequences"),
        ({"free": "4-8"}, "--free leaves position 3 held, which is not the same in all sequences"),
        ({"free": "1-8"}, "--free names every position"),
        ({"hold": "0-3"}, "--hold has '0-3', but positions run from 1 to 8"),
        ({"hold": "5-9"}, "--hold has '5-9', but positions run from 1 to 8"),
        ({"hold": "5-2"}, "--hold has '5-2'"),
        ({"free": "a-2"}, "--free has 'a-2'; give positions and ranges"),
        ({"hold": ""}, "--hold has ''; give positions and ranges"),
    ],
)
def test_options_that_hold_nothing_possible_are_refused(options, message):
    options = {"template": None, "hold": None, "free": None} | options
    with pytest.raises(InvalidParameterError, match=message):
        held_space(SPACE, ROWS, **options)


def test_all_designs_of_a_run_have_what_it_holds(tmp_path):
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (76, 8))]
    table = tmp_path / "mpra.csv"
    pd.DataFrame({"seq": X, "mrl": [row.count("G") + 0.1 * rng.normal() for row in X]}).to_csv(table)
    SimplexDiffusion(SPACE, n_steps=2).fit(X, max_iter=2, random_state=0).save_pretrained(tmp_path / "chain")
    options = ["--sequence", "seq", "--target", "mrl", "--n", "8", "--max-iter", "1", "--pretrained"]
    options += [str(tmp_path / "chain"), "--quiet", "--out", str(tmp_path / "run")]
    call = ["design", str(table), *options, "--template", "TTTTACGT", "--free", "3-6"]
    result = CliRunner().invoke(main, call)
    assert result.exit_code in (0, 3), result.output
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")["sequence"]
    assert (designs.str[:2] == "TT").all() and (designs.str[6:] == "GT").all() and designs.str[2:6].nunique() > 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["template"] == "TT____GT"
    refused = CliRunner().invoke(main, [*call[:-2], "--hold", "9", "--overwrite"])
    assert refused.exit_code == 2 and "--hold has '9', but positions run from 1 to 8" in refused.stderr
