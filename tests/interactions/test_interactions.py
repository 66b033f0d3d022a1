"""Interactions: what they say of a planted game, their conventions, their files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from planted_games import AND, CONSTANT, OR, N, effects, planted, scores, solution

from pyinterp.games import Players, grid_players
from pyinterp.interactions import Interactions, harsanyi_and, interactions_from_values


def test_the_strongest_come_first_with_their_players() -> None:
    found = planted(players=("ear", "eye", "nose", "tail", "paw"))
    first, second, *_ = found.top(2)
    assert (first.kind, first.players, first.members, first.strength) == ("AND", ("ear", "eye"), (0, 1), 3)
    assert (second.kind, second.players, second.members, second.strength) == (
        "OR",
        ("tail", "paw"),
        (3, 4),
        2,
    )
    assert str(second) == "OR(tail; paw) +2"
    assert len(found.top(100)) == 6
    assert found.sorted_strengths().tolist() == [3, 2, 1, 0.5, 0.25, 0.25]
    assert found.top(0) == []


def test_the_effects_give_back_every_score() -> None:
    found = planted()
    torch.testing.assert_close(found.reconstruct(), found.values)
    assert float(found.residual.abs().max()) < 1e-12
    torch.testing.assert_close(found.dense_and, harsanyi_and(found.values))
    torch.testing.assert_close(found.reconstruct(keep=2), scores({0b00011: 3.0}, {0b11000: 2.0}, N, CONSTANT))
    chosen = [effect for effect in found.top(6) if effect.kind == "OR"]
    torch.testing.assert_close(found.reconstruct(keep=chosen), scores({}, OR, N, CONSTANT))


def test_salience_has_three_conventions() -> None:
    found = planted()
    strengths = [3, 2, 1, 0.5, 0.25, 0.25]
    assert [abs(e.strength) for e in found.salient()] == strengths
    assert len(found.salient(threshold=0.1)) == 4
    assert len(found.salient(threshold=0.1, scale=10)) == 3
    assert len(found.salient(top=5)) == 5
    assert len(found.salient(explained=5 / 7)) == 2
    assert len(found.salient(explained=0.72)) == 3
    assert len(found.salient(explained=1)) == 6
    assert found.salient(explained=0) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0.1, "top": 3}, "threshold, top or explained, got threshold and top"),
        ({"threshold": 1.5}, "threshold from 0 to 1"),
        ({"explained": -0.1}, "explained from 0 to 1"),
        ({"scale": 0.0}, "scale > 0"),
        ({"top": -1}, "k >= 0"),
    ],
)
def test_salience_out_of_range_is_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        planted().salient(**options)  # type: ignore[arg-type]


def test_a_single_player_has_one_effect_after_merging() -> None:
    found = planted().merge_first_order()
    assert float(found.and_[1]) == 0.75 and float(found.or_[1]) == 0
    torch.testing.assert_close(found.reconstruct(), found.values)
    assert found.objective == pytest.approx(7)
    assert found.gap == pytest.approx(0.001)
    # Opposite signs cancel: the objective falls, and the bound stays where it was.
    and_, or_ = effects({1: 1.0, 3: 2.0}, 2), effects({1: -1.0}, 2)
    other = interactions_from_values(
        scores({3: 2.0}, {}, 2), solution=solution(and_, or_, gap=0.6), merge_first_order=True
    )
    assert other.objective == 2 and other.gap == pytest.approx((2 - 1.6) / 2)
    assert [str(effect) for effect in other.top(5)] == ["AND(player 1; player 2) +2"]


def test_and_effects_alone_give_back_every_score_but_are_many() -> None:
    found = planted(draws=torch.randn(3, 2, 2**N))
    alone = found.and_only()
    torch.testing.assert_close(alone.reconstruct(), found.values)
    assert not alone.or_.any() and alone.draws is None
    # OR of players 3 and 4 is both of them minus their AND; player 4 is in the OR of three, too.
    assert {e.members: e.strength for e in alone.top(20) if set(e.members) <= {3, 4}} == {
        (3,): 2,
        (4,): 1.75,
        (3, 4): -2,
    }
    assert alone.objective == pytest.approx(float(alone.and_[1:].abs().sum()))
    assert alone.gap == pytest.approx(1 - 7 * 0.999 / alone.objective)


def test_the_score_of_the_empty_input_can_be_taken_off() -> None:
    found = planted().subtract_empty()
    assert float(found.values[0]) == 0
    torch.testing.assert_close(found.reconstruct(), found.values)
    torch.testing.assert_close(found.reconstruct(keep=0), torch.zeros(2**N, dtype=torch.float64))
    assert found.top(9) == planted().top(9)


def test_strength_by_order_leaves_the_constant_out() -> None:
    sums = planted().strength_by_order()
    assert sums["AND"].tolist() == [0, 0.5, 3, 1, 0, 0]
    assert sums["OR"].tolist() == [0, 0.25, 2, 0.25, 0, 0]


def test_effects_below_the_floor_are_flagged_by_their_order() -> None:
    found = planted(sigma=0.1)
    assert found.floor is not None
    assert found.floor[1] < 0.5 < found.floor[3] < 1.0 < 3.0
    flags = {(effect.kind, effect.members): effect.below_floor for effect in found.top(6)}
    assert not flags["AND", (0, 1)] and not flags["AND", (0, 1, 2)] and not flags["AND", (0,)]
    assert flags["OR", (0,)] and flags["OR", (0, 2, 4)]
    assert int(found.below_floor.sum()) == 2
    assert "2 of the salient ones are below its floor" in found.summary()
    assert "(below the noise floor)" in found.summary()
    blind = planted()
    assert blind.floor is None and not blind.below_floor.any()
    assert "was not measured" in blind.summary()


def test_draws_give_every_effect_an_interval() -> None:
    and_, or_ = effects(AND, N), effects(OR, N)
    draws = torch.stack([torch.stack([and_, or_]) * factor for factor in (0.9, 1.0, 1.1)])
    found = planted(draws=draws, input_noise=0.02)
    spread = found.intervals()
    assert float(spread.std[0, 0b00011]) == pytest.approx(0.3)
    reach = 4.30265 * 0.3 / 3**0.5
    assert found.top(1)[0].interval == pytest.approx((3 - reach, 3 + reach), rel=1e-5)
    assert "[+2.25, +3.75]" in str(found.top(1)[0])
    assert float(found.intervals(kind="draws", level=0.999).high[1, 0b11000]) == pytest.approx(2.2, rel=1e-3)
    merged = found.merge_first_order()
    assert float(merged.intervals().mean[0, 1]) == pytest.approx(0.75)
    assert float(merged.intervals().std[1, 1]) == 0
    with pytest.raises(ValueError, match="draws of input noise, got none"):
        planted().intervals()


def test_the_summary_says_what_was_found_and_what_is_missing() -> None:
    found = planted(
        class_name="tabby", target=3, model_name="net", solution=solution(*parts(), converged=False)
    )
    text = found.summary()
    for words in (
        "Interactions of tabby in net: 6 of 62 are salient (5 % of the largest), n = 5.",
        "  AND(player 1; player 2) +3",
        "v(all) = 3, v(none) = -1.5; the salient ones rebuild all 32 scores with a relative error of 0.",
        "Sum of |I|: 7; no split has one that is more than 0.1 % smaller",
        "has not converged",
    ):
        assert words in text
    assert repr(found).startswith("<Interactions of tabby in net: 6 of 62")
    assert "class 3" in planted(target=3).summary()
    unknown = planted(solution=solution(*parts(), gap=math.nan)).merge_first_order()
    assert math.isnan(unknown.gap)
    assert "how much less is possible is not known" in unknown.summary()


def parts() -> tuple[torch.Tensor, torch.Tensor]:
    and_, or_ = effects(AND, N), effects(OR, N)
    and_[0] = CONSTANT
    return and_, or_


def test_players_give_names_and_their_map() -> None:
    pixels = torch.zeros(3, 6, 8, dtype=torch.uint8)
    values = torch.arange(16.0)
    and_ = harsanyi_and(values)
    found = interactions_from_values(
        values, grid_players(2, 2), pixels=pixels, solution=solution(and_, torch.zeros(16))
    )
    assert found.player_map is not None and found.player_map.shape == (6, 8)
    assert found.player_names == ("row 1, column 1", "row 1, column 2", "row 2, column 1", "row 2, column 2")
    words = Players(torch.tensor([-1, 0, 1, 1, 2, 3]), tuple("abcd"))
    text = interactions_from_values(values, words, solution=solution(and_, torch.zeros(16)))
    assert text.player_map is not None and text.player_map.tolist() == [-1, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("shape", [(1,), (2, 4)])
def test_scores_of_no_game_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"values \(2\^n,\), n >= 1"):
        interactions_from_values(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"values of shape \(\.\.\., 2\^n\)"):
        interactions_from_values(torch.zeros(6))
    with pytest.raises(ValueError, match=r"nan for players \{0, 1\}"):
        interactions_from_values(torch.tensor([0, 1, 2, float("nan")]))


def test_names_of_another_game_are_refused() -> None:
    with pytest.raises(ValueError, match="2 players, got 3"):
        interactions_from_values(torch.zeros(4), ("a", "b", "c"))


def saved(folder: Path) -> Interactions:
    draws = torch.stack([torch.stack(parts()), torch.stack(parts())])
    found = planted(
        players=("<b>", "ä", "c", "d", "e"),
        sigma=1e-6,
        draws=draws,
        input_noise=0.02,
        pixels=torch.randint(256, (3, 4, 5)).to(torch.uint8),
        class_name="tabby",
        target=281,
    )
    found.save(folder / "found")
    return found


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    before, after = saved(tmp_path), Interactions.load(tmp_path / "found")
    for name in ("values", "and_", "or_", "pixels", "draws"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert after.player_map is None
    assert after.player_names == before.player_names
    assert (after.sigma, after.gap, after.target, after.versions) == (1e-6, 0.001, 281, before.versions)
    assert after.top(9) == before.top(9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "found.safetensors"]
    plain = planted()
    plain.save(tmp_path / "plain")
    assert Interactions.load(tmp_path / "plain").draws is None


@pytest.mark.parametrize(
    "change",
    [
        {"player_names": ["a", "b"]},
        {"player_names": None},
        {"surprise": 1},
        {"format": 0},
        {"tensors_sha256": "0"},
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    saved(tmp_path)
    file = tmp_path / "found.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ValueError, match=r"Interactions\.load: expected interactions at"):
        Interactions.load(tmp_path / "found")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the two files of interactions, got no .*gone\.json"):
        Interactions.load(tmp_path / "gone")
    with pytest.raises(ValueError, match="a path that ends in the name of files"):
        planted().save(f"{tmp_path}/")
