# Builds with the network, runs without surprises: every package pinned by hash, no pip, no shell needed, nothing written but /data.

FROM python:3.13-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements-build.txt requirements.txt ./
RUN python -m venv --without-pip /opt/receiver \
    && pip --python /opt/receiver/bin/python install --require-hashes -r requirements.txt \
    && pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/receiver/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim
ENV PATH=/opt/receiver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECEIVER_HOST=0.0.0.0 \
    DATABASE_URL=sqlite+aiosqlite:////data/receiver.db
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin receiver \
    && install -d -o receiver -g receiver -m 0750 /data
COPY --from=build /opt/receiver /opt/receiver
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('RECEIVER_PORT', '8000') + '/livez', timeout=2)"]
ENTRYPOINT ["rivya-receiver"]
CMD ["serve"]
