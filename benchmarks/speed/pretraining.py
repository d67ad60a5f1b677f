"""Time of a pretraining step against one pass of the network forward and back to its weights.

    python benchmarks/speed/pretraining.py --network paper --batch-size 256

The step is that of `SimplexDiffusion.fit`: a batch of designs, their noising, the loss, its gradient and Adam. Columns
are medians over rounds in which both take their turn.
"""

from __future__ import annotations

from statistics import median

import torch
from harness import BarePasses, in_turn, options, report

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.training import SupervisedStep


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    n, rows = arguments.batch_size, []
    for head in ("letters", "score"):
        space = SequenceSpace("DNA", arguments.length)
        chain = SimplexDiffusion(space, head=head, network=arguments.network)
        torch.manual_seed(0)
        chain.network = network = chain._build_network()
        generator = torch.Generator().manual_seed(0)
        x = space.encode(space.decode(torch.rand(4 * n, *space.shape), "strings"))
        step = SupervisedStep(
            chain,
            lambda numbers, chain=chain, x=x, generator=generator: chain._loss(x[numbers], generator),
            len(x),
            batch_size=n,
            max_iter=arguments.repeats + 1,
            learning_rate=1e-4,
            generator=torch.Generator().manual_seed(0),
        )
        # A time for each row, as the step has it.
        passes = BarePasses(network, x[:n], torch.rand(n))
        updates = iter(range(arguments.repeats + 1))
        calls = {
            "step": lambda step=step, updates=updates: step.update(next(updates)),
            "bare": passes.all_gradients,
        }
        times = in_turn(calls, arguments.repeats)
        rows.append(
            {
                "head": head,
                "seconds": median(times["step"]),
                "ratio to bare": median(own / bare for own, bare in zip(times["step"], times["bare"], strict=True)),
            }
        )
    report(arguments, rows)


if __name__ == "__main__":
    main()
