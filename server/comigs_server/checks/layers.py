"""Whether clients may train a few layers each in a round (`train.layers`)."""

from comigs.config.strategies import find_strategy
from comigs.costs.shapes import adapter_shapes
from comigs.errors import BadInput
from comigs.federation.layers import drawn, layers_of
from comigs.federation.run import Run


def check_layers(run: Run) -> None:
    """Refuse what needs the same tensors of all clients.

    Raises:
        BadInput: which setting does not go with it, and why.
    """
    config, method, count = run.config, run.method, run.config.train.layers
    if count is None:
        return
    start = f"train.layers is {count}, which needs"
    if not method.trains or not run.aggregator.averages:
        raise BadInput(
            f"{start} a method that averages each layer over those who trained it; method "
            f"{method.name!r} does not"
        )
    if not find_strategy(config.server.strategy).own_rule:
        raise BadInput(
            f"{start} server.strategy FedAvg, since clients send different layers; it is "
            f"{config.server.strategy!r}"
        )
    if method.router != "joint" and method.shares("model.layers.0.mlp.router.weight"):
        raise BadInput(
            f"{start} routers that stay on their client, or learn with the experts; method "
            f"{method.name!r} shares routers that take steps of their own in every layer"
        )
    others = {
        "train.swa": (config.train.swa, None),
        "server.tiers": (config.server.tiers, None),
        "privacy.mechanism": (config.privacy.mechanism, "none"),
        "privacy.secure": (config.privacy.secure, "none"),
    }
    for key, (value, needed) in others.items():
        if value != needed:
            shown = "null" if needed is None else needed
            raise BadInput(f"{start} {key} {shown}; it is {value!r}")


def check_depth(run: Run) -> None:
    """Refuse more layers than the model has, and a method that shares something of a few only.

    Raises:
        BadInput: what is wrong.
    """
    config = run.config
    if config.train.layers is None:
        return
    shapes = adapter_shapes(run.client(0))
    drawn(config, 0, 1, layers := layers_of(shapes))
    shared = layers_of(filter(run.method.shares, shapes))
    if shared and shared != layers:
        raise BadInput(
            f"train.layers is {config.train.layers}; method {run.method.name!r} shares tensors of "
            f"{len(shared)} of {len(layers)} layers, so that the server cannot tell which are drawn"
        )
