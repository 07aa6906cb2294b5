# One image for the server and for every worker. Nothing is compiled: each requirement comes as a wheel, by its hash.

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/backhaul
COPY requirements.txt ./
RUN /opt/backhaul/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY backhaul ./backhaul
COPY config ./config
COPY tasks ./tasks
COPY workers ./workers
RUN /opt/backhaul/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/backhaul/bin/pip uninstall --yes setuptools pip

FROM python:3.11-slim
COPY --from=build /opt/backhaul /opt/backhaul
ENV PATH=/opt/backhaul/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A named volume takes its first owner and mode from the folder of the image that it covers.
RUN useradd --uid 10001 --no-create-home --home-dir /replica --shell /usr/sbin/nologin backhaul \
    && install --directory --owner backhaul --group backhaul --mode 0700 /replica /data
USER backhaul
WORKDIR /replica
CMD ["backhaul", "--help"]
