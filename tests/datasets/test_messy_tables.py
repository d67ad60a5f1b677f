"""Tables as laboratories have them: read as a person reads them, or refused by a sentence that names the row."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.datasets.sequences import read_sequences
from braidkit.datasets.table import read_table
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError, MissingExtraError
from braidkit.spaces import SequenceSpace

HAS_OPENPYXL = importlib.util.find_spec("openpyxl") is not None
SEQUENCES, Y = ["ACGT", "ACGA", "TTGA"], [1.0, 2.5, -0.5]


def write(folder, content, name="t.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(path, **options):
    return read_table(path, **({"target": "mrl"} | options))


def check(table, sequences=SEQUENCES, y=Y):
    assert (table.sequences, table.y.tolist()) == (sequences, y)


@pytest.mark.data
@pytest.mark.parametrize("name", ["missing.csv", "missing_NA.csv", "comment.csv", "header_space.csv", "latin1.csv"])
def test_messy_tables_of_points_are_read_as_the_clean_one(data_dir, name):
    folder = data_dir / "messy_tables"
    lines = (folder / name).read_text(encoding="latin-1").splitlines()
    rows = [line.split(",") for line in lines if line.count(",") and not line.startswith("#")][1:]
    kept = [(row[0], float(row[1])) for row in rows if row[1] not in ("", "NA")]
    table = read(folder / name)
    assert dict(zip(table.sequences, table.y, strict=True)) == pytest.approx(dict(kept))
    n_missing = len(rows) - len(kept)
    assert table.dropped == ({"without mrl": n_missing} if name.startswith("missing") else {})
    assert (n_missing > 0) == name.startswith("missing")
    assert ("without mrl dropped" in table.describe()) == (n_missing > 0)


@pytest.mark.data
def test_messy_tables_of_commas_of_utf16_and_of_both_alphabets(data_dir):
    folder = data_dir / "messy_tables"
    clean = read(folder / "comment.csv")
    expected = dict(zip(clean.sequences, clean.y, strict=True))
    for name in ("semi_comma.csv", "utf16.csv", "mixed_tu.csv"):
        table = read(folder / name)
        found = {row.replace("U", "T"): value for row, value in zip(table.sequences, table.y, strict=True)}
        common = expected.keys() & found.keys()
        assert len(common) > 0.9 * min(len(found), len(expected)), name
        assert {row: found[row] for row in common} == pytest.approx({row: expected[row] for row in common}), name
    assert read(folder / "mixed_tu.csv").space.name == "RNA"


@pytest.mark.data
def test_messy_tables_that_no_one_can_read_are_refused(data_dir):
    folder = data_dir / "messy_tables"
    with pytest.raises(InvalidParameterError, match="2 columns called 'mrl', the 2nd and the 3rd; rename all but one"):
        read(folder / "dupcol.csv")
    with pytest.raises(InvalidTargetError, match=r"no values: write them .*'>s0 mrl=1.2', or pass a table .*--values"):
        read(folder / "seqs.fasta")


@pytest.mark.data
def test_messy_workbook(data_dir):
    path = data_dir / "messy_tables" / "book.xlsx"
    if HAS_OPENPYXL:
        assert len(read(path).sequences) > 100
    else:
        with pytest.raises(MissingExtraError, match=r"pip install 'braidkit\[excel\]'"):
            read(path)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("sequence;mrl\nACGT;1,0\nACGA;2,50\nTTGA;-0,5\n", {}),
        ('sequence,mrl\nACGT,"1"\nACGA,"2,50"\nTTGA,"-0,5"\n', {}),
        ("sequence\tmrl\nACGT\t1,0\nACGA\t2,5\nTTGA\t-,5\n", {}),
        ('"sequence"|"note"|"mrl"\nACGT|"a|b"|1\nACGA||2.5\nTTGA|"say ""hi"""|-.5\n', {}),
        ("sequence   mrl\nACGT   1\n  ACGA 2.5\nTTGA -5e-1  \n", {}),
        ("sep=;\nsequence;mrl\nACGT;1\nACGA;2.5\nTTGA;-0.5\n", {}),
        (",sequence,mrl,\n0,ACGT,1,\n1,ACGA,2.5,\n2,TTGA,-0.5\n", {}),
        ('"sequence" "mrl"\n"1" "ACGT" 1\n"2" "ACGA" 2.5\n"3" "TTGA" -0.5\n', {}),
        ("#sequence,mrl\n# plate 1\nACGT,1\nACGA,2.5\nTTGA,-0.5\n", {"comments": 0}),
        ("# made by\n# hand\n\nsequence,mrl\nACGT,1\n#CCCC,9\nACGA,2.5\n\n,\nTTGA,-0.5\n", {"comments": 1}),
        ("sequence,mrl\racgt,1\racga,2.5\rttga,-0.5\r", {}),
        ("sequence,mrl\r\nAC GT,1\r\n ACGA\t, 2.5\r\n\xa0TTGA,\N{MINUS SIGN}0.5\r\n", {}),
        ('sequence,mrl\n"AC\nGT",1\nACGA,2.5\nTTGA,-0.5\n', {}),
        ("sequence,mrl,1st,1st\nACGT,1,,\nACGA,2.5,,\nTTGA,-0.5,,\n", {}),
        (">a mrl=1\nAC\nGT\n\n>b|mrl=2.5|x=7\nacga\n>c other 3 mrl:-0.5\nTTGA\n", {}),
        (">a 1\nACGT\n>b kidney 2,5\nACGA\n>c -5e-1\nTTGA", {}),
        ("sequence,mrl\nACGU,1\nACGA,2.5\nUUGA,-0.5\n", {"alphabet": "DNA"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_dialects_of_one_table(tmp_path, content, options, encoding):
    comments = options.get("comments", 0)
    options = {name: value for name, value in options.items() if name != "comments"}
    table = read(write(tmp_path, content, encoding=encoding), **options)
    check(table)
    assert [note for note in table.notes if "comment" in note] == [f"{comments} commented out"] * bool(comments)


@pytest.mark.parametrize(("letters", "other"), [("T", "U"), ("U", "T")])
def test_rows_with_the_other_letter_are_read_in_the_alphabet_of_most(tmp_path, letters, other):
    path = write(tmp_path, f"sequence,mrl\nACG{letters},1\nAA{letters}A,2\nCC{other}C,3\n")
    table = read(path)
    assert table.sequences == [f"ACG{letters}", f"AA{letters}A", f"CC{letters}C"]
    assert table.space.name == {"T": "DNA", "U": "RNA"}[letters]
    assert f"{other} read as {letters} in 1" in table.describe()


def test_a_table_in_latin1_is_read_by_its_own_names(tmp_path):
    text = "sequence,Größe µm\nACGT,1\nACGA,2.5\nTTGA,-0.5\n"
    check(read(write(tmp_path, text, encoding="latin-1"), target="Größe µm"))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("sequence,mrl\nACGT,1\nACGA,2.5\nTTGA,1,5\n", InvalidParameterError, "line 4 of .* has 3 cells, and the head"),
        ("sequence,mrl,sd\nACGT,1,0\nACGA,2\nTTGA,3,0\n", InvalidParameterError, "line 3 of .* has 2 cells, and the h"),
        ('sequence,mrl\nACGT,1\n"ACGA",2\n"TTGA" x,3\n', InvalidParameterError, "line 4 of .* has a quote out of pla"),
        ('sequence,mrl\nACGT,1\n"ACGA,2\nTTGA,3\n', InvalidParameterError, "line 4 of .* has a quote out of place"),
        ('sequence,mrl\nACGT,"1,234"\nACGA,"2,500"\n', InvalidTargetError, "line 2 .* may be 1.234 or 1234; write it"),
        ("sequence;mrl\nACGT;1,5\nACGA;2.5\n", InvalidTargetError, "line 2 .*'1,5' with a comma, and line 3 .*'2.5' w"),
        ("sequence;mrl\nACGT;1,5\nACGA;1,234,5\n", InvalidTargetError, "line 3 of .*: 'mrl' is '1,234,5', not a fin"),
        ("sequence,mrl\nACGT,1\nACGA,1_000\n", InvalidTargetError, "line 3 of .*: 'mrl' is '1_000', not a finite"),
        ("sequence,mrl\nACGT,1\nACGA,<0.5\n", InvalidTargetError, "line 3 of .*'<0.5', not .*the limit itself, 0.5,"),
        ("sequence,mrl\nACGT,1\nACGA,\N{GREATER-THAN OR EQUAL TO} 40\n", InvalidTargetError, "the limit itself, 40,"),
        (
            "sequence,mrl\nACGT,45 %\nACGA,9 %\n",
            InvalidTargetError,
            "line 2 .*'45 %', not .*write the number alone, 45,",
        ),
        ("sequence,mrl\nACGT,1.5nM\nACGA,2\n", InvalidTargetError, "'1.5nM', not .*write the number alone, 1.5, and"),
        (
            "sequence,mrl\nACGT,1 \N{PLUS-MINUS SIGN} 0.1\nACGA,2\n",
            InvalidTargetError,
            "write the number alone, 1, and",
        ),
        ("sequence,mrl\nACGT,1 234\nACGA,2\n", InvalidTargetError, "'1 234', not a finite number; correct such rows"),
        ("sequence,mrl\nACGT,1\nACGA,#DIV/0!\n", InvalidTargetError, "line 3 of .*: 'mrl' is '#DIV/0!', not a finit"),
        ("sequence,mrl\nACGT,1\nACGA,2\nACUT,3\n", InvalidDesignError, "line 4 of .*: the sequence has both T and U"),
        ("sequence,mrl\nACGT,\nACGA,NA\nACTT,n/a\n", InvalidDesignError, "of 3 rows, 3 without mrl were dropped"),
        ("mrl,mrl,sequence\n1,2,ACGT\n", InvalidParameterError, "2 columns called 'mrl', the 1st and the 2nd"),
        ("sequence,mrl\n" + "\0" * 9, InvalidParameterError, "t.csv is no text; .* save it as CSV in UTF-8"),
        (b"\x89HDF\r\n\x1a\n\0\0", InvalidParameterError, "t.csv is no text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", InvalidParameterError, "a workbook of Excel 97; save it as .xlsx"),
        (b"\xff\xfes\0e", InvalidParameterError, "t.csv is no text"),
        (b"\xff\xfes\0e\0\0", InvalidParameterError, "t.csv is no text"),
        (">a 1\nACGT\n>b 2\n>c 3\nACGA\n", InvalidDesignError, "line 3 of .*: no sequence follows >b; remove"),
        (">a 1 2\nACGT\n>b 2\nACGA\n", InvalidTargetError, r"line 1 of .*: the header has 2 numbers \(1, 2\); name th"),
        (">a mrl=low\nACGT\n>b mrl=2\nACGA\n", InvalidTargetError, "line 1 of .*: 'mrl' is 'low', not a finite num"),
        (">a\nACGT\n>b\nACGA\n", InvalidTargetError, "t.csv has no values"),
        ("mrl\n1\n2\n", InvalidParameterError, "has no column 'sequence'; its columns are: mrl"),
        ("letters;mrl;x, y z\nA;1;2\n", InvalidParameterError, "its columns are: letters, mrl, x, y z"),
        (
            "Plate 12\n\nsequence;mrl\nACGT;1\n",
            InvalidParameterError,
            "these columns in line 3, below other text; remove",
        ),
        ("well,x\n,\nid,sequence,mrl\nA1,ACGT,1\n", InvalidParameterError, "these columns in line 3, below other text"),
        ("Plate 12 of 3\nACGT 1\n", InvalidParameterError, "its columns are: Plate, 12, of, 3"),
    ],
)
def test_tables_that_can_be_misread_are_refused(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        read(write(tmp_path, content))


@pytest.mark.parametrize("target", ["mrl, 24 h", "OD=600"])
def test_a_column_whose_name_reads_as_several_is_to_be_renamed(tmp_path, target):
    path = write(tmp_path, f"sequence;{target}\nACGT;1\nACGA;2.5\n")
    with pytest.raises(InvalidParameterError, match=f"but '{target}': commas separate columns.* rename this column"):
        read(path, target=target)


FASTA = ">a x\nACGT\n>b\nACGA\n>c\nTTGA\n>d\nCCCC\n"


def test_fasta_with_values_in_a_table(tmp_path):
    fasta = write(tmp_path, FASTA, "t.fa")
    values = write(tmp_path, "id\tmrl\na\t0,5\nb\t2,5\na\t1,5\nc\t-0,5\ne\t3,1\n", "values.tsv")
    table = read(fasta, values=values)
    check(table)
    assert table.n_averaged == 1
    assert table.dropped == {"of t.fa without a value": 1, "of values.tsv without a sequence": 1}
    with pytest.raises(InvalidParameterError, match=r"no value of column 'mrl' of .* the first are '0,5' .* and 'a'"):
        read(fasta, values=values, sequence="mrl", target="id")
    with pytest.raises(InvalidParameterError, match="has no column 'name'"):
        read(fasta, values=values, sequence="name")
    with pytest.raises(InvalidParameterError, match="values are for the sequences of a FASTA file"):
        read(values, values=values)
    double = write(tmp_path, FASTA + ">a\nGGGG\n", "double.fa")
    with pytest.raises(InvalidParameterError, match="line 9 of .*: a names another sequence above"):
        read(double, values=values)


@pytest.mark.skipif(not HAS_OPENPYXL, reason="needs openpyxl")
def test_workbooks(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["read me"])
    sheet = book.create_sheet("data")
    for row in (["# plate"], [], ["id", " sequence", "mrl "], *zip("abc", SEQUENCES, Y, strict=True), ["d", "CCCC"]):
        sheet.append(list(row))
    book.save(tmp_path / "t.xlsx")
    table = read(tmp_path / "t.xlsx")
    check(table)
    assert table.dropped == {"without mrl": 1}
    book.active.append(["of plate", 1])
    sheet.insert_rows(1)
    sheet["A1"] = "Assay of 3 April"
    book.save(tmp_path / "title.xlsx")
    with pytest.raises(InvalidParameterError, match="these columns in row 4 of the sheet 'data', below other text"):
        read(tmp_path / "title.xlsx")
    sheet.delete_rows(1)
    sheet["C5"] = "high"
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(InvalidTargetError, match=r"row 5 of .*t.xlsx: 'mrl' is 'high', not a finite number"):
        read(tmp_path / "t.xlsx")
    book.copy_worksheet(sheet)
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(InvalidParameterError, match="in the sheets 'data', 'data Copy'; save the one"):
        read(tmp_path / "t.xlsx")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_read_table_gives_the_same_for_every_dialect(tmp_path_factory, data):
    """A table in any dialect gives the numbers that were written, or is refused: it is never misread."""
    draw = data.draw
    rows = draw(st.lists(st.text("ACGT", min_size=4, max_size=4), min_size=2, max_size=8, unique=True))
    y = draw(st.lists(st.decimals(-2000, 2000, places=draw(st.integers(0, 4))), min_size=len(rows), max_size=len(rows)))
    separator, comma = draw(st.sampled_from(",\t;|")), draw(st.booleans())
    quote = draw(st.sampled_from(['"', ""])) if separator != "," or not comma else '"'
    extra = draw(st.lists(st.sampled_from(["", "7", "x y", '"a;b,c"', "# 1"]), min_size=len(rows), max_size=len(rows)))
    numbers = [str(value).replace(".", ",") if comma else str(value) for value in y]
    lines = [f"note{separator}sequence {separator} mrl"]
    lines += [
        separator.join((note if note.startswith('"') or note != "# 1" else '" # 1"', row.lower(), f"{quote}{n}{quote}"))
        for note, row, n in zip(extra, rows, numbers, strict=True)
    ]
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    path = tmp_path_factory.mktemp("t") / "t.txt"
    path.write_bytes(ending.join(lines).encode(draw(st.sampled_from(["utf-8", "utf-16", "latin-1"]))))
    try:
        table = read(path, alphabet="DNA")
    except InvalidTargetError as error:
        assert "may be" in str(error) or "in all rows" in str(error)
        return
    assert table.sequences == rows
    np.testing.assert_allclose(table.y, np.array(y, dtype=float), rtol=1e-12, atol=1e-12)


def test_sequences_without_measurements_have_the_lengths_of_their_space(tmp_path):
    path = write(tmp_path, ">a\nACG\n>b\nACGUA\n", "s.fa")
    found = read_sequences(path, SequenceSpace("DNA", (3, 5)))
    assert found.to_numpy().tolist() == [["a", "ACG"], ["b", "ACGTA"]]
    with pytest.raises(InvalidDesignError, match="line 3 of .*: the sequence has 5 letters, and designs have 3 to 4"):
        read_sequences(path, SequenceSpace("DNA", (3, 4)))
    table = write(tmp_path, "sequence;note\nACG;x\nACC;\n")
    assert read_sequences(table, SequenceSpace("DNA", 3))["id"].tolist() == ["2", "3"]
