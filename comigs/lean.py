"""What libraries load and training never uses, left out: 155 MB and 2 s of every process.

Transformers loads SciPy for the losses of detectors, and torch's distributed tensors; it, torch's
optimisers and bitsandbytes load torch's compiler, with SymPy; PEFT loads bitsandbytes. In a process
of comigs alone the first two are not there for Transformers, nor bitsandbytes for PEFT, and the
compiler comes when somebody compiles.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_SETTINGS = "torch._dynamo.config"  # what alone is loaded when it alone is asked for
_lock = threading.RLock()
_marked: list[tuple[str, Any]] = []  # what was told the compiler about functions, and of which


def leave_out() -> None:
    """Say, before libraries are imported, that this process is of comigs alone."""
    if not any(isinstance(finder, _Lean) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Lean())


class _Later(ModuleType):
    """A module that is executed when something is asked of it that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if f"{self.__name__}.{name}" == _SETTINGS:
            return import_module(_SETTINGS)
        _load(self)
        return getattr(self, name)


def _load(module: ModuleType) -> None:
    """Execute a module that was to come later, unless it has come."""
    with _lock:
        if isinstance(module, _Later):
            module.__class__ = ModuleType  # type: ignore[assignment]
            spec = module.__spec__
            assert spec and isinstance(spec.loader, _Loader)
            spec.loader.whole(module)


def _compiler(module: Any) -> None:
    """What is asked of torch's compiler where nothing is compiled."""

    def marker(what: str) -> Callable[[Any], Any]:
        def mark(fn: Any) -> Any:
            _marked.append((what, fn))
            return fn

        return mark

    for what in ("allow_in_graph", "assume_constant_result"):
        setattr(module, what, marker(what))
    module.disable = _plain
    module.graph_break = lambda *message: None


def _plain(fn: Any = None, recursive: bool = True, **how: Any) -> Any:
    return fn if fn else _plain


def _indexing(module: Any) -> None:
    def stand_in() -> Any:
        _load(module)
        return module.TransformGetItemToIndex()

    module.TransformGetItemToIndex = stand_in


def _symbols(module: Any) -> None:
    """What autograd asks of it, where sizes are numbers."""

    def sym_eq(x: Sequence[int], y: Sequence[int]) -> Any:
        if all(type(size) is int for size in (*x, *y)):
            return tuple(x) == tuple(y)
        _load(module)
        return module.sym_eq(x, y)

    def expect_true(told: Any, skip: int = 0) -> bool:
        if type(told) is bool:
            return told
        _load(module)
        return bool(module.expect_true(told, skip))

    module.sym_eq, module.expect_true = sym_eq, expect_true


def _transformers(module: Any) -> None:
    module.is_scipy_available = module.is_torch_distributed_available = _no


def _peft(module: Any) -> None:
    module.is_bnb_available = module.is_bnb_4bit_available = _no


def _tuners(module: Any) -> None:
    module._torch_supports_distributed = False


def _no(*what: object) -> bool:
    return False


_LATER: dict[str, Callable[[Any], None]] = {  # with what each has at once
    "torch._dynamo": _compiler,
    "torch._dynamo._trace_wrapped_higher_order_op": _indexing,
    "torch.fx.experimental.symbolic_shapes": _symbols,
    "bitsandbytes": lambda module: None,
}
_CHANGED: dict[str, Callable[[Any], None]] = {
    "transformers.utils.import_utils": _transformers,
    "peft.import_utils": _peft,
    "peft.tuners.tuners_utils": _tuners,
}


class _Lean(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _LATER or name in _CHANGED:
            spec = PathFinder.find_spec(name, path, target)
            if spec and spec.loader:
                spec.loader = _Loader(name, spec.loader)
            return spec
        parent = sys.modules.get(name.rpartition(".")[0])
        if isinstance(parent, _Later) and name != _SETTINGS:
            _load(parent)
            if name in sys.modules:
                return ModuleSpec(name, _There())
        return None


class _There(Loader):
    """Of a module that its parent has imported meanwhile."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Loader(Loader):
    def __init__(self, name: str, loader: Loader) -> None:
        self.name, self.loader = name, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _Later(spec.name) if self.name in _LATER else None

    def exec_module(self, module: ModuleType) -> None:
        if self.name in _LATER:
            _LATER[self.name](module)
        else:
            self.whole(module)
            _CHANGED[self.name](module)

    def whole(self, module: ModuleType) -> None:
        """Execute the module itself; what it compiles is compiled when it is first called."""
        if self.name == "bitsandbytes":
            import torch

            compile_now = torch.compile
            torch.compile = _compiled_later(compile_now)
            try:
                self.loader.exec_module(module)
            finally:
                torch.compile = compile_now
        else:
            self.loader.exec_module(module)
        if self.name == "torch._dynamo":
            for what, fn in _marked:
                getattr(module, what)(fn)


def _compiled_later(compile_now: Callable[..., Any]) -> Any:
    def compile_later(fn: Callable[..., Any], **how: Any) -> Callable[..., Any]:
        compiled: list[Any] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(fn, **how))
            return compiled[0](*args, **kwargs)

        return call

    return compile_later
