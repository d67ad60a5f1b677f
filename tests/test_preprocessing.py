"""SequenceEncoder and DesignPipeline inside scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from braidkit import ConservativeDiffusionFinetuner, DesignPipeline, GPBonusReward, SequenceEncoder, SequenceSpace
from braidkit.exceptions import InvalidDesignError

X = ["ACG", "TTT", "GCA", "ACT"]


def test_sequences_become_flat_one_hot_rows_and_come_back():
    encoder = SequenceEncoder().fit(X)
    flat = encoder.transform(X)
    assert np.array_equal(flat, SequenceSpace("DNA", 3).encode(X).reshape(4, 12).numpy())
    assert encoder.inverse_transform(flat) == X
    assert encoder.get_feature_names_out()[[0, 5, 11]].tolist() == ["1A", "2C", "3T"]


def test_an_alphabet_that_is_given_is_used():
    assert SequenceEncoder("protein").fit(X).transform(X).shape == (4, 60)
    with pytest.raises(InvalidDesignError, match="row 1: 'T' at position 1 is not in the alphabet ACGU"):
        SequenceEncoder("RNA").fit(X)


def test_new_rows_are_checked():
    encoder = SequenceEncoder().fit(X)
    with pytest.raises(InvalidDesignError, match="row 0 has 2 letters, but the space has length 3"):
        encoder.transform(["AC"])


def test_sequence_encoder_feeds_scikit_learn_models():
    model = make_pipeline(SequenceEncoder(), Ridge(alpha=1e-6)).fit(X, [1.0, 0.0, 2.0, 1.0])
    assert model.predict(["GCA"])[0] == pytest.approx(2.0, abs=1e-3)


def test_a_pipeline_forwards_the_lower_bound_and_only_what_its_last_step_has():
    rng = np.random.default_rng(0)
    x = 5 + rng.normal(size=(100, 3))
    pipeline = DesignPipeline([("scale", StandardScaler()), ("reward", GPBonusReward(random_state=0))])
    pipeline.fit(x, x.sum(axis=1))
    scaled = pipeline.named_steps["scale"].transform(x)
    assert np.allclose(pipeline.predict_lower(x), pipeline.named_steps["reward"].predict_lower(scaled))
    assert not hasattr(pipeline, "sample")


def test_a_finetuner_behind_the_encoder_gives_sequences():
    rows = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), size=(60, 3))]
    finetuner = ConservativeDiffusionFinetuner(reward=GPBonusReward(max_iter=5), max_iter=2, random_state=0)
    pipeline = DesignPipeline([("encode", SequenceEncoder()), ("design", finetuner)])
    designs = pipeline.fit(rows, [row.count("A") for row in rows]).sample(20, random_state=0)
    assert all(len(design) == 3 and set(design) <= set("ACGT") for design in designs) and len(set(designs)) > 1


def test_rows_that_are_no_rows_of_the_encoder_are_refused():
    encoder = SequenceEncoder().fit(X)
    for rows in (np.zeros((2, 5)), np.full((1, 12), np.nan)):
        with pytest.raises(InvalidDesignError, match="X must be finite rows of 12 numbers"):
            encoder.inverse_transform(rows)


def test_scikit_learn_s_checks_of_the_encoder():
    assert not [found for found in check_estimator(SequenceEncoder(), on_fail=None) if found["exception"]]


def test_scikit_learn_s_checks_fail_where_they_do_for_its_own_pipeline():
    """A pipeline replaces its steps by the fitted ones, and so changes a parameter."""

    def failures(kind):
        checks = check_estimator(kind([("scale", StandardScaler()), ("model", Ridge())]), on_fail=None, on_skip=None)
        return {found["check_name"] for found in checks if found["status"] == "failed"}

    assert (
        failures(DesignPipeline)
        == failures(Pipeline)
        <= {
            "check_dont_overwrite_parameters",
            "check_estimators_overwrite_params",
        }
    )
