"""From presets, YAML files and `key=value` settings to a checked `RunConfig`, and back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.schema.bounds import WORD, shown
from comigs.schema.build import Origin, build, suggest
from comigs.schema.rules import place
from comigs.schema.yamltext import MOST, parse_yaml, read_yaml_file, write_yaml
from comigs.store.plain import MIB, check_plain, read_plain
from comigs.store.whole import write_whole

MAPPINGS = 1000  # values that are no lines: names of settings and sections
_NOT_IDENTITY = ("name", "engine.", "ray.", "flower.", "log.", "server.round_timeout")
_SHORT = {"model": "name", "data": "name", "engine": "name", "data.select": "by"}  # for sections
_OMEGACONF_S_OWN = (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError)
SUITE = {"title": str, "base": dict, "methods": list, "grid": dict, "seeds": list, "reach": float}
IDENTITY_FILE = "identity.json"
_OF_FIRST_ORDER = ("router.nu", "router.inner_steps")
_OF_SELECTION = ("data.select.keep", "data.select.after")
_IDENTITY = ("engine.fuse",)  # all the same: sums in another order
_OF_PROFILES = (".speed_jitter", ".network_jitter", ".site")  # later keys: null is as before
_WHEN_IT_STOPS = "log.eval_every"  # what else decides the numbers of a run with `stop`


def load_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Return the checked configuration of `source` with `overrides` on top.

    Args:
        source: a preset's name, a YAML file, a mapping, or None for the quickstart.
        overrides: `section.key=value`, as on the command line.

    Raises:
        BadInput: one line that names file and line (or the command line), the key and the fix.
    """
    if isinstance(source, Mapping):
        tree, origin = dict(source), Origin("configuration", {})
    else:
        tree, origin = _read(_find(source or "quickstart", "presets"))
    given = [_override(text) for text in overrides]
    keys = [key for pair in given for key in (pair[0], *flat(dict([pair])))]
    origin = origin.with_command_line(keys)
    try:
        merged = OmegaConf.create(_one_place(_spelt_out(tree), keys))
        for key, value in given:
            both = isinstance(value, dict) and OmegaConf.is_dict(OmegaConf.select(merged, key))
            OmegaConf.update(merged, key, value, merge=both, force_add=True)
        plain = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, *_OMEGACONF_S_OWN) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        key = getattr(error, "full_key", None) or ""
        named = f"{origin.of(key)}: {key}: " if key else f"{origin.file}: "
        raise BadInput(f"{named}{reason[0][:200]}", key) from None
    return build(RunConfig, plain, origin)


