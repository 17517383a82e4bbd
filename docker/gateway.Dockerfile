# The gateway, `mitosis migrate`, and the ways in from the laboratory: without what computes.
# Also built on a base of one's own, with python3 3.11 and its venv: --build-arg BASE=NAME
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/requirements.py docker/
RUN python3 docker/requirements.py postgresql,interop,s3 --without torch --without openvino > requirements.txt \
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
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-m", "service.cli.health", "gateway"]
ENTRYPOINT ["mitosis"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
