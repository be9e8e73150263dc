"""Who may use the API without a key, and which addresses that is too much for. The table is in docs/keys.md."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a numerical address."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback
    return parsed.is_loopback


def is_keyless(*, is_private: bool, allow_anyone: bool) -> bool:
    """Whether everybody may use the API while there is no key. A key closes it, wherever llama-router listens."""
    return is_private or allow_anyone


def refusal(listen: str, state: str, *, is_keyless: bool, has_key: bool, has_password: bool) -> str | None:
    """Why llama-router does not start so, with `state` as its directory: either everybody could use it, which nobody
    has said is meant, or nobody."""
    if is_keyless or has_key or has_password:
        return None
    return (
        f"cannot listen on {listen}, which other machines may reach, without any key or password: make a key "
        f"(llama-router key create NAME --state-dir {state}) or set a password (llama-router passwd --state-dir "
        f"{state}); or listen on 127.0.0.1 or on a UNIX socket; or, if anyone who reaches the address may use every "
        "model, write web: {allow_anyone: true} into config.yaml"
    )
