"""A browser for the pages, where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--log-level=0",
)


@dataclass(frozen=True)
class Rendered:
    """What a browser made of a page: its picture, what it said on the console, what it asked for, its final HTML."""

    picture: Image.Image
    console: list[str]
    requests: list[str]
    html: str


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Rendered]:
    """Open a page in headless Chromium with no network, and look at it."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")

    def render(page: Path, width: int = 1280, height: int = 1200, dark: bool = False) -> Rendered:
        log, shot = tmp_path / "net.json", tmp_path / "shot.png"
        options = [
            *QUIET,
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}",
            f"--window-size={width},{height}",
            f"--screenshot={shot}",
            "--dump-dom",
        ]
        # Chromium's own sandbox does not start as root.
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        done = subprocess.run(
            [program, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        assert shot.exists(), done.stderr[-2000:]
        with Image.open(shot) as picture:
            picture.load()
        events = json.loads(log.read_text("utf-8"))["events"]
        asked = [event["params"] for event in events if isinstance(event.get("params"), dict)]
        # The browser's own housekeeping has no origin; what a page asks for has one ("null" for a file).
        pages = [p["url"] for p in asked if p.get("initiator") not in (None, "not an origin")]
        console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
        return Rendered(picture, console, [url for url in pages if not url.startswith("data:")], done.stdout)

    return render
