"""Packages of npm, for tests that run a program of Node's."""

import shutil
import subprocess
from pathlib import Path

import pytest

# A registry that does not answer shall not hold up all tests.
INSTALL_SECONDS = 90.0


def installed(directory: Path, *packages: str) -> Path:
    """Install packages; give where their programs are. Skip the test where that cannot be."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("npm is not installed")
    named = " and ".join(packages)
    options = ["--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"]
    try:
        done = subprocess.run(
            ["npm", "install", *options, "--prefix", str(directory), *packages],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not installed {named} in {INSTALL_SECONDS:.0f} s")
    if done.returncode:
        pytest.skip(f"npm cannot install {named}: {done.stderr.strip()[-200:]}")
    return directory / "node_modules" / ".bin"
