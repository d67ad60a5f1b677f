"""Odd command lines: each ends in a sentence, never in a traceback, and leaves no file behind."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import GaussianDiffusion, ImageSpace, PixelDiffusion, VectorSpace
from braidkit.cli import main
from braidkit.cli.run_directory import RunDirectory
from tests.worlds import untrained

FILES = {
    "a.gz": b"x",
    "b.xz": b"\xfd7zXZ\x00junk",
    "c.bz2": b"BZh9junk",
    "d.zip": b"PK\x03\x04junk",
    "e.xlsx": b"PK\x03\x04",
    "f.csv": b"\xff\xfe\x00",
    "g.csv": b"\x00" * 50,
    "h.csv": b"\x1f\x8b\x08junk",
    "i.fa": b">",
    "j.fa": b">a",
    "k.fa": b"ACGT\n>a\n",
    "l.csv": b'sequence,mrl\n"',
    "m.csv": b"sequence,mrl\n" + b"A" * 200_000 + b",1\nC,2\n",
    "n.csv": b"#\n#\n",
    "o.csv": b'sequence,mrl\n"ACGT\n\n\n',
    "p.csv": b"sep=;\n",
    "q.csv": b"sequence;mrl\n;\n;;;\n",
    "r.csv": b"\n\n\n",
    "s.csv": b"sequence,mrl\n=cmd,1\n+1,2\n",
    "u.csv": b"sequence,mrl\nACGT,1\nACGA,1e400\n",
    "v.csv": "sequence,mrl\nÄCGT,1\nACGA,2\n".encode(),
    "w.csv": b"sequence,mrl\n\xed\xa0\xbd,1\nACGA,2\n",
    "x.fa": b">a mrl=\nACGT\n>b mrl=1\nACGA\n",
    "y.fa": b">a mrl=1\n>b mrl=2\n",
    "z.csv": b"sequence,mrl\nACGT,1\n",
    "one.csv": b"sequence,mrl\nACGT,1\nACGT,2\n",
    "tiny.csv": b"sequence,mrl\nACGT,1e-319\nACGA,2e-319\n",
    "t.parquet": b"PAR1junkPAR1",
    "t.json": b'{"sequence":["ACGT"],"mrl":[1]}',
}
TABLES = ["nowhere", ".", "/proc/self/mem", "/dev/null", "", "bad.xlsx", *FILES]
PLACES = ["/proc", "/proc/x", "/dev/null", "/dev/null/x", "t.csv", "\0bad", "a" * 300, "", "dangling"]
PLACES += ["other", "bytes", "list", "folder"]
OPTIONS = """
--alpha nan|--alpha inf|--alpha -1|--c nan|--c inf|--c x|--n 0|--n -5|--n 1e3|--n 999999999|--seed -1
--seed 9999999999999|--device meta|--device cuda:99|--device tpu|--device |--max-iter 0|--length 0|--length 999
--alphabet |--alphabet A|--alphabet AA|--alphabet ÄÖ|--alphabet XYZ|--template AC|--template ZZZZZZ
--template CCCCCC|--hold 0|--hold 9-1|--hold a|--free 1-99|--free 1-6|--hold |--pretrained nowhere
--pretrained t.csv|--pretrained .|--pretrained |--previous nowhere|--previous t.csv|--previous |--previous .
--lora-rank 4|--values t.csv|--values nowhere|--sequence mrl|--sequence|--config nowhere|--config t.csv
--config .|--config c1.toml|--config c2.toml|--config c3.toml|--config c4.json|--reward x|--weight mrl
--weight x|--target-se x|--target-se mrl|--objective (|--objective mrl - mrl|--objective __import__('os')
--device mps|--device xpu|--c 1e300|--alpha 1e300|--objective mrl*1e300|--image sequence|--image mrl|--resize
--skip-broken|--prompts t.csv|--features .|--n-steps 3|--pretrained vectors|--pretrained pictures|--previous vectors
--length 5|--hold 1,,2|--free 7|--forbidden |--forbidden ,,|--sites NNN|--frame 3-1|--frame 0|--frame 1-2
--max-homopolymer 99999999999|--padding middle|--alphabet dna|--template ACGTAC|--config c5.toml|--config c6.toml
--parent ACGT|--mutations 9|--max-homopolymer 0|--frame 9|--target mrl|--nothing 1
"""
OTHERS = [
    ["design", "t.csv", "--target", "", "--out", "o"],
    ["design", "t.csv", "--target", "a,b", "--out", "o"],
    ["design", "t.csv", "--target", "=", "--out", "o"],
    ["design", "t.csv", "--target", "x=mrl,mrl", "--out", "o"],
    *[["score", run, "t.csv"] for run in ("nowhere", ".", "t.csv", "saved", "broken", "", "/proc", "\0")],
    *[["sample", run] for run in ("nowhere", ".", "t.csv", "saved", "broken", "", "/proc", "\0")],
    *[["sample", "saved", *more] for more in (["--n", "0"], ["--seed", "x"], ["--out", "t.csv"], ["--out", "/proc/x"])],
    *[["score", run, "t.csv"] for run in ("vectors", "pictures")],
    ["sample", "pictures"],
    ["sample", "pictures", "--out", "t.csv"],
    ["demo", "--out", "finished"],
    *[["demo", *more] for more in (["--out", "t.csv"], ["--out", "/proc/x"], ["--device", "meta"], ["--seed", "x"])],
    *[
        ["sample"],
        ["score"],
        ["score", "saved"],
        ["design"],
        ["design", "t.csv"],
        ["nothing"],
        ["--x"],
        ["design", "--x"],
    ],
]
CASES = [["design", table, "--target", "mrl", "--out", "o"] for table in TABLES]
CASES += [["design", "t.csv", "--target", "mrl", "--out", place] for place in PLACES]
for line in OPTIONS.strip().splitlines():
    for option in line.split("|"):
        name, _, value = option.partition(" ")
        CASES.append(["design", "t.csv", "--target", "mrl", "--out", "o", name, value])
CASES += OTHERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    rng = np.random.default_rng(0)
    X = sorted({"".join(row) for row in rng.choice(list("ACGT"), (90, 6))})[:70]
    y = [row.count("G") - 1 + 0.1 * rng.normal() for row in X]
    pd.DataFrame({"sequence": X, "mrl": y}).to_csv(folder / "t.csv", index=False)
    with zipfile.ZipFile(folder / "bad.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<x")
    (folder / "dangling").symlink_to("nothing")
    more = {
        "other/run.json": b"{}",
        "bytes/run.json": b"\xff\x00",
        "list/run.json": b"[1]",
        "folder/run.json/file": b"",
        "saved/model/config.json": b"{}",
        "saved/finetuner/config.json": b"{}",
        "broken/finetuner/config.json": b'{"digest":"braidkit:x"}',
        "broken/finetuner/model.safetensors": b"x",
        "c1.toml": b"x=",
        "c2.toml": b"\xff",
        "c3.toml": b"n=[1]",
        "c4.json": b"{}",
        "c5.toml": b'target = ["mrl", ["a"]]',
        "c6.toml": b'config = "c6.toml"',
    }
    for name, content in more.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    untrained(GaussianDiffusion(VectorSpace(2), n_steps=2)).save_pretrained(folder / "vectors")
    untrained(PixelDiffusion(ImageSpace(4, 4), n_steps=2)).save_pretrained(folder / "pictures")
    finished = RunDirectory(folder / "finished")
    with finished.claimed({"command": "design"}):
        finished.finish()
    return folder


def files(folder):
    """Size and time of change of each file, by its path."""
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (state.st_size, state.st_mtime_ns) for path, state in found.items()}


@pytest.mark.parametrize("args", CASES, ids=lambda args: " ".join(args)[:60].replace("\0", "0"))
def test_an_odd_command_line_ends_in_a_sentence(folder, args, monkeypatch):
    monkeypatch.chdir(folder)
    before = files(folder)
    result = CliRunner().invoke(main, args)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2)
    assert "Error: " in result.stderr and "Traceback" not in result.output
    assert files(folder) == before
