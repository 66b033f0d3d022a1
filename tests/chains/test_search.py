"""The last search: estimates against measured moves, and bounds that hold after every one."""

from __future__ import annotations

import pytest
import torch
from planted import USED, WIDTH, pictures, planted
from torch import Tensor

from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.search import SAFE_LEAD, Search, _fair
from pyinterp.models.graph import trace
from pyinterp.models.sites import find_sites

Told = list[dict[str, Tensor]]


def a_search(noise: float = 0.1) -> tuple[Search, Told]:
    net, images = planted(noise), pictures()
    traced = trace(net, images[:1])
    engine = Engine(traced, [site for site in find_sites(traced) if site.kind != "layer"])
    with torch.no_grad():
        objective = Objective(net(images))
    told: Told = []
    return Search(engine, images, objective, torch.ones(len(engine)), told.append), told


def test_what_closing_costs_is_estimated_well_where_the_network_is_linear() -> None:
    """The filters of the last layer enter the logits linearly: leads exactly, costs to second order."""
    search, _ = a_search()
    kept = torch.ones(2 * WIDTH, dtype=torch.bool)
    costs, leads, pull = search.closing_costs(kept)
    before = search.value(kept).cost
    for unit in range(WIDTH + USED, 2 * WIDTH):  # hardly read: small steps
        fewer = kept.index_fill(0, torch.tensor([unit]), False)
        with torch.no_grad():
            after = search.objective.leads(search.engine.logits(fewer.float(), search.images))
        torch.testing.assert_close(leads + pull[:, unit], after, rtol=1e-3, atol=1e-4)
        assert float(costs[unit]) == pytest.approx(search.value(fewer).cost - before, abs=3e-3)


@pytest.mark.parametrize("trials", [0, 1, 3, 40])
def test_pruning_never_leaves_the_bound(trials: int) -> None:
    search, told = a_search()
    whole = torch.ones(2 * WIDTH, dtype=torch.bool)
    kept = search.prune(whole, 0.02, trials)
    assert search.value_whole(kept).meets(0.02)
    assert all(float(step["kl"]) <= 0.02 and float(step["agreement"]) == 1 for step in told)
    if trials == 40:
        assert int(kept.sum()) <= 3 * USED, "filters that hardly matter were kept"


def test_pruning_tries_no_more_sub_networks_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = a_search()
    tried = []
    measure = search.value
    monkeypatch.setattr(search, "value", lambda kept: tried.append(1) or measure(kept))  # type: ignore[func-returns-value]
    search.prune(torch.ones(2 * WIDTH, dtype=torch.bool), 0.02, 7)
    assert 0 < len(tried) <= 7


def test_growing_ends_within_the_bound() -> None:
    search, _ = a_search()
    order = torch.rand(2 * WIDTH, generator=torch.Generator().manual_seed(0))
    kept = search.grow(torch.zeros(2 * WIDTH, dtype=torch.bool), order, 0.02)
    assert search.value_whole(kept).meets(0.02)


def test_units_that_take_the_lead_of_one_image_together_are_not_chosen_together() -> None:
    order, leads = torch.tensor([3, 1, 0, 2]), torch.tensor([1.0, SAFE_LEAD + 0.01])
    pull = torch.tensor([[0.0, -0.2, 0.0, 0.0], [0.02, -0.008, 0.0, -0.008]])
    # 3 takes most of what the second image can spare, 1 would take more than is left, 0 gives some back.
    assert _fair(order, leads, pull).tolist() == [3, 0, 2, 1]


def test_an_image_without_a_lead_does_not_stop_what_helps_it() -> None:
    leads, pull = torch.tensor([-0.3]), torch.tensor([[0.1, -0.01, 0.0]])
    assert _fair(torch.tensor([1, 0, 2]), leads, pull).tolist() == [0, 2, 1]
