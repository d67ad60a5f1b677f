"""The step formula against the schedulers of diffusers."""

import math

import pytest
import torch

from braidkit.diffusion.noise_levels import levels_of_scheduler
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError

diffusers = pytest.importorskip("diffusers")
SHAPE = (2, 1, 3, 3)


def chain_and_scheduler(scheduler, levels, n_steps, **options):
    """Where both come from the same start, with the same outputs of a network and the same noise."""
    g = torch.Generator().manual_seed(0)
    x = mine = torch.randn(SHAPE, generator=g)
    scheduler.set_timesteps(n_steps)
    outputs = [torch.randn(SHAPE, generator=g) for _ in range(n_steps)]
    for k, time in enumerate(scheduler.timesteps):
        t = n_steps - k
        assert levels.times[t] == float(time)
        law = levels.mean(*levels.predicted(outputs[k], mine, t), t), levels.std(t)
        state = torch.Generator().manual_seed(k)
        x = scheduler.step(outputs[k], time, x, generator=state, **options).prev_sample
        mine = law[0] + law[1] * torch.randn(SHAPE, generator=torch.Generator().manual_seed(k))
    return mine, x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [1.0, 0.3])
@pytest.mark.parametrize("clip", [False, True])
def test_steps_are_those_of_ddim(prediction, eta, clip):
    scheduler = diffusers.DDIMScheduler(
        prediction_type=prediction, clip_sample=clip, set_alpha_to_one=False, steps_offset=1
    )
    levels = levels_of_scheduler(scheduler, 50, eta)
    mine, theirs = chain_and_scheduler(scheduler, levels, 50, eta=eta)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
def test_steps_with_eta_1_are_those_of_ddpm(clip):
    scheduler = diffusers.DDPMScheduler(clip_sample=clip)
    levels = levels_of_scheduler(scheduler, 20, 1.0)
    mine, theirs = chain_and_scheduler(scheduler, levels, 20)
    assert levels.last_is_noiseless
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_means_are_those_of_flow_matching(shift):
    """Without noise the formula is Euler's step along the predicted velocity; with it, the first forgets its start."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    levels = levels_of_scheduler(scheduler, 10, 1e-7)
    mine, theirs = chain_and_scheduler(scheduler, levels, 10)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    noisy = levels_of_scheduler(scheduler, 10, 1.0)
    assert noisy.last_is_noiseless and noisy.std(10) == pytest.approx(noisy.noise[9])


def test_schedulers_of_flow_matching_shift_by_the_number_of_patches():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.5)
    noise = levels_of_scheduler(scheduler, 10, 1.0, (256 + 4096) // 2).noise
    scheduler.set_timesteps(10, mu=1.0)
    assert noise == pytest.approx(scheduler.sigmas.tolist()[::-1])


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_noisy_states_keep_the_marginals_of_the_steps(scheduler):
    """Noising to t, then the step at the true design and noise, gives the noising to t - 1."""
    levels = levels_of_scheduler(getattr(diffusers, scheduler)(), 10, 0.7)
    for t in range(1, 11):
        at, weight = levels.mean(torch.ones(()), torch.zeros(()), t), levels.mean(torch.zeros(()), torch.ones(()), t)
        assert float(at) == pytest.approx(levels.signal[t - 1])
        assert math.hypot(float(weight), levels.std(t)) == pytest.approx(levels.noise[t - 1], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "last"),
    [({"set_alpha_to_one": True}, True), ({"set_alpha_to_one": False}, True), ({"steps_offset": 1}, True)],
)
def test_a_last_step_without_noise_is_known(settings, last):
    assert levels_of_scheduler(diffusers.DDIMScheduler(**settings), 10, 1.0).last_is_noiseless == last
    noisy = diffusers.DDIMScheduler(set_alpha_to_one=False, steps_offset=1)
    assert not levels_of_scheduler(noisy, 10, 1.0).last_is_noiseless


@pytest.mark.parametrize("eta", [0.0, -1.0, 1.5, math.nan])
def test_steps_without_noise_are_refused(eta):
    with pytest.raises(InvalidParameterError, match="eta must be above 0 and at most 1.*infinite"):
        levels_of_scheduler(diffusers.DDIMScheduler(), 10, eta)


def test_schedulers_without_known_deviations_are_refused():
    with pytest.raises(IncompatibleModelError, match="FlowMatchHeunDiscreteScheduler has no stochastic step"):
        levels_of_scheduler(diffusers.FlowMatchHeunDiscreteScheduler(), 10, 1.0)
    with pytest.raises(IncompatibleModelError, match="no thresholding"):
        levels_of_scheduler(diffusers.DDIMScheduler(thresholding=True), 10, 1.0)
    with pytest.raises(InvalidParameterError, match="n_steps must be from 2 to 1000"):
        levels_of_scheduler(diffusers.DDIMScheduler(), 1001, 1.0)
