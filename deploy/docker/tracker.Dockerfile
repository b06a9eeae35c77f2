# The MLflow server, without torch or any code of ours.  Built from the repository's root:
#
#   docker build -f deploy/docker/tracker.Dockerfile -t gan-tracker:latest .

FROM python:3.11-slim
ARG UID=10001
ARG GID=10001
RUN groupadd --non-unique --gid "$GID" tracker \
    && useradd --non-unique --uid "$UID" --gid "$GID" --create-home tracker \
    && install --directory --owner="$UID" --group="$GID" /home/tracker/.mlflow
WORKDIR /opt/tracker
COPY pyproject.toml ./
RUN pip install --no-cache-dir 'uv>=0.9,<1' \
    && uv pip install --system --no-cache --compile-bytecode --group tracker
COPY --chmod=755 deploy/docker/tracker-entrypoint deploy/docker/prepare.py ./
ENV MLFLOW_DISABLE_TELEMETRY=true
USER ${UID}:${GID}
# MLflow may leave files where it is started.
WORKDIR /home/tracker
ENTRYPOINT ["/opt/tracker/tracker-entrypoint"]
CMD ["mlflow", "server", "--help"]
