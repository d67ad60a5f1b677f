r"""The paper's experiment on pictures (section 7.2) in small: aesthetic scores, a shortcut, and a check of the prompt.

A small Stable Diffusion pipeline makes silhouettes of ten animals. Their aesthetic has a known formula, which a white
sheet fulfils best. Methods learn from pictures that score below a quantile. A classifier that none of them sees says
whether the animal of the prompt is still there; where it is not, the reward is 0.

    python benchmarks/paper_images.py --data-home ../shared/data --models ../shared/models --out DIR \
        --methods all --csv docs/results/pictures.csv
    python benchmarks/paper_images.py --size paper --dry-run

Every stage is kept in DIR and not done again. `--size paper` counts what Stable Diffusion 1.5 would take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from paper_images_cost import print_cost
from paper_images_encoder import encoder
from paper_images_tables import figures, summary, table
from paper_images_world import PROMPTS, aesthetic, coloured, junk, prompt_check, silhouettes, train_classifier

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, GPBonusReward, PipelineDiffusion
from braidkit.baselines import ClassifierGuidance, StandardFinetuner
from braidkit.cli.job import embedded
from braidkit.evaluation.picture_designs import prompts_in_turn
from braidkit.finetuning import DirectSolver
from braidkit.finetuning.judge import CalibratedJudge
from braidkit.rewards import CLIPFeatures

# Standard deviations of y a nat: 10 to 20 times the paper's (Table 4), which is as good as none.
ALPHA = 1e-3
C_GRID = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
MAIN = ["STRL", "BRAID-Bonus", "BRAID-Boot", "best of 4", "guidance"]
# Share of held-out junk whose bound may lie above that of the best measured pictures.
MOST_JUNK = 0.05


@dataclass(frozen=True)
class World:
    """The data of one seed.

    Attributes
    ----------
    X, y : ndarray
        Offline pictures (n, 32, 32, 3) and their aesthetics, below the quantile.
    others : ndarray of shape (m, 32, 32)
        Grey pictures that are not measured, to make junk of.
    """

    chain: PipelineDiffusion
    X: np.ndarray
    y: np.ndarray
    others: np.ndarray
    embedding: CLIPFeatures
    seed: int
    n_designs: int
    max_iter: int

    @property
    def prompts(self) -> list[str]:
        return prompts_in_turn(self.chain, self.n_designs) or []

    def bonus(self, c: float) -> GPBonusReward:
        """The default reward, which sees pixels."""
        return GPBonusReward(c=c, space=self.chain.space, random_state=self.seed)

    def embedded_bonus(self, c: float) -> GPBonusReward:
        """The reward of `braidkit design --features`: a process on the whole embedding, linear and radial."""
        how = embedded(self.embedding, "bonus", self.seed)
        return GPBonusReward(c=c, space=self.chain.space, random_state=self.seed, **how)

    def noise(self) -> torch.Tensor:
        """The same for all methods and checkpoints."""
        return self.chain.noise_of(self.prompts, torch.Generator().manual_seed(1000 + self.seed))


class Followed(DirectSolver):
    """Direct back-propagation, of which the pictures from given noise are kept at each evaluation."""

    n_evaluations: ClassVar[int] = 4
    noise: ClassVar[torch.Tensor]
    taken: ClassVar[dict[int, np.ndarray]] = {}
    every: ClassVar[int]

    def update(self, i: int) -> dict[str, float]:
        if i == 0:
            self.take(0)
        told = super().update(i)
        if (i + 1) % self.every == 0:
            self.take(i + 1)
        return told

    def take(self, i: int) -> None:
        model = self.problem.model
        self.taken[i] = model.space.decode(model.sample_points(self.noise))


def tuned(world: World, estimator: Any, alpha: float = ALPHA) -> dict[str, Any]:
    """Pictures of a run by checkpoint, what its reward and judge say of them, and which checkpoint it keeps."""
    Followed.noise, Followed.every = world.noise(), world.max_iter // Followed.n_evaluations
    Followed.taken.clear()
    estimator.set_params(
        pretrained=world.chain,
        alpha=alpha,
        solver=Followed(kl_steps="one"),
        max_iter=world.max_iter,
        batch_size=16,
        learning_rate=1e-3,
        n_iter_no_change=100,
        random_state=world.seed,
    ).fit(world.X, world.y)
    judge = CalibratedJudge(estimator.judge_, estimator.judge_spread_)
    points = [estimator.space_.points(images)[np.arange(len(images))] for images in Followed.taken.values()]
    said = [
        {
            "mean": estimator.reward_.predict(images),
            "lower": estimator.reward_.predict_lower(images),
            "judge": estimator.judge_.predict(images),
            "judge's error": np.array(judge.y_std_ * judge.mean_difference(point, points[0])[1]),
        }
        for images, point in zip(Followed.taken.values(), points, strict=True)
    ]
    return {
        "iteration": np.array(list(Followed.taken)),
        "images": np.stack(list(Followed.taken.values())),
        "kept": np.array(estimator.best_iter_),
        "kl": np.array(estimator.history_["kl"]),
        "r2": np.array(estimator.reward_check_["r2"]),
        **{name: np.stack([one[name] for one in said]) for name in said[0]},
    }


def best_of_n(world: World, c: float, n: int = 4) -> dict[str, Any]:
    """Of n pretrained draws of the same prompt the one with the highest predicted mean."""
    reward = world.bonus(c).fit(world.X, world.y)
    prompts = world.prompts
    draws = np.stack([world.chain.sample(len(prompts), 100 * world.seed + k, prompts=prompts) for k in range(n)])
    best = np.stack([reward.predict(images) for images in draws]).argmax(axis=0)
    images = draws[best, np.arange(len(prompts))]
    return single(images, reward.predict(images), reward.predict_lower(images))


def of_bare_words(world: World) -> dict[str, Any]:
    """Pretrained draws whose prompts are the animals alone."""
    words = [prompt.split()[-1] for prompt in world.prompts]
    nothing = np.full(len(words), np.nan)
    return single(world.chain.sample(len(words), world.seed, prompts=words), nothing, nothing)


def guided(world: World) -> dict[str, Any]:
    """Guidance by a regressor of noised pictures, at the paper's level."""
    # Each row of an update passes the VAE twice: fewer updates than for sequences.
    method = ClassifierGuidance(world.chain, max_iter=100, batch_size=32, random_state=world.seed)
    method.fit(world.X, world.y)
    chain = method.model_
    images = np.concatenate([chain.space.decode(chain.sample_points(part)) for part in world.noise().split(32)])
    nothing = np.full(len(images), np.nan)
    return single(images, nothing, nothing)


