"""The enhancer library of Gosai et al. (2024): 200 nucleotides and their activity in three cell types."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from braidkit.datasets._columns import Columns, fetch_columns, is_dna
from braidkit.datasets._fetch import data_folder
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_choice, check_number

BASE_URL = "https://zenodo.org/records/10698014/files"
FILE_NAME = "DATA-Table_S2__MPRA_dataset.txt"
LENGTH = 200
CELLS = {"HepG2": "hepg2", "K562": "k562", "SK-N-SH": "sknsh"}
COLUMNS: Columns = {
    "sequence": ("sequence",),
    "hepg2": ("HepG2_log2FC",),
    "k562": ("K562_log2FC",),
    "sknsh": ("SKNSH_log2FC",),
    "hepg2_se": ("HepG2_lfcSE",),
    "k562_se": ("K562_lfcSE",),
    "sknsh_se": ("SKNSH_lfcSE",),
}

DESCR = """\
Activity of enhancers in three cell types
-----------------------------------------
Source: Gosai et al. (2024), Machine-guided design of cell-type-targeting cis-regulatory elements, Nature,
doi 10.1038/s41586-024-08070-z; supplementary table 2, Zenodo record 10698014.

Designs: 200 nucleotides before a minimal promoter, DNA letters, mostly of the human genome, many in two alleles.
Target: log2 of RNA over DNA of a massively parallel reporter assay, with its standard error, in HepG2, K562 and
SK-N-SH. Rows: in the order of the table. Alleles of one place are nearly the same: keep them together in splits.
"""


def fetch_enhancers(
    data_home: str | os.PathLike[str] | None = None,
    *,
    cell: str = "HepG2",
    max_error: float | None = 1.0,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    base_url: str = BASE_URL,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load the enhancer library of Gosai et al. (2024), downloading it (280 MB) from Zenodo if it is not there.

    Parameters
    ----------
    data_home : path-like, optional
        Folder of data sets; by default the environment variable BRAIDKIT_DATA, else ``~/braidkit_data``.
    cell : {"HepG2", "K562", "SK-N-SH"}, default="HepG2"
        Whose activity is the target.
    max_error : float or None, default=1.0
        Leave out rows of which a standard error in any of the three cell types is not below this, as the authors do;
        None keeps all.
    download_if_missing : bool, default=True
        If False, raise rather than download.
    return_X_y : bool, default=False
        Return ``(data, target)`` rather than a Bunch.
    base_url : str
        Folder of the file, such as that of a mirror.

    Returns
    -------
    enhancers : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_rows,), dtype object
            Strings of 200 DNA letters.
        target : ndarray of shape (n_rows,), float64
            Activity in the cell type, log2 of RNA over DNA.
        target_error : ndarray of shape (n_rows,), float64
            Its standard error, as ``fit(X, y, y_error=...)`` takes it.
        frame : DataFrame of shape (n_rows, 7)
            ``sequence``, then ``hepg2``, ``k562``, ``sknsh`` and the same with ``_se``.
        DESCR : str
            The source of the data, in words.

    Raises
    ------
    DownloadError
        If the table cannot be downloaded, is not what was expected, or differs from the recorded checksum.
    MissingExtraError
        If a download is needed and pooch is not installed.
    InvalidParameterError
        If an argument is out of range, or no row is left.

    Notes
    -----
    Rows without a finite activity in `cell`, or that are not 200 letters of ACGT, are left out.
    """
    check_choice("cell", cell, CELLS)
    if max_error is not None:
        check_number("max_error", max_error, low=0, above=True)
    form: Any = {"kind": "table", "separator": "\t", "compression": None}
    path, table = fetch_columns(base_url, FILE_NAME, data_folder(data_home), COLUMNS, download_if_missing, **form)
    column = CELLS[cell]
    usable = is_dna(table["sequence"], LENGTH) & np.isfinite(table[column])
    if max_error is not None:
        usable &= table[[f"{name}_se" for name in CELLS.values()]].lt(max_error).all(axis=1)
    frame = table[usable].reset_index(drop=True)
    if frame.empty:
        raise InvalidParameterError(f"no row of {path} has errors below max_error={max_error!r}; pass a larger one.")
    data, target = frame["sequence"].to_numpy(dtype=object), frame[column].to_numpy(dtype=np.float64)
    if return_X_y:
        return data, target
    error = frame[f"{column}_se"].to_numpy(dtype=np.float64)
    return Bunch(data=data, target=target, target_error=error, frame=frame, DESCR=DESCR)
