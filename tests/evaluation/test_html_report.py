"""The page is whole, parses, and refers to nothing outside itself."""

import base64
import copy
import importlib
import io
import platform
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import braidkit
from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace
from braidkit.evaluation import CalibrationReport, design_table, report, select
from braidkit.evaluation.html_report import LIMITS
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError, MissingExtraError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

VOID = {"img", "meta", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: headings, text, pictures, tables, addresses; every tag must be closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.addresses, self.tables, self.text = [], [], [], [], [], []
        self.scripts = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        assert not any(name.startswith("on") for name in attrs)
        self.addresses += [attrs[name] for name in ("src", "href", "action", "srcset") if name in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, column):
        """The table that has a column of this name."""
        return next(table for table in self.tables if column in table[0])


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    designs = design_table(*run, n_designs=20, random_state=0)
    calibration = CalibrationReport.from_estimator(*run, backtest=False, random_state=0)
    report(
        *run, path=path, designs=designs, calibration=calibration, name="MRL <ribosomes>", source="mpra.csv & more",
        random_state=0,
    )  # fmt: skip
    return path, designs, calibration


@pytest.fixture
def page(written):
    return Page(written[0].read_text(encoding="utf-8"))


def test_every_figure_is_inlined_and_nothing_is_fetched(page, written):
    assert len(page.images) == 6
    for image in page.images:
        start, _, data = image["src"].partition(",")
        assert start == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
        assert image["alt"]
    assert all(address.startswith("data:") for address in page.addresses)
    without_pictures = re.sub(r'src="data:[^"]*"', "", written[0].read_text())
    assert "http" not in without_pictures and "url(" not in without_pictures and "@import" not in without_pictures
    assert "<link" not in without_pictures and "fetch(" not in without_pictures


def test_the_page_has_all_its_parts(page, run):
    assert page.headings == [
        "Summary", "Data", "Fine-tuning", "Designs", "How far to trust the bound", "Limits of this page", "Settings",
    ]  # fmt: skip
    text = " ".join(page.text)
    assert all(limit in text for limit in LIMITS)
    assert f"Fine-tuning did {run.finetuner.n_iter_} updates." in text
    assert (
        f"The checkpoint of update {run.finetuner.best_iter_} was kept: its designs are best by the objective" in text
    )
    data = dict(page.table("source"))
    assert data["source"] == "mpra.csv & more" and data["rows"] == "232"
    assert data["rows of the judge"] == "58"
    low, middle, high = np.quantile(run.y, [0.05, 0.5, 0.95])
    assert data["MRL <ribosomes>"].startswith(f"5 / 50 / 95 %: {low:.3g} / {middle:.3g} / {high:.3g}; from ")
    settings = dict(page.table("alpha"))
    assert settings["alpha"] == "0.001" and settings["max_iter"] == "8"
    assert f"Written by braidkit {braidkit.__version__}." in text


def test_the_table_of_designs_sorts_by_full_values(page, written):
    path, designs, _ = written
    head, *rows = page.table("sequence")
    # What decides about an order stands first; no column is lost.
    assert head[:8] == ["id", "sequence", "lower", "mean", "judge", "flags", "distance", "nearest"]
    assert set(head) == set(designs.columns) and len(head) == designs.shape[1]
    assert [row[1] for row in rows] == designs["sequence"].tolist()
    assert [row[3] for row in rows] == [f"{mean:.4g}" for mean in designs["mean"]]
    full = re.findall(r'data-value="([^"]+)"', path.read_text())
    assert {f"{mean:.9g}" for mean in designs["mean"]} <= set(full)
    assert 'table class="sorts"' in path.read_text() and "table.sorts th" in page.scripts[0]


def test_calibration_is_told(page, written):
    calibration = written[2]
    head, row = page.table("one_sided")
    assert row[0] == "held out" and float(row[head.index("n")]) == 58
    assert all(note in " ".join(page.text) for note in [*calibration.notes, *calibration.warnings])


def test_figures_are_closed_again(run, tmp_path):
    pyplot = importlib.import_module("matplotlib.pyplot")
    before = pyplot.get_fignums()
    report(run.finetuner, path=tmp_path / "page.html")
    assert pyplot.get_fignums() == before


def test_a_table_of_select_will_do(run, tmp_path):
    batch = select(*run, n_designs=6, n_candidates=100, n_controls=2, random_state=0)
    calibration = CalibrationReport.from_estimator(*run, backtest=False, random_state=0)
    report(*run, path=tmp_path / "page.html", designs=batch, calibration=calibration)
    head, *rows = Page((tmp_path / "page.html").read_text()).table("role")
    assert [row[head.index("role")] for row in rows] == batch["role"].tolist()
    # What was not measured has no number, rather than a word.
    assert [row[head.index("measured")] == "" for row in rows] == batch["measured"].isna().tolist()


def test_without_data_the_page_says_less(run, tmp_path):
    report(run.finetuner, path=tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert page.headings == ["Summary", "Fine-tuning", "Limits of this page", "Settings"]
    assert len(page.images) == 1


def test_vectors_have_a_page_with_a_table_of_designs(tmp_path):
    X = np.random.default_rng(0).normal(size=(120, 2))
    y = X.sum(axis=1)
    settings = {"reward": GPBonusReward(max_iter=2), "max_iter": 2, "batch_size": 16, "random_state": 0}
    finetuner = ConservativeDiffusionFinetuner(**settings).fit(X, y)
    report(finetuner, X, y, path=tmp_path / "page.html", random_state=0)
    page = Page((tmp_path / "page.html").read_text())
    assert "Data" in page.headings and "Designs" in page.headings
    assert len(page.images) == 5
    assert "backtest" in [row[0] for row in page.table("one_sided")]


def test_over_optimisation_and_flags_are_told(run, tmp_path, monkeypatch):
    last = len(run.finetuner.history_["lower"]) - 1
    history = {name: [float(i) for i in range(last + 1)] for name in run.finetuner.history_}
    history["judge"] = [1.0, 5.0, *([2.0] * (last - 1))]
    monkeypatch.setattr(run.finetuner, "history_", history)
    monkeypatch.setattr(run.finetuner, "best_iter_", 1)
    monkeypatch.setattr(run.finetuner, "over_optimising_since_", 1)
    designs = pd.DataFrame({"sequence": run.X[:2], "mean": [1, 2], "lower": [0, 1], "flags": ["", "measured already"]})
    report(run.finetuner, path=tmp_path / "page.html", designs=designs)
    text = " ".join(Page((tmp_path / "page.html").read_text()).text)
    assert (
        f"After update 1 the run over-optimised: the lower bound went on rising, to {last}, and the judge fell to 2, "
        "beyond its error." in text
    )
    assert "1 of them have a flag" in text


def test_a_page_is_replaced_in_one_piece(run, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("before")
    monkeypatch.setattr("jinja2.Template.render", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report(run.finetuner, path=path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_names_and_cells_are_escaped(run, tmp_path):
    nasty = "<script>alert('x')</script> & \"quoted\""
    calibration = CalibrationReport.from_estimator(*run, backtest=False, random_state=0)
    calibration.notes.append(nasty)
    designs = pd.DataFrame(
        {"sequence": run.X[:2], nasty: [nasty, 1.0], "mean": [1, 2], "lower": [0, 1], "flags": nasty}
    )
    report(
        *run,
        path=tmp_path / "page.html",
        designs=designs,
        calibration=calibration,
        title=nasty,
        name=nasty,
        source=nasty,
    )
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text and text.count("<script>") == 1
    page = Page(text)
    assert page.scripts == Page(text).scripts and len(page.scripts) == 1
    head, first, second = page.table("sequence")
    assert nasty in head and first[head.index(nasty)] == nasty and first[head.index("flags")] == nasty
    assert second[head.index(nasty)] == "1"
    assert dict(page.table("source"))[nasty].startswith("5 / 50 / 95 %")
    assert any(nasty in part for part in page.text)


def test_the_page_tells_nothing_of_the_machine(run, tmp_path):
    finetuner = copy.copy(run.finetuner)
    finetuner.checkpoint_dir = tmp_path / "checkpoint"
    finetuner.space = PlacedSpace("DNA", 10)
    report(finetuner, path=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    settings = dict(Page(text).table("alpha"))
    assert settings["space"] == "PlacedSpace('designs.csv')"
    assert not {"checkpoint_dir", "device", "verbose"} & set(settings)
    machine = [str(tmp_path), str(Path.home()), platform.python_version(), torch.__version__, "people"]
    assert [word for word in machine if word in re.sub(r'src="data:[^"]*"', "", text)] == []
    for image in Page(text).images:
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert "Software" not in picture.info


class PlacedSpace(SequenceSpace):
    """A space whose repr holds an absolute path."""

    def __repr__(self):
        return "PlacedSpace('/srv/people/me/designs.csv')"


def test_a_filtered_column_of_pandas_has_a_page(run, tmp_path):
    frame = pd.DataFrame({"seq": run.X, "y": run.y})
    rows = frame[frame["y"] > frame["y"].median()]
    calibration = CalibrationReport.from_estimator(*run, backtest=False, random_state=0)
    texts = []
    for X, y in ((rows["seq"], rows["y"]), (rows["seq"].tolist(), rows["y"].to_numpy())):
        report(run.finetuner, X, y, path=tmp_path / "page.html", calibration=calibration, random_state=0)
        texts.append((tmp_path / "page.html").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("path", ["", None, 3, "."])
def test_a_path_that_is_no_file_is_refused(run, path):
    with pytest.raises(InvalidParameterError, match="path must be (a path|the name of a file)"):
        report(*run, path=path)


def test_report_refuses_bad_arguments_by_name(run, tmp_path):
    with pytest.raises(InvalidParameterError, match="estimator must be a fitted estimator of braidkit; got ''"):
        report("", path=tmp_path / "page.html")
    with pytest.raises(InvalidParameterError, match="designs has no column 'lower'"):
        report(run.finetuner, path=tmp_path / "page.html", designs=pd.DataFrame({"sequence": run.X, "mean": 1.0}))
    with pytest.raises(InvalidTargetError, match="row 1 is nan"):
        report(run.finetuner, run.X[:2], [1.0, np.nan], path=tmp_path / "page.html")
    with pytest.raises(InvalidDesignError, match="232 designs, but y has 2"):
        report(run.finetuner, run.X, [1.0, 2.0], path=tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_half_of_the_data_is_refused(run, tmp_path):
    with pytest.raises(InvalidParameterError, match="X and y belong together"):
        report(run.finetuner, run.X, path=tmp_path / "page.html")


def test_without_matplotlib_the_error_names_the_extra(run, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'braidkit\[plots\]'"):
        report(*run, path=tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
