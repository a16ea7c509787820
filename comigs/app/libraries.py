"""The libraries that a run needs, loaded in one go before anything is made of them."""

from comigs.heap import importing


def load_libraries() -> None:
    """Import torch, transformers, peft, flwr and matplotlib, with all of comigs that needs them."""
    with importing():
        import comigs.app.start
        import comigs.report.page  # noqa: F401
        import comigs_server.loop  # noqa: F401
