"""Time of sampling with classifier guidance against the passes of its two networks.

    PYTHONPATH=. python benchmarks/speed/guidance.py --network paper --batch-size 125 --steps 10

A step asks the chain's network for a policy, and the classifier's for a gradient of the state. The passes of both are
counted, and the time of as many bare ones is what "ratio to bare" refers to; "against unguided" is the time of sampling
without guidance. Columns are medians over rounds in which all take their turn.
"""

from __future__ import annotations

from statistics import median

import torch
from harness import BarePasses, CountPasses, in_turn, options, report

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.baselines import ClassifierGuidance


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    n, space = arguments.batch_size, SequenceSpace("DNA", arguments.length)
    chain = SimplexDiffusion(space, n_steps=arguments.steps, network=arguments.network)
    torch.manual_seed(0)
    points = torch.rand(n, *space.shape).softmax(dim=-1)
    X = space.decode(torch.rand(256, *space.shape), "strings")
    # Hardly trained, as fast as trained ones.
    chain.fit(X[:16], max_iter=1, batch_size=2, random_state=0)
    method = ClassifierGuidance(chain, max_iter=1, batch_size=n, random_state=0).fit(X, [x.count("G") for x in X])
    networks = {"forward": chain.network, "input gradient": method.model_.guide.network}
    counters = {kind: CountPasses(network, batch_size=n) for kind, network in networks.items()}
    method.sample(n, random_state=0)
    counts = {kind: counter.counts[kind] for kind, counter in counters.items()}
    for counter in counters.values():
        counter.remove()
    bare = {
        "forward": BarePasses(networks["forward"], points).forward,
        "input gradient": BarePasses(networks["input gradient"], points, torch.ones(n)).input_gradient,
    }
    calls = {
        "guided": lambda: method.sample(n, random_state=0),
        "unguided": lambda: chain.sample(n, random_state=0),
    }
    times = in_turn(calls | bare, arguments.repeats)
    rounds = [dict(zip(times, taken, strict=True)) for taken in zip(*times.values(), strict=True)]
    row: dict[str, object] = {
        "seconds": median(times["guided"]),
        "against unguided": median(taken["guided"] / taken["unguided"] for taken in rounds),
        "ratio to bare": median(
            taken["guided"] / sum(count * taken[kind] for kind, count in counts.items()) for taken in rounds
        ),
    }
    report(arguments, [row | counts])


if __name__ == "__main__":
    main()
