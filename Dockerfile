# One image, three commands: `holdfast bootstrap`, `holdfast api`, `python worker.py [--queue NAME]…`.
ARG BASE=python:3.11.15-slim-bookworm

FROM ${BASE} AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /app
# Dependencies first: a change to our own code leaves this layer as it is.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE worker.py ./
COPY activities activities
COPY contracts contracts
COPY runtime runtime
COPY simulator simulator
COPY starter starter
COPY store store
COPY templates templates
COPY workflows workflows
RUN uv sync --frozen --no-dev --no-editable

FROM ${BASE} AS image
# All that the wheels of onnxruntime and opencv-python-headless load from outside, by ldd. The base has them because
# apt needs them; named here so that a slimmer base does not lose them silently.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 holdfast \
    && useradd --uid 10001 --gid holdfast --no-create-home --home-dir /var/lib/holdfast \
        --shell /usr/sbin/nologin holdfast \
    && install --directory --owner holdfast --group holdfast /var/lib/holdfast
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY --from=build /app/worker.py /app/worker.py
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/holdfast \
    HOLDFAST_DATA_DIR=/var/lib/holdfast
# A missing shared library fails the build, not the first page of the first file.
RUN python -c "import cv2, obstore, onnxruntime, PIL.Image, pypdfium2"
USER holdfast
STOPSIGNAL SIGTERM
EXPOSE 8000
CMD ["holdfast", "api"]
