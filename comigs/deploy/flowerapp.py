"""The app bundle that Flower ships to server and devices.

It holds no code: they have comigs installed, and code in the bundle would shadow it.
"""

from comigs.version import __version__

BUNDLE = f"""\
[project]
name = "comigs-app"
version = "{__version__}"
description = "Starts the comigs that is installed on the server and on the devices"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "comigs"

[tool.flwr.app.components]
serverapp = "comigs_server.app:app"
clientapp = "comigs_clients.device:app"

# Given for each run.
[tool.flwr.app.config]
config = ""
"""
