"""Whether what a server asks is within the device's own limits (`comigs.federation.policy`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comigs.config.settings import RunConfig
from comigs.errors import BadInput, Refusal
from comigs.federation.policy import FILE, Policy, read_policy


def policy_of(node: Mapping[str, Any], data: object) -> Policy:
    """The device's policy.

    Args:
        node: the node config; its `policy` is the path of the file.
        data: `data.name`, in which the file is looked for otherwise.

    Raises:
        Refusal: it cannot be read; the device does nothing until it is mended.
    """
    given = node.get("policy")
    try:
        if given is not None:
            return read_policy(Path(str(given)).expanduser())
        beside = Path(str(data)).expanduser() / FILE
        if beside.is_file():
            return read_policy(beside)
    except (BadInput, OSError, RuntimeError, ValueError) as error:
        raise Refusal("bad-policy", str(error)) from None
    return Policy()


def check_allowed(policy: Policy, config: RunConfig) -> None:
    """Refuse a configuration that the policy does not allow.

    Raises:
        Refusal: naming the setting.
    """
    _check_protection(policy, config)
    if policy.methods is not None and config.method not in policy.methods:
        raise _refuse("method", config.method, f"one of {', '.join(policy.methods)}")
    _check_names(policy, config)
    router = config.router.steps * config.router.inner_steps
    work = max(config.local_steps, router) * config.batch_size * config.data.seq_len
    limits: list[tuple[str, float, float]] = [
        ("rounds", config.rounds, policy.rounds),
        ("local_steps", config.local_steps, policy.steps),
        ("router.steps", router, policy.steps),
        ("threads", config.threads or 1, policy.threads),
        ("batch_size", work, policy.tokens),
    ]
    for key, value, most in limits:
        if value > most:
            raise _refuse(key, value, f"at most {most:g}")


def _check_protection(policy: Policy, config: RunConfig) -> None:
    privacy = config.privacy
    secure = privacy.secure == "secagg"
    clips = privacy.mechanism == "client" and privacy.where == "client"
    noisy = clips and privacy.noise > 0 and privacy.clip <= (policy.clip or privacy.clip)
    wanted = {"none": True, "secagg": secure, "dp": noisy, "either": secure or noisy}
    if not wanted[policy.require]:
        raise _refuse("privacy", policy.require, "what the device requires")
    if secure and (privacy.threshold or policy.threshold) < policy.threshold:
        raise _refuse("privacy.threshold", privacy.threshold, f"at least {policy.threshold}")


def _check_names(policy: Policy, config: RunConfig) -> None:
    from comigs.backbone.names import BUNDLED as MODELS
    from comigs.data.corpus import BUNDLED as TEXTS

    for key, name, home, allowed in (
        ("data.name", config.data.name, TEXTS, policy.data or ["/data"]),
        ("model.name", config.model.name, MODELS, policy.models),
    ):
        bundled = {path.name for path in home.iterdir() if path.is_dir()}
        if name in bundled or name in allowed or _within(name, allowed):
            continue
        raise _refuse(key, name, "bundled, or in a folder that the device's policy names")


def _within(name: str, allowed: list[str]) -> bool:
    """Whether a path is one of the folders or below, links followed."""
    try:
        place = Path(name).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    roots = [Path(root).expanduser() for root in allowed]
    return any(root.is_absolute() and place.is_relative_to(root.resolve()) for root in roots)


def _refuse(key: str, value: object, rule: str) -> Refusal:
    return Refusal("not-allowed", f"{key} is {value!r:.80}; it must be {rule}", key)
