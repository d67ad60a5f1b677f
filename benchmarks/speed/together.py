"""Would one pass for the fine-tuned and the pretrained network be faster than a pass each?

    PYTHONPATH=. python benchmarks/speed/together.py --repeats 21

In turn, forward passes without gradient of a batch: through two networks, one after the other; through both at once,
their weights stacked (`torch.func.vmap`); and, the most that adapters of low rank could gain, twice the batch through
one network.
"""

from __future__ import annotations

import copy

import torch
from harness import in_turn, medians, options, report
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from update import untrained_chain


@torch.no_grad()
def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    network = untrained_chain(arguments.network, arguments.length, n_steps=2).network
    assert network is not None
    other = copy.deepcopy(network)
    weights = stack_module_state([network, other])
    x = torch.rand(arguments.batch_size, arguments.length, 4).softmax(dim=-1)
    t = torch.ones(1)
    twice = torch.cat([x, x])

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(network, (parameters, buffers), (x, t))

    calls = {
        "one after the other": lambda: (network(x, t), other(x, t)),
        "weights stacked": lambda: vmap(one)(*weights),
        "weights shared": lambda: network(twice, t),
    }
    torch.testing.assert_close(vmap(one)(*weights)[0], network(x, t), atol=1e-4, rtol=1e-4)
    times = in_turn(calls, arguments.repeats, warmup=3)
    apart = medians(times)["one after the other"]
    rows = [{"pass": name, "seconds": taken, "speed": apart / taken} for name, taken in medians(times).items()]
    report(arguments, rows)


if __name__ == "__main__":
    main()
