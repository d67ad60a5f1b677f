"""Peak memory of a process that makes a fine-tuning update through the whole chain, plain and with checkpointing.

    PYTHONPATH=. python benchmarks/speed/memory.py --network paper --repeats 1

Each in a process of its own; "added" is what the update adds to an untrained chain with its optimiser.
"""

from __future__ import annotations

import multiprocessing

from growth import measure
from harness import options, report


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    setting = {name: getattr(arguments, name) for name in ("length", "batch_size", "steps")}
    setting["truncation"] = arguments.steps
    rows: list[dict[str, object]] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for variant in ("checkpointing", "float32"):
            given = (setting, arguments.network, arguments.repeats, arguments.threads, variant)
            seconds, added, peak = pool.apply(measure, given)
            rows.append({"variant": variant, "seconds": seconds, "added, GiB": added, "peak, GiB": peak})
    report(arguments, rows)


if __name__ == "__main__":
    main()
