# syntax=docker/dockerfile:1
# Builds with the network, runs without surprises: every package pinned by hash, no pip, no shell needed, nothing written but /data.
# BASE is Debian with Python 3.11 or later as `python`, able to make virtual environments.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements-build.txt requirements.txt ./
# Where packages come from an index of one's own: --secret id=pip,src=/etc/pip.conf, and its certificates likewise.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python -m venv tools \
    && python -m venv --without-pip /opt/receiver \
    && tools/bin/pip --python /opt/receiver/bin/python install --require-hashes -r requirements.txt \
    && tools/bin/pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN tools/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/receiver/bin/python install --no-deps --no-index wheels/*.whl

FROM ${BASE}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=rivya-receiver \
    org.opencontainers.image.description="Know the outcome of every Rivya generation: pushed when Rivya calls back, pulled when it does not." \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.revision=${REVISION}
ENV PATH=/opt/receiver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECEIVER_HOST=0.0.0.0
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin receiver \
    && install -d -o receiver -g receiver -m 0700 /data
COPY --from=build /opt/receiver /opt/receiver
USER 10001:10001
# The default of DATABASE_URL is a file in this folder.
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; port = os.environ.get('RECEIVER_METRICS_PORT') or os.environ.get('RECEIVER_PORT') or '8000'; urllib.request.urlopen('http://127.0.0.1:' + port + '/livez', timeout=2)"]
ENTRYPOINT ["rivya-receiver"]
CMD ["serve"]
