"""A grid search whose fits run on a Dask cluster, by joblib's backend."""

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV
from torch import nn

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward


@pytest.mark.slow
def test_a_grid_search_on_two_dask_workers_is_that_of_one_process():
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = X.sum(axis=1)
    finetuner = ConservativeDiffusionFinetuner(
        reward=GPBonusReward(nn.Flatten()), max_iter=2, batch_size=8, device="cpu", random_state=0
    )
    grid = {"reward__c": [0.1, 1.0]}
    alone = GridSearchCV(finetuner, grid, cv=2).fit(X, y)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        shared = GridSearchCV(finetuner, grid, cv=2, n_jobs=2).fit(X, y)
        workers = client.run(lambda: "braidkit" in __import__("sys").modules)
    assert len(workers) == 2 and any(workers.values())
    np.testing.assert_allclose(
        shared.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=0, atol=1e-4
    )
    assert shared.best_params_ == alone.best_params_
