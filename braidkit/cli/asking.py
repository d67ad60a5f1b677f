"""Commands that ask a run: what it says of any sequences, and more of its designs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from braidkit.cli.options import Command

_out = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write there, not to the standard output."
)


@click.command(cls=Command, short_help="Predict sequences, recipes or pictures by a finished run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sequences", type=click.Path(path_type=Path))
@click.option("--sequence", metavar="COLUMN", help='Column of the sequences in a table.  [default: "sequence"]')
@click.option("--image", metavar="COLUMN", help="Column of paths of pictures, relative to the table's folder.")
@click.option("--resize", is_flag=True, help="Cut pictures of other sizes in their centre, and scale them.")
@_out
def score(run: Path, sequences: Path, sequence: str | None, image: str | None, resize: bool, out: Path | None) -> None:
    """Predict SEQUENCES by the reward and the judge of a RUN.

    SEQUENCES is a FASTA file or a table: a parent, or candidates from elsewhere.

    Gives a CSV table: mean, penalty and lower bound of the reward, the judge's prediction, the nearest measured
    sequence with its value and distance, and the log-likelihood under the pretrained model where it has one. Of a run
    on recipes, SEQUENCES is a table with their columns. Of a run on pictures, with --image: mean, penalty, lower bound
    and judge.
    """
    from braidkit.cli.measured import read_measured
    from braidkit.datasets.sequences import read_sequences
    from braidkit.evaluation.designs import csv_text
    from braidkit.evaluation.scoring import score_table
    from braidkit.exceptions import InvalidParameterError
    from braidkit.finetuning import ConservativeDiffusionFinetuner

    _check_free(out)
    finetuner = ConservativeDiffusionFinetuner.load(run)
    space: Any = finetuner.space_
    if space.has_pixels:
        _write(_scored_pictures(finetuner, sequences, image, resize), out)
        return
    if image is not None or resize:
        what = "sequences" if space.alphabet is not None else "recipes"
        raise InvalidParameterError(f"{run} is a run on {what}; leave out --{'image' if image else 'resize'}.")
    if space.has_columns:
        if sequence is not None:
            raise InvalidParameterError(f"{run} is a run on recipes; leave out --sequence.")
        _write(_scored_rows(finetuner, run, sequences), out)
        return
    asked = read_sequences(sequences, space, sequence=sequence)
    measured = read_measured(run, space)
    y = measured.y if finetuner.objective is None else measured.columns()
    table = score_table(finetuner, asked["sequence"].tolist(), measured.sequences, y)
    table.insert(0, "id", asked["id"].to_numpy())
    _write(csv_text(table), out)


@click.command(cls=Command, short_help="Draw more designs of a finished run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--n", default=100, show_default=True, type=click.IntRange(1, 1_000_000), help="Number of designs.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), show_default=True)
@_out
def sample(run: Path, n: int, seed: int, out: Path | None) -> None:
    """Draw more designs of a RUN, or of any saved model.

    They are draws as they come: not chosen, not flagged, and some may repeat. The file designs.csv of a run has the
    best that differ. Sequences are written as FASTA, recipes as a CSV table, and pictures as PNG files in a new folder
    --out, with their prompts in samples.csv.
    """
    from braidkit.diffusion import DiffusionModel
    from braidkit.evaluation.designs import csv_text
    from braidkit.exceptions import InvalidParameterError
    from braidkit.finetuning import ConservativeDiffusionFinetuner
    from braidkit.finetuning.saved import MODEL, STATE
    from braidkit.persistence import is_saved, load_config
    from braidkit.spaces import ImageSpace

    _check_free(out)
    if not run.is_dir():
        raise InvalidParameterError(f"{run} is not a directory; pass that of a run, or one that save_pretrained wrote.")
    place = run / MODEL if is_saved(run / MODEL) else run
    space = load_config(place).get("space")
    if isinstance(space, dict) and space.get("space") == ImageSpace.__name__:
        _sample_pictures(DiffusionModel.from_pretrained(place), n, seed, out)
        return
    # A whole run knows its reward too, and so the optimum that its model approximates.
    source: Any = (
        ConservativeDiffusionFinetuner.load(run) if is_saved(run / STATE) else DiffusionModel.from_pretrained(place)
    )
    model: Any = source if isinstance(source, DiffusionModel) else source.model_
    if model.space.has_columns:
        frame = model.space.to_frame(source.sample(n, seed))
        _write(csv_text(frame, list(frame)), out)
        return
    model.kind = "strings"
    rows = model.space.strings(source.sample(n, seed))
    _write("".join(f">sample_{i}\n{row}\n" for i, row in enumerate(rows, start=1)), out)


def _scored_rows(finetuner: Any, run: Path, table: Path) -> str:
    """What a run predicts of the recipes of a table, as CSV."""
    from braidkit.cli.measured import read_measured_rows
    from braidkit.datasets.vector_table import read_rows
    from braidkit.evaluation.designs import csv_text
    from braidkit.evaluation.scoring import score_table

    measured = read_measured_rows(run, finetuner.space_)
    y = measured.y if finetuner.objective is None else measured.columns()
    scores = score_table(finetuner, read_rows(table, finetuner.space_), measured.X, y)
    scores["nearest"] = [measured.places[i] for i in scores["nearest"]]
    return csv_text(scores)


def _scored_pictures(finetuner: Any, table: Path, image: str | None, resize: bool) -> str:
    """What a run predicts of the pictures that a table names, as CSV."""
    import pandas as pd

    from braidkit.datasets.picture_table import read_picture_files
    from braidkit.evaluation.designs import csv_text
    from braidkit.evaluation.quantities import quantity_columns
    from braidkit.exceptions import InvalidParameterError

    if image is None:
        raise InvalidParameterError("the run is on pictures; name the column of their paths by --image.")
    files, X = read_picture_files(table, finetuner.space_, image=image, resize=resize)
    mean, lower = finetuner.reward_.predict(X), finetuner.reward_.predict_lower(X)
    columns = {"file": files, "mean": mean, "penalty": mean - lower, "lower": lower}
    columns |= {"judge": finetuner.judge_.predict(X), **quantity_columns(finetuner, X)}
    return csv_text(pd.DataFrame(columns))


def _sample_pictures(model: Any, n: int, seed: int, out: Path | None) -> None:
    """Write draws as PNG files into a new folder, with a table of them."""
    import pandas as pd

    from braidkit.datasets.table import quoted
    from braidkit.evaluation.picture_designs import prompts_in_turn, write_images
    from braidkit.exceptions import InvalidParameterError

    if out is None:
        raise InvalidParameterError("pictures are written as files; name a new folder for them by --out.")
    model.kind = "uint8"
    prompts = prompts_in_turn(model, n)
    images = model.sample(n, seed) if prompts is None else model.sample(n, seed, prompts=prompts)
    out.mkdir(parents=True)
    table = {"file": write_images(images, out, "sample")} | ({} if prompts is None else {"prompt": prompts})
    frame = pd.DataFrame(table)
    _write(frame.assign(**{name: quoted(frame[name]) for name in frame}).to_csv(index=False), out / "samples.csv")


def _check_free(out: Path | None) -> None:
    """Raise before any work if a file is in the way."""
    from braidkit.exceptions import InvalidParameterError

    if out is not None and out.exists():
        raise InvalidParameterError(f"--out {out} is there already; choose another name, or remove it.")


def _write(text: str, out: Path | None) -> None:
    """Write to a file, in one piece, or to the standard output."""
    from braidkit.persistence import replace_file

    if out is None:
        click.echo(text, nl=False)
        return
    with replace_file(out) as path:
        path.write_text(text, encoding="utf-8")
