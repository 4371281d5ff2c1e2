# JupyterLab with the Rust kernel: docker build -t wavemesh . && docker run -p 127.0.0.1:8888:8888 wavemesh
# The first stage compiles; the second has what a cell needs: the compiler, the compiled library and Jupyter.
FROM rust:1.95.0-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils python3-venv xz-utils && rm -rf /var/lib/apt/lists/*
COPY . /wavemesh
RUN bash /wavemesh/kernel/package.sh

FROM rust:1.95.0-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 wave
USER 1000
WORKDIR /home/wave
ENV PATH=/home/wave/venv/bin:$PATH
COPY --from=build /wavemesh/target/dist/*.whl /tmp/
# hadolint ignore=DL3013
RUN python3 -m venv venv && pip install --no-cache-dir jupyterlab /tmp/*.whl && wavemesh-kernel install
COPY --chown=wave notebooks notebooks
EXPOSE 8888
# Inside a container every address is its own; the -p above keeps it to this machine.
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
