"""Containers, sizes, files and settings that would be read wrongly, or not at all: refused by name."""

import numpy as np
import pandas as pd
import pytest
import torch

from braidkit import (
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    GaussianDiffusion,
    GPBonusReward,
    PipelineDiffusion,
    SequenceSpace,
    VectorSpace,
)
from braidkit.baselines import BestOfN, ClassifierGuidance, RewardAscent, SMCSampler, bin_weights, twisted_smc
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
from braidkit.finetuning import rollout
from braidkit.rewards import BlackBoxReward, CLIPFeatures, ObjectiveReward
from braidkit.spaces import join_groups, space_from_config
from braidkit.theory import AngleChain, LinearGaussianChain
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


def particles(**changes):
    settings = {"pretrained": CHAIN, "reward": lambda x: x.sum(dim=1), "alpha": 0.1, "n_particles": 8}
    return lambda: twisted_smc(**{**settings, "generator": torch.Generator(), **changes})


CALLS = {
    "guide of other shapes": (guided(lambda x, t: x), "guide must give a tensor of 2 values"),
    "guide of NaN": (guided(lambda x, t: x.sum(dim=1) * float("nan")), "gradient that is not finite at t = 2"),
    "guided too far": (lambda: GuidedDiffusion(CHAIN, len, strength=1e300), "strength must be a number"),
    "too many trajectories": (lambda: CHAIN.draw_noise(2**31 - 1, torch.Generator()), "needs .* GiB, more than there"),
    "a path of None": (lambda: sample_path(None, torch.zeros(1)), "chain must be a DiffusionModel"),
    "a path of no noise": (lambda: sample_path(CHAIN, torch.zeros(1, 2)), "noise must be a tensor of shape"),
    "the last of no noise": (lambda: last_state(CHAIN, None), "noise must be a tensor of shape"),
    "a rollout of no chain": (lambda: rollout(None, CHAIN, torch.zeros(1)), "a chain must be a DiffusionModel"),
    "a rollout of no noise": (lambda: rollout(CHAIN, CHAIN, None), "noise must be a tensor of shape"),
    "a rollout of half a step": (
        lambda: rollout(CHAIN, CHAIN, CHAIN.draw_noise(2, torch.Generator()), n_grad_steps="2"),
        "n_grad_steps must be a whole number",
    ),
    "particles of alpha 0": (particles(alpha=0), "alpha must be a number above 0"),
    "no particles": (particles(n_particles=0), "n_particles must be a whole number of at least 1"),
    "particles of no chain": (particles(pretrained=None), "pretrained must be a DiffusionModel"),
    "particles without a reward": (particles(reward=None), "reward callable"),
    "particles without randomness": (particles(generator=None), "generator a torch.Generator"),
    "particles of a wide reward": (particles(reward=lambda x: x), "reward must give one number a design"),
    "particles of NaN": (particles(reward=lambda x: x.sum(dim=1) * float("nan")), "reward must give .* no NaN"),
    "no bins": (lambda: bin_weights(Y, n_bins=0), "n_bins must be a whole number of at least 1"),
    "a quantile of 5": (lambda: bin_weights(Y, temperature_quantile=5), "temperature_quantile must be a number"),
    "negative weights": (lambda: bin_weights(Y, max_weight=-1), "max_weight must be a number above 0"),
    "guidance by a word": (
        lambda: PipelineDiffusion(base="there", guidance_scale="x"),
        "guidance_scale must be a numb",
    ),
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


@pytest.mark.parametrize("text", ["[]", "\0", "{}", "[" * 5000], ids=["a list", "a zero", "nothing", "deep"])
def test_descriptions_of_models_that_are_none(tmp_path, text):
    for name in ("config.json", "model_index.json"):
        (tmp_path / name).write_text(text)
    for call in (CLIPFeatures, lambda folder: PipelineDiffusion(base=folder)):
        with pytest.raises(BraidkitError, match="is none of a CLIP model|is damaged"):
            call(tmp_path)


def test_exact_answers_of_other_shapes():
    for std in (torch.ones(3), torch.ones(2, 2, 2)):
        with pytest.raises(ValueError, match="std must have shape"):
            LinearGaussianChain(torch.ones(2), std)
    for start in (None, [0.0]):
        with pytest.raises(ValueError, match="start must be a tensor"):
            AngleChain(None, torch.ones(1, 1), start, torch.ones(1))


def test_a_default_device_of_the_user_changes_nothing():
    plain = GPBonusReward(max_iter=2, random_state=0).fit(ROWS, Y).predict(ROWS)
    with torch.device("meta"):
        assert (GPBonusReward(max_iter=2, random_state=0).fit(ROWS, Y).predict(ROWS) == plain).all()
