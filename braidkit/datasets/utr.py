"""The 5'UTR library of Sample et al. (2019): 50 random nucleotides and the ribosome load that they give."""

from __future__ import annotations

import os

import numpy as np
from sklearn.utils import Bunch

from braidkit.datasets._columns import Columns, fetch_columns, is_dna, read_columns
from braidkit.datasets._fetch import data_folder
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number

BASE_URL = "https://ftp.ncbi.nlm.nih.gov/geo/samples/GSM3130nnn/GSM3130435/suppl"
FILE_NAME = "GSM3130435_egfp_unmod_1.csv.gz"
PREPARED_NAME = "utr_mrl.csv.gz"
LENGTH = 50

PREPARED_COLUMNS: Columns = {"sequence": ("sequence",), "mrl": ("mrl",)}
GEO_COLUMNS: Columns = {"sequence": ("utr",), "mrl": ("rl",), "total_reads": ("total_reads", "total")}

DESCR = """\
Mean ribosome load of random 5'UTRs
-----------------------------------
Source: Sample et al. (2019), Human 5' UTR design and variant effect prediction from a massively parallel translation
assay, Nat. Biotechnol. 37:803; GEO series GSE114002, sample GSM3130435 (egfp_unmod_1, unmodified eGFP mRNA, HEK293T).

Designs: 50 random nucleotides before the start codon, DNA letters (T for U), 5' to 3'.
Target: mean ribosome load (MRL), ribosomes per transcript, from polysome profiling and sequencing.
Rows: in descending order of sequencing reads; noise grows down the table, and so does the mean load: split at random.
The first 20,000 rows are the usual held-out test set.
"""


def fetch_utr(
    data_home: str | os.PathLike[str] | None = None,
    *,
    n_rows: int | None = 280_000,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    base_url: str = BASE_URL,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load the 5'UTR library of Sample et al. (2019), downloading it from GEO if it is not there.

    Parameters
    ----------
    data_home : path-like, optional
        Folder of data sets; by default the environment variable BRAIDKIT_DATA, else ``~/braidkit_data``. A prepared
        table there, ``utr_mrl.csv.gz`` with the columns ``sequence`` and ``mrl``, best measured rows first, is read
        in place of GEO's.
    n_rows : int or None, default=280_000
        Keep the rows with most reads; the default is the table that the literature uses. None keeps all.
    download_if_missing : bool, default=True
        If False, raise rather than download.
    return_X_y : bool, default=False
        Return ``(data, target)`` rather than a Bunch.
    base_url : str
        Folder of the file, such as that of a mirror of GEO.

    Returns
    -------
    utr : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_rows,), dtype object
            Strings of 50 DNA letters.
        target : ndarray of shape (n_rows,), float64
            Mean ribosome load, ribosomes per transcript.
        frame : DataFrame of shape (n_rows, 2 or 3)
            ``sequence``, ``mrl`` and, from GEO's table, ``total_reads``.
        DESCR : str
            The source of the data, in words.

    Raises
    ------
    DownloadError
        If the table cannot be downloaded, is not what was expected, or differs from the recorded checksum.
    MissingExtraError
        If a download is needed and pooch is not installed.
    InvalidParameterError
        If the table has fewer than `n_rows` rows.

    Notes
    -----
    Rows without a finite load, or that are not 50 letters of ACGT, are left out.
    """
    if n_rows is not None:
        check_number("n_rows", n_rows, low=1, whole=True)
    folder = data_folder(data_home)
    path = folder / PREPARED_NAME
    if path.exists():
        remedy = f"replace it, or move it out of {folder} to use GEO's table"
        table = read_columns(path, PREPARED_COLUMNS, remedy)
    else:
        path, table = fetch_columns(base_url, FILE_NAME, folder, GEO_COLUMNS, download_if_missing)
        table = table.sort_values("total_reads", ascending=False, kind="stable")
    table = table[is_dna(table["sequence"], LENGTH) & np.isfinite(table["mrl"])]
    if n_rows is not None and len(table) < n_rows:
        raise InvalidParameterError(
            f"n_rows={n_rows:,}, but {path} has {len(table):,} usable rows; pass a smaller n_rows, or None for all."
        )
    frame = table.head(len(table) if n_rows is None else n_rows).reset_index(drop=True)
    data = frame["sequence"].to_numpy(dtype=object)
    target = frame["mrl"].to_numpy(dtype=np.float64)
    return (data, target) if return_X_y else Bunch(data=data, target=target, frame=frame, DESCR=DESCR)
