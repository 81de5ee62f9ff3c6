"""Causes that the environment and Redis show."""

from app.diagnosis.findings import Cause, Level

INSIDE_CHECKS = {
    "public_url": "the form of PUBLIC_URL, or of the URL on the command line",
    "settings": "the environment: every variable readable, none missing",
    "signatures": "whether requests without a signature are served",
    "secret_key": "whether tickets and sealed secrets outlive the process",
    "admin_token": "whether anybody can be an operator",
    "metrics_token": "whether strangers can read /metrics",
    "jwt_audience": "whether tokens made for other services are taken",
    "secrets": "whether secrets are long enough, and no placeholders",
    "secret_files": "whether other users of the machine can read files of secrets",
    "exotel_settings": "SUPPORT_EXOTEL and Exotel's credentials",
    "exotel_addresses": "whether Exotel is known by an address alone",
    "listening": "HOST, on a platform that routes to it",
    "drain_window": "whether the platform waits as long as DRAIN_SECONDS",
    "redis": "Redis: reachable, writable, of a version that serves",
    "redis_durability": "whether Redis keeps its data over a restart",
    "redis_eviction": "whether Redis deletes keys when its memory is full",
    "redis_memory": "memory of Redis, beside what the plans may fill",
    "redis_clock": "the clock of Redis, beside this machine's",
    "forwarding": "whether each forward_to is where its plan allows",
    "exotel_pairs": "whether a business has the service's own Exotel pair",
}

