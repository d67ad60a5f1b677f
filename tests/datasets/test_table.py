import bz2
import gzip
import itertools
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit import SequenceSpace
from braidkit.datasets.table import read_table
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError


@pytest.fixture
def write(tmp_path):
    def write(text, name="mpra.csv"):
        path = tmp_path / name
        (gzip.open if name.endswith(".gz") else open)(path, "wt", encoding="utf-8").write(text)
        return path

    return write


def read(path, **options):
    return read_table(path, sequence="seq", target="mrl", **options)


def test_the_line_that_a_person_sees(write):
    rows = [f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}{'ACGT'[i // 16 % 4]}{'ACGT'[i // 64 % 4]}C" for i in range(200)]
    text = "id,seq,mrl\n" + "".join(f"r{i},{row},{i / 100}\n" for i, row in enumerate(rows))
    path = write(text + "a,AAAAC,2\nb,ACNTC,1\nc,ANRTC,1\n")
    table = read(path, on_ambiguous="drop")
    assert table.describe() == (
        "read 203 rows: 200 kept (1 duplicate averaged, 2 with N dropped); DNA, 5 nt; "
        "target 5/50/95 %: 0.11 / 1 / 1.89, max 1.99"
    )
    assert table.sequences == rows
    # The first row repeats as the last but two: (0 + 2) / 2.
    assert table.y[0] == 1
    assert table.y[1:].tolist() == [i / 100 for i in range(1, 200)]
    assert (table.n_rows, table.n_averaged, table.dropped) == (203, 1, {"with N": 2})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "seq,mrl\nACGT,1\nACGA,2.5\n"),
        ("t.tsv", "mrl\tseq\n1\tACGT\n2.5\tACGA\n"),
        ("t.csv.gz", "seq;note, and more;mrl\nACGT;a,b;1\nACGA;;2.5\n"),
        ("excel.csv", "\ufeffseq,mrl\nacgt , 1\n\n acga,2.5\n\n"),
    ],
)
def test_separators_compression_case_and_blank_lines(write, name, text):
    table = read(write(text, name))
    assert table.sequences == ["ACGT", "ACGA"]
    assert table.y.tolist() == [1, 2.5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text("ACGT", min_size=3, max_size=3), st.floats(-1e6, 1e6)), min_size=2, max_size=20))
def test_each_sequence_comes_once_with_its_mean(tmp_path_factory, rows):
    frame = pd.DataFrame(rows, columns=["seq", "mrl"])
    expected = frame.groupby("seq", sort=False)["mrl"].mean()
    path = tmp_path_factory.mktemp("t") / "t.csv"
    frame.to_csv(path, index=False)
    if expected.nunique() == 1:
        with pytest.raises(InvalidTargetError, match="constant"):
            read(path, alphabet="DNA")
        return
    table = read(path, alphabet="DNA")
    assert table.sequences == expected.index.tolist()
    np.testing.assert_allclose(table.y, expected, rtol=1e-12, atol=1e-9)
    assert table.n_averaged == len(rows) - len(expected)


@pytest.mark.parametrize(
    ("rows", "options", "alphabet"),
    [
        (["ACGT", "ACGN"], {"on_ambiguous": "drop"}, "ACGT"),
        (["ACGU", "ACGG"], {}, "ACGU"),
        (["ACGG", "ACGC"], {}, "ACGT"),
        (["MKVL", "MKVA"], {}, "ACDEFGHIKLMNPQRSTVWY"),
        (["MKVL", "MKVX"], {"on_ambiguous": "drop"}, "ACDEFGHIKLMNPQRSTVWY"),
        (["HPHP", "HPPP"], {"alphabet": "HP"}, "HP"),
        (["hPhP", "hPPP"], {"alphabet": "hP"}, "hP"),
    ],
)
def test_the_alphabet_is_found_or_given(write, rows, options, alphabet):
    text = f"seq,mrl\n{rows[0]},1\n{rows[1]},3\n{rows[0][::-1]},7\n"
    assert read(write(text), **options).space.alphabet == alphabet


def test_length_keeps_only_that_length(write):
    path = write("seq,mrl\nACGT,1\nACG,2\nACGTA,3\nACGA,4\n")
    every = read(path, padding="left")
    assert every.space == SequenceSpace("DNA", (3, 5), padding="left") and len(every.sequences) == 4
    assert "4 kept; DNA, 3 to 5 nt, padded on the left" in every.describe()
    table = read(path, length=4)
    assert table.sequences == ["ACGT", "ACGA"]
    assert table.dropped == {"of another length than 4": 2}
    assert "2 of another length than 4 dropped" in table.describe()
    with pytest.raises(InvalidDesignError, match="no row to learn from: of 4 rows, 4 of another length than 9"):
        read(path, length=9)


