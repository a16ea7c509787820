"""A run, resolved: what a configuration names is looked up once, here, and handed down."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from comigs.aggregation import Aggregator, find_aggregator
from comigs.config.devices import FittedConfig
from comigs.config.experts import ExpertsConfig
from comigs.config.load import to_dict
from comigs.config.model import Compute, Dtype
from comigs.config.profiles import Profile, profiles_of
from comigs.config.settings import ClientConfig, RunConfig
from comigs.config.strategies import find_strategy
from comigs.data.roster import roster
from comigs.errors import BadInput
from comigs.federation.devices import names_of_devices, stays_numbers
from comigs.methods import find_method
from comigs.methods.base import Method
from comigs.schema.build import suggest
from comigs.store.plain import from_home
from comigs.traces.availability import Availability
from comigs.traces.windows import read_traces


@dataclass(frozen=True)
class Run:
    """A run as everything below works by it. Made by `resolve` alone; equal by what it says.

    What is one client's is in `client`; the texts' names are read when they are first asked for,
    since a server behind a SuperLink has none.

    Attributes:
        config: as written, with threads and devices filled in.
        text: the same as JSON, as messages carry it.
        aggregator: how the server combines what the method shares.
    """

    text: str = field(repr=False)
    config: RunConfig = field(compare=False)
    method: Method
    aggregator: Aggregator = field(compare=False, repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the clients that train: the roster, or one that holds everybody's text.

        Raises:
            BadInput: when the configuration asks for more clients than the data has.
        """
        return ("all",) if self.method.pooled else roster(self.config)

    @cached_property
    def steps_per_round(self) -> int:
        """Local steps of one training client; the same in total for every method."""
        return self.config.local_steps * (len(roster(self.config)) if self.method.pooled else 1)

    @cached_property
    def _profiles(self) -> dict[str, Profile]:
        return profiles_of(self.config.devices.define)

    @cached_property
    def availability(self) -> Availability | None:
        """When, in simulated time, its devices are there; None where they always are.

        Raises:
            BadInput: `devices.traces` cannot be read.
        """
        traces = self.config.devices.traces
        if traces is None or self.devices is None:
            return None
        try:
            return Availability(read_traces(from_home(traces)))
        except BadInput as error:
            raise BadInput(f"devices.traces: {error}", "devices.traces") from None

    @cached_property
    def devices(self) -> list[str] | None:
        """The profile's name of each client; None without devices, or with all text in one place.

        Raises:
            BadInput: which client has which is not filled in yet.
        """
        names = self.config.devices.profiles
        if names is None or self.method.pooled:
            return None
        if isinstance(names, list):
            return names
        if stays_numbers(self.config, count := len(self.names)):
            return names_of_devices(self.config, [1] * count)
        raise BadInput("devices.profiles is not yet one name per client: call assign_devices")

    @property
    def may_rest(self) -> bool:
        """Whether clients may leave the shared tensors out of a round (`Method.rests`).

        Not where it would tell more than is promised, or where a strategy counts its clients.
        """
        config = self.config
        private = config.privacy.mechanism != "none" or config.privacy.secure != "none"
        own_rule = find_strategy(config.server.strategy).own_rule
        return self.method.rests is not None and own_rule and not private

    def profile(self, number: int) -> Profile | None:
        """The device of one client, if there are devices."""
        names = self.devices
        return None if names is None else self._profiles[names[number]]

    def client(self, number: int) -> "Client":
        """Client `number` (0-based), made anew: 100,000 of them are not kept."""
        config = self.config.for_client(number)
        if (fitted := self.config.devices.fitted) and self.devices:
            config = _fitted(config, fitted.get(self.devices[number]))
        return Client(self, number, config)

    @property
    def own_kinds(self) -> list[list[object]]:
        """Base, experts and micro-batches, where the configuration has one for each client."""
        return [
            values
            for key, values in self.config.per_client().items()
            if key.startswith(("model.", "experts.", "micro_batch_size"))
        ]

    def kinds(self, count: int) -> list["Client"]:
        """The first client of each kind: all `count` are as one of these in settings and device.

        What is the same for clients of a kind is to be found out once, however many they are.
        """
        lists = self.own_kinds
        devices = [] if self.devices is None else [self.devices]
        first: dict[tuple[object, ...], int] = {}
        for number, *values in zip(range(count), *lists, *devices, strict=False):
            first.setdefault(tuple(values), number)
        return [self.client(number) for number in first.values()]

    def number_of(self, asked: int | str) -> int:
        """The number of the client that a user means: by it, or by its name.

        Digits as they are counted with ("1", not "001") are a number, whatever the names are.

        Raises:
            BadInput: there is no such client.
        """
        names, text = self.names, str(asked)
        number = int(text) if text.isdecimal() and len(text) < 10 else None
        if text in names and text != str(number):
            return names.index(text)
        if number is not None and number < len(names):
            return number
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise BadInput(
            f"there is no client {text[:100]!r}; this run has 0 to {len(names) - 1}: {shown}"
            f"{suggest(text, names)}"
        )

    def clients(self) -> Iterator["Client"]:
        """All that train, one by one."""
        return map(self.client, range(len(self.names)))


@dataclass(frozen=True)
class Client:
    """One client of a run.

    Attributes:
        config: the run's, with the client's own value of whatever differs between clients.
    """

    run: Run
    number: int
    config: ClientConfig = field(hash=False)

    @property
    def method(self) -> Method:
        return self.run.method

    @property
    def experts(self) -> ExpertsConfig:
        """Its experts in the layout of the method."""
        return self.method.experts(self.config.experts)

    @property
    def dtype(self) -> Dtype:
        """How its frozen base is stored."""
        dtype = self.config.model.dtype
        assert not isinstance(dtype, list)
        return dtype

    @property
    def compute(self) -> Compute:
        """The type of its frozen base's products."""
        compute = self.config.model.compute
        assert not isinstance(compute, list)
        return compute

    @property
    def profile(self) -> Profile | None:
        """Its device, if there are devices."""
        return self.run.profile(self.number)


def _fitted(config: ClientConfig, to: FittedConfig | None) -> ClientConfig:
    if to is None:
        return config
    model = replace(config.model, dtype=to.dtype, compute=to.compute)
    experts = replace(config.experts, specialists=to.specialists, rank=to.rank)
    return replace(config, model=model, experts=experts, micro_batch_size=to.micro_batch_size)


def resolve(config: RunConfig) -> Run:
    """The run that a configuration describes.

    Raises:
        BadInput: there is no such method.
    """
    method = find_method(config.method)
    aggregator = find_aggregator(method.aggregator)
    return Run(json.dumps(to_dict(config)), config, method, aggregator)
