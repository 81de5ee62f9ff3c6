"""The businesses that tests ring, as a businesses file names them."""

import json


def plan(name: str, **settings: str | float) -> str:
    """Write a plan."""
    return _table("plans", name, settings)


def business(name: str, plan: str, *numbers: str, **settings: str | bool | list[str]) -> str:
    """Write a business under its id, which is its name too."""
    return _table("businesses", name, {"name": name, "plan": plan, "numbers": numbers, **settings})


def _table(kind: str, name: str, settings: dict[str, object]) -> str:
    # JSON's texts, numbers and lists of them are TOML's too (TOML 1.0).
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join([f"[{kind}.{json.dumps(name)}]", *lines, "", ""])


NUMBER = "+15005550006"
BUSINESSES = (
    plan("premium", max_concurrent_calls=30, tracks="both")
    + plan("tiny", max_concurrent_calls=1)
    + plan("short", max_call_seconds=1)
    + plan("slow", max_calls_per_second=0.01)
    + plan("wide", sample_rate=16000)
    + business("business-1", "premium", NUMBER)
    + business("business-2", "tiny", "+15005550002", busy_message="All our lines are taken.")
    + business(
        *("forwarding", "premium", "+15005550003"),
        forward_to="+14155550199",
        greeting="Hello & welcome",
        consent_notice="This call is recorded.",
        not_answered="Nobody is at the desk.",
    )
    + business(
        *("offshore", "premium", "+15005550010"),
        forward_to="+18765550199",
        not_answered="Nobody can be reached.",
    )
    + business("wide", "wide", "+15005550005")
    + business(
        *("indian", "premium", "+918047112345"), country="IN", exotel_pairs=["own-key:own-token"]
    )
    + business("slow", "slow", "+15005550007")
    + business("short", "short", "+15005550004")
    + business("short-forwarding", "short", "+15005550008", forward_to="+14155550199")
)
