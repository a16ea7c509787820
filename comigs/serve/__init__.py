"""Clients of a finished run behind OpenAI's HTTP interface (`pip install 'comigs[serve]'`)."""