def single(images: np.ndarray, mean: np.ndarray, lower: np.ndarray) -> dict[str, Any]:
    """The result of a method without checkpoints."""
    nothing = np.full((1, len(images)), np.nan)
    return {
        "iteration": np.array([0]),
        "images": images[None],
        "kept": np.array(0),
        "kl": np.array([np.nan]),
        "r2": np.array(np.nan),
        "mean": mean[None],
        "lower": lower[None],
        "judge": nothing,
        "judge's error": np.array([np.nan]),
    }


def chosen_c(world: World, make_reward: Callable[[float], GPBonusReward]) -> dict[str, Any]:
    """The least c at which few pictures of junk have a bound above those of 95 % of measured ones.

    The junk is made of pictures that no method is given, and the classifier is not asked.
    """
    reward = make_reward(1.0).fit(world.X, world.y)
    wrong = coloured(junk(world.others[:400], np.random.default_rng(world.seed)))
    white = np.zeros((2, 32, 32, 3), np.uint8)
    white[0, 8:24, 8:24] = white[1, 4:28, 4:28] = 255
    groups = {"junk": wrong, "unseen": coloured(world.others[400:800]), "measured": world.X, "white squares": white}
    said = {}
    for name, images in groups.items():
        mean = reward.predict(images)
        said[name] = (mean, mean - reward.predict_lower(images))
    shares = {}
    for c in C_GRID:
        bar = np.quantile(said["measured"][0] - c * said["measured"][1], 0.95)
        shares[c] = float((said["junk"][0] - c * said["junk"][1] > bar).mean())
    few = [c for c, share in shares.items() if share <= MOST_JUNK]
    error = aesthetic(groups["unseen"]) - said["unseen"][0]
    return {
        "c": few[0] if few else C_GRID[-1],
        "shares": {str(c): share for c, share in shares.items()},
        "r2": float(1 - np.square(error).mean() / aesthetic(groups["unseen"]).var()),
        "penalty": {name: float(penalty.mean()) for name, (_, penalty) in said.items()},
        "mean": {name: float(mean.mean()) for name, (mean, _) in said.items()},
    }


