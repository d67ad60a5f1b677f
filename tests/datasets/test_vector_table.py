"""Tables of settings: which columns designs have, and errors that name row, column and remedy."""

import numpy as np
import pandas as pd
import pytest

from braidkit.datasets import read_vectors
from braidkit.datasets.vector_table import read_rows
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError

HEAD = "temp,layers,solvent,yield\n"
ROWS = "20.5,1,water,1\n60,3.0,dmf,5\n40,2,dmf,3\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text, **options):
        (tmp_path / "t.csv").write_text(text)
        return read_vectors(tmp_path / "t.csv", **({"target": "yield"} | options))

    return read_text


def test_numbers_whole_numbers_and_labels_are_told_apart(read):
    table = read(HEAD + ROWS)
    assert table.X.tolist() == [[20.5, 1, 0, 1], [60, 3, 1, 0], [40, 2, 1, 0]] and table.y.tolist() == [1, 5, 3]
    assert table.space.columns.names == ("temp", "layers", "dmf", "water")
    assert table.space.columns.whole == (1,) and table.space.columns.one_of == {"solvent": (2, 3)}
    assert table.space.bounds[0].tolist() == [20.5, 1, 0, 0] and table.space.bounds[1].tolist() == [60, 3, 1, 1]
    assert "3 columns: temp, layers (whole numbers), solvent (dmf, water)" in table.describe()
    assert read(HEAD + ROWS, real=["layers"]).space.columns.whole == ()


def test_rows_of_the_same_settings_are_replicates(read):
    table = read(HEAD + ROWS + "40,2,dmf,4\n")
    assert table.y.tolist() == [1, 5, 3.5] and table.n_averaged == 1 and table.places == ["line 2", "line 3", "line 4"]
    assert "1 duplicate averaged" in table.describe()


def test_rows_without_a_measurement_are_dropped_and_may_be_incomplete(read):
    table = read(HEAD + ROWS + ",,,\n,3,,\n30,1,dmf,n/a\n")
    assert table.X.shape == (3, 4) and table.dropped == {"without yield": 2}


def test_rows_with_a_blank_cell_are_dropped_where_that_is_asked(read):
    table = read(HEAD + ROWS + ",3,dmf,2\n30,1,NA,9\n", on_missing="drop")
    assert len(table.y) == 3 and table.dropped == {"without temp": 1, "without solvent": 1}


def test_none_is_a_label_and_constant_columns_are_said(read):
    table = read("a,base,v,yield\n1.5,none,50,1\n2,KOH,50,2\n3,-,50,4\n")
    assert table.space.columns.one_of == {"base": (1, 2, 3)} and table.space.columns.names[1:4] == ("-", "KOH", "none")
    assert "v (50 in all rows: held)" in table.describe()


def test_all_leaves_out_texts_and_what_numbers_the_rows(read):
    lines = [f"{i + 7},x{i},{i % 4},{i * i}" for i in range(45)]
    table = read("run,note,level,yield\n" + "\n".join(lines))
    assert table.space.columns.names == ("level",)
    assert table.notes == (
        "column 'run' left out: it numbers the rows",
        "column 'note' left out: blank, or more than 20 texts",
    )
    assert read("run,note,level,yield\n" + "\n".join(lines), columns=["run", "level"]).X.shape == (45, 2)
    some = [line for i, line in enumerate(lines) if i % 3]  # the best rows were taken out
    assert read("run,note,level,yield\n" + "\n".join(some)).space.columns.names == ("level",)


def test_a_workbook_and_semicolons_with_decimal_commas_are_read(tmp_path):
    frame = pd.DataFrame({"temp": [20.5, 60, 40], "yield": [1.5, 2, 3]})
    frame.to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False)
    assert read_vectors(tmp_path / "t.csv", target="yield").X[:, 0].tolist() == [20.5, 60, 40]
    pytest.importorskip("openpyxl")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    table = read_vectors(tmp_path / "t.xlsx", target="yield")
    assert table.X[:, 0].tolist() == [20.5, 60, 40] and table.places[0] == "row 2"


