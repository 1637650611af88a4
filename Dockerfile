# syntax=docker/dockerfile:1
# Two images: `api` has neither torch nor timm; `worker` has both, and runs on a GPU or without one.
#
# Both start from Python's own image. A CUDA base image is not needed: torch's wheels for Linux bring the CUDA libraries
# that they were built with, so that the image runs exactly the releases of locks/, which the tests run too;
# of the host it needs the driver alone (NVIDIA Container Toolkit).
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS base
LABEL org.opencontainers.image.title="vitpress" \
      org.opencontainers.image.description="A self-hosted, team-shared compression queue for Vision Transformers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/vitpress/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/vitpress \
    HF_HOME=/var/lib/vitpress/hub \
    VITPRESS_DATA_DIR=/var/lib/vitpress \
    VITPRESS_SAMPLES_DIR=/app/samples
# Volumes mounted here for the first time take over the owner.
RUN groupadd --gid 10001 vitpress \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/vitpress --shell /usr/sbin/nologin vitpress \
 && install --directory --owner=10001 --group=10001 \
    /var/lib/vitpress /var/lib/vitpress/blobs /var/lib/vitpress/cache /var/lib/vitpress/hub /var/lib/vitpress/uploads
WORKDIR /app
COPY samples samples
STOPSIGNAL SIGTERM
USER 10001:10001

FROM python:${PYTHON} AS build
ENV PATH=/opt/vitpress/bin:$PATH
RUN python -m venv /opt/vitpress
WORKDIR /src

FROM build AS build-api
COPY locks/api.txt locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement locks/api.txt
COPY pyproject.toml ./
COPY client client
COPY core core
COPY store store
COPY migrations migrations
COPY worker worker
COPY api api
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./client .

FROM build AS build-worker
COPY locks/worker.txt locks/
# A layer of its own: it is large, and changes with the lock alone.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement locks/worker.txt
COPY pyproject.toml ./
COPY client client
COPY core core
COPY store store
COPY migrations migrations
COPY worker worker
COPY api api
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./client .

FROM base AS worker
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-worker /opt/vitpress /opt/vitpress
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD ["python", "-m", "worker.health"]
CMD ["celery", "-A", "worker.app", "worker"]

FROM base AS api
COPY --from=build-api /opt/vitpress /opt/vitpress
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "api.serve:app", "--factory", "--http", "api.protocol:Impatient", "--host", "0.0.0.0", "--port", "8000", \
    "--timeout-graceful-shutdown", "10"]
