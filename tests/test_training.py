"""The training loop: order, stops, best weights, interruption."""

import pytest
import torch
from torch import nn

from braidkit.training import SupervisedStep, batches, fit_supervised, interrupts_propagate, train, warmup_cosine


class Counter:
    def __init__(self, interrupt_at=None):
        self.seen = []
        self.interrupt_at = interrupt_at

    def update(self, i):
        if i == self.interrupt_at:
            raise KeyboardInterrupt
        self.seen.append(i)
        return {"loss": 1.0}


def test_updates_run_in_order_from_start_to_max_iter():
    step = Counter()
    assert train(step, 5, start=2) == 5
    assert step.seen == [2, 3, 4]


def test_a_callback_stops_the_run_and_the_others_still_see_the_update():
    seen = []
    step = Counter()
    n_iter = train(step, 10, callbacks=[lambda n, _: n == 3, lambda n, _: seen.append(n)])
    assert n_iter == 3 and seen == [1, 2, 3]


def test_ctrl_c_ends_the_run_without_an_error(capsys):
    assert train(Counter(interrupt_at=4), 10, verbose=1, description="fitting") == 4
    assert "fitting: stopped by the user after 4 of 10 updates" in capsys.readouterr().out


def test_ctrl_c_goes_on_to_the_caller_where_a_stage_must_be_whole():
    with pytest.raises(KeyboardInterrupt), interrupts_propagate():
        train(Counter(interrupt_at=4), 10)
    assert train(Counter(interrupt_at=4), 10) == 4


def test_training_prints_only_if_verbose(capsys):
    train(Counter(), 20)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_each_pass_over_the_data_sees_every_row_once():
    stream = batches(10, 4, torch.Generator().manual_seed(0))
    passes = [torch.cat([next(stream) for _ in range(3)]).tolist() for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1]


def test_the_learning_rate_warms_up_and_ends_at_zero():
    rates = [warmup_cosine(i, 1000) for i in range(1000)]
    assert rates[0] < 0.03 and max(rates) == 1.0 and rates[-1] < 1e-4
    assert all(a >= b for a, b in zip(rates[50:], rates[51:], strict=False))


def regression():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
    return module, x, y, lambda rows: (module(x[rows])[:, 0] - y[rows]).square().mean()


def test_a_linear_regression_is_solved_and_the_global_generator_left_alone():
    module, x, y, loss = regression()
    before = torch.random.get_rng_state()
    n_iter, _ = fit_supervised(
        module, loss, 64, max_iter=400, batch_size=16, learning_rate=0.05, generator=torch.Generator().manual_seed(1)
    )
    assert n_iter == 400 and not module.training
    assert (module(x)[:, 0] - y).square().mean() < 1e-4
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_held_out_weights_are_kept_and_a_hopeless_run_stops():
    module, _, _, loss = regression()
    values = iter([3.0, 1.0] + [2.0] * 18)
    weights = []

    def validation_loss():
        weights.append(module.weight.detach().clone())
        return next(values)

    n_iter, curve = fit_supervised(
        module,
        loss,
        64,
        max_iter=100,
        batch_size=16,
        learning_rate=0.05,
        generator=torch.Generator().manual_seed(1),
        validation_loss=validation_loss,
        patience=4,
    )
    assert n_iter == 30 and curve == [3.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert torch.equal(module.weight, weights[1]) and not torch.equal(weights[1], weights[5])


def test_gradients_are_clipped():
    module, x, _, _ = regression()
    step = SupervisedStep(
        module,
        lambda rows: 1e6 * module(x[rows]).sum(),
        64,
        batch_size=8,
        max_iter=10,
        learning_rate=0.1,
        generator=torch.Generator().manual_seed(0),
    )
    step.update(0)
    norm = torch.stack([p.grad.norm() for p in module.parameters()]).norm()
    assert norm == pytest.approx(1.0, rel=1e-4)
