# docker build --target cpu -t minigpt:cpu .
# docker build --target cuda -t minigpt:cuda .
# docker run --init --rm -it -v "$PWD/data:/workspace/data" -v "$PWD/logs:/workspace/logs" minigpt:cpu
# docker run --init --rm -it --gpus all --ipc=host ... minigpt:cuda python src/train.py model=small trainer=gpu
# The user has the id 1000: data/ and logs/ of the host must be writable for it.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
# g++ compiles the kernels of compile=true; git gives a run the commit of its code where .git is mounted.
# Debian's archive keeps one version of a package only, so a pinned version would soon fail to build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 minigpt \
    && install --directory --owner=minigpt --group=minigpt /workspace
USER 1000:1000
WORKDIR /workspace
ENV PATH=/workspace/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
# What `make install` reads, without the code: a change of the code does not install everything again.
COPY --chown=1000:1000 Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=1000:1000 src/minigpt/__init__.py src/minigpt/

# For NVIDIA GPUs: torch from PyPI brings its own CUDA libraries, the host its driver (NVIDIA Container Toolkit).
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN make install TORCH_INDEX_URL=https://pypi.org/simple
COPY --chown=1000:1000 . .
CMD ["python", "src/train.py"]

# For CPUs, and the default: torch from its own index of CPU builds, which are a fraction of the size.
FROM base AS cpu
RUN make install TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY --chown=1000:1000 . .
CMD ["python", "src/train.py"]