INSIDE_CAUSES = (
    Cause(
        "public_url_missing",
        "public_url",
        Level.FAILED,
        "The service signs and answers by this URL, and Twilio is told to stream to it.",
        "Set PUBLIC_URL to where Twilio reaches the service, e.g. "
        "PUBLIC_URL=https://bridge.example.com, or name it: media-bridge doctor https://…",
    ),
    Cause(
        "public_url_unreadable",
        "public_url",
        Level.FAILED,
        "Twilio needs an absolute URL with a host in it.",
        "Write it as PUBLIC_URL=https://bridge.example.com: scheme and host, nothing after.",
    ),
    Cause(
        "public_url_scheme_missing",
        "public_url",
        Level.FAILED,
        "Without a scheme it is no URL: neither Twilio nor the service can tell how to call it.",
        "Set PUBLIC_URL={good}",
    ),
    Cause(
        "public_url_http",
        "public_url",
        Level.FAILED,
        "Twilio streams to wss:// only, and signs the URL as it calls it: with http:// the "
        "stream's URL would be ws://, which is error 31922.",
        "Set PUBLIC_URL={good}",
    ),
    Cause(
        "public_url_user",
        "public_url",
        Level.FAILED,
        "Twilio takes user and password out of the URL before it signs: nothing would fit.",
        "Set PUBLIC_URL={good}",
    ),
    Cause(
        "public_url_path",
        "public_url",
        Level.FAILED,
        "The service adds its own paths (/twilio-voice, /twilio-media) to PUBLIC_URL, and Twilio "
        "strips a query from a stream's URL.",
        "Set PUBLIC_URL={good}, without a path, a query or a fragment.",
    ),
    Cause(
        "public_url_slash",
        "public_url",
        Level.FAILED,
        "The service adds its paths to it: with a slash at its end they would begin with two.",
        "Set PUBLIC_URL={good}, without the slash at its end.",
    ),
    Cause(
        "public_url_local",
        "public_url",
        Level.WARNING,
        "Only this machine, or this network, can reach it; Twilio cannot (errors 11205, 31901).",
        "For calls from Twilio set PUBLIC_URL to a public https:// URL (a deployment's, or a "
        "tunnel's); for simulated calls nothing need be done.",
    ),
    Cause(
        "public_url_port",
        "public_url",
        Level.WARNING,
        "Twilio leaves the port of an https URL out when it signs; the service takes both forms, "
        "but firewalls and platforms often open 443 alone.",
        "Serve on port 443 where you can, and set PUBLIC_URL={good}",
    ),
    Cause(
        "setting_unusable",
        "settings",
        Level.FAILED,
        "The service does not start with it: whoever calls gets 502 from the platform.",
        "Set {variable} as in {example}, and start the service again.",
    ),
    Cause(
        "unsigned_allowed",
        "signatures",
        Level.WARNING,
        "Anyone who knows the URL can place calls in any business's name.",
        "Take ALLOW_UNSIGNED out of the environment, set TWILIO_AUTH_TOKEN, and start again.",
    ),
    Cause(
        "secret_key_missing",
        "secret_key",
        Level.WARNING,
        "Stream tickets are then good in one process only: behind two replicas, or over a "
        "restart, calls are refused with ticket_invalid. No secret of a business can be stored, "
        "and nothing shows whether somebody changed the audit log.",
        "Set SECRET_KEY to the output of: openssl rand -hex 32, the same in every replica.",
    ),
    Cause(
        "admin_token_missing",
        "admin_token",
        Level.WARNING,
        "Nobody can be an operator: only media-bridge config changes plans and businesses.",
        "Set ADMIN_TOKEN to the output of: openssl rand -hex 32, or to sha256- and its digest.",
    ),
    Cause(
        "metrics_open",
        "metrics_token",
        Level.WARNING,
        "Anyone who knows the URL can read /metrics: how many calls there are, and how they go.",
        "Set METRICS_TOKEN to the output of: openssl rand -hex 32, and the same in Prometheus.",
    ),
    Cause(
        "jwt_audience_missing",
        "jwt_audience",
        Level.WARNING,
        "A token that the same issuer made for another service is taken too.",
        "Set JWT_AUDIENCE to the aud of the tokens made for this service.",
    ),
    Cause(
        "secret_weak",
        "secrets",
        Level.WARNING,
        "Whoever guesses it is let in.",
        'Replace {variable} (docs/operations.md, "Replacing secrets"): from version {release} the '
        "service does not start with it.",
    ),
    Cause(
        "secret_file_exposed",
        "secret_files",
        Level.WARNING,
        "Any account on this machine, also that of another service, can read the secret.",
        "Take the permission away: chmod o-rwx {path} (in Kubernetes: defaultMode: 0440).",
    ),
    Cause(
        "exotel_off",
        "exotel_settings",
        Level.FAILED,
        "Exotel sends no token, so that /v1/ingest answers its connections with 401 while "
        "SUPPORT_EXOTEL is not true.",
        "Set SUPPORT_EXOTEL=true, and start (on Render: redeploy) the service; its log then says "
        "supportExotel: true.",
    ),
    Cause(
        "exotel_without_credentials",
        "exotel_settings",
        Level.WARNING,
        "Exotel can then connect only with a ticket from /exotel-stream-url, and that URL needs "
        "credentials too: every connection is answered 401.",
        "Set EXOTEL_API_KEY and EXOTEL_API_TOKEN and give Exotel wss://KEY:TOKEN@HOST/v1/ingest, "
        "or set EXOTEL_ALLOWED_IPS; a business's own pair (exotel_pairs) does as well.",
    ),
    Cause(
        "exotel_by_address",
        "exotel_addresses",
        Level.WARNING,
        "All customers of Exotel call from the same addresses: each of them who knows this "
        "service's URL can open streams here, of any business.",
        "Give Exotel wss://KEY:TOKEN@HOST/v1/ingest with EXOTEL_API_KEY and EXOTEL_API_TOKEN, or "
        "each business a pair of its own, and remove EXOTEL_ALLOWED_IPS.",
    ),
    Cause(
        "host_loopback",
        "listening",
        Level.FAILED,
        "The platform's proxy is another machine, and cannot reach a service that listens on "
        "loopback only: it answers 502.",
        "Set HOST=0.0.0.0; unless it is set, it is 127.0.0.1 with ALLOW_UNSIGNED.",
    ),
    Cause(
        "drain_window_railway",
        "drain_window",
        Level.WARNING,
        "Railway kills the process {window:g} s after SIGTERM, and calls are to go on for "
        "DRAIN_SECONDS={drain:g}: at each deploy live calls are cut off.",
        "Set the service variable RAILWAY_DEPLOYMENT_DRAINING_SECONDS={needed:g} (or "
        "drainingSeconds in railway.json).",
    ),
    Cause(
        "drain_window_render",
        "drain_window",
        Level.WARNING,
        "Render kills the process 30 s after SIGTERM unless maxShutdownDelaySeconds says more, "
        "300 at most; calls are to go on for DRAIN_SECONDS={drain:g}. What is set cannot be seen "
        "from inside.",
        "Set maxShutdownDelaySeconds: {needed:g} in render.yaml (300 at most), or lower "
        "DRAIN_SECONDS.",
    ),
    Cause(
        "drain_window_heroku",
        "drain_window",
        Level.WARNING,
        "Heroku kills every process 30 s after SIGTERM, and calls are to go on for "
        "DRAIN_SECONDS={drain:g}: at each deploy, and once a day, live calls are cut off.",
        "Set DRAIN_SECONDS={most:g}, so that calls end with their receipts; for calls that "
        "outlive a deploy use a platform that waits longer.",
    ),
    Cause(
        "redis_missing",
        "redis",
        Level.WARNING,
        "Audio is then kept in the memory of one process, where no worker reads it.",
        "Set REDIS_URL, e.g. REDIS_URL=redis://localhost:6379/0, and PUBSUB_ADAPTER=redis_streams.",
    ),
    Cause(
        "redis_unreachable",
        "redis",
        Level.FAILED,
        "Calls are answered while the audio waits for BROKER_BUFFER_SECONDS; then it is lost. "
        "/health/ready answers 503.",
        "Check REDIS_URL (host, port, rediss:// for TLS), that the server runs, and that this "
        'machine may reach it: redis-cli -u "$REDIS_URL" PING',
    ),
    Cause(
        "redis_password",
        "redis",
        Level.FAILED,
        "Redis refuses every command of the service.",
        "Put the right user and password into REDIS_URL (redis://USER:PASSWORD@HOST), / as %2F "
        "and # as %23; the user must be allowed every command that the service uses.",
    ),
    Cause(
        "redis_permissions",
        "redis",
        Level.FAILED,
        "Redis answers NOPERM to what the service does with them: calls are refused, or their "
        "audio is not published.",
        "Update the users: media-bridge redis-acl prints the rules of this version, for an "
        "administrator's redis-cli; passwords stay as they are.",
    ),
    Cause(
        "redis_read_only",
        "redis",
        Level.FAILED,
        "Nothing can be published: the server is a replica, or refuses writes.",
        "Let REDIS_URL name the primary, or use redis+sentinel://…, which finds it; a full disk "
        'or memory refuses writes too: redis-cli -u "$REDIS_URL" INFO',
    ),
    Cause(
        "redis_old",
        "redis",
        Level.FAILED,
        "The service uses commands of Redis 6.2 (GETEX); an older server refuses them.",
        "Upgrade the server that REDIS_URL names to Redis 6.2 or later, or to Valkey.",
    ),
    Cause(
        "redis_not_persistent",
        "redis_durability",
        Level.WARNING,
        "What is configured, and all that is kept of calls, is lost when Redis restarts.",
        'Set appendonly yes (or save) in the configuration of Redis: redis-cli -u "$REDIS_URL" '
        "CONFIG SET appendonly yes, then CONFIG REWRITE",
    ),
    Cause(
        "redis_evicts",
        "redis_eviction",
        Level.WARNING,
        "When its memory is full, Redis deletes keys by itself: audio of live calls, slots, plans "
        "and businesses, without a word in any receipt.",
        'Set maxmemory-policy to noeviction: redis-cli -u "$REDIS_URL" CONFIG SET '
        "maxmemory-policy noeviction (or in the console of whoever hosts it)",
    ),
    Cause(
        "redis_memory_short",
        "redis_memory",
        Level.WARNING,
        "Were every business to use all its plan allows, Redis would refuse writes for lack of "
        "memory (or delete keys), and audio would be lost.",
        "Give Redis {needed} of memory, or lower retention_seconds or max_concurrent_calls of the "
        "plans: media-bridge config export FILE shows them.",
    ),
    Cause(
        "redis_clock_skewed",
        "redis_clock",
        Level.WARNING,
        "Times in events and receipts are this machine's, those of leases are Redis': whoever "
        "compares them is misled; tickets live 60 s by the clock of each replica.",
        "Synchronise both clocks (timedatectl set-ntp true, or chronyd).",
    ),
    Cause(
        "forwarding_not_allowed",
        "forwarding",
        Level.WARNING,
        "Calls of these businesses are not forwarded: callers hear not_answered, and the call is "
        "rejected with destination_not_allowed.",
        "Change forward_to of the business, or add the country or prefix to allowed_destinations "
        "of its plan.",
    ),
    Cause(
        "exotel_pair_shared",
        "exotel_pairs",
        Level.WARNING,
        "The pair proves only that the service's own Exotel account is calling: its calls are not "
        "this business's.",
        "Remove the pair from the business, and generate one: POST "
        "/api/v1/businesses/ID/exotel-pairs, or the page Secrets.",
    ),
)
