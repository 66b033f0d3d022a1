"""Chain: it answers inside ``apply`` and leaves no trace, knows its network, and survives the disk."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
from byhand import Residual, chain_of, pictures, residual, without
from torch import Tensor, nn

from pyinterp.chains.chain import Chain, Prediction, describe, digest

REMOVED = {"stem": [1], "conv1": [0, 3, 4], "conv2": [2]}


def example(mode: str = "scaled") -> tuple[Residual, Tensor, Chain]:
    net, images = residual(), pictures()
    scores = {"conv1": torch.linspace(0.5, 2, 8)} if mode == "scaled" else None
    gates = {"add": 0.7 if mode == "scaled" else 1.0}
    chain = chain_of(
        net,
        images,
        REMOVED,
        mode=mode,  # type: ignore[arg-type]
        scores=scores,
        layer_gates=gates,
        history={"step": [1, 2], "kl": [0.5, 0.25]},
        settings={"target_kl": 0.1, "seed": 3, "keep": "all classes"},
        fidelity={"images": {"kl": 0.0421, "agreement": 0.8}, "held_out": {"kl": 0.3, "agreement": 0.5}},
        baselines={"random": {"kl": 2.0, "agreement": 0.1}, "taylor": {"kl": 0.9, "agreement": 0.6}},
        predictions=(Prediction(0, 0.9, 0, 0.8), Prediction(1, 0.6, 2, 0.5)),
        bound_met=True,
        compact_info={
            "parameters_before": 1000,
            "parameters_after": 250,
            "macs_before": 4000,
            "macs_after": 400,
        }
        | {"difference": 1e-6, "time_ratio": 3.14},
    )
    return net, images, chain


def test_sizes() -> None:
    _, _, chain = example()
    assert (chain.kept_count, chain.unit_count) == (15, 20)
    assert chain.kept_fraction == 0.75
    assert [row.tolist() for row in chain.gates()][3] == pytest.approx([0.7])
    assert chain.gate_values("conv1")[0] == 0
    assert chain.gate_values("conv1")[7] == 2


@pytest.mark.parametrize("mode", ["exact", "scaled"])
def test_answers_inside_apply_and_not_outside(mode: str) -> None:
    net, images, chain = example(mode)
    with torch.no_grad():
        before = net(images)
        with chain.apply(net) as inside:
            assert inside is net
            torch.testing.assert_close(net(images), without(net, chain, images), rtol=1e-5, atol=1e-5)
            assert net(pictures(2, seed=4)).shape == (2, 3)
        assert torch.equal(net(images), before)
    assert "forward" not in vars(net)


def traces(net: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {name: value.clone() for name, value in net.state_dict().items()}
    for name, module in net.named_modules():
        state[f"{name}/keys"] = sorted(vars(module))
        state[f"{name}/hooks"] = [len(value) for key, value in vars(module).items() if key.endswith("_hooks")]
        state[f"{name}/training"] = module.training
    for name, weight in net.named_parameters():
        state[f"{name}/flags"] = (id(weight), weight.requires_grad, weight.grad is None, weight._version)
    return state


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_is_what_it_was(error: type[BaseException] | None) -> None:
    net, images, chain = example()
    before = traces(net)

    def use() -> None:
        with chain.apply(net):
            net(images).sum().item()
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    after = traces(net)
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]  # type: ignore[arg-type]
        assert same, name


def test_images_of_another_size_are_refused_inside_apply() -> None:
    net, _, chain = example()
    with chain.apply(net), pytest.raises(ValueError, match=r"expected images"):
        net(torch.zeros(2, 3, 12, 12))


def test_another_architecture_is_refused_with_the_first_difference() -> None:
    net, images, chain = example()
    wider = Residual(classes=4).eval()
    for refuse in (chain.bind, chain.check, chain.compact, lambda model: chain.evaluate(model, images)):
        with pytest.raises(
            ValueError, match=r"'head\.weight' is of shape \(3, 6\), got one where it is of shape \(4, 6\)"
        ):
            refuse(wider)
    with pytest.raises(ValueError, match=r"head\.weight"), chain.apply(wider):
        pass
    assert "forward" not in vars(wider)
    less = residual()
    del less.norm1
    with pytest.raises(ValueError, match=r"'norm1\.weight'.*got one where it is missing"):
        chain.check(less)
    more = residual()
    more.extra = nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match=r"'extra\.weight' is missing, got one where it is of shape \(2, 2\)"
    ):
        chain.check(more)
    chain.check(copy.deepcopy(net))


def test_a_bound_model_is_taken_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images, chain = example()
    expected = chain.evaluate(net, images)
    bound = chain.bind(net)
    monkeypatch.setattr("pyinterp.chains.chain.trace", None)  # not once more
    assert chain.bind(bound) is bound
    assert chain.evaluate(bound, images) == expected
    fewer = dataclasses.replace(chain, sites=chain.sites[1:])
    with pytest.raises(ValueError, match=r"expected a model with its 3 sites, got one with 4 other sites"):
        fewer.bind(bound)


def test_other_weights_are_told_of() -> None:
    net, _, chain = example()
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    with pytest.warns(UserWarning, match="not those the chain was extracted from"):
        chain.bind(other)


def test_digest_sees_every_bit() -> None:
    net = residual()
    assert digest(net) == digest(copy.deepcopy(net))
    assert list(describe(net)) == list(net.state_dict())
    for name in net.state_dict():
        other = copy.deepcopy(net)
        other.state_dict()[name].view(-1)[-1:].add_(1)
        assert digest(other) != digest(net), name


def test_round_trip(tmp_path: Path) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    back = Chain.load(tmp_path / "chain")
    for field in dataclasses.fields(Chain):
        ours, theirs = getattr(chain, field.name), getattr(back, field.name)
        if field.name in ("kept", "scores"):
            assert list(ours) == list(theirs)
            for name in ours:
                assert torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype
        else:
            assert ours == theirs, field.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.json", "chain.safetensors"]


def test_a_loaded_chain_answers_alike(tmp_path: Path) -> None:
    net, images, chain = example()
    chain.save(tmp_path / "chain")
    assert Chain.load(tmp_path / "chain").evaluate(net, images) == chain.evaluate(net, images)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("part", [0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    file = tmp_path / f"chain{suffix}"
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"Chain\.load: expected a chain at .*chain, got"):
        Chain.load(tmp_path / "chain")


def test_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    file = tmp_path / "chain.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged, or belongs to another \.json"):
        Chain.load(tmp_path / "chain")


def damaged(plain: dict[str, object]) -> list[dict[str, object]]:
    sites = plain["sites"]
    assert isinstance(sites, list)
    return [
        plain | {"format": 99},
        plain | {"sites": [{**sites[0], "units": 7}, *sites[1:]]},
        plain | {"sites": [{**sites[0], "name": "elsewhere"}, *sites[1:]]},
        plain | {"surprise": 1},
        plain | {"architecture": [1, 2]},
        plain | {"sites": 5},
        plain | {"predictions": [{"full_class": 1}]},
        {key: value for key, value in plain.items() if key != "mode"},
        {key: value for key, value in plain.items() if key != "format"},
    ]


@pytest.mark.parametrize("which", range(9))
def test_files_that_do_not_fit_are_refused(tmp_path: Path, which: int) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    file = tmp_path / "chain.json"
    file.write_text(json.dumps(damaged(json.loads(file.read_text("utf-8")))[which]), "utf-8")
    with pytest.raises(ValueError, match=r"Chain\.load"):
        Chain.load(tmp_path / "chain")


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b"\xff\xfe\x00", b'{"format": 1}'])
def test_other_json_is_refused(tmp_path: Path, content: bytes) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    (tmp_path / "chain.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"Chain\.load"):
        Chain.load(tmp_path / "chain")


@pytest.mark.parametrize("gone", ["chain.json", "chain.safetensors", None])
def test_a_missing_file_is_named(tmp_path: Path, gone: str | None) -> None:
    if gone is not None:
        example()[2].save(tmp_path / "chain")
        (tmp_path / gone).unlink()
    with pytest.raises(ValueError, match=gone or "chain"):
        Chain.load(tmp_path / "chain")


def test_a_full_disk_leaves_the_older_chain_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    newer = dataclasses.replace(chain, message="newer")

    with_space = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        with_space(self, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"save: expected to write .*No space left.*Free some space"):
        newer.save(tmp_path / "chain")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert Chain.load(tmp_path / "chain").message == ""


def test_a_disk_that_fills_up_between_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, chain = example()
    chain.save(tmp_path / "chain")
    newer = dataclasses.replace(chain, message="newer", scores={n: 2 * s for n, s in chain.scores.items()})
    plain_write, sizes = Path.write_bytes, []

    def full_at_the_second(self: Path, content: bytes) -> int:
        sizes.append(len(content))
        if len(sizes) == 1:
            return plain_write(self, content)
        plain_write(self, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_at_the_second)
    with pytest.raises(OSError, match="Free some space"):
        newer.save(tmp_path / "chain")
    monkeypatch.undo()
    assert len(sizes) == 2
    back = Chain.load(tmp_path / "chain")
    assert back.message == ""
    assert all(torch.equal(back.scores[name], chain.scores[name]) for name in chain.scores)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="choose another folder"):
        example()[2].save(tmp_path / "nowhere" / "chain")


def test_summary_says_every_number() -> None:
    words = example()[2].summary()
    for part in (
        "Chain of Residual (scaled): 15 of 20 units kept (75.00 %) in 3 of 3 sites; 0 of 1 layers bypassed.",
        "On the images: mean KL 0.0421, same top class on 80 %.",
        "On held-out images: mean KL 0.3000, same top class on 50 %.",
        "Best baseline of the same size per layer: taylor, mean KL 0.9000.",
        "25.0 % of the parameters, 10.0 % of the multiply-adds, 3.1 times as fast",
    ):
        assert part in words
    assert "does not beat" not in words


def test_summary_says_when_a_baseline_is_as_good_and_what_went_wrong() -> None:
    _, _, chain = example("exact")
    beaten = dataclasses.replace(
        chain,
        baselines={"taylor": {"kl": 0.0421, "agreement": 1.0}},
        message="The target was not met: 1 > 0.",
    )
    assert "does not beat it" in beaten.summary()
    assert beaten.summary().endswith("The target was not met: 1 > 0.")
    bare = dataclasses.replace(chain, fidelity={}, baselines={}, compact_info={}, layer_gates={"add": 0.0})
    assert bare.summary().endswith("1 of 1 layers bypassed.")
