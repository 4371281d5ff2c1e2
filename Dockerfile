# JupyterLab with the Rust kernel: docker build -t wavemesh . && docker run -p 127.0.0.1:8888:8888 wavemesh
# Its first stage compiles; the second has what a cell needs: the compiler, the compiled library and Jupyter.
# Training on GPUs: docker build --target gpu -t wavemesh-gpu . && docker run --gpus all -v "$PWD/runs:/home/ubuntu/runs" wavemesh-gpu train
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS gpu-build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=rust:1.95.0-slim-bookworm /usr/local/cargo /usr/local/cargo
COPY --from=rust:1.95.0-slim-bookworm /usr/local/rustup /usr/local/rustup
# Candle's own kernels, for Ampere and later: docs/gpu.md.
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup CUDA_COMPUTE_CAP=80 PATH=/usr/local/cargo/bin:$PATH
COPY . /wavemesh
WORKDIR /wavemesh
RUN cargo build --release --locked --features nccl --example train --example generate

# The runtime image has CUDA's libraries and NCCL.
FROM nvidia/cuda:13.0.2-runtime-ubuntu24.04 AS gpu
COPY --from=gpu-build /wavemesh/target/release/examples/train /wavemesh/target/release/examples/generate /usr/local/bin/
USER 1000
WORKDIR /home/ubuntu
CMD ["train", "--print-config"]

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
