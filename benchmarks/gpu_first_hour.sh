#!/usr/bin/env bash
# What somebody with one GPU runs to see within an hour whether it all holds there. Writes one report, in Markdown.
#
#   benchmarks/gpu_first_hour.sh FOLDER_OF_HH_RLHF [REPORT]    the models are fetched from the hub, TRL 1.12 into an environment
#   benchmarks/gpu_first_hour.sh --tiny [REPORT]               the same steps on whatever there is, with models of random weights
#
# PRESETS="qwen2.5-0.5b qwen2.5-7b" runs others than those below. The exit code is the number of steps that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PRESETS="${PRESETS:-qwen2.5-0.5b llama-3.1-8b}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0

if [ "${1:-}" = --tiny ]; then
  python benchmarks/tiny_chat.py "$work/tiny" || exit 1
  data="$work/tiny/hh"
  PRESETS=hf
  tests=(tests/hf/test_gpu.py -k "not int8")
  model=(model.path="$work/tiny/model" model.lora_rank=4 model.max_prompt_tokens=200 model.max_response_tokens=16)
  sizes=(algo.batch_size=8 algo.micro_batch_size=4 eval.families="[helpfulness,optimization]" eval.options.helpfulness.limit=1)
  planned=(--one model=hf "${model[@]}")
  compared=(--model "$work/tiny/model" --updates 2)
  trl=(--alone)
elif [ -d "${1:-}" ]; then
  data="$1"
  tests=(-m gpu)
  model=()
  sizes=(algo.batch_size=32 algo.micro_batch_size=4 eval=quick eval.questions=16)
  planned=()
  compared=(--updates 5)
  trl=()
else
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
report="${2:-gpu_first_hour.md}"

# step TITLE COMMAND...: runs it, and writes down what it said, how long it took and whether it held.
step() {
  local title="$1" begin=$SECONDS said verdict="holds"
  shift
  printf '%s ... ' "$title" >&2
  said="$("$@" 2>&1)" || { verdict="**fails** (exit code $?)" && failed=$((failed + 1)); }
  printf '%s\n' "$verdict" >&2
  {
    printf '\n## %s: %s\n\n' "$title" "$verdict"
    printf '`%s` took %d s.\n\n```\n%s\n```\n' "$*" $((SECONDS - begin)) "$(tail -n 40 <<< "$said")"
  } >> "$report"
}

settings_of() {  # PRESET: one PPO run in four bits, every stage of it short
  echo "model=$1" "${model[@]}" model.quantization=nf4 algo=ppo data=hh "data.path=$data" annotator=recorded \
    data.held_out_rows=16 sft.updates=3 reward.updates=3 algo.updates=3 "${sizes[@]}"
}

run_preset() {
  # shellcheck disable=SC2046  # settings hold no spaces
  python -m alignbench $(settings_of "$1") eval.samples=1 cache=false resume=never "results_dir=$work/runs-$1"
}

plan_preset() {  # PRESET: what was planned beside what was taken
  # shellcheck disable=SC2046
  python -m alignbench plan $(settings_of "$1") || true  # it may not fit: the run above has told
  python - "$work/runs-$1" << 'PY'
import json, pathlib, sys
(record,) = pathlib.Path(sys.argv[1]).glob("*/result.json")
cost = json.loads(record.read_text())["cost"]
for name, of in (("peak_gpu_memory_bytes", "of the GPU by tensors, without CUDA's context"), ("peak_memory_bytes", "of RAM by the process")):
    if cost[name]:
        print(f"Taken: {cost[name] / 2**30:.2f} GiB {of}.")
PY
}

machine() {
  python - << 'PY'
import torch
from alignbench.results.disk.environment import hardware, package_versions
print(*(f"{name}: {value}" for name, value in (hardware() | package_versions()).items()), sep="\n")
print("CUDA of torch:", torch.version.cuda)
if torch.cuda.is_available():
    print("bfloat16:", torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_capability())
    print(f"memory: {torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB")
PY
}

export HF_HUB_DISABLE_PROGRESS_BARS=1 THP_MEM_ALLOC_ENABLE=1 CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}"
printf '# The first hour on a GPU\n\nCommit %s.\n' "$(git describe --always --dirty 2> /dev/null || echo unknown)" > "$report"
step "The machine" machine
step "Tests on the device" python -m pytest -q "${tests[@]}"
for preset in $PRESETS; do
  step "PPO in four bits: $preset" run_preset "$preset"
  step "Memory against the plan: $preset" plan_preset "$preset"
done
step "Memory against the plan: one update" python benchmarks/plan.py "${planned[@]}"
step "PPO beside TRL" python benchmarks/trl_ppo.py "$data" "${compared[@]}" "${trl[@]}"
step "DPO beside TRL" python benchmarks/trl_dpo.py "$data" "${compared[@]}"
printf '\n%d of its steps failed, after %d s.\n' "$failed" "$SECONDS" >> "$report"
echo "$report: $failed steps failed" >&2
exit "$failed"
