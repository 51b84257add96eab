# The gateway, run from its source tree (docs/adr/0001): PyTorch for CPU unless TORCH_INDEX says otherwise.
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .   for NVIDIA GPUs
#   docker build --build-arg EXTRAS=postgresql,tracing .   with optional packages of pyproject.toml, which are not locked
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_REQUIREMENTS="-r requirements-torch.lock"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN python -m venv --without-pip /opt/venv
WORKDIR /srv/triggerwall

# Dependencies first: this layer is built again when the locks change (make lock), not with every line of code.
# PyTorch comes second: all that it needs but CUDA libraries is there by then, at the locked version.
# Not in the image: what PyTorch and its dependencies bring for C++ builds and for testing themselves.
COPY requirements.lock requirements-torch.lock ./
RUN pip --python /opt/venv/bin/python install --require-hashes -r requirements.lock \
    && pip --python /opt/venv/bin/python install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $TORCH_REQUIREMENTS \
    && cd /opt/venv/lib/python3.11/site-packages \
    && rm -rf torch/include torch/test \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find sympy networkx -type d -name tests -prune -exec rm -rf {} +

# --no-compile: what this adds to /opt/venv is then the same every time, and its large layer below is kept.
# The bundle's files may be readable by their author alone; in the image everybody may read everything.
ARG EXTRAS=
COPY . .
RUN pip --python /opt/venv/bin/python install --no-deps --no-compile --editable . \
    && if [ -n "$EXTRAS" ]; then pip --python /opt/venv/bin/python install --editable ".[$EXTRAS]"; fi \
    && python -m compileall -q app bench detectors lab models \
    && cp -r models/demo /bundle \
    && chmod -R u=rwX,go=rX . /bundle


FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin triggerwall \
    && install -d -m 0700 -o triggerwall -g triggerwall /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/triggerwall /srv/triggerwall
COPY --from=build /bundle /bundle
WORKDIR /srv/triggerwall
# Large uploads go to TMPDIR: a disk rather than memory. They have no name there and leave nothing behind.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/data \
    TRIGGERWALL_BUNDLE=/bundle \
    TRIGGERWALL_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-Sc", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.getenv('TRIGGERWALL_PORT', 8000)}/livez\", timeout=4)"]
# Process 1 is the gateway itself: on SIGTERM it answers what it has accepted and exits with 0.
ENTRYPOINT ["triggerwall"]
CMD ["serve", "--host", "0.0.0.0"]
