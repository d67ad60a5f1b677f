"""Arguments that are no numbers, seeds, paths or points, wherever one is taken: refused by name, before any work.

Each kind of argument has the odd values that are none of it; a row of a table says where such an argument is.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from braidkit import (
    ConservativeDiffusionFinetuner,
    GaussianDiffusion,
    GPBonusReward,
    ImageSpace,
    MaskedDiffusion,
    SequenceSpace,
    SimplexDiffusion,
    TabularDiffusion,
    VectorSpace,
    fetch_utr,
    load_ddsm_checkpoint,
    make_utr,
    offline_split,
    read_table,
)
from braidkit.baselines import bin_weights
from braidkit.datasets import make_ehrlich, read_images
from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, GuidedDiffusion, MarkovLaw
from braidkit.evaluation import (
    AblationDisplay,
    CalibrationReport,
    RewardDistributionDisplay,
    TrainingCurveDisplay,
    compare,
    diversity,
    kmer_counts,
    log_likelihood,
    t_interval,
    write_designs,
)
from braidkit.exceptions import BraidkitError, InvalidDesignError, InvalidParameterError
from braidkit.finetuning import sample_with_kl
from braidkit.oracles import AestheticOracle, EhrlichLandscape, EnformerOracle, Optimus5Prime, PromptCheck, UTRLandscape
from braidkit.rewards import BlackBoxReward, CLIPFeatures, ObjectiveReward, lower_coverage
from braidkit.spaces import join_groups, space_from_config
from braidkit.theory import (
    FiniteChain,
    LinearGaussianChain,
    Quadratic,
    concentrability,
    corollary_bound,
    effective_dimension,
    expectation,
    kl_divergence,
    letters_optimum,
    linear_penalty,
    masked_soft_values,
    masked_states,
    regret_bound,
    relative_condition_number,
    self_normalised_beta,
    sequence_law,
    soft_value,
    tilted,
)
from tests.worlds import untrained

DNA = SequenceSpace("DNA", 4)
ROWS = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (20, 4))]
Y = np.arange(20.0)
CHAIN = untrained(SimplexDiffusion(DNA, n_steps=2))
VECTOR_CHAIN = untrained(GaussianDiffusion(VectorSpace(2), n_steps=2))


@pytest.fixture(scope="module")
def reward():
    return GPBonusReward(max_iter=1, random_state=0).fit(ROWS, Y)


COUNTS = {
    "SequenceSpace": lambda n: SequenceSpace("DNA", n),
    "VectorSpace": VectorSpace,
    "ImageSpace": lambda n: ImageSpace(n, 2),
    "SimplexDiffusion n_steps": lambda n: SimplexDiffusion(DNA, n_steps=n),
    "TabularDiffusion n_steps": lambda n: TabularDiffusion(DNA, n_steps=n),
    "GaussianDiffusion n_hidden": lambda n: GaussianDiffusion(VectorSpace(2), n_hidden=n),
    "MaskedDiffusion n_hidden": lambda n: MaskedDiffusion(DNA, n_hidden=n),
    "chain sample": lambda n: CHAIN.sample(n),
    "chain batch_size": lambda n: CHAIN.sample(2, batch_size=n),
    "with_steps": lambda n: CHAIN.with_steps("2" if n is None else n),
    "MarkovLaw": lambda n: MarkovLaw(n, 4),
    "MarkovLaw order": lambda n: MarkovLaw(4, 4, n),
    "sample_with_kl": lambda n: sample_with_kl(CHAIN, CHAIN, CHAIN.draw_noise(2, torch.Generator()), n),
    "landscape length": lambda n: UTRLandscape(n),
    "landscape sample": lambda n: UTRLandscape().sample(n),
    "Ehrlich length": lambda n: EhrlichLandscape(length=n),
    "Ehrlich sample": lambda n: EhrlichLandscape().sample(n),
    "make_utr": lambda n: make_utr(n),
    "make_ehrlich": lambda n: make_ehrlich(n),
    "kmer_counts": lambda n: kmer_counts(ROWS, n),
    "diversity": lambda n: diversity(ROWS, n_samples=n),
    "GPBonusReward": lambda n: GPBonusReward(n_inducing=n, lam=1.0).fit(ROWS, Y),
    "Enformer verbose": lambda n: EnformerOracle(verbose=-1 if n == 0 else n).fit(ROWS, Y),
}


@pytest.mark.parametrize("call", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("value", [0, -1, 2.5, float("nan"), float("inf"), "3", True, [1], 10**30], ids=repr)
def test_counts(call, value):
    with pytest.raises(InvalidParameterError, match="must be a whole number of at least"):
        call(value)


NUMBERS = {
    "smoothing": lambda x: TabularDiffusion(DNA, smoothing=x),
    "max_time": lambda x: SimplexDiffusion(DNA, max_time=x),
    "min_time": lambda x: SimplexDiffusion(DNA, min_time=x),
    "strength": lambda x: GuidedDiffusion(CHAIN, lambda points, time: points.sum(), strength=x),
    "make_utr noise": lambda x: make_utr(3, noise=x),
    "make_ehrlich noise": lambda x: make_ehrlich(3, noise=x),
    "oracle_fraction": lambda x: offline_split(ROWS, Y, oracle_fraction=x),
    "quantile": lambda x: offline_split(ROWS, Y, quantile=x),
    "confidence": lambda x: t_interval([1, 2], x),
}


@pytest.mark.parametrize("call", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", True, [1.0]], ids=repr)
def test_numbers(call, value):
    with pytest.raises(InvalidParameterError, match="must be a number"):
        call(value)


SEEDS = {
    "reward": lambda seed: GPBonusReward(max_iter=1, random_state=seed).fit(ROWS, Y),
    "chain fit": lambda seed: SimplexDiffusion(DNA).fit(ROWS, random_state=seed),
    "listed chain": lambda seed: EnumeratedDiffusion(DNA).fit(ROWS, random_state=seed),
    "chain sample": lambda seed: CHAIN.sample(1, seed),
    "split": lambda seed: offline_split(ROWS, Y, random_state=seed),
    "landscape": lambda seed: UTRLandscape().sample(1, seed),
}


@pytest.mark.parametrize("call", SEEDS.values(), ids=SEEDS)
@pytest.mark.parametrize("seed", ["x", -1, 2.5, float("nan"), 2**40, True, np.random.default_rng(0)], ids=str)
def test_seeds(call, seed):
    with pytest.raises(InvalidParameterError, match="random_state must be None, a whole number"):
        call(seed)


PATHS = {
    "save_pretrained": CHAIN.save_pretrained,
    "from_pretrained": DiffusionModel.from_pretrained,
    "load_ddsm_checkpoint": lambda path: load_ddsm_checkpoint(path, space=DNA),
    "read_table": lambda path: read_table(path, sequence="seq", target="y"),
    "EnformerOracle": EnformerOracle.load,
    "Optimus5Prime": Optimus5Prime.from_npz,
    "PromptCheck": PromptCheck.from_pretrained,
    "CLIPFeatures": CLIPFeatures,
    "write_designs": lambda path: write_designs(pd.DataFrame(columns=["id", "sequence", "mean", "lower"]), path),
    "values of a table": lambda path: read_table(
        "there", sequence="seq", target="y", values=5 if path is None else path
    ),
    "saved estimator": ConservativeDiffusionFinetuner.load,
    "fetch_utr": lambda path: fetch_utr(5 if path is None else path, download_if_missing=False),
}


@pytest.mark.parametrize("call", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("path", [None, 5, "", b"there"], ids=repr)
def test_paths(call, path):
    with pytest.raises(InvalidParameterError, match="must be a path"):
        call(path)


@pytest.mark.parametrize("path", ["/proc/there", "/dev/null/there"])
def test_folders_that_cannot_be_made(path):
    with pytest.raises(BraidkitError, match="there cannot be made .*; choose another directory"):
        CHAIN.save_pretrained(path)


POINTS = [None, 5, "x", np.zeros((1, 4, 4)), torch.zeros(4, 4), torch.zeros(1, 4, 3)]


@pytest.mark.parametrize("points", POINTS, ids=range(len(POINTS)))
def test_points(reward, points):
    for call in (DNA.decode, reward.lower, MaskedDiffusion(DNA).letter_log_probs):
        with pytest.raises(InvalidDesignError, match="points must (be a tensor|have shape)"):
            call(points)
    with pytest.raises(InvalidParameterError, match="noise must be a tensor of shape"):
        CHAIN.sample_points(points)


NAN = torch.full((1, 4, 4), float("nan"))
REST = {
    "points of NaN": (lambda: DNA.decode(NAN), "points must be finite; row 0 is not"),
    "loc of letters": (lambda: VectorSpace(2, loc=["a", "b"]), "loc must hold numbers"),
    "scale of complex numbers": (lambda: VectorSpace(1, scale=[1j]), "scale must hold numbers"),
    "template of letters": (lambda: VectorSpace(2, template="ab"), "template must hold numbers"),
    "template of one number": (lambda: VectorSpace(2, template=5), "template must have n_features = 2 entries"),
    "config of no space": (lambda: space_from_config({"space": "dna"}), "config must be what to_config"),
    "groups of None": (lambda: join_groups(ROWS, ["a", None] * 10), "groups: row 1 is missing"),
    "groups of dictionaries": (lambda: join_groups(ROWS, [{}] * 20), "groups must hold one number or string a row"),
    "masked entries": (
        lambda: DNA.encode(np.ma.array([[0, 1, 2, 3]], mask=[[True, False, False, False]])),
        "X has masked entries",
    ),
    "no generator": (lambda: CHAIN.draw_noise(2, None), "generator must be a torch.Generator"),
    "noise of another chain": (
        lambda: sample_with_kl(VECTOR_CHAIN, CHAIN, VECTOR_CHAIN.draw_noise(2, torch.Generator())),
        "noise must be a tensor of shape",
    ),
    "no chain": (lambda: sample_with_kl(None, CHAIN, torch.zeros(1)), "a chain must be a DiffusionModel"),
    "guided by nothing": (lambda: GuidedDiffusion(CHAIN, 5), "guide must be callable"),
    "guide without a gradient": (
        lambda: GuidedDiffusion(CHAIN, lambda x, time: torch.zeros(len(x))).sample(1),
        "whose gradient is known",
    ),
    "a guided number": (lambda: GuidedDiffusion(5, lambda x, time: x), "chain must be a DiffusionModel"),
    "scales of other times": (
        lambda: SimplexDiffusion(DNA, head="score", score_scale=([2, 1], [1, 1])),
        "score_scale must be two lists of one length: ascending times",
    ),
    "tokens out of range": (lambda: MarkovLaw.fit(np.full((5, 3), 9), 4), "tokens must be whole numbers from 0 to 3"),
    "negative weights": (lambda: MarkovLaw.fit(np.eye(3, dtype=int), 4, weights=[-1, 1, 1]), "weights must be 3 num"),
    "constant weights": (lambda: bin_weights([1.0, 1.0]), "y must hold measurements that differ"),
    "coverage by nothing": (lambda: lower_coverage(5, ROWS, Y), "reward must be a fitted reward"),
    "a class of regressors": (lambda: BlackBoxReward(GPBonusReward).fit(ROWS, Y), "regressor must be a regressor"),
    "letters twice": (lambda: kmer_counts(ROWS, letters="AACGT"), "letters must be a text of different letters"),
    "values of words": (lambda: RewardDistributionDisplay.from_values({"a": "x"}), "'a' must have numbers"),
    "values of None": (lambda: AblationDisplay.from_values(None), "values must be a dictionary of lists"),
    "curves of a number": (lambda: TrainingCurveDisplay.from_estimator(5), "estimator must be a fitted estimator"),
    "calibration of None": (lambda: CalibrationReport.from_reward(None, ROWS, Y), "reward must be a fitted reward"),
    "calibration of a number": (lambda: CalibrationReport.from_estimator(5, ROWS, Y), "must be a fitted estimator"),
    "no table of designs": (lambda: write_designs(5, "there"), "table must be a table of design_table"),
    "no split": (lambda: compare({"a": BlackBoxReward(None)}, None, oracles={}), "split must be what offline_split"),
    "no pictures": (lambda: read_images("picture.png"), "files must be a list of paths"),
    "no embedding": (lambda: AestheticOracle(5, [1.0], 0.0), "features must be CLIPFeatures"),
    "targets of numbers": (
        lambda: read_table("there", sequence="seq", target=[5]),
        "target must be the name of a column, or a list of names; got .5.",
    ),
    "weights of a number": (
        lambda: BlackBoxReward(Ridge()).fit(ROWS, Y, sample_weight=5),
        "sample_weight",
    ),
    "an objective of a number": (lambda: ObjectiveReward("y", 5).fit(ROWS, Y), "reward must be a regressor"),
    "likelihood of a number": (lambda: log_likelihood(5, ROWS), "model must be a DiffusionModel"),
    "likelihood by a word": (lambda: log_likelihood(CHAIN, ROWS, random_state="x"), "random_state must be a whole"),
    "no check": (lambda: PromptCheck(5), "shows must be callable"),
    "no weights": (lambda: Optimus5Prime(None), "must be arrays by name"),
}


@pytest.mark.parametrize(("call", "words"), REST.values(), ids=REST)
def test_others(call, words):
    with pytest.raises(BraidkitError, match=words):
        call()


LAW = torch.tensor([0.5, 0.3, 0.2]).log()
TABLE = torch.full((9, 2, 2), 0.5).log()
EYE = torch.eye(2)
GAUSSIAN = LinearGaussianChain(torch.ones(2), 1.0)
ALPHAS = {
    "tilted": lambda a: tilted(LAW, torch.zeros(3), a),
    "soft_value": lambda a: soft_value(LAW, torch.zeros(3), LAW, -1 if a == 0 else a),
    "letters_optimum": lambda a: letters_optimum(LAW.exp(), torch.zeros(3), a),
    "masked_soft_values": lambda a: masked_soft_values(TABLE, torch.zeros(4), a),
    "gaussian optimum": lambda a: GAUSSIAN.optimum(Quadratic(1.0), a),
    "linear_penalty lam": lambda a: linear_penalty(EYE, EYE, a, 1.0),
    "effective_dimension lam": lambda a: effective_dimension(EYE, a, 3),
    "effective_dimension n": lambda a: effective_dimension(EYE, 1.0, a),
    "corollary_bound n": lambda a: corollary_bound(EYE, EYE, 1.0, a, 1.0),
    "self_normalised_beta": lambda a: self_normalised_beta(EYE, 1.0, 1.0, 1.0, a),
    "masked_states": lambda a: masked_states(a, 2),
}


@pytest.mark.parametrize("call", ALPHAS.values(), ids=ALPHAS)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "x", None, True], ids=repr)
def test_numbers_of_the_exact_answers(call, value):
    with pytest.raises(ValueError, match="must be .*>"):
        call(value)


LAWS = {
    "FiniteChain": lambda law: FiniteChain(law, [LAW.expand(3, 3)]),
    "kl_divergence p": lambda law: kl_divergence(law, LAW),
    "kl_divergence q": lambda law: kl_divergence(LAW, law),
    "concentrability": lambda law: concentrability(LAW, law),
}
ODD_LAWS = [None, 5, "x", [0.0, 0.0, 0.0], torch.zeros(3), torch.tensor([float("nan"), 0, 0]), torch.zeros(0)]


@pytest.mark.parametrize("call", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("law", ODD_LAWS, ids=range(len(ODD_LAWS)))
def test_laws_of_the_exact_answers(call, law):
    with pytest.raises(ValueError, match="must (be a tensor|hold|have shape)"):
        call(law)


TENSORS = {
    "tilted": lambda x: tilted(LAW, x, 1.0),
    "expectation": lambda x: expectation(LAW, x),
    "regret_bound": lambda x: regret_bound(LAW, LAW, x),
    "letters_optimum": lambda x: letters_optimum(LAW.exp(), x, 1.0),
    "relative_condition_number": lambda x: relative_condition_number(x, EYE),
    "sequence_law": sequence_law,
}


@pytest.mark.parametrize("call", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("x", [None, 5, "x", torch.zeros(2), torch.tensor([float("nan"), 0, 0])], ids=range(5))
def test_tensors_of_the_exact_answers(call, x):
    with pytest.raises(ValueError, match="must (be a tensor|hold|have shape|have log-prob)"):
        call(x)


def test_moments_of_the_exact_answers():
    for moment in (-EYE, torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.full((2, 2), float("nan"))):
        with pytest.raises(ValueError, match="pi_moment must"):
            relative_condition_number(moment, EYE)
    with pytest.raises(ValueError, match="penalty must be at least 0"):
        regret_bound(LAW, LAW, -torch.ones(3))
    with pytest.raises(ValueError, match="held must be 2 letters below 2"):
        masked_states(2, 2, held=[5, -1])
