"""Time of a fine-tuning update against its network's passes alone, and against a plain implementation.

    python benchmarks/speed/update.py --network paper --truncation 4 --repeats 2

Variants of one update, in turn: "float32", "bfloat16" and "checkpointing" are `DirectSolver`; "naive" is ``naive.py``,
the same function written plainly. The networks' passes are counted, those of the last update printed: forward alone,
forward and back to the input, and back to the weights as well. The time of as many bare ones, measured beside each
update in its own precision, is what "ratio to bare" refers to. A checkpointed update runs its networks again on the way
back, which counts as a pass each. The reward is a sum over letters, so that it takes no time. The head is the score, as
the authors' is; "letters", with the bridges that are the default, has no naive version.

"speed" is the time of "naive" over that of the variant in the same round; every column is a median over rounds.
Peak memory is that of the whole process: ask for one variant to see its own.
"""

from __future__ import annotations

import copy
from statistics import median

import torch
from harness import BarePasses, CountPasses, in_turn, medians, options, report, seconds
from naive import NaiveUpdate

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.finetuning import DirectSolver, Problem

VARIANTS = ("float32", "bfloat16", "checkpointing", "naive")


def untrained_chain(network: str, length: int, n_steps: int, head: str = "score") -> SimplexDiffusion:
    """A chain with random weights: as fast as a trained one."""
    chain = SimplexDiffusion(SequenceSpace("DNA", length), n_steps=n_steps, head=head, network=network)
    torch.manual_seed(0)
    chain.network = chain._build_network()
    chain.freeze()
    return chain


def problem_on(pretrained: SimplexDiffusion, batch_size: int, precision: str) -> Problem:
    return Problem(
        pretrained.trainable_copy(),
        pretrained,
        lambda point: point[:, :, 2].sum(dim=1),
        alpha=1e-3,
        batch_size=batch_size,
        learning_rate=1e-4,
        max_grad_norm=1.0,
        seed=0,
        precision=precision,
    )


class Update:
    """A variant of the update at a truncation.

    Attributes
    ----------
    counts : dict of str to float
        Passes of the last update, by kind.
    """

    def __init__(self, variant: str, pretrained: SimplexDiffusion, truncation: int | str, batch_size: int) -> None:
        self.problem = problem_on(pretrained, batch_size, "bfloat16" if variant == "bfloat16" else "float32")
        self.solver = DirectSolver(truncation, checkpointing=variant == "checkpointing").setup(self.problem)
        self.naive = NaiveUpdate(self.problem) if variant == "naive" else None
        self.networks = [self.problem.model.network, pretrained.network, self.problem.model.decoder]
        if self.naive is not None:
            self.networks = self.naive.networks

    def run(self, i: int) -> float:
        """Seconds of update number i."""
        counter = CountPasses(*self.networks, batch_size=self.problem.batch_size)
        if self.naive is None:
            taken = seconds(lambda: self.solver.update(i))
        else:
            n_grad_steps = self.solver._draw_truncation(self.solver.generator(i))["n_grad_steps"]
            taken = seconds(lambda: self.naive.update(self.solver.draw_noise(i), n_grad_steps))
        counter.remove()
        self.counts = counter.counts
        return taken


def agreement(length: int) -> float:
    """Cosine between the gradients of naive and float32, through the whole of a small chain."""
    pretrained = untrained_chain("small", length, n_steps=5)
    ours, naive = (Update(variant, pretrained, 5, batch_size=8) for variant in ("float32", "naive"))
    ours.run(0)
    naive.run(0)
    gradients = [
        torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        for network in (ours.networks[0], naive.networks[0])
    ]
    return float(torch.cosine_similarity(*gradients, dim=0))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--truncation", nargs="+", default=["4", "random", "full"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["float32", "bfloat16", "naive"])
    parser.add_argument("--head", choices=["score", "letters"], default="score")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=1, help="updates before the first that counts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if "naive" in arguments.variants:
        if arguments.head == "letters":
            parser.error("naive takes the score alone; leave it out of --variants, or pass --head score")
        print(f"cosine of the gradients of naive and float32: {agreement(arguments.length):.6f}")

    pretrained = untrained_chain(arguments.network, arguments.length, arguments.steps, arguments.head)
    points = torch.rand(arguments.batch_size, *pretrained.space.shape).softmax(dim=-1)
    bare = {
        kind: BarePasses(copy.deepcopy(pretrained.network), points, bfloat16=kind == "bfloat16")
        for kind in ("float32", "bfloat16")
    }
    for passes in bare.values():
        in_turn(passes.calls, repeats=1)

    rows: list[dict[str, object]] = []
    for truncation in arguments.truncation:
        steps = arguments.steps if truncation == "full" else truncation
        updates = {
            variant: Update(variant, pretrained, steps if steps == "random" else int(steps), arguments.batch_size)
            for variant in arguments.variants
        }
        times: dict[str, list[float]] = {variant: [] for variant in updates}
        ratios: dict[str, list[float]] = {variant: [] for variant in updates}
        for i in range(arguments.warmup + arguments.repeats):
            for variant, update in updates.items():
                taken = update.run(i)
                if i < arguments.warmup:
                    continue
                times[variant].append(taken)
                if variant != "naive":
                    each = medians(in_turn(bare[update.problem.precision].calls, repeats=3, warmup=0))
                    ratios[variant].append(taken / sum(n * each[kind] for kind, n in update.counts.items()))
        for variant, update in updates.items():
            row: dict[str, object] = {"K": truncation, "variant": variant, "seconds": median(times[variant])}
            if "naive" in times:
                pairs = zip(times["naive"], times[variant], strict=True)
                row["speed"] = median(theirs / own for theirs, own in pairs)
            if variant != "naive":
                row |= {"ratio to bare": median(ratios[variant])} | update.counts
            rows.append(row)
    report(arguments, rows)


if __name__ == "__main__":
    main()
