"""Time of sampling designs against the passes of the network that it takes.

    python benchmarks/speed/sampling.py --network paper --batch-size 125 --steps 10

From the noise of the first state to decoded designs. The passes are counted, and the time of as many bare ones is what
"ratio to bare" refers to; "speed" is the time of ``naive.py``, which has the score alone, over ours. Columns are
medians over rounds in which all take their turn.
"""

from __future__ import annotations

from statistics import median

import torch
from harness import BarePasses, CountPasses, in_turn, options, report
from naive import NaiveChain

from braidkit import SequenceSpace, SimplexDiffusion


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, object]] = []
    for head in ("letters", "score"):
        space = SequenceSpace("DNA", arguments.length)
        chain = SimplexDiffusion(space, n_steps=arguments.steps, head=head, network=arguments.network)
        torch.manual_seed(0)
        chain.network = network = chain._build_network()
        chain.freeze()
        counter = CountPasses(network, batch_size=arguments.batch_size)
        chain.sample(arguments.batch_size, random_state=0)
        counter.remove()
        n_passes = counter.counts["forward"]
        passes = BarePasses(network, torch.rand(arguments.batch_size, *space.shape).softmax(dim=-1))
        calls = {
            "sample": lambda chain=chain: chain.sample(arguments.batch_size, random_state=0),
            "bare": passes.forward,
        }
        if head == "score":
            naive = NaiveChain(chain)
            noise = chain.draw_noise(arguments.batch_size, torch.Generator().manual_seed(0))
            error = naive.sample_points(noise) - chain.sample_points(noise)
            print(f"largest difference of naive from ours in a point: {error.abs().max():.1e}")
            calls["naive"] = lambda naive=naive, noise=noise: naive.sample_points(noise)
        times = in_turn(calls, arguments.repeats)
        ratio = median(own / (n_passes * bare) for own, bare in zip(times["sample"], times["bare"], strict=True))
        rows.append(
            {
                "head": head,
                "seconds": median(times["sample"]),
                "ms a step": 1000 * median(times["sample"]) / arguments.steps,
                "forward": n_passes,
                "ratio to bare": ratio,
            }
        )
        if "naive" in times:
            pairs = zip(times["naive"], times["sample"], strict=True)
            rows[-1]["speed"] = median(theirs / own for theirs, own in pairs)
    report(arguments, rows)


if __name__ == "__main__":
    main()
