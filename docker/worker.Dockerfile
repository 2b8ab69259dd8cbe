# A worker with the shipped weights. torch's own wheels bring CUDA on Linux; without a GPU the same image runs on the CPU.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY oar_core oar_core
COPY server server
RUN python -m venv /opt/oar && /opt/oar/bin/pip install --no-cache-dir --constraint constraints.txt '.[worker]'

FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --uid 10001 oar
COPY --from=build /opt/oar /opt/oar
COPY weights /opt/weights
USER oar
WORKDIR /home/oar
ENV PATH=/opt/oar/bin:$PATH OAR_WEIGHTS_DIR=/opt/weights OAR_LOG_FORMAT=json OAR_WORKER_METRICS_PORT=9101
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9101/metrics', timeout=2)"]
ENTRYPOINT ["oar", "worker"]
