"""Where our WebSocket layer is known to differ from Autobahn's first choice, and why.

The `websockets` library, which parses our frames, lists the same in its own notes on
compliance, but for 3.4, 4.1.5 and 4.2.5: those are sent byte by byte, so that timing
decides whether what breaks the protocol is read together with what comes before.
"""

from collections.abc import Iterable

from tests.autobahn.driver import FAILED, NON_STRICT, Outcome

# A message, then a frame that breaks the protocol, both read at once: the connection
# fails (RFC 6455, 7.1.7) before the application has answered the message.
_FAILS_BEFORE_THE_ANSWER = (
    *("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"),
)
# RFC 6455, 8.1 wants invalid UTF-8 refused, and leaves open when: here at a message's
# end, not at the first byte.
_CHECKS_WHOLE_MESSAGES = ("6.4.1", "6.4.2", "6.4.3", "6.4.4")
MAY_BE_NON_STRICT = frozenset(_FAILS_BEFORE_THE_ANSWER + _CHECKS_WHOLE_MESSAGES)

# A close between the fragments of a message, and a fragment after it. The fragment is
# not to be looked at (RFC 6455, 5.5.1); `websockets` calls the close a violation, 1002.
MAY_FAIL = frozenset({"7.1.5"})


def unexpected(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Find the outcomes that are neither good nor known."""
    return [
        outcome
        for outcome in outcomes
        if (outcome.verdict == FAILED and outcome.case_id not in MAY_FAIL)
        or (outcome.verdict == NON_STRICT and outcome.case_id not in MAY_BE_NON_STRICT)
    ]
