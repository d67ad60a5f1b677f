"""An update of trajectory balance on AntiBERTy, step by step, against the bare passes of the language model.

    PYTHONPATH=. python benchmarks/speed/language_model.py --batch-size 8 --repeats 3

Trastuzumab's heavy chain with 20 free positions, half of them revealed. Of each step an update draws the batch from the
fine-tuned chain, asks the pretrained one for its log-probabilities, and learns from twice the batch. The bare passes
are those of the language model alone: two forward, and one forward and back to its input of twice the batch. The calls
are timed in turn, by processor time. Memory is that of the weights of the pretrained chain, the fine-tuned one and its
best checkpoint, by storages, over that of the language model's. ``--precision bfloat16`` times the chains' policies as
updates in it have them; the bare passes stay in float32.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import torch
from harness import in_turn, options, processor_seconds, report

from braidkit import MaskedDiffusion, SequenceSpace
from braidkit.diffusion.precision import at_precision
from braidkit.networks import shared_parts

TRASTUZUMAB = "".join(
    [
        "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRY",
        "ADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
    ]
)
# Of CDR1 seven positions, and CDR3.
FREE = [*range(26, 33), *range(96, 109)]


def models_dir() -> Path:
    """Folder of published models: $BRAIDKIT_MODELS, or shared/models beside the checkout."""
    named = os.environ.get("BRAIDKIT_MODELS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "models"


def n_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages of tensors, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def memory_ratio(pretrained: MaskedDiffusion, model: MaskedDiffusion) -> float:
    """Memory of the weights of two chains and of a checkpoint of the second, over that of the language model."""
    modules = [part for chain in (pretrained, model) for part in (chain, *(s.module for s in shared_parts(chain)))]
    held = [value for module in modules for value in module.state_dict().values()]
    held += copy.deepcopy(model.trainable.state_dict()).values()
    backbone = pretrained.backbone.shared.module.lm.state_dict().items()
    return n_bytes(held) / n_bytes(value for name, value in backbone if "lora" not in name)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", type=Path, default=models_dir() / "antiberty")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    template = "".join("_" if i in FREE else letter for i, letter in enumerate(TRASTUZUMAB))
    space = SequenceSpace("protein", template=template)
    pretrained = MaskedDiffusion.from_masked_lm(arguments.model, space, n_steps=len(FREE))
    model = pretrained.trainable_copy()
    with torch.no_grad():
        for value in model.trainable.own.values():
            value += 1e-3
    n, half = arguments.batch_size, len(FREE) // 2
    letters = torch.randint(20, (2 * n, space.length), generator=torch.Generator().manual_seed(0))
    after = space.hold(torch.nn.functional.one_hot(letters, 20).float())
    after[:, FREE[: half - 1]] = 0
    before = after.clone()
    before[:, FREE[half - 1]] = 0
    lm = pretrained.backbone.shared.module
    relaxed = before.clone().requires_grad_()

    own, reference = at_precision(model, arguments.precision), at_precision(pretrained, arguments.precision)

    @torch.no_grad()
    def step() -> None:
        own.policy(before[:n], half)
        reference.policy(before[:n], half)
        with torch.enable_grad():
            own.policy(before, half).log_prob(after).sum().backward()

    def bare() -> None:
        with torch.no_grad():
            lm(before[:n])
            lm(before[:n])
        lm(relaxed).sum().backward()

    @torch.no_grad()
    def forward() -> None:
        lm(before[:n])

    times = in_turn({"step": step, "bare": bare, "forward": forward}, arguments.repeats, timed=processor_seconds)
    ratio = median(own / other for own, other in zip(times["step"], times["bare"], strict=True))
    seconds = {name: median(values) for name, values in times.items()}
    tokens = n * (space.length + 2) / seconds["forward"]
    row = {"seconds a step": seconds["step"], "bare passes": seconds["bare"], "ratio to bare": ratio}
    row["memory to language model"] = memory_ratio(pretrained, model)
    report(arguments, [row | {"updates a second": 1 / (len(FREE) * seconds["step"]), "tokens a second": tokens}])


if __name__ == "__main__":
    main()
