# A worker for NVIDIA GPUs, with the shipped weights: torch's own Linux wheels bring CUDA. The host needs a driver and its container toolkit.
# By tag, as its rebuilds bring Debian's security fixes; docs/operating.md says how to name a digest instead.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/oar
# What others made, by the hashes of its files: first, as it is large and changes seldom.
COPY docker/locks/worker-cuda.txt lock.txt
RUN /opt/oar/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement lock.txt
COPY pyproject.toml README.md LICENSE ./
COPY oar_cli oar_cli
COPY oar_client oar_client
COPY oar_core oar_core
COPY oar_lab oar_lab
COPY oar_wire oar_wire
COPY server server
RUN /opt/oar/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN useradd --system --create-home --uid 10001 oar
COPY --from=build /opt/oar /opt/oar
COPY weights /opt/weights
USER 10001
WORKDIR /home/oar
ENV PATH=/opt/oar/bin:$PATH OAR_WEIGHTS_DIR=/opt/weights OAR_DEVICE=cuda OAR_LOG_FORMAT=json OAR_WORKER_METRICS_PORT=9101
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:9101/metrics', timeout=2)"]
ENTRYPOINT ["oar", "worker"]
