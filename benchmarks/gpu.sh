#!/usr/bin/env bash
# On a machine with a GPU: build the kernels for it, run the GPU tests, look for races and bad reads, and measure.
#
#   benchmarks/gpu.sh [--dry-run] [FOLDER]
#
# It ends after MINUTES (25), with what is then left to do; logs and what is done lie in FOLDER (build/gpu), so that the same
# command goes on where it stopped. A step that fails or takes too long does not keep the others from running; what was
# done before a change of the code is done again. benchmarks/results/ gets DATE-gpu.txt, which tells how every step ended,
# and the results of the benchmarks. Without a GPU, --dry-run builds what can be built and says what would run.
# PYTHON names the interpreter, whose torch knows CUDA; pytest, pytest-benchmark, timm, cmake and ninja are needed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

dry=
if [ "${1:-}" = --dry-run ]; then
  dry=yes
  shift
fi
if [[ $# -gt 1 || ${1:-} == -* ]]; then
  echo "gpu.sh: expected [--dry-run] [FOLDER], got $*. See the head of $0." >&2
  exit 2
fi
python=${PYTHON:-python3}
folder=${1:-build/gpu}
[ -z "$dry" ] || folder=$folder/dry
mkdir -p "$folder" || exit 1
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

# Every C++ test of a kernel, behind the words given.
each() {
  local code=0
  for test in "$folder"/cpp/*_gpu; do
    "$@" "$test" || code=$?
  done
  return $code
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
  "build|300|$python setup.py build_ext --inplace"
  "build_cpp|120|$configure && cmake --build '$folder/cpp' --target gpu_tests"
  "info|60|$python -m pyinterp info"
  "tests|400|$python -m pytest -m gpu -q -p no:cacheprovider"
  "cpp|60|each env"
  "memcheck|120|each $sanitizer --tool memcheck"
  "racecheck|120|each $sanitizer --tool racecheck"
  "initcheck|120|each $sanitizer --tool initcheck"
  "chain|400|$python -m benchmarks chain --keep"
  "game|400|$python -m benchmarks game --keep"
)
for suite in gate subset_sum and_or gated_affine softmax_residual elastic_prox mask_inputs layer_game prefix path effects; do
  steps+=("$suite|200|$python -m benchmarks $suite --keep")
done
steps+=(
  "memcheck_ops|200|$ops --tool memcheck $tests"
  "initcheck_ops|200|$ops --tool initcheck $tests"
)

if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
  TORCH_CUDA_ARCH_LIST=$($python -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null)
  export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
fi
gpu=$($python -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null)
if [ -z "$dry$gpu" ]; then
  echo "gpu.sh: expected a GPU that torch can use, got none. Pass --dry-run to build and to see what would run." >&2
  exit 1
fi

stamp=$({
  echo "$gpu $TORCH_CUDA_ARCH_LIST"
  $python -c 'import sys, torch; print(sys.executable, torch.__version__)'
  find csrc pyinterp tests benchmarks setup.py pyproject.toml CMakeLists.txt -type f -regex '.*\.\(py\|sh\|txt\|toml\|c[a-z]*\|h\)' \
    -not -path 'benchmarks/results/*' -print0 | sort -z | xargs -0 sha256sum
} | sha256sum)

# The summary is written anew every time: steps that were done before tell it again.
echo "$(date +%F) ${gpu:-no GPU}, $TORCH_CUDA_ARCH_LIST" >"$folder/summary.txt"
failed=0
for step in "${steps[@]}"; do
  IFS='|' read -r name limit command <<<"$step"
  if [ -n "$dry" ] && [[ $name != build* ]]; then
    echo "would run for at most $limit s: $command"
    continue
  fi
  if [ -e "$folder/$name.done" ] && [ "$(head -n 1 "$folder/$name.done")" = "$stamp" ]; then
    tail -n 1 "$folder/$name.done" | tee -a "$folder/summary.txt"
    continue
  fi
  left=$((60 * ${MINUTES:-25} - 20 - SECONDS))
  if [ $left -lt 20 ]; then
    echo "$name: left for the next run" | tee -a "$folder/summary.txt"
    failed=1
    continue
  fi
  start=$SECONDS
  [ $left -gt "$limit" ] || limit=$left
  timeout --kill-after=10 "$limit" bash -c "$command" >"$folder/$name.log" 2>&1
  code=$?
  case $code in
    0) told=ok ;;
    124 | 137) told="took more than $limit s" ;;
    *) told="failed with $code" ;;
  esac
  line="$name: $told, $((SECONDS - start)) s. $(tail -n 1 "$folder/$name.log")"
  echo "$line" | tee -a "$folder/summary.txt"
  if [ $code = 0 ]; then printf '%s\n%s\n' "$stamp" "$line" >"$folder/$name.done"; else failed=1; fi
done
[ -n "$dry" ] || cp "$folder/summary.txt" "benchmarks/results/$(date +%F)-gpu.txt"
exit $failed
