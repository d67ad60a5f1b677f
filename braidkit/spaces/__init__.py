"""Design spaces: the two-way road between what users hold and the tensors that models see.

A space turns designs (strings, tokens, vectors, images) into float tensors ("points") and back, and says which row of
the input is wrong, where, and what to do about it.
"""

from braidkit.spaces._base import Space
from braidkit.spaces.choice import infer_space, space_from_config
from braidkit.spaces.images import ImageSpace
from braidkit.spaces.letters import ALPHABETS
from braidkit.spaces.limits import Limits
from braidkit.spaces.points import Points
from braidkit.spaces.reading import design_groups, is_strings, join_groups, read_designs
from braidkit.spaces.sequences import SequenceSpace
from braidkit.spaces.vectors import VectorSpace

__all__ = [
    "ALPHABETS",
    "ImageSpace",
    "Limits",
    "Points",
    "SequenceSpace",
    "Space",
    "VectorSpace",
    "design_groups",
    "infer_space",
    "is_strings",
    "join_groups",
    "read_designs",
    "space_from_config",
]
