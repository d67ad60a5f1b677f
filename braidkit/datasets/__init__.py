"""Data to learn from: measured sets (`fetch_*`), generated ones (`make_*`), and the offline protocol."""

from braidkit.datasets.ehrlich import make_ehrlich
from braidkit.datasets.enhancers import fetch_enhancers
from braidkit.datasets.picture_table import MeasuredPictures, read_pictures
from braidkit.datasets.pictures import read_images
from braidkit.datasets.sequences import read_sequences
from braidkit.datasets.split import OfflineSplit, offline_split
from braidkit.datasets.synthetic_utr import make_utr
from braidkit.datasets.table import MeasuredTable, read_table
from braidkit.datasets.utr import fetch_utr
from braidkit.datasets.vector_table import MeasuredVectors, read_vectors

__all__ = [
    "MeasuredPictures",
    "MeasuredTable",
    "MeasuredVectors",
    "OfflineSplit",
    "fetch_enhancers",
    "fetch_utr",
    "make_ehrlich",
    "make_utr",
    "offline_split",
    "read_images",
    "read_pictures",
    "read_sequences",
    "read_table",
    "read_vectors",
]
