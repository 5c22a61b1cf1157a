"""Instance profiles that somebody else has made, where promotions are not to make their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cloud.aws.account import AwsError, aws_errors
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from toolkit.cloud.aws.account import AwsAccount

__all__ = ["ExistingProfile", "find_instance_profile"]

_ANOTHER = (
    "Name another in the setting aws.instance_profile (TOOLKIT_AWS__INSTANCE_PROFILE), or leave it "
    "out: then one is made."
)


@dataclass(frozen=True, slots=True)
class ExistingProfile:
    """An instance profile that somebody else has made: its ARN, and that of its role."""

    arn: str
    role_arn: str


def find_instance_profile(account: AwsAccount, name: str) -> ExistingProfile:
    """Look up an instance profile and its role.

    Parameters
    ----------
    account
        Where to ask.
    name
        Name of the instance profile.

    Raises
    ------
    RequestError
        There is none of the name, or it has no role.
    AwsError
        AWS refuses to tell; other errors of `aws_errors`.
    """
    try:
        with aws_errors(doing=f"look up the instance profile {name}"):
            answer = account.client("iam").get_instance_profile(InstanceProfileName=name)
    except AwsError as exc:
        if exc.code != "NoSuchEntity":
            raise
        raise RequestError(f"There is no instance profile {name}.", remedy=_ANOTHER) from exc
    found = answer["InstanceProfile"]
    if not found["Roles"]:
        raise RequestError(
            f"The instance profile {name} has no role, and so its instances have no rights.",
            remedy=f"Add one: `aws iam add-role-to-instance-profile --instance-profile-name {name} "
            f"--role-name ROLE`. {_ANOTHER}",
        )
    (role,) = found["Roles"]  # IAM takes no second one
    return ExistingProfile(found["Arn"], role["Arn"])
