"""Odd arguments where designs are chosen, scored and compared: refused by name, before any design is drawn."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation import check_round, design_table, report, score_table, select, write_designs
from braidkit.exceptions import (
    BraidkitError,
    CheckpointError,
    IncompatibleModelError,
    InvalidDesignError,
    InvalidParameterError,
    InvalidTargetError,
)
from braidkit.rewards import ObjectiveReward
from braidkit.spaces import Limits

N = 24
ROWS = sorted({"".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (40, 10))})[:N]
Y = np.array([row.count("G") + i / N for i, row in enumerate(ROWS)])
SPACE = SequenceSpace("DNA", 10)


@pytest.fixture(scope="module")
def chain():
    return MaskedDiffusion(SPACE).fit(ROWS, max_iter=1, random_state=0)


@pytest.fixture(scope="module")
def fitted(chain):
    settings = {"reward": GPBonusReward(torch.nn.Flatten()), "max_iter": 1, "batch_size": 8, "random_state": 0}
    return ConservativeDiffusionFinetuner(chain, **settings).fit(ROWS, Y)


@pytest.fixture
def none_drawn(monkeypatch):
    """Fail if any design is drawn."""

    def draw(*args, **kwargs):
        raise AssertionError("designs were drawn")

    monkeypatch.setattr(DiffusionModel, "draw_noise", draw)


LIMITS = {
    "gc a number": ({"gc": 0.5}, "gc must be two shares"),
    "gc letters": ({"gc": "01"}, "gc must be two shares"),
    "gc texts": ({"gc": ("0.1", "0.9")}, "gc must be two shares"),
    "gc truth values": ({"gc": (True, True)}, "gc must be two shares"),
    "gc a dictionary": ({"gc": {0.1: 1, 0.2: 2}}, "gc must be two shares"),
    "gc turned round": ({"gc": (0.6, 0.4)}, "gc must be two shares"),
    "gc of held letters": ({"gc": (0.9, 1), "template": "ATATATATA."}, r"gc=\(0.9, 1\) cannot be met.*from 0 to 0.1"),
    "a run of none": ({"max_homopolymer": 0}, "max_homopolymer must be a whole number of at least 1"),
    "a run of letters": ({"max_homopolymer": "3"}, "max_homopolymer must be a whole number"),
    "one word": ({"forbidden": "ATG"}, "forbidden must be a list of words"),
    "no word": ({"sites": None}, "sites must be a list of words"),
    "an empty word": ({"forbidden": [""]}, "forbidden has '', which is not written in ACGT"),
    "bytes": ({"sites": [b"ATG"]}, "sites has b'ATG'"),
    "all letters": ({"forbidden": ["A", "C", "G", "T"]}, "no sequence of 10 letters meets all of"),
    "a held word": ({"forbidden": ["ATG"], "template": "ATG......."}, "held letters of the template .* contradict"),
    "a short template": ({"template": "A"}, "template must have 10 characters"),
    "a template of the space": ({"template": "A_________"}, "template must have 10 characters.*or '.'"),
    "identity": ({"max_identity": np.ones(2)}, "max_identity must be a number above 0 and at most 1"),
    "designs": ({"n_designs": 2.5}, "n_designs must be a whole number of at least 1"),
    "candidates": ({"n_candidates": "3"}, "n_candidates must be a whole number"),
    "controls": ({"n_controls": -1}, "n_controls must be a whole number of at least 0"),
    "seed": ({"random_state": "x"}, "random_state must be None, a whole number"),
}


@pytest.mark.parametrize(("arguments", "words"), LIMITS.values(), ids=LIMITS)
def test_select(fitted, none_drawn, arguments, words):
    with pytest.raises(InvalidParameterError, match=words):
        select(fitted, ROWS, Y, **arguments)


def test_select_holds_what_the_space_holds(fitted, none_drawn, monkeypatch):
    monkeypatch.setattr(fitted, "space_", SPACE.with_template("ATG_______"))
    with pytest.raises(InvalidParameterError, match="template has 'C' at position 2, where all designs have 'T'"):
        select(fitted, template=".C........")
    with pytest.raises(InvalidParameterError, match="held letters of the template .* contradict"):
        select(fitted, forbidden=["ATG"])
    monkeypatch.setattr(fitted, "space_", SequenceSpace("DNA", (8, 10)))
    with pytest.raises(InvalidParameterError, match="template is for designs of one length"):
        select(fitted, template="A.........")


MEASURED = {
    "no designs": (None, Y, InvalidDesignError, "X is None"),
    "one string": ("ACGT", Y, InvalidDesignError, "X is one string"),
    "too few": (ROWS[:5], Y, InvalidDesignError, "X has 5 designs, but y has 24"),
    "shorter": (["ACGT"] * N, Y, InvalidDesignError, "row 0 has 4 letters, but the space has length 10"),
    "other letters": (["N" * 10] * N, Y, InvalidDesignError, "'N' at position 1 is not in the alphabet"),
    "missing": ([None, *ROWS[1:]], Y, InvalidDesignError, "row 0 is None, not a string"),
    "missing measurements": (ROWS, np.full(N, np.nan), InvalidTargetError, "contains NaN: row 0"),
    "words": (ROWS, ["x"] * N, InvalidTargetError, "row 0 is 'x'"),
    "two columns": (ROWS, np.c_[Y, Y], InvalidTargetError, "should be a 1d array"),
    "ragged": (ROWS, [[1.0]] * (N - 1) + [[1.0, 2.0]], InvalidTargetError, "rows differ in length"),
}
READERS = {
    "design_table": design_table,
    "select": select,
    "score_table": lambda estimator, X, y: score_table(estimator, ROWS[:2], X, y),
    "report": lambda estimator, X, y: report(estimator, X, y, path="there.html"),
}


@pytest.mark.parametrize("call", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("X", "y", "kind", "words"), MEASURED.values(), ids=MEASURED)
def test_measured_designs(fitted, none_drawn, call, X, y, kind, words):
    if X is None and call in (READERS["select"], READERS["report"]):
        kind, words = InvalidParameterError, "y has no designs|X and y belong together"
    with pytest.raises(kind, match=words):
        call(fitted, X, y)


@pytest.mark.parametrize("call", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "value", [None, 5, "x", {}, ConservativeDiffusionFinetuner, MaskedDiffusion(SPACE)], ids=range(6)
)
def test_what_is_no_fitted_estimator(call, value):
    with pytest.raises(InvalidParameterError, match="estimator must be a fitted estimator of braidkit"):
        call(value, ROWS, Y)


DESIGNS = pd.DataFrame({"id": ["a", "b"], "sequence": ROWS[:2], "mean": [1.0, 2.0], "lower": [0.5, 1.5]})
TABLES = {
    "none": (None, "must be a table of design_table or select; got None"),
    "a number": (5, "must be a table of design_table or select; got 5"),
    "no means": (DESIGNS.drop(columns="mean"), "has no column 'mean'"),
    "words for bounds": (DESIGNS.assign(lower="x"), "column 'lower': row 0 is 'x', which is not a number"),
    "missing bounds": (DESIGNS.assign(lower=[0.5, np.nan]), "column 'lower' contains NaN: row 1"),
    "numbers for sequences": (DESIGNS.assign(sequence=5), "column 'sequence' must hold texts; got .*5"),
    "missing sequences": (DESIGNS.assign(sequence=[None, "A"]), "row 0 is (None|nan), not a string"),
}


@pytest.mark.parametrize(("table", "words"), TABLES.values(), ids=TABLES)
def test_tables_of_designs(fitted, tmp_path, table, words):
    calls = [lambda: check_round(table, ROWS, Y), lambda: write_designs(table, tmp_path)]
    if table is not None:
        calls.append(lambda: report(fitted, path=tmp_path / "report.html", designs=table))
    for call in calls:
        with pytest.raises(BraidkitError, match=words):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000], ids=["a zero", "too long"])
def test_paths_that_no_system_has(fitted, path):
    calls = (fitted.save, ConservativeDiffusionFinetuner.load, DiffusionModel.from_pretrained)
    for call in (*calls, fitted.model_.save_pretrained, lambda path: write_designs(DESIGNS, path)):
        with pytest.raises(InvalidParameterError, match="directory must be a path"):
            call(path)


def test_a_save_of_something_else_in_the_place_of_the_estimator(fitted, tmp_path):
    fitted.save(tmp_path)
    fitted.model_.save_pretrained(tmp_path / "other")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "other" / name).replace(tmp_path / "finetuner" / name)
    with pytest.raises(CheckpointError, match="finetuner holds no estimator, but another save"):
        ConservativeDiffusionFinetuner.load(tmp_path)


def test_limits_that_are_none():
    with pytest.raises(InvalidParameterError, match="limits must be Limits"):
        SequenceSpace("DNA", 10, limits={"nothing": 1})
    assert SequenceSpace("DNA", 10, limits=Limits(max_homopolymer=2**31 - 1)).n_designs == 4**10


TOKENS = [None, 5, [], torch.zeros(2, 10), torch.full((2, 10), 9), torch.full((2, 10), -1), torch.zeros(10).long()]


@pytest.mark.parametrize("tokens", TOKENS, ids=range(len(TOKENS)))
def test_tokens_of_a_law(chain, tokens):
    for call in (chain.prior.log_prob, chain.prior.substitutions):
        with pytest.raises(InvalidDesignError, match="tokens must"):
            call(tokens)


def test_likelihoods_noise_and_points_of_a_law(chain):
    for call in (chain.prior.posterior, chain.prior.prediction):
        for odd in (None, torch.zeros(2, 10), torch.zeros(2, 10, 3)):
            with pytest.raises(InvalidDesignError, match="likelihoods must be a tensor of shape"):
                call(odd)
    for odd in (None, torch.zeros(2, 9), torch.full((2, 10), 2.0), torch.full((2, 10), float("nan"))):
        with pytest.raises(InvalidParameterError, match="noise must be a tensor of shape"):
            chain.prior.sample(odd)
    for call in (chain.log_prob, chain.rarity):
        for odd in (None, np.zeros((2, 10, 4)), torch.zeros(2, 9, 4)):
            with pytest.raises(InvalidDesignError, match="points must"):
                call(odd)


@pytest.fixture
def no_training(monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("a chain was trained")

    monkeypatch.setattr(DiffusionModel, "_train", train)
    monkeypatch.setattr(MaskedDiffusion, "_train", train)


def test_rewards_that_do_not_fit_are_refused_before_a_chain_is_trained(no_training):
    other = FrozenEstimator(GPBonusReward(torch.nn.Flatten()).fit(["ACG", "CCC", "TTT", "GGA"], [1.0, 2.0, 3.0, 4.0]))
    fit = ConservativeDiffusionFinetuner
    with pytest.raises(IncompatibleModelError, match="reward was fitted on .*length=3"):
        fit(reward=other, random_state=0).fit(ROWS, Y)
    with pytest.raises(NotFittedError):
        fit(reward=FrozenEstimator(GPBonusReward()), random_state=0).fit(ROWS, Y)
    with pytest.raises(InvalidParameterError, match="an ObjectiveReward has its quantities"):
        fit(reward=ObjectiveReward("a - b"), objective="a - b").fit(ROWS, pd.DataFrame({"a": Y, "b": Y[::-1]}))
    for verbose in ("x", -1, 2.5, None):
        with pytest.raises(InvalidParameterError, match="verbose must be a whole number of at least 0"):
            fit(verbose=verbose).fit(ROWS, Y)
