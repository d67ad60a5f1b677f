"""Does ``torch.compile`` make a network's passes faster, and after how many of them has it paid for itself?

    PYTHONPATH=. python benchmarks/speed/compiled.py --network small

Forward passes, and passes with all gradients, of the network as it is and compiled, in turn. "paid after" is the number
of passes whose saved time makes up for the compilation; compilers keep what they made, so the first run on a machine
shows it.
"""

from __future__ import annotations

from statistics import median

import torch
from harness import BarePasses, in_turn, options, report, seconds
from update import untrained_chain


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    network = untrained_chain(arguments.network, arguments.length, n_steps=2).network
    assert network is not None
    points = torch.rand(arguments.batch_size, arguments.length, 4).softmax(dim=-1)
    plain, compiled = BarePasses(network, points), BarePasses(torch.compile(network), points)
    rows: list[dict[str, object]] = []
    for kind in ("forward", "all gradients"):
        compilation = seconds(compiled.calls[kind])
        times = in_turn({"plain": plain.calls[kind], "compiled": compiled.calls[kind]}, arguments.repeats)
        saved = median(a - b for a, b in zip(times["plain"], times["compiled"], strict=True))
        rows.append(
            {
                "passes": kind,
                "plain, ms": 1000 * median(times["plain"]),
                "compiled, ms": 1000 * median(times["compiled"]),
                "speed": median(a / b for a, b in zip(times["plain"], times["compiled"], strict=True)),
                "compilation, s": compilation,
                "paid after": round(compilation / saved) if saved > 0 else "never",
            }
        )
    report(arguments, rows)


if __name__ == "__main__":
    main()
