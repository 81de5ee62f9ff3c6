"""What was found, for a person and for a program."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from app.diagnosis.findings import Finding, Level, worst
from app.log import safe

# The status of the command, by the worst that was found.
STATUS = {Level.OK: 0, Level.WARNING: 1, Level.FAILED: 2}
_MARK = {
    Level.OK: "  ok     ",
    Level.WARNING: "  warning",
    Level.FAILED: "  FAILED ",
    Level.SKIPPED: "  –      ",
}
_INDENT = " " * 28


def lines_of(finding: Finding) -> list[str]:
    """Write a finding as lines: what there is, why it matters, how to mend it."""
    # A stranger's words are in it: they may not move the cursor, nor make up a line.
    found, why, fix = safe(finding.found), safe(finding.why), safe(finding.fix)
    lines = [f"{_MARK[finding.level]}  {finding.check:<15}  {found}"]
    if finding.cause:
        lines += [f"{_INDENT}{why}", f"{_INDENT}→ {fix}  [{finding.cause}]"]
    return lines


def summary_of(findings: Sequence[Finding]) -> str:
    """Say what all comes to, and what to mend first."""
    level = worst(findings)
    if level is Level.OK:
        return "All is well."
    first = next(finding for finding in findings if finding.level is level)
    failed = sum(finding.level is Level.FAILED for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    told = f"{failed} failed, {warnings} warning{'' if warnings == 1 else 's'}"
    return f"{told}. Begin with {first.check}: {first.cause}."


def as_json(url: str, findings: Sequence[Finding]) -> str:
    """Write all findings as one JSON object: `url`, `status` and `findings`."""
    told = [asdict(finding) for finding in findings]
    return json.dumps({"url": url, "status": worst(findings), "findings": told}, indent=2)
