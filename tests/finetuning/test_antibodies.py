"""A published language model of antibodies as the pretrained chain, end to end on measured variants of trastuzumab."""

import pandas as pd
import pytest

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, SequenceSpace
from braidkit.networks import shared_parts

pytestmark = [pytest.mark.slow, pytest.mark.data]


def test_trastuzumab_variants_are_designed_on_antiberty(data_dir, models_dir):
    """The framework and most of the CDRs held, three positions of CDR3 free; trajectory balance moves the adapter."""
    table = pd.read_csv(data_dir / "antibody_her2_spr.csv.gz").dropna(subset="minus_log10_kd")
    table = table[(table.cdr3.str.len() == 13) & (table.sequence.str.len() == 120)]
    X, y = table.sequence.tolist()[:80], table.minus_log10_kd.to_numpy()[:80]
    start = X[0].index(table.cdr3.iloc[0])
    free = [start + 3, start + 4, start + 5]
    template = "".join("_" if i in free else letter for i, letter in enumerate(X[0]))
    space = SequenceSpace("protein", template=template)
    chain = MaskedDiffusion.from_masked_lm(models_dir / "antiberty", space)
    assert chain.n_steps == 3
    # Few masked letters are predicted better than uniform ones, which have log 20 = 3.0 nats.
    known = MaskedDiffusion.from_masked_lm(models_dir / "antiberty", SequenceSpace("protein", 120))
    assert known.backbone is chain.backbone
    assert known.cross_entropy(X[:4], 0.05) < 1.5
    (shared,) = shared_parts(chain)
    before = {name: float(value.double().sum()) for name, value in shared.module.named_parameters()}
    settings = {"solver": "trajectory_balance", "max_iter": 2, "batch_size": 4, "learning_rate": 5e-3}
    finetuner = ConservativeDiffusionFinetuner(chain, alpha=0.1, random_state=0, **settings).fit(X, y)
    assert before == {name: float(value.double().sum()) for name, value in shared.module.named_parameters()}
    # Whichever checkpoint is kept, the adapter has moved.
    assert finetuner.history_["kl"][0] == 0 < finetuner.history_["kl"][-1]
    designs = finetuner.sample(6, random_state=0)
    held = [i for i in range(120) if i not in free]
    assert all([row[i] for i in held] == [template[i] for i in held] for row in designs)
