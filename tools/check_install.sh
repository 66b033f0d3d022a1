#!/usr/bin/env bash
# Check what the README says about installing, in fresh environments made from a fresh clone of the last commit.
#   tools/check_install.sh PYTHON     PYTHON: of an environment where `pip install -e .` was run beside PyPI's torch
set -euo pipefail
python=$(realpath -s "$1")
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYINTERP_CUDA TORCH_CUDA_ARCH_LIST PYTHONPATH

say() { echo "check_install: $*"; }
fail() {
  say "FAILED: $1" >&2
  [ -z "${2:-}" ] || tail -n 40 "$2" >&2
  exit 1
}
summary() { grep -o 'pyinterp: built .*\|pyinterp: no .*' "$1" || fail "the build printed no summary line" "$1"; }

[ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] || say "note: uncommitted changes are not part of it"
git clone --quiet "$root" "$work/clone"

# (a) beside PyPI's torch: an isolated build takes that torch, and builds the CUDA kernels where nvcc is.
cuda=$("$python" -c 'import torch; print(torch.version.cuda)')
"$python" -m pip wheel -v --no-deps -w "$work/wheel" "$work/clone" >"$work/a.log" 2>&1 || fail "(a) the build" "$work/a.log"
say "(a) $(summary "$work/a.log")"
[ "$cuda" != None ] || say "note: torch here is a CPU build, so (a) is not checked beside a CUDA build"
version=$("$python" -c 'import torch; print(torch.__version__)')
grep -qF "against the headers of torch $version" "$work/a.log" || fail "(a) it was built against another torch" "$work/a.log"
if command -v nvcc >/dev/null; then
  grep -q "built CPU and CUDA kernels" "$work/a.log" || fail "(a) no CUDA kernels although nvcc is here" "$work/a.log"
else
  say "note: no nvcc here, so the CUDA kernels are not checked"
fi

# (c) without torch: pip fetches one to build with and one to run with. Both are the CPU-only 2.13.0 where the
# package index has it.
"$python" -m venv "$work/venv"
plain=$work/venv/bin/python
echo "torch==2.13.0" >"$work/constraint.txt"
PYINTERP_CUDA=0 PIP_CONSTRAINT=$work/constraint.txt PIP_BUILD_CONSTRAINT=$work/constraint.txt \
  "$plain" -m pip install -v -e "$work/clone" >"$work/c.log" 2>&1 || fail "(c) pip install -e ." "$work/c.log"
say "(c) $(summary "$work/c.log")"

# (b) beside a CPU-only torch: no second torch is fetched, nothing pulls torchvision, and the library works.
"$plain" -m pip install -v -e "$work/clone" >"$work/b.log" 2>&1 || fail "(b) pip install -e ." "$work/b.log"
say "(b) $(summary "$work/b.log")"
! grep -qE "(Collecting|Downloading|Processing) .*torch" "$work/b.log" || fail "(b) a second torch was fetched" "$work/b.log"
! "$plain" -m pip list 2>/dev/null | grep -iE "^(torchvision|timm|nvidia)" || say "note: this is no CPU-only environment"
(cd "$work" && "$plain" "$root/tools/check_plain.py" compiled)

# The library built beside (a)'s torch runs under (b)'s.
rm "$work"/clone/pyinterp/_C*.so
"$plain" -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
cp "$work"/unpacked/pyinterp/_C*.so "$work/clone/pyinterp/"
say "(a)'s library under (b)'s torch"
(cd "$work" && "$plain" "$root/tools/check_plain.py" compiled "$version")

# No compiler: it installs all the same, and plain torch runs.
rm "$work"/clone/pyinterp/_C*.so
CC=none CXX=none "$plain" -m pip install -v --no-deps -e "$work/clone" >"$work/d.log" 2>&1 || fail "(d) pip install" "$work/d.log"
say "(d) $(summary "$work/d.log")"
(cd "$work" && "$plain" -W ignore "$root/tools/check_plain.py" reference)
say "all fine"
