"""Causes that Twilio's own records show."""

from app.diagnosis.findings import Cause, Level

TWILIO_CHECKS = {
    "twilio_account": "whether Twilio takes TWILIO_ACCOUNT_SID with the auth token",
    "twilio_numbers": "whether the businesses' numbers exist and call this service",
    "twilio_alerts": "what Twilio noted in the last 24 hours",
}

TWILIO_CAUSES = (
    Cause(
        "twilio_unreachable",
        "twilio_account",
        Level.WARNING,
        "The service cannot end calls by Twilio's REST API either, which is left to their TwiML.",
        "Let this machine reach {url} (port 443); see status.twilio.com otherwise.",
    ),
    Cause(
        "twilio_credentials",
        "twilio_account",
        Level.FAILED,
        "The auth token is not this account's: signatures of Twilio's requests are refused too.",
        "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN to what the Twilio console shows of the "
        "same account, the current token first.",
    ),
    Cause(
        "number_unknown",
        "twilio_numbers",
        Level.FAILED,
        "The account has no such number: calls to it do not come by this account.",
        "Buy or port the number, correct it in the business (media-bridge config export FILE), or "
        "set the credentials of the account that owns it.",
    ),
    Cause(
        "number_calls_elsewhere",
        "twilio_numbers",
        Level.FAILED,
        "Calls to this number go to another URL than this service's.",
        "media-bridge twilio connect {number}, or set its voice webhook to POST {good}",
    ),
    Cause(
        "number_uses_application",
        "twilio_numbers",
        Level.FAILED,
        "The number is tied to a TwiML app or a SIP trunk, and Twilio ignores its voice webhook "
        "then.",
        "Take the TwiML app or trunk off the number in Twilio's console, then media-bridge twilio "
        "connect {number}",
    ),
    Cause(
        "number_without_status_callback",
        "twilio_numbers",
        Level.WARNING,
        "The service then learns of a call's end by its stream alone; a slot of a call that never "
        "streamed is free only after a minute.",
        "media-bridge twilio connect {number}, or set its call status callback to {good}",
    ),
    Cause(
        "number_without_fallback",
        "twilio_numbers",
        Level.WARNING,
        "When the service cannot be reached, callers hear Twilio's “an application error has "
        "occurred”.",
        "Set the number's voice fallback URL (“primary handler fails”) to a TwiML Bin that "
        "forwards or apologises; it must not be on this host.",
    ),
    Cause(
        "alert_webhook",
        "twilio_alerts",
        Level.WARNING,
        "Twilio asked a webhook and got no answer that it could use: the call went to the "
        "fallback URL, or failed.",
        "Likely causes: {likely}. The checks dns to signature look for them. {page}",
    ),
    Cause(
        "alert_twiml",
        "twilio_alerts",
        Level.WARNING,
        "Twilio could not read the answer as TwiML: it was changed on the way, or is another "
        "program's.",
        "Likely causes: {likely}. The checks health and twiml look for them. {page}",
    ),
    Cause(
        "alert_stream",
        "twilio_alerts",
        Level.WARNING,
        "A call was answered, and its audio did not get here, or not all of it.",
        "Likely causes: {likely}. The checks tls, twilio_socket and test_call look for them. "
        "{page}",
    ),
    Cause(
        "alert_other",
        "twilio_alerts",
        Level.WARNING,
        "Twilio noted an error of this account that is none of streams or webhooks.",
        "Read what Twilio says of it: {page}",
    ),
)
