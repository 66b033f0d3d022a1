"""``pyinterp info``."""

from __future__ import annotations

import platform
from importlib.util import find_spec

import typer

from pyinterp.cli.common import Debug, told
from pyinterp.version import package_version

OPTIONAL = ("timm", "torchvision", "transformers", "skimage", "sklearn", "jinja2")


def info(debug: Debug = False) -> None:
    """Say which versions run, what was compiled and why, and which devices there are."""
    with told(debug):
        import torch

        from pyinterp import _extension

        built = _extension.build_info()
        rows = [
            ("pyinterp", package_version()),
            ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
            ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ]
        if built["compiled"]:
            details = {
                key: value
                for key, value in built.items()
                if key not in ("compiled", "problem", "torch", "ops")
            }
            rows.append(("compiled kernels", "yes"))
            rows += [(f"  {key.replace('_', ' ')}", str(value) or "none") for key, value in details.items()]
        else:
            rows.append(("compiled kernels", f"no: {built['problem']}; plain torch runs instead"))
        rows += [
            (f"ops on {device}", ", ".join(ops) or "plain torch") for device, ops in built["ops"].items()
        ]
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        rows.append(("devices", ", ".join(["cpu", *gpus])))
        found = [name if find_spec(name) else f"{name} (missing)" for name in OPTIONAL]
        rows.append(("optional packages", ", ".join(found)))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            typer.echo(f"{name:<{width}}  {value}")
