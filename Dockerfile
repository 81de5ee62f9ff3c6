# The service: Python, what requirements.txt pins, app/, and nothing else.
FROM python:3.11-slim AS build
COPY requirements.txt .
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --only-binary :all: --require-hashes --requirement requirements.txt

FROM python:3.11-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home bridge
COPY --from=build /venv /venv
WORKDIR /srv
COPY app/ app/
# An example: with BUSINESSES_FILE=businesses.toml it is read once, when nothing is configured.
COPY businesses.toml .
# Others reach a container from outside: also with ALLOW_UNSIGNED, where 127.0.0.1 is the default.
ENV HOST=0.0.0.0
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m compileall -q app
USER 10001
# Where PORT is not set.
EXPOSE 8000
# SIGTERM begins a drain. Give it DRAIN_SECONDS and 30 more: docker stop --timeout 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/health', timeout=4)"]
# tini passes signals on, and buries what nobody waits for.
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "app", "serve"]
