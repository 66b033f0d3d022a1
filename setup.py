"""Build `pyinterp._C`: the CPU kernels, and the CUDA kernels where nvcc is found (metadata: pyproject.toml).

Environment variables: PYINTERP_CUDA=0|1|auto, TORCH_CUDA_ARCH_LIST, MAX_JOBS, described in CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from build_plan import gencode, plan_build  # noqa: E402
from toolchain import find_nvcc, find_torch  # noqa: E402


class BuildKernels(build_ext):
    """Compile .cpp with the C++ compiler and .cu with nvcc, several at once; link them into one library."""

    def build_extensions(self) -> None:
        missing = []
        if shutil.which(self.compiler.compiler_cxx[0]) is None:
            missing.append("C++ compiler")
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            missing.append("Python.h")
        if missing:
            print(
                f"pyinterp: no {' and no '.join(missing)} found: nothing built, every op runs as plain torch."
            )
            self.extensions.clear()
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        torch, nvcc = find_torch(), find_nvcc(os.environ)
        if torch is None:
            sys.exit(
                "pyinterp: expected a torch >= 2.10 to build against, got none. Run `pip install torch`."
            )
        memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        plan = plan_build(os.environ, nvcc.version if nvcc else None, os.cpu_count() or 1, memory_gb)
        if not plan.archs:
            nvcc = None

        include = torch.folder / "include"
        both = ["-O3", "-std=c++20", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Icsrc"]
        both += ["-isystem", f"{include}", "-isystem", f"{include}/torch/csrc/api/include"]
        both += ["-DUSE_CUDA"] if nvcc else []
        # The library's error messages show source paths: without this, those of the machine that built it.
        host = [
            "-fPIC",
            "-fvisibility=hidden",
            f"-ffile-prefix-map={ROOT}/=",
            f"-ffile-prefix-map={include}/=",
        ]
        facts = {
            "PYI_VERSION": self.distribution.get_version(),
            "PYI_TORCH_VERSION": torch.version,
            "PYI_NVCC_VERSION": nvcc.version if nvcc else "",
            "PYI_CUDA_ARCHS": ";".join(plan.archs),
            "PYI_BUILD_REASON": plan.reason,
        }
        macros = [
            *((name, f'"{value}"') for name, value in facts.items()),
            ("PYI_WITH_CUDA", "01"[bool(nvcc)]),
        ]

        def compile_one(source: str) -> str:
            if nvcc is None or source.endswith(".cpp"):
                flags = [*both, *host, "-g0"]
                return self.compiler.compile([source], self.build_temp, macros, extra_postargs=flags)[0]
            target = Path(self.build_temp, f"{source}.o")
            target.parent.mkdir(parents=True, exist_ok=True)
            flags = [*both, *gencode(plan.archs), "-Xcompiler", ",".join(host)]
            if subprocess.run([nvcc.path, "-c", source, "-o", str(target), *flags]).returncode != 0:
                sys.exit(
                    f"pyinterp: expected nvcc {nvcc.version} to compile {source}, got the errors above. "
                    "Mend the CUDA toolkit, or set PYINTERP_CUDA=0 to build without CUDA kernels."
                )
            return str(target)

        sources = [source for source in ext.sources if nvcc or source.endswith(".cpp")]
        with ThreadPoolExecutor(plan.jobs) as pool:
            ext.extra_objects = list(pool.map(compile_one, sources))
        ext.sources = []
        ext.library_dirs = [str(torch.folder / "lib")]
        ext.libraries = ["c10", "torch_cpu"]
        if nvcc:
            # Static and hidden: the library then works beside whatever CUDA runtime torch brings, or none.
            ext.library_dirs += nvcc.library_dirs
            ext.libraries += ["cudart_static", "dl", "rt", "pthread"]
            ext.extra_link_args = ["-Wl,--exclude-libs,libcudart_static.a"]
        self.force = True
        super().build_extension(ext)
        kind = f"CPU and CUDA kernels for {';'.join(plan.archs)}" if nvcc else "CPU kernels only"
        print(f"pyinterp: built {kind} ({plan.reason}) against the headers of torch {torch.version}.")


if __name__ == "__main__":
    os.chdir(ROOT)
    sources = sorted(path for place in ("", "cpu/", "cuda/") for path in glob(f"csrc/{place}*.c[pu]*"))
    sources = [path for path in sources if path.endswith((".cpp", ".cu"))]
    headers = sorted(glob("csrc/**/*.*h", recursive=True))
    kernels = Extension("pyinterp._C", sources, depends=headers, language="c++")
    setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
