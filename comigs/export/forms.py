"""The forms in which a model is taken away."""

from pathlib import Path

from comigs.errors import BadInput
from comigs.export.llamacpp import check_llama_cpp
from comigs.schema.build import suggest

OF_ONE = ("merged", "gguf", "lora", "lora-gguf")  # of one expert alone
FORMS = ("peft", "transformers", *OF_ONE)


def check_form(
    form: str,
    generalist_only: bool = False,
    expert: str | None = None,
    llama_cpp: Path | None = None,
) -> None:
    """Refuse a form that there is not, or that cannot be made, before any library loads.

    Args:
        llama_cpp: the folder of llama.cpp's sources, for the forms that its converters make.

    Raises:
        BadInput: naming those that there are; it has no one expert alone; or there is no converter.
    """
    if form not in FORMS:
        raise BadInput(f"--as is {form!r}; it is one of {', '.join(FORMS)}{suggest(form, FORMS)}")
    if expert and form not in OF_ONE:
        raise BadInput(f"--expert goes with --as {', '.join(OF_ONE)}; --as {form} has them all")
    if expert and generalist_only:
        raise BadInput("--expert and --generalist-only both say which; give one of them")
    if form == "transformers" and generalist_only:
        raise BadInput("--generalist-only goes with every other --as")
    if form.endswith("gguf"):
        check_llama_cpp(form, llama_cpp)
