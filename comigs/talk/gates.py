"""The weights of the experts, token by token, of several voices with routers of their own."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from comigs.mixture.router import route
from comigs.mixture.routers import rescaled, rescales


class Rule(NamedTuple):
    """How one voice weighs its experts: by a router, or all alike where it has none."""

    experts: int
    router: nn.Module | None
    top_k: int
    temperature: float = 1.0


class Gates:
    """Gates of n voices with up to E experts each; an expert that a voice lacks has weight 0."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.experts = max(rule.experts for rule in rules)
        self._taken: tuple[object, Tensor | None, Tensor | None] = (None, None, None)

    def of(self, present: tuple[int, ...], x: Tensor) -> Tensor:
        """Weights m x t x E, fp32, of hidden states m x t x d."""
        rules = [self.rules[voice] for voice in present]
        if (top_k := _common(rules)) is None:
            gates = [self._own(rule, own) for rule, own in zip(rules, x, strict=True)]
            return torch.stack(gates)
        weight, missing = self._stacked(present, x)
        logits = x.float() @ weight.mT
        if missing is not None:
            logits = logits + missing
        routing = route(logits, min(top_k, self.experts))
        if top_k >= self.experts:
            return routing.gates
        return torch.zeros_like(logits).scatter(-1, routing.chosen, routing.gates)

    def _own(self, rule: Rule, x: Tensor) -> Tensor:
        """t x E of one voice."""
        gates = x.new_zeros(x.shape[0], self.experts, dtype=torch.float32)
        if rule.router is None:
            gates[:, : rule.experts] = 1 / rule.experts
            return gates
        logits: Tensor = rule.router(x.float())
        routing = route(logits / rule.temperature, rule.top_k)
        return gates.scatter(-1, routing.chosen, rescaled(routing.gates, rule.router))

    def _stacked(self, present: tuple[int, ...], x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Routers m x E x d (0 where there is none), and what bars experts that are not there."""
        if self._taken[0] != present:
            weight = x.new_zeros(len(present), self.experts, x.shape[-1], dtype=torch.float32)
            missing = torch.zeros_like(weight[:, None, :, 0])
            for own, bar, voice in zip(weight, missing, present, strict=True):
                rule = self.rules[voice]
                if rule.router is not None:
                    linear = cast(nn.Linear, rule.router)
                    own[: rule.experts] = linear.weight / rule.temperature
                bar[:, rule.experts :] = -torch.inf
            self._taken = present, weight, missing if missing.any() else None
        _, stacked, bars = self._taken
        assert stacked is not None
        return stacked, bars

    def unequal_to_one(self, present: tuple[int, ...], like: Tensor) -> Tensor | None:
        """m x 1 x 1: 1 for voices whose gates need not sum up to 1, or None."""
        rules = [self.rules[voice] for voice in present]
        ones = [rule.router is not None and _free(rule) for rule in rules]
        return like.new_tensor(ones)[:, None, None] if any(ones) else None


def _free(rule: Rule) -> bool:
    return rule.top_k == 1 or rescales(rule.router)


def _common(rules: Sequence[Rule]) -> int | None:
    """The k > 1 with which all can be routed in one product, if there is one."""
    routed = {rule.top_k for rule in rules if rule.router is not None}
    plain = all(
        rule.router is None or (type(rule.router) is nn.Linear and rule.router.bias is None)
        for rule in rules
    )
    k = max(routed, default=max(rule.experts for rule in rules))
    fits = all(rule.router is not None or rule.experts <= k for rule in rules)
    return k if plain and fits and len(routed) <= 1 and (k > 1 or not routed) else None
