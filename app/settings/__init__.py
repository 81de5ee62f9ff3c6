"""What the environment says, as one frozen value.

Read once, by `main` and `cli`; everything else is handed plain values. Each
field of `Settings` is a variable of the same name in capitals; its metadata
say how it is read and what a good value looks like.
"""

from app.settings.files import SUFFIX, others_may_read, readable_by_others, with_files
from app.settings.model import SECRET_NAMES, Settings
from app.settings.values import Adapter, PublicUrl, Secret, Unsigned

__all__ = [
    "SECRET_NAMES",
    "SUFFIX",
    "Adapter",
    "PublicUrl",
    "Secret",
    "Settings",
    "Unsigned",
    "others_may_read",
    "readable_by_others",
    "with_files",
]
