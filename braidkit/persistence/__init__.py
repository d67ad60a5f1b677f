"""Save and load: tensors as safetensors, everything else as JSON, never a pickle.

A saved thing is a directory of ``model.safetensors`` and ``config.json``, which has a digest of both. An interrupted
save leaves what was there before, a damaged one is refused, and a directory that holds anything else is left alone.
"""

from braidkit.persistence._contents import file_contents, fingerprint, read_json, write_json
from braidkit.persistence._files import is_empty, locked, replace_file, temporaries
from braidkit.persistence._saved import CONFIG, TENSORS, is_saved, load, load_weights, remove_saved, save

__all__ = [
    "CONFIG",
    "TENSORS",
    "file_contents",
    "fingerprint",
    "is_empty",
    "is_saved",
    "load",
    "load_weights",
    "locked",
    "read_json",
    "remove_saved",
    "replace_file",
    "save",
    "temporaries",
    "write_json",
]
