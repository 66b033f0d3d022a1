"""A chain as a network of its own: the same answers, its own weights, honest counts, and a refusal when it is off."""

from __future__ import annotations

import pytest
import torch
from byhand import Residual, chain_of, pictures, residual, without

from pyinterp.chains import compact
from pyinterp.chains.compact import compact_network

REMOVED = {"stem": [1, 5], "conv1": [0, 3, 4], "conv2": [2]}


@pytest.mark.parametrize("mode", ["exact", "scaled"])
@pytest.mark.parametrize("gate", [1.0, 0.0])
def test_answers_as_the_chain(mode: str, gate: float) -> None:
    net, images = residual(), pictures()
    scores = {"conv1": torch.linspace(0.5, 2, 8)} if mode == "scaled" else None
    gates = {"add": 0.7 * gate if mode == "scaled" else gate}
    chain = chain_of(net, images, REMOVED, mode=mode, scores=scores, layer_gates=gates)  # type: ignore[arg-type]
    small = chain.compact(net, images)
    expected = without(net, chain, images)
    torch.testing.assert_close(small(images), expected, rtol=1e-4, atol=1e-4)
    fresh = pictures(3, seed=5)
    torch.testing.assert_close(small(fresh), without(net, chain, fresh), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert (expected - net(images)).abs().max() > 0.1, "an example in which nothing changes shows nothing"


def test_counts_by_hand() -> None:
    net, images = residual(), pictures()
    info = chain_of(net, images, REMOVED).compact(net, images).info
    stem, conv1, conv2, head = 6 * 27, 8 * 54, 6 * 72, 6 * 3
    assert info["parameters_before"] == stem + 12 + conv1 + 16 + conv2 + 6 + head + 3
    assert info["macs_before"] == 81 * (stem + conv1 + conv2) + head
    # Units 1 and 5 of the stem, 3 of conv1 and 1 of conv2 are gone; each kept conv has a bias, BatchNorm is
    # folded; the channel of the stream that conv2 no longer writes is one stored constant.
    assert info["macs_after"] == 81 * (4 * 27 + 5 * 4 * 9 + 5 * 5 * 9) + head
    assert info["parameters_after"] == (4 * 27 + 4) + (5 * 4 * 9 + 5) + (5 * 5 * 9 + 5) + 1 + head + 3
    assert info["time_ratio"] > 0
    assert 0 <= info["difference"] < 1e-3


def test_random_images_stand_in() -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, REMOVED)
    assert chain.compact(net)(images).shape == (5, 3)
    double = net.double()
    chain = chain_of(double, images.double(), REMOVED)
    assert chain.compact(double)(images.double()).dtype == torch.float64


def test_refuses_when_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, REMOVED)
    true_fold = compact.fold
    monkeypatch.setattr(
        compact, "fold", lambda net, kept, scores: true_fold(net, kept, [1.1 * row for row in scores])
    )
    with pytest.raises(ValueError, match=r"compact: expected logits within .* of the masked network's, got"):
        chain.compact(net, images)
    chain.compact(net, images, tolerance=10)


def test_refuses_answers_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, REMOVED)
    monkeypatch.setattr(compact, "fold", lambda *args: torch.fx.symbolic_trace(_Nan()))
    with pytest.raises(ValueError, match="got nan"):
        chain.compact(net, images)


class _Nan(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) * float("nan")


def test_shares_no_weight_with_the_model() -> None:
    net, images = residual(), pictures()
    small = chain_of(net, images, {"conv1": [2]}).compact(net, images)
    theirs = {weight.untyped_storage().data_ptr() for weight in net.state_dict().values()}
    assert not theirs & {weight.untyped_storage().data_ptr() for weight in small.state_dict().values()}
    before = small(images).clone()
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    assert torch.equal(small(images), before)


def test_the_model_stays_as_it_was() -> None:
    net, images = residual(), pictures()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    chain_of(net, images, REMOVED).compact(net, images)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())


def test_can_be_exported_for_any_batch() -> None:
    net, images = residual(), pictures()
    small = chain_of(net, images, REMOVED).compact(net, images)
    exported = torch.export.export(small, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    for count in (5, 2):
        torch.testing.assert_close(exported(pictures(count)), small(pictures(count)))


def test_an_empty_chain_is_a_constant() -> None:
    net, images = residual(), pictures()
    gone = {"stem": range(6), "conv1": range(8), "conv2": range(6)}
    chain = chain_of(net, images, gone, layer_gates={"add": 0.0})  # type: ignore[arg-type]
    small = chain.compact(net, images)
    torch.testing.assert_close(small(images), net.head.bias.expand(5, -1).detach())
    assert small.info["macs_after"] <= 18


def test_another_network_is_refused() -> None:
    net, images = residual(), pictures()
    chain = chain_of(net, images, REMOVED)
    with pytest.raises(ValueError, match=r"head\.weight"):
        chain.compact(Residual(classes=4).eval(), images)


def test_tied_weights_stay_tied() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.head = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(torch.relu(self.conv(x)))).mean((2, 3)))

    net, images = Tied().eval(), pictures()
    chain = chain_of(net, images, {})
    small = compact_network(chain.bind(net), chain.gates(), images, chain.input_shape)
    torch.testing.assert_close(small(images), net(images).detach())
