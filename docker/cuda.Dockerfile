# syntax=docker/dockerfile:1
# PyTorch and JAX on NVIDIA GPUs. CUDA comes in wheels by the lock; the driver is the node's, where GKE mounts it.
#   docker build --file docker/cuda.Dockerfile --tag constitutional-ai/cuda:0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG UV=0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv==${UV}"
WORKDIR /app
# The libraries change seldom and weigh much: a layer of their own, from the lock alone.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --extra cuda --no-install-project
COPY . .
RUN uv sync --locked --no-dev --extra cuda

FROM python:${PYTHON}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="constitutional-ai" \
      org.opencontainers.image.description="Constitutional AI: training, evaluation on NVIDIA GPUs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 cai && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp cai
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:/usr/local/nvidia/bin:${PATH} \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /app
USER 10001:10001
CMD ["evaluate", "--help"]
