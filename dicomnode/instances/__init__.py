"""What admission and the rules need of an instance, read from its bytes while they arrive.

Pixels are hashed, and decoded only where two encodings of one instance have to be compared. No
ledger, no network, no model.
"""

from dicomnode.instances.comparing import same_image
from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.files import file_prefix, split_file
from dicomnode.instances.reading import HeaderReader, Headers, read_file, read_header

__all__ = [
    "HeaderReader",
    "Headers",
    "UnreadableError",
    "file_prefix",
    "read_file",
    "read_header",
    "same_image",
    "split_file",
]