def _spelt_out(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`model: gpt2` as `model: {name: gpt2}`, in sections too."""
    whole = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, str) and dotted in _SHORT:
            value = {_SHORT[dotted]: value}
        whole[key] = _spelt_out(value, f"{dotted}.") if isinstance(value, dict) else value
    return whole


def _one_place(tree: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """The text that the command line names, instead of what the file names in another way."""
    named, made = "data.name" in given, "data.source" in given
    if named and made:
        raise BadInput("command line: data.name and data.source are both given; give one of them")
    less = ("source", "prepare") if named else ("name",) if made else ()
    data = tree.get("data")
    if not less or not isinstance(data, dict):
        return tree
    return tree | {"data": {key: value for key, value in data.items() if key not in less}}


def read_suite(name: str) -> dict[str, Any]:
    """Return a suite of `comigs compare`: title, base, methods, grid and seeds.

    Raises:
        BadInput: when it is not found or lacks a part.
    """
    tree, origin = _read(_find(name, "suites"))
    if stranger := next((key for key in tree if key not in SUITE), None):
        raise BadInput(
            f"{origin.file}: a suite has no {shown(stranger)}; it has {', '.join(SUITE)}"
        )
    tree.setdefault("grid", {})
    for key, kind in SUITE.items():
        empty = key in ("methods", "seeds") and not tree.get(key)
        if key != "reach" and (empty or not isinstance(tree.get(key), kind)):
            raise BadInput(f"{origin.file}: a suite needs {key!r} ({kind.__name__})")
    reach = tree.get("reach")
    if reach is not None and (isinstance(reach, bool) or not isinstance(reach, (int, float))):
        raise BadInput(f"{origin.file}: reach is {shown(reach)}; it is a validation perplexity")
    for key, values in tree["grid"].items():
        if not isinstance(values, list) or not values:
            raise BadInput(f"{origin.file}: grid.{shown(key)} is {shown(values)}; give a list")
    check_seeds(f"{origin.file}: seeds", tree["seeds"])
    return tree


def check_seeds(key: str, seeds: Sequence[Any]) -> None:
    """Refuse what are no seeds, or the same ones twice.

    Raises:
        BadInput: which.
    """
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= WORD:
            raise BadInput(f"{key} has {shown(seed)}; give whole numbers from 0 up")
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"{key} is {shown(list(seeds))}; give each seed once")


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dicts and lists."""
    return asdict(config)


def dump_yaml(config: RunConfig) -> str:
    """The configuration as YAML that `load_config` reads back."""
    return write_yaml(to_dict(config))


def read_config(folder: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        BadInput: when the folder is not one, or as `load_config`.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise BadInput(f"{folder} holds no config.yaml; it is not a run folder")
    check_plain(path, folder, MIB)
    config = load_config(path)
    _check_identity(config, folder)
    return load_config(path, overrides) if overrides else config


def write_config(config: RunConfig, folder: Path) -> None:
    """Write config.yaml into a run folder, and apart from it what decides the run's numbers.

    Raises:
        BadInput: it would be too large to be read again.
    """
    text, decides = dump_yaml(config), json.dumps(identity(config), indent=1) + "\n"
    if max(len(text), len(decides)) > MIB or text.count("\n") > MOST - MAPPINGS:
        raise BadInput(
            "the configuration is larger than a run's config.yaml can be (1 MiB); it has a value "
            f"for each client in {', '.join(config.per_client()) or 'no setting'}: give one for "
            "all, and leave devices.fit at check"
        )
    write_whole(folder / IDENTITY_FILE, decides)
    write_whole(folder / "config.yaml", text)


def rewrite_config(config: RunConfig, folder: Path) -> None:
    """Write another config.yaml into a run folder; whenever a kill comes, the run can go on."""
    (folder / IDENTITY_FILE).unlink(missing_ok=True)
    write_whole(folder / "config.yaml", dump_yaml(config))
    write_config(config, folder)


def _check_identity(config: RunConfig, folder: Path) -> None:
    """Refuse a configuration that was edited after the run had begun."""
    path = folder / IDENTITY_FILE
    if not path.exists():  # of an earlier version
        return
    try:
        began = dict(json.loads(read_plain(path, folder, MIB)))
        now = json.loads(json.dumps(identity(config)))
        different = [key for key in began if key in now and began[key] != now[key]]
    except (OSError, ValueError, TypeError):
        raise BadInput(f"{path} is damaged; it says what the run was started with") from None
    if different:
        key = different[0]
        raise BadInput(
            f"{folder / 'config.yaml'} has {key} = {now[key]!r}, but the run was started with "
            f"{began[key]!r}; put it back"
        )


def identity(config: RunConfig) -> dict[str, Any]:
    """Everything that decides the numbers, by dotted key."""
    unread: tuple[str, ...] = _NOT_IDENTITY
    if config.router.grad == "alternating":
        unread += _OF_FIRST_ORDER
    if config.data.select.by is None:
        unread += _OF_SELECTION
    values = flat(to_dict(config))
    if config.device in ("auto", "cpu"):
        del values["device"]
    if config.engine.fuse == "auto":
        values["engine.fuse"] = 1
    if config.model.native:
        del values["model.compute"]
    values = {k: v for k, v in values.items() if v is not None or not k.endswith(_OF_PROFILES)}
    decides = _IDENTITY if config.stop.patience is None else (*_IDENTITY, _WHEN_IT_STOPS)
    return {k: v for k, v in values.items() if k in decides or not k.startswith(unread)}


def config_hash(config: RunConfig) -> str:
    """12 hex digits that name the identity of a configuration.

    Keys at their default do not enter, so a key added later leaves the names of old runs alone.
    """
    default = identity(RunConfig())
    chosen = {k: v for k, v in identity(config).items() if k not in default or v != default[k]}
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def changed_keys(before: RunConfig, after: RunConfig) -> list[str]:
    """Dotted keys of the identity in which two configurations differ."""
    one, two = identity(before), identity(after)
    return [key for key in one | two if key not in one or key not in two or one[key] != two[key]]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def presets() -> Path:
    """The folder of the presets: in the package, or in the checkout that it is part of."""
    package = Path(__file__).parents[1]
    packaged = package / "presets"
    return packaged if packaged.is_dir() else package.parent / "experiments"


def _find(name: str | Path, kind: str) -> Path:
    """A YAML file of the user's, or one that comes with comigs."""
    home = presets() / ("suites" if kind == "suites" else "")
    place("the configuration", str(name))
    given = Path(name).expanduser()
    for path in (given, home / f"{str(name).removesuffix('.yaml')}.yaml"):
        if path.is_file():
            return path
    known = [p.relative_to(home).with_suffix("").as_posix() for p in sorted(home.glob("*.yaml"))]
    raise BadInput(
        f"{str(name)!r} is neither a YAML file nor one of the {kind}: {', '.join(known)}"
        + suggest(str(name), known)
    )


def _read(path: Path) -> tuple[dict[str, Any], Origin]:
    tree, node = read_yaml_file(path)
    if tree is None:
        return {}, Origin(path.name, {})
    if not isinstance(tree, dict) or not isinstance(node, yaml.MappingNode):
        raise BadInput(f"{path}: expected `key: value` lines")
    return tree, Origin(path.name, _lines(node))


def _lines(node: yaml.MappingNode, prefix: str = "") -> dict[str, int]:
    """Line of every dotted key."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        dotted = prefix + str(key.value)
        lines[dotted] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            lines |= _lines(value, dotted + ".")
    return lines


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = map(str.strip, text.partition("="))
    if not equals or not key:
        raise BadInput(f"command line: {shown(text)} is not of the form key=value")
    try:
        parsed, _ = parse_yaml(value)
    except (yaml.YAMLError, BadInput) as error:
        reason = getattr(error, "problem", None) or error
        raise BadInput(
            f"command line: the value of {shown(text)} cannot be read: {reason}"
        ) from None
    if key in _SHORT and not isinstance(parsed, dict):  # engine=ray sets the name alone
        key = f"{key}.{_SHORT[key]}"
    return key, parsed
