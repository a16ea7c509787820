"""Several models over one frozen base, which speak in one pass: each frozen product is done once.

Unlike clients that train together (`comigs.mixture.fused`), voices may differ in the number and the
rank of their experts, any of them may have any number of rows in a batch, and their small weights
are taken once, as they are when the voices are made.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from comigs.mixture.algebra import product
from comigs.mixture.experts import ExpertMLP
from comigs.mixture.models import bare_copy
from comigs.talk.frozen import Room, fast
from comigs.talk.gates import Gates, Rule
from comigs.talk.seats import Seats
from comigs.talk.weights import Stack, empty, low_rank, padded

CHUNK = 256  # tokens of a voice whose experts are computed at once


class Voice(NamedTuple):
    """What speaks: a client's mixture, one of its experts alone, or the base below it.

    Attributes:
        model: of the client.
        expert: name of the one expert to use with weight 1; None for the mixture.
        bare: without any adapter.
    """

    model: PeftModel
    expert: str | None = None
    bare: bool = False


class Voices(nn.Module):
    """A causal LM whose rows of a batch belong to voices.

    Attributes:
        model: maps what a Hugging Face causal LM maps; for T rows once `seat` has told whose they
            are.
    """

    def __init__(self, voices: Sequence[Voice]) -> None:
        """Take the weights of n voices over the same base."""
        super().__init__()
        trees = [voice.model.get_base_model() for voice in voices]
        self.model: PreTrainedModel = bare_copy(trees[0])
        self._parts: list[_Mixed | _Added] = []
        blocks = [path for path, each in self.model.named_modules() if type(each) is ExpertMLP]
        outside = [
            path
            for path, each in self.model.named_modules()
            if isinstance(each, LoraLayer) and path.rpartition(".")[0] not in blocks
        ]
        room = Room()
        for kind, paths in ((_Mixed, blocks), (_Added, outside)):
            for path in paths:
                part = kind(voices, [tree.get_submodule(path) for tree in trees], room)
                self.model.set_submodule(path, part)
                self._parts.append(part)
        self.model.set_output_embeddings(fast(self.model.get_output_embeddings(), room))

    def seat(self, rows: Sequence[int]) -> None:
        """Tell the voice of each of the T rows of the passes that follow."""
        seats = Seats(rows, self.model.device)
        for part in self._parts:
            part.seats = seats


class _Mixed(nn.Module):
    """The mixtures of n voices over one frozen MLP; see `comigs.mixture.algebra`."""

    seats: Seats

    def __init__(self, voices: Sequence[Voice], blocks: Sequence[ExpertMLP], room: Room) -> None:
        super().__init__()
        first = blocks[0]
        family = first.family
        ups: list[list[Any]] = [[b.get_submodule(name) for name in family.up] for b in blocks]
        downs: list[Any] = [block.get_submodule(family.down) for block in blocks]
        names = [_speaking(*each) for each in zip(voices, blocks, strict=True)]
        self.ups = nn.ModuleList(fast(up.get_base_layer(), room) for up in ups[0])
        self.down: Any = fast(downs[0].get_base_layer(), room)
        self._hidden = first.hidden
        up = [
            [[_pair(layer, name) for name in some] for layer in layers]
            for layers, some in zip(ups, names, strict=True)
        ]
        down = [
            [_pair(layer, name) for name in some] for layer, some in zip(downs, names, strict=True)
        ]
        self._up_a = Stack([padded([padded([a for a, _ in each]) for each in own]) for own in up])
        self._up_b = Stack([padded([padded([b for _, b in each]) for each in own]) for own in up])
        self._down_a = Stack([padded([a for a, _ in own]) for own in down])
        self._down_b = Stack([padded([b for _, b in own]).transpose(0, 1) for own in down])
        self._gates = Gates([_rule(*each) for each in zip(voices, blocks, strict=True)])

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states T x L x d to T x L x d."""
        group, ungroup, length = self.seats.group, self.seats.ungroup, x.shape[1]
        own, frozen = group(x), [group(up(x)) for up in self.ups]
        if own.shape[1] <= CHUNK:
            total, low, short = self._mix(own, frozen)
        else:
            parts = zip(own.split(CHUNK, 1), *(u.split(CHUNK, 1) for u in frozen), strict=True)
            each = [self._mix(some, ups) for some, *ups in parts]
            total, low, short = (torch.cat(some, 1) for some in zip(*each, strict=True))
        y: Tensor = self.down(ungroup(total, length))
        b = self._down_b.of(self.seats.present, y.dtype).flatten(2)
        added = torch.baddbmm(group(y), low, b.mT)
        if short.shape[-1] and self.down.bias is not None:
            added = added + self.down.bias * short
        return ungroup(added, length)

    def _mix(self, x: Tensor, frozen: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return sum_e g_e h_e (m x t x F), all A2_e (g_e h_e) (m x t x E r), and sum_e g_e - 1.

        The last is m x t x 1, or m x t x 0 where all gates sum up to 1.
        """
        present, dtype, (m, t, _) = self.seats.present, frozen[0].dtype, x.shape
        up_a, up_b, down_a = (
            stack.of(present, dtype) for stack in (self._up_a, self._up_b, self._down_a)
        )
        count, rank = up_a.shape[2:4]
        lows = (x @ up_a.flatten(1, 3).mT).view(m, t, -1, count, rank).permute(2, 0, 3, 1, 4)
        z = []
        for low, b, u in zip(lows, up_b.unbind(1), frozen, strict=True):
            wide = u if m == 1 or count == 1 else u.repeat_interleave(count, 0)
            z.append(torch.baddbmm(wide, low.reshape(m * count, t, rank), b.flatten(0, 1).mT))
        h = self._hidden(z)
        gates = None if count == 1 else self._gates.of(present, x)
        if gates is not None:
            h = h * gates.to(dtype).mT.reshape(m * count, t, 1)
        low = product(h, down_a.flatten(0, 1).mT).view(m, count, t, -1)
        low = low.transpose(1, 2).reshape(m, t, -1)
        total = h if count == 1 else h.view(m, count, t, -1).sum(1)
        ones = None if gates is None else self._gates.unequal_to_one(present, gates)
        if gates is None or ones is None:
            return total, low, low[..., :0]
        return total, low, ((gates.sum(-1, keepdim=True) - 1) * ones).to(dtype)


class _Added(nn.Module):
    """A frozen linear with the LoRA of n voices, fp32 as PEFT does it."""

    seats: Seats

    def __init__(self, voices: Sequence[Voice], layers: Sequence[LoraLayer], room: Room) -> None:
        super().__init__()
        self.base_layer = fast(layers[0].get_base_layer(), room)
        pairs = []
        for voice, layer in zip(voices, layers, strict=True):
            active = [name for name in layer.active_adapters if name in layer.lora_A]
            some = [low_rank(layer, name) for name in active if not voice.bare] or [empty(layer)]
            a, b = zip(*some, strict=True)
            pairs.append((torch.cat(a), torch.cat(b, 1)))
        self._a, self._b = (Stack(half) for half in zip(*pairs, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map T x L x in to T x L x out."""
        y: Tensor = self.base_layer(x)
        group, present = self.seats.group, self.seats.present
        low = group(x).float() @ self._a.of(present, torch.float32).mT
        b = self._b.of(present, torch.float32)
        added = torch.baddbmm(group(y).float(), low, b.mT)
        return self.seats.ungroup(added, x.shape[1]).to(y.dtype)


def _speaking(voice: Voice, block: ExpertMLP) -> list[str | None]:
    """The experts of a voice; None for one that adds nothing."""
    if voice.bare:
        return [None]
    return [voice.expert] if voice.expert else list(block.names)


def _pair(layer: Any, name: str | None) -> tuple[Tensor, Tensor]:
    return empty(layer) if name is None else low_rank(layer, name)


def _rule(voice: Voice, block: ExpertMLP) -> Rule:
    if voice.bare or voice.expert:
        return Rule(1, None, 1)
    return Rule(len(block.names), block.router, block.top_k, block.temperature)
