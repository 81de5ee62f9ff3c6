"""Calls that wait to be confirmed: in order, and no business pushes out another's."""

from app.session.unconfirmed import UnconfirmedCall, UnconfirmedCalls


def drained(calls: UnconfirmedCalls) -> list[tuple[str, str]]:
    found = []
    while (call := calls.next()) is not None:
        found.append((call.business_id, call.call_sid))
        calls.done(call)
    return found


def test_calls_are_asked_about_in_their_order() -> None:
    calls = UnconfirmedCalls()
    for number, business in enumerate(("a", "b", "a")):
        calls.note(UnconfirmedCall(business, f"CA{number}"))
    assert drained(calls) == [("a", "CA0"), ("b", "CA1"), ("a", "CA2")]
    assert len(calls) == 0


def test_a_flood_of_one_business_gives_up_its_own() -> None:
    calls = UnconfirmedCalls(most=10)
    calls.note(UnconfirmedCall("victim", "CA0"))
    for number in range(1000):
        calls.note(UnconfirmedCall("flooding", f"CA{number}"))
    assert len(calls) == 10
    found = drained(calls)
    assert found[0] == ("victim", "CA0")
    assert found[-1] == ("flooding", "CA999")


def test_a_call_that_was_given_up_meanwhile_is_not_done_for_another() -> None:
    calls = UnconfirmedCalls(most=1)
    first, second = UnconfirmedCall("a", "CA1"), UnconfirmedCall("a", "CA2")
    calls.note(first)
    calls.note(second)
    calls.done(first)
    assert calls.next() is second
