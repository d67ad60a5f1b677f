"""What each of several processes does in test_processes.py, which compares it with a process alone."""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion, persistence
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.processes import Processes


def data():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (60, 6))]
    return X, np.array([row.count("G") for row in X]) + 0.1 * rng.normal(size=60)


def vectors():
    X = np.random.default_rng(0).normal(size=(60, 2))
    return X, X.sum(axis=1)


def finetuner(**changes):
    """A short run; its chain is the same in every process."""
    chain = SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=4).fit(data()[0], max_iter=10, random_state=0)
    settings = {"alpha": 0.1, "max_iter": 4, "batch_size": 8, "precision": "float32", "device": "cpu"}
    settings |= {"reward": GPBonusReward(max_iter=5), "random_state": 0}
    return ConservativeDiffusionFinetuner(**({"pretrained": chain} | settings | changes))


def figures(estimator):
    """What a run came to, as JSON holds it."""
    weights = torch.cat([p.detach().flatten() for p in estimator.model_.network.parameters()])
    return {"history": estimator.history_, "best_iter": estimator.best_iter_, "weights": weights.tolist()}


def message(call):
    try:
        call()
    except (InvalidParameterError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"


def main(folder):
    processes = Processes()
    with mock.patch.object(persistence, "save", wraps=persistence.save) as save:
        first = finetuner(checkpoint_dir=folder / "run", max_iter=2, verbose=1).fit(*data())
        resumed = finetuner(checkpoint_dir=folder / "run", verbose=1).fit(*data())
    result = {
        "count": processes.count,
        "saves": save.call_count,
        "updates": [first.n_iter_, resumed.n_iter_],
        "policy gradient": message(lambda: finetuner(solver="policy_gradient").fit(*data())),
        "odd batch": message(lambda: finetuner(batch_size=7).fit(*data())),
        "no seed": message(lambda: finetuner(random_state=None).fit(*data())),
        "other data": message(lambda: processes.check_same(X=torch.ones(2), y=torch.tensor(processes.rank))),
        "error": message(lambda: processes.once(lambda: 1 // 0)),
        "adjoint matching": figures(finetuner(pretrained=None, solver="adjoint_matching").fit(*vectors())),
        "trained": figures(finetuner(pretrained=None, max_iter=1, batch_size=2).fit(*data())),
    }
    file = folder / f"{os.environ.get('RANK', 'alone')}.json"
    file.write_text(json.dumps(result | {"resumed": figures(resumed)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
