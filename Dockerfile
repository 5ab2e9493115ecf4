# Two images:  docker build --target cpu -t titanomachy .     docker build --target cuda -t titanomachy:cuda .
# Run:         docker run --rm -v "$PWD/out:/titanomachy/results/comparisons/own" titanomachy run quick
FROM python:3.11-slim-bookworm AS base
# cc compiles the provider `native` at first use; git names the commit in every row.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /titanomachy
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements requirements

FROM base AS cpu
# PyTorch's own index holds the build without CUDA; everything else comes by the lock, with its hashes.
RUN version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements/cuda.txt) \
    && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$version" \
    && pip install --require-hashes --no-deps -r requirements/cpu.txt
COPY . .
ENTRYPOINT ["python", "bench.py"]
CMD ["--help"]

FROM base AS cuda
RUN pip install --require-hashes --no-deps -r requirements/cuda.txt
COPY . .
# Kernels of flash-linear-attention; held to its version alone, since what it needs is in the lock.
RUN pip install -c constraints.txt -e ".[cuda]"
ENTRYPOINT ["python", "bench.py"]
CMD ["--help"]
