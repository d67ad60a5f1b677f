"""Time of sampling designs against the passes of the network that it takes.

    python benchmarks/speed/sampling.py --network paper --batch-size 125 --steps 10

From the noise of the first state to decoded designs, with the policies' network in float32 and in bfloat16. The passes
are counted, and the time of as many bare ones (that of the readout in float32) is what "ratio to bare" refers to;
"speed" is the time of ``naive.py``, which has the score alone, over ours. Columns are medians over rounds in which all
take their turn. With ``--device cuda`` the bare passes are CUDA graphs, and there is no naive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from harness import BarePasses, CountPasses, in_turn, options, report
from naive import NaiveChain

from braidkit import SequenceSpace, SimplexDiffusion

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    space = SequenceSpace("DNA", arguments.length)
    points = torch.rand(arguments.batch_size, *space.shape, device=arguments.device).softmax(dim=-1)
    rows: list[dict[str, object]] = []
    for head in ("letters", "score"):
        chain = SimplexDiffusion(space, n_steps=arguments.steps, head=head, network=arguments.network)
        torch.manual_seed(0)
        chain.network = network = chain._build_network()
        chain.to(arguments.device).freeze()
        counter = CountPasses(network, batch_size=arguments.batch_size)
        chain.sample(arguments.batch_size, random_state=0)
        counter.remove()
        n_passes = counter.counts["forward"]
        calls: dict[str, Callable[[], object]] = {}
        for precision in PRECISIONS:
            calls[precision] = partial(chain.sample, arguments.batch_size, random_state=0, precision=precision)
            bare_passes = BarePasses(network, points, bfloat16=precision == "bfloat16")
            calls[f"bare {precision}"] = bare_passes.forward if arguments.device == "cpu" else bare_passes.graphed()
        if head == "score" and arguments.device == "cpu":
            naive = NaiveChain(chain)
            noise = chain.draw_noise(arguments.batch_size, torch.Generator().manual_seed(0))
            error = naive.sample_points(noise) - chain.sample_points(noise)
            print(f"largest difference of naive from ours in a point: {error.abs().max():.1e}")
            calls["naive"] = partial(naive.sample_points, noise)
        times = in_turn(calls, arguments.repeats)
        for precision in PRECISIONS:
            own, steps, readout = times[precision], times[f"bare {precision}"], times["bare float32"]
            n_readouts = n_passes - arguments.steps
            bare = [arguments.steps * one + n_readouts * last for one, last in zip(steps, readout, strict=True)]
            rows.append(
                {
                    "head": head,
                    "precision": precision,
                    "seconds": median(own),
                    "ms a step": 1000 * median(own) / arguments.steps,
                    "forward": n_passes,
                    "ratio to bare": median(ours / passes for ours, passes in zip(own, bare, strict=True)),
                }
            )
            if "naive" in times:
                rows[-1]["speed"] = median(theirs / ours for theirs, ours in zip(times["naive"], own, strict=True))
    report(arguments, rows, "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
