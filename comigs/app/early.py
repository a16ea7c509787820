"""What can be refused at once, before the libraries are loaded that a run needs."""

from comigs.backbone.names import model_source
from comigs.config.settings import RunConfig
from comigs.data.corpus import roster
from comigs.methods import find_method


def check_names(config: RunConfig) -> None:
    """Refuse a method, a model or texts that are not there.

    Behind a SuperLink the texts and the model are the devices' own.

    Raises:
        BadInput: naming what there is.
    """
    find_method(config.method)
    if config.engine.name != "flower":
        model_source(config.model.name)
        roster(config)