def test_the_digest_tells_columns_and_rows_apart(read):
    digests = {read(HEAD + ROWS).digest(), read(HEAD.replace("temp", "heat") + ROWS).digest()}
    digests |= {read(HEAD + ROWS.replace("20.5", "20.6")).digest(), read(HEAD + ROWS, columns=["temp"]).digest()}
    assert len(digests) == 4 and read(HEAD + ROWS).digest() in digests


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        (HEAD + ROWS + ",1,dmf,2\n", {}, InvalidDesignError, "line 5 of .*'temp' is blank; fill them in .0, if none"),
        (HEAD + ROWS + "NA,1,dmf,2\n-,1,dmf,2\n", {}, InvalidDesignError, r"line 5 of .*'temp' is 'NA'.*\(2 rows"),
        (HEAD + ROWS + "30,1,,2\n", {}, InvalidDesignError, "line 5 of .*'solvent' is blank"),
        (HEAD + ROWS + "hot,1,dmf,2\n", {}, InvalidDesignError, "line 5 of .*'temp' is 'hot', not a finite number"),
        (HEAD + ROWS + "1e999,1,dmf,2\n", {}, InvalidDesignError, "'temp' is '1e999', not a finite number"),
        (HEAD + ROWS + "1e101,1,dmf,2\n", {}, InvalidDesignError, "'temp' is 1e101, too large"),
        (HEAD + ROWS + "30,1,DMF,2\n", {}, InvalidDesignError, "'solvent' of .* has 'DMF' and 'dmf'; write labels"),
        (HEAD + ROWS, {"columns": ["temp", "yield"]}, InvalidParameterError, "'yield' cannot be a column of the desig"),
        (HEAD + ROWS, {"columns": ["temp", "temp"]}, InvalidParameterError, "names 'temp' twice"),
        (HEAD + ROWS, {"columns": []}, InvalidParameterError, "columns must be names"),
        (HEAD + ROWS, {"columns": [3]}, InvalidParameterError, "columns must be names"),
        (HEAD + ROWS, {"columns": ["temq"]}, InvalidParameterError, "no column 'temq'.*Did you mean 'temp'"),
        (HEAD + ROWS, {"real": ["solvent"]}, InvalidParameterError, "real names 'solvent'.*temp, layers"),
        (HEAD + ROWS, {"on_missing": "keep"}, InvalidParameterError, "on_missing must be"),
        (HEAD + ROWS, {"target": "solvent"}, InvalidTargetError, "'solvent' is 'water', not a finite number"),
        (HEAD + "1,1,a,2\n1,1,a,3\n", {}, InvalidDesignError, "has the same temp, layers, solvent in all rows"),
        (HEAD + ROWS, {"columns": ["temp"], "target": "layers", "weight": "yeild"}, InvalidParameterError, "'yield'"),
        (HEAD, {}, InvalidDesignError, "has a header but no rows"),
        ("yield\n1\n2\n", {}, InvalidParameterError, "no column of numbers or labels besides the measurements"),
        (HEAD + "30,1,dmf,\n", {}, InvalidDesignError, "no row to learn from"),
        (
            HEAD + ",1,dmf,2\n",
            {"on_missing": "drop", "columns": ["temp"]},
            InvalidDesignError,
            "no row to learn from: of 1 rows, 1 without temp were dropped",
        ),
        (HEAD + "30,1,dmf,2\n31,1,dmf,2\n", {}, InvalidTargetError, "is 2 in all rows"),
        ("a,a,yield\n1,2,3\n2,3,4\n", {}, InvalidParameterError, "2 columns called 'a'"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(read, text, options, error, words):
    with pytest.raises(error, match=words):
        read(text, **options)


def test_true_and_false_are_labels_however_they_are_written(read):
    rows = [
        read(f"temp,dry,y\n1,{yes},1\n2,{no},2\n", target="y") for yes, no in (("TRUE", "FALSE"), ("true", "false"))
    ]
    for table in rows:
        assert table.space.columns.labels("dry") == ["False", "True"] and table.X[:, 1:].tolist() == [[0, 1], [1, 0]]


def test_too_many_texts_are_no_labels(read):
    rows = "\n".join(f"{i}.5,n{i},{i}" for i in range(25))
    with pytest.raises(
        InvalidParameterError, match="'note' of .* has 25 texts, such as 'n0'; designs can have one of 20"
    ):
        read("temp,note,yield\n" + rows, columns=["temp", "note"])


def test_rows_are_read_by_the_columns_of_a_space(read, tmp_path):
    space = read(HEAD + ROWS).space
    (tmp_path / "new.csv").write_text("solvent,other,layers,temp\nwater,x,7,99.5\n")
    np.testing.assert_array_equal(read_rows(tmp_path / "new.csv", space), [[99.5, 7, 0, 1]])
    (tmp_path / "new.csv").write_text("solvent,layers,temp\nwater,7,99\nwine,1,1\n")
    with pytest.raises(InvalidDesignError, match="line 3 of .*'solvent' is 'wine', and designs have one of dmf, water"):
        read_rows(tmp_path / "new.csv", space)
