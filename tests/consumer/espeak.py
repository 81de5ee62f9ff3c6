"""Whether a machine can speak."""

import shutil

import pytest

needs_espeak = pytest.mark.skipif(
    not shutil.which("espeak-ng"), reason="espeak-ng is not installed"
)
