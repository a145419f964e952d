# alignbench in a container: on CPUs by default, on NVIDIA GPUs by a build argument.
#
#   docker build -t alignbench .
#   docker run --rm -v "$PWD/results:/work/results" alignbench algo=ppo
#
#   docker build -t alignbench:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm --gpus all -v "$PWD/results:/work/results" alignbench:cuda algo=ppo model=smollm2 data=hh
#
# The folder results/ on the host must be writable for user 1000 (or run with --user "$(id -u):$(id -g)").
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# torch first, from its own index: the default one brings CUDA whether or not it is wanted.
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple \
    -c /tmp/constraints.txt torch
COPY --from=build /dist /tmp/dist
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/dist/*.whl)[page,tensorboard]" \
    && useradd --create-home --uid 1000 alignbench \
    && mkdir -p /work/results /cache \
    && chown -R alignbench /work /cache \
    && chmod 777 /cache
USER alignbench
WORKDIR /work
# What runs share, and what the hub sends: mount a volume at /cache to keep it.
ENV ALIGNBENCH_CACHE=/cache/alignbench HF_HOME=/cache/huggingface
VOLUME /cache
ENTRYPOINT ["alignbench"]
