"""Find a Chromium for the tests, or install one, and say what came of it."""

from tests.browser import chromium

if not chromium.found():
    print("Installing Chromium for the tests of the pages ...")
    chromium.install()
path = chromium.found()
print(f"The pages are tried in {path}" if path else f"Left out: {chromium.ABSENT}.")
