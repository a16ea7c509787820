"""What a finished run offers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comigs.config.load import read_config
from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.store.chosen import RoundChosen
from comigs.store.eventjson import to_object
from comigs.store.events import ClientTrained, Event, RoundDone
from comigs.store.metrics import chosen_round, events_of, final_rows
from comigs.store.plain import from_home

if TYPE_CHECKING:
    from pandas import DataFrame
    from peft import PeftModel


@dataclass(frozen=True)
class RunClient:
    """One client of a finished run."""

    folder: Path
    config: RunConfig
    id: int

    def model(self) -> "PeftModel":
        """The client's final model: its own experts and router, and the averaged generalists.

        Every call gives a model of its own; the frozen base is shared by all of this process.
        """
        from comigs.federation.run import resolve
        from comigs.use.final import final_model

        return final_model(resolve(self.config).client(self.id), self.folder)


@dataclass(frozen=True)
class RunResult:
    """A run.

    Attributes:
        folder: the run folder.
        table: one row per client: test perplexities (pretrained, before, after), bytes, seconds; []
            of a run that is not finished.
    """

    folder: Path
    table: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether it has come to its end; if not, `comigs run --resume` goes on."""
        return bool(self.table)

    @property
    def config(self) -> RunConfig:
        return read_config(self.folder)

    @property
    def chosen(self) -> RoundChosen | None:
        """With `stop`, the round whose models were tested, and why (`chosen.told`)."""
        return chosen_round(self.folder)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per client and round that it trained in: loss, validation perplexity, bytes."""
        return self._rows(ClientTrained)

    @property
    def frame(self) -> "DataFrame":
        """`history` as a pandas DataFrame, what `log.metrics` asks for in columns `metrics.<name>`.

        Raises:
            BadInput: pandas is not installed.
        """
        try:
            from pandas import json_normalize
        except ImportError:
            raise BadInput("result.frame needs pandas: pip install pandas") from None
        return json_normalize(self.history)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """One row per round: the same as means and sums over its clients."""
        return self._rows(RoundDone)

    def _rows(self, kind: type[Event]) -> list[dict[str, Any]]:
        told = [event for event in events_of(self.folder) if isinstance(event, kind)]
        return [{k: v for k, v in to_object(event).items() if k != "event"} for event in told]

    def client(self, client: int | str) -> RunClient:
        """One client, by its number, from 0, or its name.

        Raises:
            BadInput: there is no such client.
        """
        from comigs.federation.run import resolve

        config = self.config
        return RunClient(self.folder, config, resolve(config).number_of(client))


def open(folder: str | Path) -> RunResult:
    """What `run` returned of the run in `folder`; of one that is not finished what it has so far.

    Raises:
        BadInput: the folder is no run.
    """
    folder = from_home(folder)
    read_config(folder)
    return RunResult(folder, final_rows(folder))
