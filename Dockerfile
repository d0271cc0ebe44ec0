# cellstamp with compiled code, for any processor of the image's architecture:
#   docker build --tag cellstamp .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" cellstamp cellstamp extract my_project
# docs/containers.md explains the choices.

FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python3 -m venv /opt/cellstamp \
    && /opt/cellstamp/bin/pip install --no-cache-dir '.[dask,plot,segmentation]' \
    && /opt/cellstamp/bin/pip uninstall --yes pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="cellstamp" \
      org.opencontainers.image.description="Single-cell images from segmented microscopy images" \
      org.opencontainers.image.licenses="BSD-3-Clause"

# Nextflow measures processes with ps.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --home-dir /tmp --no-create-home cellstamp \
    && install --directory --mode=1777 /data

COPY --from=build /opt/cellstamp /opt/cellstamp

# Compiled code belongs to root: every user of the image loads it, and none can change it. A home that all users may write
# to keeps what else is cached, such as matplotlib's fonts.
ENV PATH=/opt/cellstamp/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/opt/cellstamp/compiled \
    NUMBA_CPU_NAME=generic
RUN cellstamp compile --image uint8 --image uint16

USER 1000
WORKDIR /data
CMD ["cellstamp", "--help"]
