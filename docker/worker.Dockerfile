# A worker for CPUs, which needs no torch. For GPUs: --build-arg WITHOUT=
# PyTorch's CPU builds, without several GB of CUDA, lie in an index of their own: --build-arg PIP_EXTRA_INDEX_URL=URL
# Also built on a base of one's own, with python3 3.11 and its venv: --build-arg BASE=NAME
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG WITHOUT="--without torch"
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/requirements.py docker/
# hadolint ignore=SC2086
RUN python3 docker/requirements.py postgresql,s3 ${WITHOUT} > requirements.txt \
 && python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/mitosis \
 && /opt/pip/bin/pip --python /opt/mitosis/bin/python install -c constraints.txt -r requirements.txt
COPY model_weights model_weights
COPY service service
ARG COMMIT
RUN echo "${COMMIT}" > service/commit.txt \
 && /opt/pip/bin/pip --python /opt/mitosis/bin/python install --no-deps .

FROM ${BASE}
RUN groupadd --gid 10001 mitosis \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mitosis \
 && install --directory --owner mitosis --group mitosis --mode 0750 /var/lib/mitosis
COPY --from=build /opt/mitosis /opt/mitosis
ENV PATH=/opt/mitosis/bin:$PATH HOME=/tmp MITOSIS_DATA_DIR=/var/lib/mitosis \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OPENVINO_TELEMETRY=0
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-m", "service.cli.health", "worker"]
ENTRYPOINT ["mitosis"]
CMD ["worker"]
