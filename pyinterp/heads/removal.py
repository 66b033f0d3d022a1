"""What the removal of features does to decisions, for many samples at once, along the few features that classes use.

A removed feature takes its average, z = 0. Arithmetic is in float64: decisions are sums that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.heads.head import SparseHead

ENTRIES_AT_ONCE = 1 << 22
LIKELY = 8  # classes that are looked at first
ROUNDING = 1e-12  # a lead of this share of the logits is none


@dataclass(frozen=True)
class Support:
    """A head's weights, and for each class the m features that it uses (m: of the class with most).

    Attributes:
        weights: (K, d) float64.
        columns: (d, K), the same by features.
        bias: (K,) float64.
        index: (K, m) int64; classes that use fewer have others behind them.
    """

    weights: Tensor
    columns: Tensor
    bias: Tensor
    index: Tensor

    @staticmethod
    def of(head: SparseHead) -> Support:
        """Of a head of classes."""
        weights, bias = head.rows
        used = weights != 0
        most = max(1, int(used.sum(1).max()))
        index = used.to(torch.int8).topk(most, dim=1).indices
        return Support(weights.double(), weights.T.double().contiguous(), bias.double(), index)

    def logits(self, z: Tensor) -> Tensor:
        """(n, d) float64 -> (n, K)."""
        return torch.addmm(self.bias, z, self.columns)

    def at_once(self) -> int:
        """How many samples `turning` may take."""
        return max(1, ENTRIES_AT_ONCE // (2 * self.index.numel()))

    def turning(self, z: Tensor, logits: Tensor, rival: int | None) -> tuple[Tensor, Tensor]:
        """How many features must go before a class overtakes the top one, and which class that is.

        For one other class the fewest are those with the largest positive shares (W_top - W_k) z of the margin. Their
        number is at least the margin over the largest of them, so that few classes have to be looked at in full.

        Args:
            z: (n, d).
            logits: (n, K).
            rival: The class that must do it; None: the one that needs fewest.

        Returns:
            Two (n,) int64 tensors: counts, more than d where no removal is enough, and classes.
        """
        top = logits.argmax(1)
        own, leading = self.index[top], self.weights[top]
        strength = leading.gather(1, own)
        # Features of the top class, then those of the other class that the top class does not use.
        first = strength[:, :, None] - self.columns[own]
        first *= (z.gather(1, own) * (strength != 0))[:, :, None]
        second = (z * (leading == 0))[:, self.index].mul_(-self.weights.gather(1, self.index))
        margin = logits.gather(1, top[:, None]) - logits
        never = z.shape[1] + 1
        counts = torch.full(logits.shape, never)

        def count(rows: Tensor, rivals: Tensor) -> None:
            shares = torch.cat([first[rows, :, rivals], second[rows, rivals]], 1).clamp_min_(0)
            left = margin[rows, rivals, None] - shares.sort(dim=1, descending=True).values.cumsum_(1)
            turned = left < -_least_lead(logits)[rows, None]
            found = torch.where(turned.any(1), turned.to(torch.int8).argmax(1) + 1, never)
            counts[rows, rivals] = torch.where(rivals == top[rows], never, found)

        rows = torch.arange(len(z))
        if rival is not None:
            rivals = torch.full_like(top, rival)
            count(rows, rivals)
            return counts.gather(1, rivals[:, None])[:, 0], rivals
        largest = torch.maximum(first.amax(1), second.amax(2))
        least = torch.where(largest > 0, (margin / largest * (1 - 1e-9)).ceil().clamp_min(1), torch.inf)
        least.scatter_(1, top[:, None], torch.inf)
        likely = least.argsort(dim=1, stable=True)[:, :LIKELY]
        count(rows.repeat_interleave(likely.shape[1]), likely.flatten())
        rivals = least.scatter(1, likely, torch.inf)
        count(*(rivals < counts.amin(1)[:, None]).nonzero(as_tuple=True))
        return counts.min(1)

    def repairs(self, z: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The single features whose removal gives misclassified samples their labels, all other classes strictly below.

        Such a feature must let the label overtake the class that is on top, so one of the two uses it: few features
        per sample are tried on all classes.

        Args:
            z: (n, d).
            logits: (n, K), the largest not at the label.
            labels: (n,).

        Returns:
            Rows of z (r,), features (r,) and how far the label is ahead of the second class then (r,).
        """
        top = logits.argmax(1)
        candidates = torch.cat([self.index[top], self.index[labels]], 1)
        leading = self.weights[top].gather(1, candidates)
        share = (leading - self.weights[labels].gather(1, candidates)) * z.gather(1, candidates)
        margin = (logits.gather(1, top[:, None]) - logits.gather(1, labels[:, None])).expand_as(share)
        promising = share > margin
        half = self.index.shape[1]
        promising[:, :half] &= leading[:, :half] != 0  # what the top class does not use is in the other half
        promising[:, half:] &= leading[:, half:] == 0
        rows, places = promising.nonzero(as_tuple=True)
        features = candidates[rows, places]
        lead = torch.empty(len(rows), dtype=torch.float64)
        for some in torch.arange(len(rows)).split(max(1, ENTRIES_AT_ONCE // len(self.bias))):
            row, feature = rows[some], features[some]
            without = logits[row] - self.columns[feature] * z[row, feature][:, None]
            right = labels[row][:, None]
            lead[some] = without.gather(1, right)[:, 0] - without.scatter(1, right, -torch.inf).amax(1)
        good = lead > _least_lead(logits)[rows]
        return rows[good], features[good], lead[good]

    def repairing(self, z: Tensor, logits: Tensor, label: int) -> tuple[list[int], bool] | None:
        """Few features whose removal gives one misclassified sample its label, all other classes strictly below.

        To pass one class, the fewest are those that add most to the label's lead over it: no set is smaller than the
        largest of these counts. Single features and pairs are all tried; larger sets grow by the feature that takes
        most off what the label lacks, summed over the classes that are not below it. (Growing by the label's smallest
        lead gets stuck more often, where two classes are above it and no feature lowers both.)

        Args:
            z: (1, d).
            logits: (1, K), the largest not at the label.
            label: The right class.

        Returns:
            The features, and whether no smaller set does it; None if none was found.
        """
        used = ((self.columns != 0).any(1) & (z[0] != 0)).nonzero()[:, 0]
        gain = (self.columns[used] - self.columns[used, label, None]) * z[0, used, None]
        lead = logits[0, label] - logits[0] - _least_lead(logits)
        others = torch.arange(len(lead)) != label
        gain, lead = gain[:, others], lead[others]
        most = gain.clamp_min(0).sort(dim=0, descending=True).values.cumsum_(0)
        bound = int((lead + most <= 0).sum(0).max()) + 1
        if bound > len(used):
            return None
        chosen = _single(gain, lead) if bound == 1 else []
        if not chosen and bound <= 2:
            chosen = _pair(gain, lead)
        chosen = chosen or _grown(gain, lead)
        return (used[chosen].tolist(), len(chosen) <= max(3, bound)) if chosen else None


def _single(gain: Tensor, lead: Tensor) -> list[int]:
    slack, best = (lead + gain).amin(1).max(0)
    return [int(best)] if slack > 0 else []


def _pair(gain: Tensor, lead: Tensor) -> list[int]:
    """The pair of rows of gain (U, K) that lifts all leads (K,) above 0, the smallest by most; [] if there is none."""
    first, *rest = lead.argsort().tolist()  # the class that is furthest ahead leaves the fewest pairs
    slack = lead[first] + gain[:, None, first] + gain[None, :, first]
    pairs = (slack > 0).triu(1).nonzero()
    slack = slack[pairs[:, 0], pairs[:, 1]]
    for k in rest:
        slack = torch.minimum(slack, lead[k] + gain[pairs, k].sum(1))
        pairs, slack = pairs[slack > 0], slack[slack > 0]
    return pairs[slack.argmax()].tolist() if len(pairs) else []


def _grown(gain: Tensor, lead: Tensor) -> list[int]:
    """Rows of gain (U, K) that together lift all leads (K,) above 0, taken one by one; [] where that gets stuck."""
    chosen: list[int] = []
    while (lead <= 0).any():
        left = (lead + gain).clamp_max(0).sum(1)
        left[chosen] = -torch.inf
        best = int(left.argmax())
        if left[best] <= lead.clamp_max(0).sum():
            return []
        chosen.append(best)
        lead = lead + gain[best]
    return chosen


def _least_lead(logits: Tensor) -> Tensor:
    """(n, K) -> (n,): differences of logits that the order of their sums may make."""
    return ROUNDING * (1 + logits.abs().amax(1))
