"""Runs llama.cpp's converter with a name for a tokenizer that its list does not have.

It stands alone, in a process of its own, without its folder's modules in the way (-P):

    python -P converting.py LLAMA_CPP/convert_hf_to_gguf.py NAME_OR_EMPTY ARGUMENTS...
"""

import importlib
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Name an unknown tokenizer's way to split text, where there is a name, and convert."""
    script, splits, *arguments = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    converter = importlib.import_module(Path(script).stem)
    kind: Any = sys.modules.get("conversion.base", converter).TextModel
    known = kind.get_vocab_base_pre

    def name_of(model: Any, tokenizer: Any) -> Any:
        try:
            return known(model, tokenizer)
        except NotImplementedError:
            if not splits:
                raise
            return splits

    kind.get_vocab_base_pre = name_of
    sys.argv = [script, *arguments]
    converter.main()


if __name__ == "__main__":
    main()