def methods(world: World, c: float, c_embedded: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """The methods by name, and what does them."""

    def bonus(c: float) -> dict[str, Any]:
        return tuned(world, ConservativeDiffusionFinetuner(reward=world.bonus(c)))

    heads = BootstrapReward(n_estimators=4, max_iter=300, space=world.chain.space)
    seen = world.embedded_bonus(c_embedded)
    return {
        "STRL": lambda: tuned(world, StandardFinetuner(reward=world.bonus(c))),
        "BRAID-Bonus": lambda: bonus(c),
        "BRAID-Boot": lambda: tuned(world, ConservativeDiffusionFinetuner(reward=heads)),
        "best of 4": lambda: best_of_n(world, c),
        "guidance": lambda: guided(world),
        "pretrained, bare words": lambda: of_bare_words(world),
        "BRAID-Bonus, c = 1": lambda: bonus(1.0),
        "BRAID-Bonus, c = 4": lambda: bonus(4.0),
        "BRAID-Bonus, c = 16": lambda: bonus(16.0),
        "STRL, alpha 0.1": lambda: tuned(world, StandardFinetuner(reward=world.bonus(c)), alpha=0.1),
        "STRL, embedding": lambda: tuned(world, StandardFinetuner(reward=seen)),
        "BRAID-Bonus, embedding": lambda: tuned(world, ConservativeDiffusionFinetuner(reward=seen)),
    }


def stage(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds, or what the work gives, which is then kept in it."""
    if path.exists():
        with np.load(path) as arrays:
            return dict(arrays)
    start = time.process_time()
    result = work() | {"seconds": np.array(0.0)}
    result["seconds"] = np.array(time.process_time() - start)
    temporary = path.with_name(f"half-{path.name}")
    np.savez_compressed(temporary, **result)
    temporary.rename(path)
    print(f"{path.parent.name}/{path.stem}: {result['seconds']:.0f} s of processor time", flush=True)
    return result


def run(given: argparse.Namespace) -> None:
    """All stages, seed by seed, and the tables and figures of those that are there."""
    images, labels = silhouettes(given.data_home)
    order = np.random.default_rng(0).permutation(len(images))
    for_check, for_methods = order[: len(order) // 2], order[len(order) // 2 :]
    classifier = train_classifier(images[for_check], labels[for_check], given.out / "classifier.safetensors")
    check = prompt_check(classifier)
    chain = PipelineDiffusion.from_pretrained(
        given.models / "animal-sd", prompts=PROMPTS, n_steps=given.steps, guidance_scale=3.0
    )
    grey = images[for_methods]
    embedding = encoder(grey, given.out / "encoder")
    score = aesthetic(grey)
    limit = float(np.quantile(score, 0.7))
    low = grey[score < limit]
    results: dict[int, dict[str, Any]] = {}
    for seed in given.seeds:
        path = given.out / f"seed-{seed}"
        path.mkdir(parents=True, exist_ok=True)
        mine = np.random.default_rng(seed).permutation(len(low))
        X, others = low[mine[: given.rows]], low[mine[given.rows :]]
        world = World(chain, coloured(X), aesthetic(X), others, embedding, seed, given.designs, given.updates)
        file = path / "c.json"
        if not file.exists():
            found = {"pixels": chosen_c(world, world.bonus), "embedding": chosen_c(world, world.embedded_bonus)}
            file.write_text(json.dumps(found, indent=1))
        choice = json.loads(file.read_text())
        print(f"seed {seed}: {choice}", flush=True)
        results[seed] = {}
        for name, work in methods(world, choice["pixels"]["c"], choice["embedding"]["c"]).items():
            file = path / f"{name.replace(', ', '-').replace(' = ', '-').replace(' ', '-')}.npz"
            if given.methods == ["all"] or name in given.methods or file.exists():
                results[seed][name] = stage(file, work)
    prompts = prompts_in_turn(chain, given.designs) or []
    frame = table(results, prompts, check)
    frame.round(4).to_csv(given.csv or given.out / "table.csv", index=False)
    print(summary(frame), flush=True)
    figures(results, prompts, check, limit, given.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["cpu", "paper"], default="cpu")
    parser.add_argument("--dry-run", action="store_true", help="of the paper's size: count memory and time, and stop")
    parser.add_argument("--tflops", type=float, default=300.0, help="TFLOP/s that the GPU reaches, for the dry run")
    parser.add_argument("--data-home", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--csv", type=Path, help="file for the figures of all seeds and checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--designs", type=int, default=100, help="pictures of each method, checkpoint and seed")
    parser.add_argument("--rows", type=int, default=600, help="offline pictures")
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--methods", nargs="*", default=MAIN, help="by name, or all; finished stages are always shown")
    given = parser.parse_args()
    if given.size == "paper":
        if not given.dry_run:
            parser.error("the paper's size needs Stable Diffusion 1.5, CLIP and LLaVA; only --dry-run is written")
        print_cost(given.tflops)
        return
    if None in (given.data_home, given.models, given.out):
        parser.error("--data-home, --models and --out are needed")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    run(given)


if __name__ == "__main__":
    main()
