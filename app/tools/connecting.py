"""A number at Twilio, set to call this service."""

from collections.abc import Callable

from app.errors import ConfigurationError
from app.twilio_api.account import PhoneNumber, TwilioAccount, Webhooks


def webhooks_of(public_url: str) -> Webhooks:
    """Give where a number is to call, at a service that is reached at `public_url`."""
    return Webhooks(f"{public_url}/twilio-voice", f"{public_url}/twilio-status")


async def connect_number(
    account: TwilioAccount,
    number: str,
    wanted: Webhooks,
    say: Callable[[str], None],
    agree: Callable[[], bool],
) -> bool:
    """Show what is set and what is to be, ask, set it, and read it back.

    Gives whether the number calls this service in the end.

    Raises:
        ConfigurationError: the account has no such number, or it is tied to an app or trunk.
        TwilioApiError: Twilio did not do what was asked.
    """
    found = await account.number(number)
    if found is None:
        raise ConfigurationError(
            f"the account of TWILIO_ACCOUNT_SID has no number {number}; it is written as E.164, "
            "e.g. +15005550006"
        )
    if found.voice_application_sid or found.trunk_sid:
        raise ConfigurationError(
            f"{number} is tied to a TwiML app or a SIP trunk, and Twilio ignores its webhooks; "
            "take it off in Twilio's console first"
        )
    if _is_connected(found, wanted):
        say(f"{number} calls {wanted.voice_url} already")
        return True
    for line in _changes(found, wanted):
        say(line)
    if not agree():
        say("nothing was changed")
        return False
    await account.connect(found.sid, wanted)
    now = await account.number(number)
    if now is None or not _is_connected(now, wanted):
        say(f"Twilio took the change, and {number} does not have it: look into its console")
        return False
    say(f"{number} now calls {wanted.voice_url}")
    return True


def _is_connected(found: PhoneNumber, wanted: Webhooks) -> bool:
    return (found.voice_url, found.status_callback) == (
        wanted.voice_url,
        wanted.status_callback,
    ) and (found.voice_method, found.status_callback_method) == ("POST", "POST")


def _changes(found: PhoneNumber, wanted: Webhooks) -> list[str]:
    return [
        f"{found.phone_number}",
        f"  voice webhook    {found.voice_method} {found.voice_url or '(none)'}",
        f"               ->  POST {wanted.voice_url}",
        f"  status callback  {found.status_callback_method} {found.status_callback or '(none)'}",
        f"               ->  POST {wanted.status_callback}",
        f"  voice fallback   {found.voice_fallback_url or '(none)'}  (is left as it is)",
    ]
