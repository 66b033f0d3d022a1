#!/usr/bin/env bash
# On a machine with a GPU: build the kernels for it, run the GPU tests, look for races and bad reads, and measure.
#
#   benchmarks/gpu.sh [--dry-run] [FOLDER]
#
# Logs and what is done go into FOLDER (build/gpu): the same command goes on where it stopped. A step that fails or takes
# too long does not keep the others from running. benchmarks/results/ gets DATE-gpu.txt, which tells how every step ended,
# and the results of the benchmarks. Without a GPU, --dry-run builds what can be built and says what would run.
# PYTHON names the interpreter, whose torch knows CUDA; pytest, pytest-benchmark, timm, cmake and ninja are needed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

dry=
if [ "${1:-}" = --dry-run ]; then
  dry=yes
  shift
fi
python=${PYTHON:-python3}
folder=${1:-build/gpu}
mkdir -p "$folder"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

# Every C++ test of a kernel, behind the words given.
each() {
  for test in "$folder"/cpp/*_gpu; do
    "$@" "$test" || return
  done
}
export folder
export -f each

# name, most seconds, command. The C++ tests show the sanitizers each kernel, those of the ops how a call launches it; bad
# reads are seen there only where every tensor has memory of its own.
sanitizer="compute-sanitizer --error-exitcode 9"
ops="PYTORCH_NO_CUDA_MEMORY_CACHING=1 $sanitizer --kernel-name kns=pyinterp"
tests="$python -m pytest tests/ops -m gpu -q -x -p no:cacheprovider -k 'not compile'"
configure="cmake -S . -B '$folder/cpp' -G Ninja -DPython3_EXECUTABLE=$(command -v "$python")"
steps=(
  "build|240|$python setup.py build_ext --inplace"
  "build_cpp|120|$configure && cmake --build '$folder/cpp' --target gpu_tests"
  "info|30|$python -m pyinterp info"
  "tests|270|$python -m pytest -m gpu -q -p no:cacheprovider"
  "cpp|30|each env"
  "memcheck|60|each $sanitizer --tool memcheck"
  "racecheck|60|each $sanitizer --tool racecheck"
  "initcheck|60|each $sanitizer --tool initcheck"
  "ops|90|$python -m benchmarks gate gated_affine subset_sum mask_inputs and_or softmax_residual elastic_prox"
  "memcheck_ops|120|$ops --tool memcheck $tests"
  "initcheck_ops|120|$ops --tool initcheck $tests"
  "games|120|$python -m benchmarks game layer_game"
  "chain|180|$python -m benchmarks chain"
)

if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
  TORCH_CUDA_ARCH_LIST=$($python -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null)
  export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
fi
if [ -z "$dry" ] && ! $python -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  echo "gpu.sh: expected a GPU that torch can use, got none. Pass --dry-run to build and to see what would run." >&2
  exit 1
fi

: >"$folder/summary.txt"
failed=0
for step in "${steps[@]}"; do
  IFS='|' read -r name limit command <<<"$step"
  if [ -n "$dry" ] && [[ $name != build* ]]; then
    echo "would run for at most $limit s: $command"
    continue
  fi
  if [ -e "$folder/$name.done" ]; then
    tee -a "$folder/summary.txt" <"$folder/$name.done"
    continue
  fi
  start=$SECONDS
  timeout --kill-after=10 "$limit" bash -c "$command" >"$folder/$name.log" 2>&1
  code=$?
  case $code in
    0) told=ok ;;
    124 | 137) told="took more than $limit s" ;;
    *) told="failed with $code" ;;
  esac
  line="$name: $told, $((SECONDS - start)) s. $(tail -n 1 "$folder/$name.log")"
  echo "$line" | tee -a "$folder/summary.txt"
  if [ $code = 0 ]; then echo "$line" >"$folder/$name.done"; else failed=1; fi
done
[ -n "$dry" ] || cp "$folder/summary.txt" "benchmarks/results/$(date +%F)-gpu.txt"
exit $failed
