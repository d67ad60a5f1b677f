"""Save and load: tensors as safetensors, everything else as JSON, never a pickle.

A saved thing is a directory of ``model.safetensors`` and ``config.json``, which has a digest of both. An interrupted
save leaves what was there before, a damaged one is refused, and a directory that holds anything else is left alone.
"""

from braidkit.persistence._digest import FREE, digest, module_parts
from braidkit.persistence._files import is_empty, locked, make_folder, read_path, replace_file, temporaries
from braidkit.persistence._json import file_contents, read_json, write_json
from braidkit.persistence._objects import from_parts, to_parts
from braidkit.persistence._saved import (
    CONFIG,
    TENSORS,
    is_saved,
    load,
    load_config,
    load_weights,
    remove_saved,
    save,
    saved_digest,
)

__all__ = [
    "CONFIG",
    "FREE",
    "TENSORS",
    "digest",
    "file_contents",
    "from_parts",
    "is_empty",
    "is_saved",
    "load",
    "load_config",
    "load_weights",
    "locked",
    "make_folder",
    "module_parts",
    "read_json",
    "read_path",
    "remove_saved",
    "replace_file",
    "save",
    "saved_digest",
    "temporaries",
    "to_parts",
    "write_json",
]
