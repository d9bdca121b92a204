# Two stages: what builds the wheel stays behind, the image has only what runs.
# Everything is installed by root and run by a numeric user without a home, so that
# runAsNonRoot and readOnlyRootFilesystem can both be set.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:${PYTHON}-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python -m venv /opt/bkscaler \
    && /opt/bkscaler/bin/pip install --no-cache-dir --no-index --find-links /wheels bkscaler \
    # At run time nobody may write. So this writes, beside the plugins, Twisted's list of them, and then
    # the byte code of all that a start imports, of which the base image has none.
    && /opt/bkscaler/bin/twistd --help >/dev/null \
    && /opt/bkscaler/bin/twistd bkscaler --help >/dev/null

ENV PATH=/opt/bkscaler/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
EXPOSE 8080 9090
# Flags of bkscaler can be given as arguments; every setting is also an environment variable.
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "bkscaler"]
