"""Containers, sizes and pictures that are read wrongly, or not at all, unless they are refused by name."""

import numpy as np
import pandas as pd
import pytest
import torch

from braidkit import (
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    GaussianDiffusion,
    GPBonusReward,
    SequenceSpace,
    VectorSpace,
)
from braidkit.baselines import BestOfN, ClassifierGuidance, RewardAscent, SMCSampler
from braidkit.datasets import offline_split, read_images, read_sequences
from braidkit.diffusion import GuidedDiffusion, MarkovLaw, last_state, load_ddsm_checkpoint, sample_path
from braidkit.evaluation import (
    BudgetedSelection,
    CalibrationDisplay,
    DistanceDisplay,
    KmerScatterDisplay,
    ParetoDisplay,
    RewardDistributionDisplay,
    SequenceLogoDisplay,
    TrainingCurveDisplay,
    kmer_counts,
    t_interval,
    write_images,
)
from braidkit.exceptions import BraidkitError, InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.rewards import BlackBoxReward, ObjectiveReward
from braidkit.spaces import join_groups, space_from_config
from tests.worlds import untrained

N = 20
ROWS = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (N, 4))]
Y = np.arange(float(N))
X = np.random.default_rng(0).normal(size=(N, 3))
MASKED = np.ma.array(Y, mask=Y > 15)
META = torch.empty(N, device="meta")
CHAIN = untrained(GaussianDiffusion(VectorSpace(3), n_steps=2))


