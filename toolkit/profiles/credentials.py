"""Which provider of the standard AWS chain would give credentials, told without asking anybody."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["CredentialSource", "credential_source"]


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where the standard AWS chain takes credentials from.

    Parameters
    ----------
    method
        botocore's name of the provider: ``env``, ``sso``, ``shared-credentials-file``,
        ``iam-role``, …; None if none would answer.
    where
        The variable, the AWS profile or the service that they come from, or why there are none.
    """

    method: str | None
    where: str


def credential_source() -> CredentialSource:
    """Say which provider of the standard AWS chain would give credentials, asking no other machine.

    Providers that read variables or files are asked. Those that call a service or start a program
    are taken to answer where they are configured; whether this machine is an instance with a role
    can't be told.
    """
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    session = Session()
    try:
        chain = session.get_component("credential_provider").providers
        method = next((each.METHOD for each in chain if _would_answer(each, session)), None)
        aws_profile = session.get_config_variable("profile") or "default"
    except BotoCoreError as exc:
        return CredentialSource(None, str(exc))
    where = {
        None: "no variables, no AWS profile that holds any, no instance role",
        "env": "AWS_ACCESS_KEY_ID",
        "container-role": "the container's role",
        "iam-role": "the role of this EC2 instance, if it is one: not asked",
    }
    return CredentialSource(method, where.get(method, f"AWS profile {aws_profile}"))


def _would_answer(provider: Any, session: Any) -> bool:
    """Whether a provider of botocore's chain has credentials, as far as this machine can tell."""
    config = session.get_scoped_config()
    match provider.METHOD:
        case "assume-role":
            return "role_arn" in config and "web_identity_token_file" not in config
        case "custom-process":
            return "credential_process" in config
        case "container-role":
            return provider.ENV_VAR in os.environ or provider.ENV_VAR_FULL in os.environ
        case "iam-role":
            return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"
        case _:
            return provider.load() is not None