HEAD = "seq,mrl\nACGT,1\n\nACGA,2\nACGC,3\nCCGC,3\n"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", InvalidDesignError, "mpra.csv is empty; pass a table with a header row"),
        ("seq,mrl\n\n", InvalidDesignError, "has a header but no rows"),
        ("sequence,mrl\nACGT,1\n", InvalidParameterError, "no column 'seq'; its columns are: sequence, mrl"),
        (HEAD + "ACGT,inf\nACTT,0,5\n", InvalidParameterError, "line 8 of .* has 3 cells, and the header has 2"),
        (HEAD + "ACGT\n", InvalidParameterError, "line 7 of .* has 1 cells, and the header has 2"),
        ("seq,mrl\nACTT,0,5\nACTA,1,5\n", InvalidParameterError, "more cells than the header"),
        (HEAD + "ACGT,inf\nACTT,low\n", InvalidTargetError, r"line 7 .*'mrl' is 'inf'.* \(2 rows are so\)"),
        (HEAD + ",1\n", InvalidDesignError, "line 7 of .*: the sequence is empty; drop such rows"),
        (
            HEAD + "ACGT,1\nACRN,1\nTNTT,1\n",
            InvalidDesignError,
            r"""line 8 of .*: 'R' at position 3 is not in the alphabet ACGT \(2 rows are so\); drop or correct such """
            'rows, or pass on_ambiguous="drop"',
        ),
        (
            HEAD + "AC-T,1\n",
            InvalidDesignError,
            "'-' at position 3 is not in the alphabet ACGT; .*gaps of an alignment, remove them .* the alphabet ACGT-",
        ),
        (
            "seq,mrl\nA23V,1\nG4L,2\n",
            InvalidDesignError,
            r"line 2 .*: '2' at position 2 .*\(2 rows are so\); this names a mutation: write the whole sequence",
        ),
        ("seq,mrl\nMKLW*,1\nMKLF*,2\n", InvalidDesignError, r"'\*' at position 5 .*if this is the stop codon, remove"),
        ("seq,mrl\nACGT,1\nACGT,2\n", InvalidTargetError, "the same design in all rows, and there is nothing to learn"),
        ("seq,mrl\nACGT,2\nACGA,2\nACGA,2.0\n", InvalidTargetError, "column 'mrl' of .* is 2 in all rows"),
    ],
)
def test_bad_tables_are_refused_by_line_with_the_remedy(write, text, error, message):
    with pytest.raises(error, match=message):
        read(write(text))


def test_dropping_ambiguous_rows_still_refuses_other_letters(write):
    with pytest.raises(InvalidDesignError, match="line 8 .*'E' at position 4 .*drop or correct such rows, or pass"):
        read(write(HEAD + "ACGN,1\nACNE,1\n"), on_ambiguous="drop")


@pytest.mark.parametrize("row", ["A23V", "A23V:G45L", "p.A23V", "p.Ala23Val", "c.76A>T", "G45*", "23DEL", "A23V;G45L"])
def test_names_of_mutations_are_told_from_sequences(write, row):
    with pytest.raises(InvalidDesignError, match="this names a mutation"):
        read(write(f'seq,mrl\nMKVLW,1\n"{row}",2\n'))


@pytest.mark.parametrize("row", ["5'-ACGT-3'", "ACGT2", "M KV1LWE"])
def test_sequences_with_strange_letters_are_no_mutations(write, row):
    with pytest.raises(InvalidDesignError, match="drop or correct such rows"):
        read(write(f'seq,mrl\nMKVLW,1\n"{row}",2\n'))


def test_bad_calls_are_refused(write, tmp_path):
    with pytest.raises(InvalidParameterError, match="nowhere.csv is not a file; check the path"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(InvalidParameterError, match="on_ambiguous must be 'error' or 'drop'; got 'keep'"):
        read(write(HEAD), on_ambiguous="keep")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(InvalidParameterError, match=r"broken.csv.gz cannot be read as a table"):
        read(broken)


@pytest.mark.data
def test_reads_the_measured_utr_table(data_dir):
    table = read_table(data_dir / "utr_human_mrl.csv.gz", sequence="sequence", target="mrl")
    assert table.n_rows == 25000
    assert (table.space.name, table.space.length) == ("DNA", 50)


ROWS = b"seq,mrl\nACGT,1\nACGA,2\n"


def packed(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, ROWS)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2", "t.csv.xz", "t.zip"])
def test_packed_tables_are_read_whole_or_refused(tmp_path, name, monkeypatch):
    path = tmp_path / name
    if name.endswith(".zip"):
        packed(path, ["t.csv"])
    else:
        path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[path.suffix[1:]].compress(ROWS))
    assert read_table(path, sequence="seq", target="mrl").sequences == ["ACGT", "ACGA"]
    monkeypatch.setattr("braidkit.datasets._streams.MAX_UNPACKED", 20)
    with pytest.raises(InvalidParameterError, match=f"{name} unpacks to more than"):
        read_table(path, sequence="seq", target="mrl")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive at all", whole[:12] + b"\x00\xff" * 4 + whole[20:]):
        path.write_bytes(damaged)
        with pytest.raises((InvalidParameterError, InvalidDesignError), match=name):
            read_table(path, sequence="seq", target="mrl")


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tgz", "t.csv.zst", "two.zip", "none.zip"])
def test_archives_without_one_table_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ROWS)
    if name.endswith(".zip"):
        packed(path, ["a.csv", "b.csv"] if name == "two.zip" else [])
    with pytest.raises(InvalidParameterError, match="unpack it, and pass the table that is"):
        read_table(path, sequence="seq", target="mrl")


def test_targets_too_large_to_compute_with_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("seq,mrl\nACGT,1\nACGA,1e300\n")
    with pytest.raises(InvalidTargetError, match="line 3 of .*'mrl' is 1e300, too large to compute with"):
        read_table(tmp_path / "t.csv", sequence="seq", target="mrl")


def test_a_sequence_far_longer_than_all_others_is_named_by_row(write):
    rows = "".join(f"{'ACGT' * 2}{a}{b},{i}\n" for i, (a, b) in enumerate(itertools.product("ACGT", "ACGT")))
    path = write("seq,mrl\n" + rows + "ACGT" * 30 + ",3\n")
    with pytest.raises(InvalidDesignError, match="line 18 of .* has 120 letters, but nearly all others .* 10"):
        read(path)
    assert len(read(path, length=10).sequences) == 16
