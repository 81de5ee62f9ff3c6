"""Peers that keep to the protocol's letter and mean harm, and those who test the letter."""

import asyncio
import sys
from collections.abc import Sequence

from tests.autobahn.cases import load_cases
from tests.autobahn.driver import play
from tests.autobahn.echo import echo_server
from tests.autobahn.known import unexpected
from tests.chaos.registry import Context, Row, scenario

AUTOBAHN_PATIENCE = 3.0


@scenario("hostile")
async def hostile(context: Context) -> Sequence[Row]:
    """Attack a private service beside 20 calls: `python -m benchmarks.hostile`."""
    return [await _command("hostile peer beside 20 calls", "-m", "benchmarks.hostile")]


@scenario("autobahn")
async def autobahn(context: Context) -> Sequence[Row]:
    """Play Autobahn's cases."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with echo_server("ours") as port:
        outcomes = await play(load_cases(), port, patience=AUTOBAHN_PATIENCE)
    bad = [outcome.case_id for outcome in outcomes if outcome.verdict == "FAILED"]
    seconds = loop.time() - began
    return [
        Row(
            f"Autobahn, {len(outcomes)} cases",
            "0 failures but 7.1.5, <= 15 s",
            f"failed: {' '.join(bad) or 'none'}, {seconds:.1f} s",
            not unexpected(outcomes) and seconds <= 15,
        )
    ]


@scenario("secrets")
async def secrets(context: Context) -> Sequence[Row]:
    """Look for canary secrets wherever a service could leave them."""
    return [await _command("canary secrets", "-m", "pytest", "-q", "tests/canaries")]


async def _command(what: str, *arguments: str) -> Row:
    """Run a command that knows what is to hold; its last line tells what came out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    lines = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    sys.stderr.write("\n".join([*lines, ""]))
    return Row(what, "python " + " ".join(arguments), lines[-1], process.returncode == 0)
