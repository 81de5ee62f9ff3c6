"""What the environment says, as one frozen value.

Read once, by `main` and `cli`; everything else is handed plain values. Each
field of `Settings` is a variable of the same name in capitals; its metadata
say how it is read and what a good value looks like.
"""

from app.settings.model import Settings
from app.settings.values import Adapter, PublicUrl, Secret, Unsigned

__all__ = ["Adapter", "PublicUrl", "Secret", "Settings", "Unsigned"]
