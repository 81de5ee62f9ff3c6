"""Causes that keep whoever calls from reaching the service."""

from app.diagnosis.findings import Cause, Level

REACHING_CHECKS = {
    "dns": "whether the host's name leads to an address",
    "tcp": "whether somebody listens there",
    "tls": "the certificate, as Twilio checks it",
    "redirect": "whether requests are sent elsewhere",
    "health": "whether it is this service that answers",
    "ready": "whether a new call would be served",
    "clock": "this machine's clock, beside the service's",
}

REACHING_CAUSES = (
    Cause(
        "dns_no_such_host",
        "dns",
        Level.FAILED,
        "Nobody can find the service under this name (Twilio: error 11210).",
        "Correct the host in PUBLIC_URL, or add a DNS record for {host}: dig +short {host}",
    ),
    Cause(
        "dns_private",
        "dns",
        Level.FAILED,
        "Only this network reaches that address; Twilio does not.",
        "Let the DNS record of {host} name a public address.",
    ),
    Cause(
        "tcp_refused",
        "tcp",
        Level.FAILED,
        "The machine is there, and nobody listens on the port: the service is down, or the port "
        "is another (Twilio: 31902).",
        "Start the service, and check that it listens on the port that the platform gives (PORT), "
        "on HOST=0.0.0.0.",
    ),
    Cause(
        "tcp_no_answer",
        "tcp",
        Level.FAILED,
        "No answer comes at all: a firewall drops it, or a tunnel or load balancer leads nowhere "
        "(Twilio: 11205, 31901).",
        "Let port {port} in from anywhere (Twilio has no fixed addresses; its signature is what "
        "is checked), and look whether the tunnel runs.",
    ),
    Cause(
        "tls_not_spoken",
        "tls",
        Level.FAILED,
        "Who answers does not speak TLS: a plain-HTTP port, or a TCP tunnel (Twilio: 31910, "
        "11220).",
        "Let PUBLIC_URL name the port on which TLS ends (443 as a rule); the service itself "
        "speaks plain HTTP, behind a proxy or platform that has the certificate.",
    ),
    Cause(
        "certificate_expired",
        "tls",
        Level.FAILED,
        "Twilio refuses an expired certificate (errors 11235 to 11237, 31910).",
        "Renew the certificate of {host}, and let the proxy load it.",
    ),
    Cause(
        "certificate_not_yet_valid",
        "tls",
        Level.FAILED,
        "The certificate begins later than now, or this machine's clock is wrong.",
        "Check the clock (date -u), else have the certificate of {host} issued again.",
    ),
    Cause(
        "certificate_wrong_name",
        "tls",
        Level.FAILED,
        "The certificate is for other names: Twilio refuses it (errors 11235 to 11237, 31910).",
        "Have a certificate issued for {host}, or let PUBLIC_URL name a host that it is for.",
    ),
    Cause(
        "certificate_self_signed",
        "tls",
        Level.FAILED,
        "No public authority has signed it: Twilio refuses it, and so does Exotel.",
        "Use a certificate of a public authority (Let's Encrypt costs nothing) for {host}.",
    ),
    Cause(
        "certificate_chain_incomplete",
        "tls",
        Level.FAILED,
        "The server does not send the certificate of the authority between: browsers fetch it, "
        "Twilio does not (errors 11235 to 11237, 31910).",
        "Let the proxy send the full chain (fullchain.pem, not cert.pem): openssl s_client "
        "-connect {host}:{port} -showcerts",
    ),
    Cause(
        "tls_failed",
        "tls",
        Level.FAILED,
        "No encrypted connection comes about, so that Twilio has none either (errors 11220, "
        "31910).",
        "Look what the proxy offers: openssl s_client -connect {host}:{port} -servername {host}",
    ),
    Cause(
        "certificate_ends_soon",
        "tls",
        Level.WARNING,
        "Once it has expired, no call is answered.",
        "Renew the certificate of {host} now, and see to it that it is renewed by itself.",
    ),
    Cause(
        "redirects",
        "redirect",
        Level.FAILED,
        "Twilio's WebSocket follows no redirect, and a POST that is redirected comes as a GET "
        "without its form and its signature.",
        "Set PUBLIC_URL={good} and the number's voice webhook to {good}/twilio-voice, or take the "
        "redirect away.",
    ),
    Cause(
        "redirects_path",
        "redirect",
        Level.FAILED,
        "Twilio's WebSocket follows no redirect: what sits before the service must pass each path "
        "on as it came.",
        "Take the rule that rewrites paths (a trailing slash, a language, a sign-in page) out of "
        "the proxy for /health, /twilio-… and /v1/….",
    ),
    Cause(
        "no_http_answer",
        "health",
        Level.FAILED,
        "A connection is taken and nothing is answered: the process hangs, or the port is not one "
        "of HTTP (Twilio: 11205, 31901).",
        "Look at the service's log and restart it; check that PORT is the port the platform "
        "routes to.",
    ),
    Cause(
        "service_down",
        "health",
        Level.FAILED,
        "A proxy answers, and finds no service behind it: it crashed, does not listen on the "
        "platform's PORT, or is still starting.",
        "Look at the service's log for “Ingestion server listening on port”; a line that names a "
        "variable says what to set.",
    ),
    Cause(
        "other_site",
        "health",
        Level.FAILED,
        "Another program answers at this URL (a static site, a platform's page, another service): "
        "calls go there.",
        "Let PUBLIC_URL, or the platform's domain, lead to media-bridge: curl {url}/health must "
        'answer {{"status":"healthy",…}}',
    ),
    Cause(
        "draining",
        "ready",
        Level.WARNING,
        "The instance that answered is stopping, full or behind with its events: new calls hear "
        "that they cannot be taken now.",
        "Wait for the deploy to end and ask again; raise MAX_CALLS or add a replica where it is "
        "full.",
    ),
    Cause(
        "broker_away",
        "ready",
        Level.FAILED,
        "The service does not reach its Redis, or Redis takes no writes: audio waits for "
        "BROKER_BUFFER_SECONDS and is then lost.",
        "Check REDIS_URL in the service's environment, and the Redis server; run media-bridge "
        "doctor there too, with the same environment.",
    ),
    Cause(
        "businesses_not_loaded",
        "ready",
        Level.FAILED,
        "Every caller hears that the number is not in service.",
        "Check BUSINESSES_FILE in the service's environment, and that Redis can be reached.",
    ),
    Cause(
        "clock_skewed",
        "clock",
        Level.WARNING,
        "Tickets live 60 s and tokens (JWT) are dated: a clock that is wrong refuses good ones.",
        "Synchronise the service's clock (timedatectl set-ntp true, or chronyd), or this "
        "machine's.",
    ),
)
