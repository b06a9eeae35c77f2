# Every node of the Ray cluster: head, worker, driver of a job.  Built from the repository's root:
#
#   docker build -f deploy/docker/trainer.Dockerfile -t gan-trainer:cpu .
#   docker build -f deploy/docker/trainer.Dockerfile -t gan-trainer:gpu --build-arg TORCH_BACKEND= .

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY gan gan
COPY tuning tuning
COPY pipeline pipeline
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim AS environment
# A name that `uv pip install --torch-backend` knows: cpu, cu130, ...  Empty: torch as its authors
# publish it, for CUDA on x86-64, which is 3 GB larger and runs without a GPU, too.
ARG TORCH_BACKEND=cpu
# pip has no name for the builds of torch.  The environment keeps a pip: jobs may bring wheels.
RUN pip install --no-cache-dir 'uv>=0.9,<1' && python -m venv /opt/gan
COPY --from=wheel /wheel /wheel
# Compiled now, because nobody may write there later.
RUN uv pip install --no-cache --compile-bytecode --python /opt/gan/bin/python \
    ${TORCH_BACKEND:+--torch-backend="$TORCH_BACKEND"} "$(echo /wheel/*.whl)[cluster]"

FROM python:3.11-slim
# Whose files the user's secrets are, if compose builds this (see make-secrets).
ARG UID=10001
ARG GID=10001
RUN groupadd --non-unique --gid "$GID" gan \
    && useradd --non-unique --uid "$UID" --gid "$GID" --create-home gan \
    && install --directory --owner="$UID" --group="$GID" /home/gan/.mlflow /home/gan/work
COPY --from=environment /opt/gan /opt/gan
ENV PATH=/opt/gan/bin:$PATH \
    GIT_PYTHON_REFRESH=quiet \
    MLFLOW_DISABLE_TELEMETRY=true \
    RAY_USAGE_STATS_ENABLED=0
# By number, so that Kubernetes can tell that it is not root.
USER ${UID}:${GID}
# A job without a working folder of its own runs in the one where `ray start` did.
WORKDIR /home/gan/work
CMD ["gan", "--help"]
