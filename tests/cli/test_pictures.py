"""Runs on pictures: from files and scores, with a tiny pipeline of the real classes or without one, to PNG files."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, ImageSpace, PixelDiffusion
from braidkit.cli import main
from braidkit.evaluation import picture_designs
from braidkit.rewards import CLIPFeatures

pytest.importorskip("diffusers")

from PIL import Image

from tests.pipelines import clip, ddpm, stable_diffusion

OPTIONS = ["--image", "path", "--target", "score", "--n", "6", "--max-iter", "2"]
OF_PIPELINE = ["--n-steps", "3", "--guidance-scale", "3"]
FILES = [
    *("designs", "designs.csv", "finetuner", "model", "pretrained"),
    *("report.html", "rewards.png", "run.json", "training.png"),
]


def call(*args):
    return CliRunner().invoke(main, [*map(str, args)])


def design(*args):
    return call("design", *args)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline of 16 x 16 pixels, 60 measured pictures, and prompts."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (folder / "png").mkdir()
    rows = []
    for i in range(60):
        pixels = (rng.random((16, 16, 3)) * 255 * (0.2 + 0.8 * i / 59)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "png" / f"{i}.png")
        rows.append({"path": f"png/{i}.png", "score": pixels.mean() / 255})
    pd.DataFrame(rows).to_csv(folder / "pictures.csv", index=False)
    (folder / "prompts.txt").write_text("cat\n\n  dog \ncat\n")
    stable_diffusion(folder / "sd")
    clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def command(folder):
    prompts = ["--prompts", folder / "prompts.txt"]
    return [folder / "pictures.csv", *OPTIONS, "--pretrained", folder / "sd", *prompts, *OF_PIPELINE]


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    result = design(*command, "--out", out)
    assert result.exit_code in (0, 3), result.output
    return out, result.stdout


def test_a_run_on_a_pipeline_leaves_pictures_with_their_prompts_and_bounds(finished):
    out, said = finished
    assert "60 kept; colour pictures of 16 x 16 pixels" in said
    assert f"6 designs -> {out}/designs.csv, {out}/designs/" in said
    assert sorted(path.name for path in out.iterdir()) == FILES
    designs = pd.read_csv(out / "designs.csv", keep_default_na=False)
    assert designs["prompt"].value_counts().to_dict() == {"cat": 3, "dog": 3}
    assert designs["lower"].is_monotonic_decreasing
    assert {path.name for path in (out / "designs").iterdir()} == {f"design_{i}.png" for i in range(1, 7)}
    pixels = np.stack([np.asarray(Image.open(out / name)) for name in designs["file"]])
    assert pixels.shape == (6, 16, 16, 3)
    finetuner = ConservativeDiffusionFinetuner.load(out)
    np.testing.assert_allclose(finetuner.reward_.predict_lower(pixels), designs["lower"], rtol=1e-4)
    np.testing.assert_allclose(finetuner.judge_.predict(pixels), designs["judge"], rtol=1e-4)
    page = (out / "report.html").read_text()
    assert "Grid of the designs" in page and "Grid of images" in page and "edit distance" not in page


def test_a_finished_run_is_refused_and_options_that_are_wrong_remove_nothing(finished, command, folder):
    out, _ = finished
    before = files(out)
    refused = design(*command, "--out", out)
    assert refused.exit_code == 2 and "holds a finished run" in refused.stderr
    for wrong in (["--alpha", "0"], ["--weight", "nothing"]):
        result = design(*command, *wrong, "--out", out, "--overwrite")
        assert result.exit_code == 2, result.output
    rows = [f"{out}/designs/design_{i}.png,{i}" for i in (1, 2)]
    (folder / "again.csv").write_text("\n".join(["path,score", *rows]))
    for table, columns in ((folder / "again.csv", ["path", "score"]), (out / "designs.csv", ["file", "mean"])):
        options = ["--image", columns[0], "--target", columns[1]]
        refused = design(table, *options, "--out", out, "--overwrite")
        assert refused.exit_code == 2 and "is part of the run in" in refused.stderr, refused.output
    assert files(out) == before


def test_a_run_killed_while_it_writes_pictures_goes_on(finished, command, tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    write = picture_designs.replace_file

    def killed(path):
        if path.name == "design_4.png":
            (path.parent / ".braidkit-0123456789abcdef-design_4.png").write_text("half a picture")
            raise PowerCut
        return write(path)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(picture_designs, "replace_file", killed)
        with pytest.raises(PowerCut):
            CliRunner().invoke(main, [str(arg) for arg in ["design", *command, "--out", out]], standalone_mode=False)
    assert len(list((out / "designs").iterdir())) == 4
    resumed = design(*command, "--out", out)
    assert resumed.exit_code in (0, 3), resumed.output
    assert "going on with the unfinished run" in resumed.stdout and "update 0 " not in resumed.stdout
    assert sorted(path.name for path in out.iterdir()) == FILES
    same = files(finished[0])
    assert {name: held for name, held in files(out).items() if name.startswith("designs")} == {
        name: held for name, held in same.items() if name.startswith("designs")
    }


def test_a_picture_of_somebody_else_in_the_folder_of_designs_is_kept(finished, command, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / "designs" / "mine.png").write_text("mine")
    before = files(out)
    refused = design(*command, "--out", out, "--overwrite")
    assert refused.exit_code == 2 and "designs was changed after the run had written it" in refused.stderr
    assert files(out) == before


def test_pictures_alone_train_a_chain_on_their_pixels(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray((rng.random((8, 6)) * (60 + 4 * i)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    rows = [{"path": f"{i}.png", "score": float(i)} for i in range(40)]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    PixelDiffusion(ImageSpace(8, 6, 1), n_steps=3, n_channels=8).fit(
        rng.random((20, 8, 6)), max_iter=1, random_state=0
    ).save_pretrained(tmp_path / "chain")
    result = design(tmp_path / "t.csv", *OPTIONS, "--pretrained", tmp_path / "chain", "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert "grey pictures of 8 x 6 pixels" in result.stdout
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")
    assert "prompt" not in designs and len(designs) == 6
    assert np.asarray(Image.open(tmp_path / "run" / designs["file"][0])).shape == (8, 6)


def test_pictures_are_scored_and_drawn_by_a_run(finished, folder, tmp_path):
    out, _ = finished
    scored = call("score", out, folder / "pictures.csv", "--image", "path", "--out", tmp_path / "scores.csv")
    assert scored.exit_code == 0, scored.output
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table["file"].tolist() == [f"png/{i}.png" for i in range(60)]
    assert list(table) == ["file", "mean", "penalty", "lower", "judge"]
    measured = pd.read_csv(folder / "pictures.csv")["score"]
    assert np.corrcoef(table["mean"], measured)[0, 1] > 0.9
    drawn = call("sample", out, "--n", "3", "--out", tmp_path / "more")
    assert drawn.exit_code == 0, drawn.output
    samples = pd.read_csv(tmp_path / "more" / "samples.csv")
    assert samples["prompt"].tolist() == ["cat", "dog", "cat"]
    assert np.asarray(Image.open(tmp_path / "more" / samples["file"][2])).shape == (16, 16, 3)
    refused = call("sample", out, "--n", "3")
    assert refused.exit_code == 2 and "name a new folder for them by --out" in refused.stderr
    refused = call("score", out, folder / "pictures.csv")
    assert refused.exit_code == 2 and "by --image" in refused.stderr


@pytest.mark.parametrize("reward", ["bonus", "bootstrap"])
def test_a_reward_sees_embeddings_of_clip(folder, command, tmp_path, reward):
    options = ["--features", folder / "clip", "--reward", reward]
    result = design(*command, *options, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    loaded = ConservativeDiffusionFinetuner.load(tmp_path / "run")
    embedding = next(part for part in loaded.reward_.features.modules() if isinstance(part, CLIPFeatures))
    assert embedding.n_features == 12 and type(loaded.judge_) is GPBonusReward and loaded.judge_.features is None
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")
    pixels = np.stack([np.asarray(Image.open(tmp_path / "run" / name)) for name in designs["file"]])
    np.testing.assert_allclose(loaded.reward_.predict_lower(pixels), designs["lower"], rtol=1e-3)
    scored = call("score", tmp_path / "run", folder / "pictures.csv", "--image", "path")
    assert scored.exit_code == 0, scored.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "{folder}/nowhere"], "--features: .*nowhere is not a directory; pass the directory of a CLIP"),
        (["--features", "{sd}"], "--features: .*sd has no config.json; pass the directory of a CLIP model"),
        (["--parent", "ACGT"], "--parent is for sequences; leave it out with --image"),
        (["--previous", "run"], "--previous is for sequences"),
        (["--n-steps", "3"], "--n-steps belongs to a pipeline of diffusers"),
        (["--pretrained", "{sd}"], "takes text; name a file with one prompt a line by --prompts"),
        (["--pretrained", "{sd}", "--prompts", "{folder}/long.txt"], "line 3 of .*long.txt has .* would be cut off"),
        (["--pretrained", "{sd}", "--prompts", "{folder}/none.txt"], "none.txt cannot be read"),
        (["--pretrained", "{sd}", "--prompts", "{folder}/empty.txt"], "empty.txt is empty; write one prompt a line"),
        (["--pretrained", "{ddpm}"], "0.png has 16 x 16 pixels, not 8 x 8.*grey pictures.*--resize"),
        (["--pretrained", "{ddpm}", "--prompts", "{folder}/prompts.txt"], "takes no text; leave out prompts"),
        (["--pretrained", "{folder}"], "model_index.json"),
        (["--lora-rank", "2"], "--lora-rank belongs to a pipeline"),
    ],
)
def test_wrong_options_are_refused_by_name(folder, tmp_path, options, message):
    if not (folder / "ddpm").exists():
        ddpm(folder / "ddpm")
    (folder / "long.txt").write_text("cat\n\n" + "horse " * 9)
    (folder / "empty.txt").write_text("\n \n")
    options = [option.format(sd=folder / "sd", ddpm=folder / "ddpm", folder=folder) for option in options]
    result = design(folder / "pictures.csv", *OPTIONS, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompts", "p.txt"], "--prompts is for pictures; name the column of their paths by --image"),
        (["--resize"], "--resize is for pictures"),
        (["--features", "clip"], "--features is for pictures"),
        (["--pretrained", "{sd}"], "is a pipeline, which makes pictures; name the column of their paths by --image"),
    ],
)
def test_options_of_pictures_are_refused_for_sequences(folder, tmp_path, options, message):
    (tmp_path / "t.csv").write_text(
        "sequence,y\n" + "".join(f"{'ACGT'[i % 4]}{'ACGT'[i // 4]},{i}\n" for i in range(16))
    )
    options = [option.format(sd=folder / "sd") for option in options]
    result = design(tmp_path / "t.csv", "--target", "y", *options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and message in result.stderr, result.output


def test_broken_pictures_stop_a_run_unless_they_are_to_be_skipped(command, folder, tmp_path):
    shutil.copytree(folder / "png", tmp_path / "png")
    table = tmp_path / "pictures.csv"
    table.write_text((folder / "pictures.csv").read_text() + "png/nowhere.png,1\n")
    (tmp_path / "png" / "3.png").write_bytes(b"no picture")
    refused = design(table, *command[1:], "--out", tmp_path / "run")
    assert refused.exit_code == 2
    assert "line 5 of" in refused.stderr and "3.png cannot be read" in refused.stderr
    assert "(2 rows are so)" in refused.stderr and "--skip-broken" in refused.stderr
    skipped = design(table, *command[1:], "--skip-broken", "--alpha", "0", "--out", tmp_path / "run")
    assert skipped.exit_code == 2 and "--alpha must be" in skipped.stderr
    assert "2 whose picture cannot be read (png/3.png, png/nowhere.png) dropped" in skipped.stdout
