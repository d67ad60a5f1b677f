"""Time of a pretraining step against one pass of the network forward and back to its weights.

    python benchmarks/speed/pretraining.py --network paper --batch-size 256

The step is that of `SimplexDiffusion.fit`: a batch of designs, their noising, the loss, its gradient and Adam. "speed"
is the time of the same with the loss of ``naive.py``, which has the score alone, over ours. Columns are medians over
rounds in which all take their turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from harness import BarePasses, in_turn, options, report
from naive import NaiveChain
from torch import Tensor, nn

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.training import SupervisedStep


def step_of(
    module: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    x: Tensor,
    arguments: argparse.Namespace,
) -> Callable[[], object]:
    """A call that makes the next step of a module's training by a loss of points."""
    generator = torch.Generator().manual_seed(0)
    max_iter = arguments.repeats + 1
    step = SupervisedStep(
        module,
        lambda rows: loss(x[rows], generator),
        len(x),
        batch_size=arguments.batch_size,
        max_iter=max_iter,
        learning_rate=1e-4,
        generator=torch.Generator().manual_seed(0),
    )
    updates = iter(range(max_iter))
    return lambda: step.update(next(updates))


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    n = arguments.batch_size
    rows: list[dict[str, object]] = []
    for head in ("letters", "score"):
        space = SequenceSpace("DNA", arguments.length)
        chain = SimplexDiffusion(space, head=head, network=arguments.network)
        torch.manual_seed(0)
        chain.network = network = chain._build_network()
        x = space.encode(space.decode(torch.rand(4 * n, *space.shape), "strings"))
        # A time for each row, as the step has it.
        passes = BarePasses(network, x[:n], torch.rand(n))
        calls = {"step": step_of(chain, chain._loss, x, arguments), "bare": passes.all_gradients}
        if head == "score":
            naive = NaiveChain(chain)
            calls["naive"] = step_of(naive.network, naive.loss, x, arguments)
        times = in_turn(calls, arguments.repeats)
        row: dict[str, object] = {
            "head": head,
            "seconds": median(times["step"]),
            "ratio to bare": median(own / bare for own, bare in zip(times["step"], times["bare"], strict=True)),
        }
        if "naive" in times:
            row["speed"] = median(theirs / own for theirs, own in zip(times["naive"], times["step"], strict=True))
        rows.append(row)
    report(arguments, rows)


if __name__ == "__main__":
    main()
