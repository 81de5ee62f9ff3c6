"""Causes that a carrier meets when it has reached the service."""

from app.diagnosis.findings import Cause, Level

CALLING_CHECKS = {
    "signature": "whether a signed webhook is taken: PUBLIC_URL, auth token, query",
    "twilio_socket": "the WebSocket upgrade at /twilio-media (101)",
    "ingest_socket": "the WebSocket upgrade at /v1/ingest (101)",
    "twiml": "what a call hears: TwiML, and the stream's URL in it",
    "test_call": "a simulated call through the whole path, and its receipt",
}

CALLING_CAUSES = (
    Cause(
        "twilio_routes_off",
        "signature",
        Level.FAILED,
        "The service runs without its Twilio routes, and answers them 503 (Twilio: 11200).",
        "Set {variable} in the service's environment, and start it again.",
    ),
    Cause(
        "webhook_not_found",
        "signature",
        Level.FAILED,
        "Something before the service answers at this path, or it is an older version of it "
        "(Twilio: 11200).",
        "Let the proxy pass every path on, and set the number's voice webhook to "
        "{url}/twilio-voice",
    ),
    Cause(
        "webhook_unreachable",
        "signature",
        Level.FAILED,
        "A webhook that gets no answer of the service's is a call that fails (Twilio: 11200, "
        "11205).",
        "Look what the proxy does with POST {url}/twilio-voice: a firewall for web applications, "
        "a limit on methods, a sign-in page.",
    ),
    Cause(
        "public_url_differs",
        "signature",
        Level.FAILED,
        "Signatures are checked over the PUBLIC_URL of the service, which is {signed}, and "
        "requests are signed for the URL that is called, {called}: every request is refused with "
        "403, signature_invalid (Twilio: 11200, 31920).",
        "Set PUBLIC_URL={called} in the service's environment, or call it at {signed}: the "
        "number's voice webhook must begin with it.",
    ),
    Cause(
        "auth_token_differs",
        "signature",
        Level.FAILED,
        "The service checks signatures by another auth token than ours: Twilio's requests are "
        "refused with 403, signature_invalid.",
        "Set TWILIO_AUTH_TOKEN, in the service's environment and here, to the primary auth token "
        "of the account that owns the number (after a rotation: NEW,OLD).",
    ),
    Cause(
        "query_stripped",
        "signature",
        Level.FAILED,
        "The proxy takes the query out of requests, and Twilio signs it with the URL: webhooks "
        "with ?businessId= are refused with 403, signature_invalid.",
        "Let the proxy pass the query on as it came (nginx: proxy_pass http://upstream; without a "
        "URI, or with $request_uri).",
    ),
    Cause(
        "signature_stripped",
        "signature",
        Level.FAILED,
        "The proxy takes the header X-Twilio-Signature out of requests: all are refused with 403, "
        "signature_missing.",
        "Let the proxy pass every header on as it came, X-Twilio-Signature too.",
    ),
    Cause(
        "upgrade_stripped",
        "twilio_socket",
        Level.FAILED,
        "The service got a plain request: a proxy between takes the headers Upgrade and "
        "Connection out, so that no WebSocket opens (Twilio: 31920). The service's log says “Is "
        "WebSocket upgrade: false”.",
        "Let the proxy pass upgrades on, by HTTP/1.1 (nginx: proxy_http_version 1.1; "
        'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";).',
    ),
    Cause(
        "socket_wrong_path",
        "twilio_socket",
        Level.FAILED,
        "No WebSocket is served at {path} there (Twilio: 31920): a proxy answers by itself, or "
        "leads the path to another service.",
        "Let the proxy pass {path} on to the service as it came; Twilio's path is /twilio-media, "
        "Exotel's /v1/ingest, each without a trailing slash.",
    ),
    Cause(
        "socket_redirects",
        "twilio_socket",
        Level.FAILED,
        "Twilio's WebSocket follows no redirect (31920).",
        "Take the redirect of {path} away, or call the service where it leads: {where}",
    ),
    Cause(
        "socket_refused",
        "twilio_socket",
        Level.FAILED,
        "The handshake is answered {status} instead of 101 (Twilio: 31920).",
        "Look into the service's log for “[Request] GET {path}”: without that line a proxy "
        "answers in its stead, and must let {path} through; with it, the line after says why.",
    ),
    Cause(
        "socket_garbled",
        "twilio_socket",
        Level.FAILED,
        "What answers the handshake is no WebSocket (RFC 6455, 4.1): its Sec-WebSocket-Accept "
        "does not fit, as when a proxy makes up its own.",
        "Let the proxy pass the upgrade on to the service unchanged.",
    ),
    Cause(
        "socket_holds_messages",
        "twilio_socket",
        Level.FAILED,
        "The socket opens, and nothing passes: a proxy between holds what is sent until the "
        "connection ends. The service hears no start and closes with start_timeout.",
        "Turn buffering off for WebSockets in the proxy (nginx: proxy_buffering off; "
        "proxy_request_buffering off;), and take out what inspects bodies.",
    ),
    Cause(
        "ingest_exotel_off",
        "ingest_socket",
        Level.FAILED,
        "Exotel sends no token, and the service takes no Exotel calls: it answers 401.",
        "Set SUPPORT_EXOTEL=true in the service's environment and start it again; its log then "
        "says supportExotel: true.",
    ),
    Cause(
        "ingest_credentials",
        "ingest_socket",
        Level.FAILED,
        "Exotel shows KEY and TOKEN of its URL, and the service knows another pair: it answers "
        "401.",
        "Set EXOTEL_API_KEY and EXOTEL_API_TOKEN to the same in the service's environment and in "
        "Exotel's URL: wss://KEY:TOKEN@HOST/v1/ingest",
    ),
    Cause(
        "ingest_upgrade_failed",
        "ingest_socket",
        Level.FAILED,
        "Exotel, and clients of your own, cannot open their WebSocket.",
        "Let the proxy pass upgrades at /v1/ingest on (HTTP/1.1, headers Upgrade and Connection), "
        "and the path as it came.",
    ),
    Cause(
        "twiml_unreadable",
        "twiml",
        Level.FAILED,
        "Twilio reads XML with the root Response and nothing before it (12100, 12102); something "
        "between changes the answer.",
        "Take out of the proxy what rewrites bodies (injected scripts, minifying, banners).",
    ),
    Cause(
        "twiml_content_type",
        "twiml",
        Level.FAILED,
        "Twilio reads TwiML as text/xml (error 12300).",
        "Let the proxy pass the Content-Type on as it came.",
    ),
    Cause(
        "twiml_query",
        "twiml",
        Level.FAILED,
        "Twilio strips the query of a <Stream url> (31920 where a server needs it): what stands "
        "there never arrives. The service itself sends <Parameter>s.",
        "Take out what adds ?{query} to the stream's URL, and keep what must arrive in "
        "<Parameter>s.",
    ),
    Cause(
        "twiml_not_wss",
        "twiml",
        Level.FAILED,
        "Twilio streams to wss:// only (31922).",
        "Set PUBLIC_URL to an https:// URL in the service's environment.",
    ),
    Cause(
        "twiml_elsewhere",
        "twiml",
        Level.FAILED,
        "The call's audio would go to {where}, which is not where the webhook was called: "
        "PUBLIC_URL of the service is another.",
        "Set PUBLIC_URL={called} in the service's environment, and start it again.",
    ),
    Cause(
        "call_turned_away",
        "twiml",
        Level.FAILED,
        "A caller hears this instead of being heard.",
        "Check with media-bridge config export FILE that the business {business} is there, and "
        "that its plan has a slot free; name another by --business ID.",
    ),
    Cause(
        "call_cut",
        "test_call",
        Level.FAILED,
        "The stream did not reach its end: Twilio would note 31903 or 31921, and the caller's "
        "audio would be incomplete.",
        "Look into the service's log for the CallSid {call_sid}; the line with “receipt” says why "
        "it ended.",
    ),
    Cause(
        "frames_missing",
        "test_call",
        Level.FAILED,
        "Not all that was sent has been published: workers would hear gaps.",
        "The receipt names the reason: overflow and broker_lost are Redis' (its host, its load, "
        "its memory), bad_media is of something that changes messages on the way.",
    ),
    Cause(
        "receipt_missing",
        "test_call",
        Level.FAILED,
        "The service took the call, and this Redis knows nothing of it: workers read another "
        "Redis than the service writes to.",
        "Set REDIS_URL here and for the workers to the one of the service's environment.",
    ),
)
