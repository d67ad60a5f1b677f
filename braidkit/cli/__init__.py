"""The command ``braidkit``: thin over the estimators. Torch is loaded only when a command begins to work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from braidkit import __version__
from braidkit.cli.asking import sample, score
from braidkit.cli.errors import Group, Stopped
from braidkit.cli.options import Model, Penalty, config_option, recorded_options
from braidkit.cli.pictures import OPTIONS, check_kind, picture_options
from braidkit.cli.vectors import vector_options

_seed = click.option(
    "--seed",
    default=0,
    type=click.IntRange(0, 2**32 - 1),
    show_default=True,
    help="The same seed gives the same designs.",
)
_device = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
_quiet = click.option("--quiet", is_flag=True, help="Print only warnings and errors.")


@click.group(cls=Group)
@click.version_option(__version__, prog_name="braidkit")
def main() -> None:
    """Designs from measurements, by conservative fine-tuning of a diffusion model."""


@main.command(sections=OPTIONS, short_help="Make designs from a table of measurements.")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--target",
    required=True,
    multiple=True,
    metavar="COLUMN",
    help="Column of the measurements, columns of replicates (rep1,rep2,rep3), or either with a name (kd=rep1,rep2). "
    "Larger is better. Give it once for each quantity of an --objective.",
)
@click.option("--minimise", is_flag=True, help="Less of the target is better.")
@click.option(
    "--objective",
    metavar="EXPRESSION",
    help="What is wanted of several targets: 'hepg2 - k562', 'min(a, b)', 'affinity if expression >= 0.8'.",
)
@click.option(
    "--target-se",
    multiple=True,
    metavar="COLUMN",
    help="Column of the measurements' standard errors; one for each target.",
)
@click.option("--weight", metavar="COLUMN", help="Column of the rows' weights, such as counts of reads.")
@click.option("--sequence", metavar="COLUMN", help='Column of the sequences.  [default: "sequence"]')
@click.option(
    "--values",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='For FASTA: a table of ids (--sequence, by default "id") and measurements.',
)
@click.option("--n", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Number of designs.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the run.")
@click.option("--alphabet", help="DNA, RNA, protein or the letters themselves; by default, found from the table.")
@click.option("--length", type=click.IntRange(min=1), help="Keep only sequences of this length.")
@click.option(
    "--padding",
    type=click.Choice(["right", "left"]),
    default="right",
    show_default=True,
    help="On which side sequences that are shorter than the longest are filled up; no design shows it.",
)
@click.option("--template", help="Letters to hold in all designs, '_' where a position is free: AC__GT.")
@click.option("--hold", metavar="1-26,34", help="Hold these positions only, of the template or as in all rows.")
@click.option("--free", metavar="99-112", help="Hold all positions but these. Counted from 1, both ends included.")
@click.option("--parent", metavar="SEQUENCE", help="The sequence (its letters) of which all designs are mutants.")
@click.option("--mutations", metavar="3|1-3", help="Most mutations of the parent, or the least and the most.")
@click.option("--forbidden", multiple=True, metavar="ATG,...", help="Words that no design may hold, as written.")
@click.option("--sites", multiple=True, metavar="GAATTC,...", help="Words that no design may hold on either strand.")
@click.option("--max-homopolymer", type=click.IntRange(min=1), help="Longest run of one letter in a design.")
@click.option("--frame", metavar="1|1-99", help="No stop codon in the reading frame of these positions.")
@click.option(
    "--alpha",
    type=float,
    help="Weight of the KL to the pretrained model: larger keeps designs closer to it.  "
    "[default: by the data, at least 0.01]",
)
@click.option(
    "--reward",
    type=click.Choice(["bonus", "bootstrap"]),
    default="bonus",
    show_default=True,
    help="A Gaussian process, or the minimum of resampled networks.",
)
@click.option(
    "--c",
    type=Penalty(),
    help="Weight of the bonus reward's penalty: larger is more cautious. 'calibrated' makes the lower bound hold for "
    "95 % of held-out rows.  [default: 0.5]",
)
@click.option(
    "--pretrained",
    type=Model(path_type=Path),
    metavar="DIR",
    help="A saved diffusion model, a masked language model of transformers with one token a letter, or a Stable "
    "Diffusion or DDPM pipeline of diffusers.",
)
@click.option(
    "--previous",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="An earlier run whose designs TABLE measures. This one learns from both; on sequences, with the same "
    "pretrained model.",
)
@click.option(
    "--lora-rank",
    type=click.IntRange(min=1),
    help="Rank of the adapter on a masked language model, or on a pipeline.  [default: 8, or 4]",
)
@picture_options
@vector_options
@click.option(
    "--max-iter",
    type=click.IntRange(min=1),
    help="Fine-tuning updates.  [default: by solver and number of rows]",
)
@_seed
@_device
@_quiet
@config_option()
@click.option("--overwrite", is_flag=True, help="Replace the run that is in DIR.")
def design(
    table: Path,
    target: tuple[str, ...],
    minimise: bool,
    objective: str | None,
    target_se: tuple[str, ...],
    weight: str | None,
    sequence: str | None,
    values: Path | None,
    n: int,
    out: Path,
    alphabet: str | None,
    length: int | None,
    padding: str,
    template: str | None,
    hold: str | None,
    free: str | None,
    parent: str | None,
    mutations: str | None,
    forbidden: tuple[str, ...],
    sites: tuple[str, ...],
    max_homopolymer: int | None,
    frame: str | None,
    previous: Path | None,
    image: str | None,
    prompts: Path | None,
    n_steps: int | None,
    guidance_scale: float | None,
    features: Path | None,
    resize: bool,
    skip_broken: bool,
    columns: tuple[str, ...],
    fix: tuple[str, ...],
    bound: tuple[str, ...],
    real: tuple[str, ...],
    skip_missing: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Turn a TABLE of measured sequences, recipes or pictures into designs.

    TABLE is a CSV, TSV or Excel file with a header row, or FASTA with values in its headers (>id TARGET=1.2) or in
    --values. With --columns its rows are recipes: numbers and labels that were set. With --image it names files of
    pictures, and the designs are PNG files. A run that was killed goes on when
    the same command is given again. Ctrl-C while it fine-tunes gives designs of the best model so far, and the exit
    code 130. The exit code is 3 if every design has a flag other than that of a large penalty: read the flags first.
    """
    from dataclasses import replace

    from braidkit.cli.held import held_space
    from braidkit.cli.job import OUTPUTS, Settings, build_finetuner, run_job
    from braidkit.cli.limits import limited_space
    from braidkit.cli.objectives import asked_objective
    from braidkit.cli.pictures import load_chain as load_picture_chain
    from braidkit.cli.pictures import load_features
    from braidkit.cli.rounds import PreviousRecipes, PreviousRun, PreviousSequences
    from braidkit.cli.run_directory import RunDirectory
    from braidkit.cli.vectors import asked_vectors
    from braidkit.datasets import read_pictures, read_table

    ctx = click.get_current_context()
    check_kind(ctx, image, columns)
    targets, objective = asked_objective(target, objective, minimise)
    told: dict[str, Any] = {"target": targets, "target_se": target_se, "weight": weight}
    chain: Any = None
    embedding: Any = None
    measured: Any
    of_designs: dict[str, Any] = {}
    last_round = None
    earlier: PreviousRun[Any] | None = None
    if image is not None:
        chain = load_picture_chain(
            options["pretrained"],
            prompts,
            n_steps=n_steps,
            guidance_scale=guidance_scale,
            lora_rank=options["lora_rank"],
        )
        embedding = load_features(features)
        measured = read_pictures(
            table,
            **told,
            image=image,
            space=None if chain is None else chain.space,
            resize=resize,
            on_broken="drop" if skip_broken else "error",
        )
    elif columns:
        earlier = recipes = None if previous is None else PreviousRecipes.read(previous)
        measured, of_designs, last_round = asked_vectors(
            table,
            told,
            columns=columns,
            fix=fix,
            bound=bound,
            real=real,
            skip_missing=skip_missing,
            earlier=recipes,
            objective=objective,
        )
    else:
        earlier = sequences = None if previous is None else PreviousSequences.read(previous)
        measured = read_table(
            table,
            **told,
            sequence=sequence,
            values=values,
            alphabet=sequences.alphabet if alphabet is None and sequences is not None else alphabet,
            length=length,
            padding=padding,
            on_ambiguous="drop",
            on_constant="error" if sequences is None else "keep",
        )
        if sequences is not None:
            measured, last_round = sequences.pooled(measured), sequences.check(measured, objective)
            options["pretrained"] = options["pretrained"] or sequences.pretrained
        space = limited_space(
            held_space(measured.space, measured.sequences, template, hold, free),
            parent=parent,
            mutations=mutations,
            forbidden=forbidden,
            sites=sites,
            max_homopolymer=max_homopolymer,
            frame=frame,
        )
        measured = replace(measured, space=space)
        of_designs = {
            "template": space.template,
            "limits": None if space.limits is None else space.limits.to_config(),
            "padding": space.letters.padding,
        }
    settings = Settings(
        target=", ".join(measured.targets),
        objective=objective,
        n=n,
        table=table,
        features=features,
        **of_designs,
        **options,
    )
    say = _speaker(settings.quiet)
    say(measured.describe())
    for text in measured.advice():
        click.echo(f"warning: {text}", err=True)
    for line in [] if last_round is None else last_round.sentences():
        say(line)
    if last_round is not None and last_round.warning is not None:
        click.echo(f"warning: {last_round.warning}", err=True)
    record = {"command": "design", "data": measured.digest()} | settings.as_record(chain, embedding)
    directory = RunDirectory(out, OUTPUTS)
    if earlier is not None:
        earlier.check_kept(directory)
    finetuner = build_finetuner(measured, directory, settings, chain, embedding)
    with _resumable(out), directory.claimed(record, overwrite=overwrite) as resumed:
        directory.record["options"] = recorded_options(ctx, out)
        if resumed:
            say(f"going on with the unfinished run in {out}")
        results = run_job(finetuner, measured, directory, settings, say, last_round)[-1]
        if results["stopped"]:
            directory.pause(**results)
            raise Stopped(
                f"stopped after {results['n_iter']} updates; the designs are of the best model so far. To go on to the "
                "end, give the same command again."
            )
        directory.finish(**results)
    if results["choice"]["n_doubtful"] == results["choice"]["n_designs"]:
        ctx.exit(3)


@main.command(short_help="Run the whole job on generated 5'UTRs.")
@click.option("--out", default="braidkit-demo", show_default=True, type=click.Path(path_type=Path), metavar="DIR")
@_seed
@_device
@_quiet
def demo(out: Path, seed: int, device: str, quiet: bool) -> None:
    """Run the whole job on generated 5'UTRs whose true values are known.

    Nothing is downloaded. An earlier demo in DIR is replaced; one that was killed goes on.
    """
    import torch

    from braidkit.cli.demo import run_demo

    # Networks as small as the demo's gain little from a second thread, and lose much by it where cores are shared.
    torch.set_num_threads(1)
    with _resumable(out):
        stopped = run_demo(out, seed=seed, device=device, quiet=quiet, say=_speaker(quiet)) is None
    if stopped:
        raise Stopped("stopped; to go on to the end, give the same command again.")


main.add_command(score)
main.add_command(sample)


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Say after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped by the user; {out} keeps the stages that were finished. To go on, give the same command again."
        ) from None


def _speaker(quiet: bool) -> Any:
    """The function that prints messages on standard output, at once; it does nothing if quiet."""
    return (lambda line: None) if quiet else click.echo
