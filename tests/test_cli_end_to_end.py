"""The whole way: image files, a small network, a chain on disk and its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from pyinterp import cli, models
from pyinterp.chains.chain import Chain
from pyinterp.models.zoo import LoadedModel


class Net(nn.Module):
    """Two convs, the second on a residual branch, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        return self.last(F.relu(h + self.branch(h)).mean((2, 3)))


def preprocess(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((16, 16))
    return torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(16, 16, 3).permute(2, 0, 1) / 255


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    net = Net().eval()
    net.last.weight.data.mul_(8)  # answers that differ from image to image
    loaded = LoadedModel("net", net, preprocess, ("red", "<green>", "blue"), (3, 16, 16))  # type: ignore[arg-type]
    monkeypatch.setattr(models, "load", lambda name, *, device: loaded)
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, colour in enumerate(("red", "orange", "navy")):
        picture = Image.new("RGB", (32, 32), colour)
        picture.paste("white", (4 * index, 4, 4 * index + 8, 12))
        picture.save(folder / f"{index}&.png")
    return folder


def test_from_files_to_a_report(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["chain", "--images", str(photos), "--target-kl", "0.5", "--max-steps", "30", "--out", str(out)]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code in (0, 3), done.output
    assert sorted(path.name for path in out.iterdir()) == ["chain.json", "chain.safetensors", "report.html"]
    chain = Chain.load(out / "chain")
    assert chain.model_name == "net"
    assert chain.unit_count == 16
    assert len(chain.predictions) == 3
    assert (done.exit_code == 3) == (chain.bound_met is False)
    assert chain.compact_info["parameters_after"] <= chain.compact_info["parameters_before"]
    report = (out / "report.html").read_text("utf-8")
    assert f"{chain.kept_count} of the 16 filters of net" in report
    assert "0&amp;.png" in report
    assert "<green>" not in report
    assert len(re.findall(r'class="unit"', report)) >= 1
    assert done.stdout.splitlines()[-1] == f"Report: {(out / 'report.html').resolve()}"


def test_the_same_seed_gives_the_same_chain(photos: Path, tmp_path: Path) -> None:
    kept = []
    for name in ("a", "b"):
        words = ["chain", "--images", str(photos), "--max-steps", "10", "--out", str(tmp_path / name)]
        CliRunner().invoke(cli.app, words)
        kept.append(Chain.load(tmp_path / name / "chain").kept)
    assert all(torch.equal(kept[0][site], kept[1][site]) for site in kept[0])
