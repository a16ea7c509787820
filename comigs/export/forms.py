"""The forms in which a model is taken away."""

from comigs.errors import BadInput
from comigs.schema.build import suggest

FORMS = ("peft", "transformers", "merged")


def check_form(form: str, generalist_only: bool) -> None:
    """Refuse a form that there is not, before any library loads.

    Raises:
        BadInput: naming those that there are; or it has no generalists alone.
    """
    if form not in FORMS:
        raise BadInput(f"--as is {form!r}; it is one of {', '.join(FORMS)}{suggest(form, FORMS)}")
    if form == "transformers" and generalist_only:
        raise BadInput("--generalist-only goes with --as peft or --as merged")