class NoArray:
    """What says that it gives an array, and does not."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("closed file")


DESIGNS = {
    "masked": (np.ma.array(X, mask=X > 1), "X has masked entries"),
    "fields": (np.zeros(N, dtype=[("a", float), ("b", float)]), "X is an array with fields .a, b."),
    "records": (np.rec.fromarrays([Y, Y]), "X is an array with fields"),
    "no array": (NoArray(), "X, a NoArray, gives no array .closed file"),
    "a sparse tensor": (torch.tensor(X).to_sparse(), "X is a tensor that is sparse, nested or on the device meta"),
    "an empty tensor": (torch.empty(N, 3, device="meta"), "X is a tensor that is sparse, nested or on the device meta"),
    "buffers": ([bytearray(row.encode()) for row in ROWS], "row 0 is a bytearray, not a string"),
    "one sequence": (["ACGT"] * N, "X holds one design, 20 times; pass designs that differ"),
    "one vector": (np.ones((N, 3)), "X holds one design, 20 times"),
}


@pytest.mark.parametrize("fit", [GPBonusReward().fit, BootstrapReward().fit, BestOfN().fit], ids=str)
@pytest.mark.parametrize(("rows", "words"), DESIGNS.values(), ids=DESIGNS)
def test_designs(fit, rows, words):
    with pytest.raises(InvalidDesignError, match=words):
        fit(rows, Y)


@pytest.mark.parametrize(
    "rows", [np.char.array(ROWS), pd.Series(ROWS, dtype="category")], ids=["chararray", "category"]
)
def test_designs_in_arrays_of_a_subclass_are_read(rows):
    assert GPBonusReward(max_iter=1).fit(rows, Y).space_ == SequenceSpace("DNA", 4)


def test_vectors_in_a_matrix_are_read():
    assert GPBonusReward(max_iter=1).fit(np.asmatrix(X), Y).n_features_in_ == 3


NUMBERS = {
    "masked": (MASKED, "has masked entries"),
    "nothing": (META, "is a tensor that is sparse, nested or on the device meta"),
    "no array": (NoArray(), "a NoArray, gives no array"),
    "a whole number beyond floats": ([10**400, *Y[1:]], "row 0 is 1000.* not a number"),
}


@pytest.mark.parametrize(("values", "words"), NUMBERS.values(), ids=NUMBERS)
def test_measurements_weights_and_errors(values, words):
    for told in ({"y": values}, {"y": Y, "sample_weight": values}, {"y": Y, "y_error": values}):
        for reward in (GPBonusReward(), ObjectiveReward("2*y")):
            with pytest.raises(InvalidTargetError, match=words):
                reward.fit(ROWS, **told)


BASELINES = {
    "best of n": BestOfN(n_candidates=2),
    "particles": SMCSampler(n_particles=8),
    "ascent": RewardAscent(n_steps=1, n_starts=2),
    "guidance": ClassifierGuidance(max_iter=1),
}


@pytest.fixture(scope="module")
def designers():
    settings = {"random_state": 0, "pretrained": CHAIN}
    for designer in BASELINES.values():
        designer.set_params(**settings)
        if "reward" in designer.get_params():
            designer.set_params(reward=GPBonusReward(max_iter=1))
        designer.fit(X, Y)
    return BASELINES


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("n", ["3", 2.5, None, float("nan"), True, [2], np.array([2]), -1, 0, 10**12], ids=repr)
def test_number_of_samples(designers, name, n):
    with pytest.raises(InvalidParameterError, match="n_samples must be a whole number of at least 1"):
        designers[name].sample(n)


SETTINGS = {
    "alpha": lambda x: ConservativeDiffusionFinetuner(alpha=x),
    "learning_rate": lambda x: ConservativeDiffusionFinetuner(learning_rate=x),
    "c": lambda x: GPBonusReward(c=x),
    "lam": lambda x: GPBonusReward(lam=x),
    "strength": lambda x: ClassifierGuidance(strength=x),
}


@pytest.mark.parametrize(("name", "make"), SETTINGS.items(), ids=SETTINGS)
def test_numbers_beyond_what_networks_compute_with(name, make):
    with pytest.raises(InvalidParameterError, match=rf"{name} must be a number .*at most 1e\+30.* got 1e\+300"):
        make(1e300).fit(X, Y)


def guided(guide, **settings):
    return lambda: GuidedDiffusion(CHAIN, guide, **settings).sample(2)


CALLS = {
    "guide of other shapes": (guided(lambda x, t: x), "guide must give a tensor of 2 values"),
    "guide of NaN": (guided(lambda x, t: x.sum(dim=1) * float("nan")), "gradient that is not finite at t = 2"),
    "guided too far": (lambda: GuidedDiffusion(CHAIN, len, strength=1e300), "strength must be a number"),
    "too many trajectories": (lambda: CHAIN.draw_noise(2**31 - 1, torch.Generator()), "needs .* GiB, more than there"),
    "a path of None": (lambda: sample_path(None, torch.zeros(1)), "chain must be a DiffusionModel"),
    "a path of no noise": (lambda: sample_path(CHAIN, torch.zeros(1, 2)), "noise must be a tensor of shape"),
    "the last of no noise": (lambda: last_state(CHAIN, None), "noise must be a tensor of shape"),
    "ragged tokens": (lambda: MarkovLaw.fit([[0, 1], [1]], 2), "tokens must be whole numbers"),
    "complex points": (lambda: SequenceSpace("DNA", 4).decode(torch.zeros(1, 4, 4) + 1j), "points must be real"),
    "no points": (lambda: SequenceSpace("DNA", 4).decode(torch.zeros(1, 4, 4, device="meta")), "points must be real"),
    "masked groups": (lambda: join_groups(ROWS, MASKED), "groups has masked entries"),
    "a split by masked groups": (lambda: offline_split(ROWS, Y, groups=MASKED), "groups has masked entries"),
    "another name of a space": (lambda: space_from_config({"space": "VectorSpace", "n": 1}), "config must be what"),
    "a space without its size": (lambda: space_from_config({"space": "VectorSpace"}), "config must be what to_config"),
    "a list as a space": (lambda: space_from_config({"space": ["VectorSpace"]}), "config must be what to_config"),
    "points of a black box": (lambda: BlackBoxReward(GPBonusReward(max_iter=1)).fit(X, Y).lower(X), "points must be a"),
    "no objective": (lambda: ObjectiveReward("y").fit(ROWS, None), "requires y to be passed"),
    "one row": (lambda: ObjectiveReward("y").fit(ROWS[:1], [1.0]), "X has 1 sample"),
    "too many k-mers": (lambda: kmer_counts(ROWS, 10**9), r"gives 4\^1000000000 k-mers"),
    "no values": (lambda: t_interval([]), "values is empty"),
    "an oracle of words": (
        lambda: ConservativeDiffusionFinetuner(
            CHAIN,
            reward=GPBonusReward(max_iter=1),
            solver="direct",
            max_iter=1,
            batch_size=8,
            selection=BudgetedSelection(lambda X: ["high"] * len(X), n_queries=4, n_rounds=2),
            random_state=0,
        ).fit(X, Y),
        "the oracle must give one finite reward a design",
    ),
    "sequences of None": (lambda: read_sequences(None, SequenceSpace("DNA", 4)), "path must be a path"),
    "a size of one number": (lambda: read_images(["a.png"], size=5), r"size must be \(height, width\); got 5"),
    "a size of nothing": (lambda: read_images(["a.png"], size=(0, 4)), "size must be a whole number of at least 1"),
    "images of floats": (lambda: write_images(np.zeros((1, 2, 2)), "there"), "images must be an array of uint8"),
    "no images": (lambda: write_images(None, "there"), "images must be an array of uint8"),
    "no history": (lambda: TrainingCurveDisplay(None), "history must be a dictionary with iteration, lower, kl"),
    "a history of one curve": (lambda: TrainingCurveDisplay({"iteration": [0]}), "history must be a dictionary with"),
    "curves of two lengths": (
        lambda: TrainingCurveDisplay({"iteration": [0, 1], "lower": [1.0], "kl": [0, 1]}),
        r"history.'lower'. must be finite numbers of shape \(2\)",
    ),
    "distances of other designs": (lambda: DistanceDisplay([1], [2.0, 3.0], [1.0]), r"mean must be .* shape \(1\)"),
    "no distances": (lambda: DistanceDisplay(None, None, None), "distance must be finite numbers"),
    "a front of one quantity": (lambda: ParetoDisplay(Y, Y, Y, names=["a"]), r"measured must be .* shape \(n, 2\)"),
    "no direction": (
        lambda: ParetoDisplay(X[:, :2], X[:, :2], X[:, :2], names=["a", "b"], directions=(2, 0)),
        "the latter 1 or -1",
    ),
    "a logo of one row": (lambda: SequenceLogoDisplay(np.zeros(3), "ACGT"), r"shares must be .* shape \(n, 4\)"),
    "a logo of other letters": (lambda: SequenceLogoDisplay(np.zeros((3, 4)), "AC"), r"shares must be .* \(n, 2\)"),
    "negative shares": (lambda: SequenceLogoDisplay(-np.ones((3, 2)), "AC"), "shares must be at least 0"),
    "other k-mers": (
        lambda: KmerScatterDisplay(["A"], [1, 2], [1], pearson=1, divergence=0),
        r"reference must be .* \(1\)",
    ),
    "no calibration": (lambda: CalibrationDisplay(5), "report must be a CalibrationReport"),
    "no axes": (
        lambda: RewardDistributionDisplay.from_values({"a": [1.0]}).plot(ax=5),
        "ax must be Axes of matplotlib",
    ),
}


@pytest.mark.parametrize(("call", "words"), CALLS.values(), ids=CALLS)
def test_others(call, words):
    with pytest.raises(BraidkitError, match=words):
        call()


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(BraidkitError, match="junk.pt cannot be read by torch.load"):
        load_ddsm_checkpoint(tmp_path / "junk.pt", space=SequenceSpace("DNA", 4))
