"""The AWS account: clients, and the one place where AWS's errors become the project's.

Credentials are those of the standard chain (environment, shared configuration, SSO, instance role);
``AWS_ENDPOINT_URL`` and its relatives lead to another server, as everywhere in boto3.

    RequestError
    └── CredentialsError      there are none, or AWS does not know them
    JobError
    └── AwsError              AWS refused, or did not answer; keeps AWS's own code
        ├── ExpiredError          the session's credentials have ended
        ├── AccessDeniedError     a permission is missing; names the action
        ├── CapacityError         no such machine to be had now: another zone or type may do
        ├── QuotaError            the account may not have so many
        ├── ThrottledError        too many requests, after all retries
        └── UnreachableError      no answer, after all retries
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import JobError, RequestError, ToolkitError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AccessDeniedError",
    "AwsAccount",
    "AwsError",
    "CapacityError",
    "CredentialsError",
    "ExpiredError",
    "Identity",
    "QuotaError",
    "ThrottledError",
    "UnreachableError",
    "aws_errors",
]

# Of each call, with pauses of up to 1, 2, 4 and 8 s where AWS throttles. boto3's own three are few
# for an account in which others are busy, too.
_ATTEMPTS = 5
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
# Longer texts hold an encoded message or a request, which nobody reads.
_LONGEST_TEXT = 400

_SERVER_ERROR = 500
# Refusals whose words are AWS's request id and permission, not a kind of their own.
_DENIED = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})

_ACTION = re.compile(r"not authorized to perform:?\s+(?P<action>[a-z0-9-]+:[A-Za-z*]+)")
# "Signature expired: …", "Signature not yet current: …", in SignatureDoesNotMatch and others.
_CLOCK = re.compile(r"signature (expired|not yet current)", re.IGNORECASE)
_ENCODED = re.compile(r"\s*Encoded authorization failure message:\s*\S+")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY_IN_URL = re.compile(r"(?<=\?)[^\s\"']*=[^\s\"']*")
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b")


class CredentialsError(RequestError):
    """There are no credentials, or AWS does not know them."""


class AwsError(JobError):
    """AWS refused, or did not answer.

    Attributes
    ----------
    code
        AWS's own name of the error, for example ``InvalidGroup.NotFound``; empty where AWS did not
        answer.
    """

    def __init__(self, message: str, *, remedy: str = "", code: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class ExpiredError(AwsError):
    """The credentials were good until now."""


class AccessDeniedError(AwsError):
    """A permission is missing.

    Attributes
    ----------
    action
        What is not allowed, as policies write it (``ec2:RunInstances``); the bare name of the
        operation where AWS does not name it.
    """

    def __init__(self, message: str, *, remedy: str = "", code: str = "", action: str = "") -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.action = action


class CapacityError(AwsError):
    """AWS has no such machine to give in this zone now; another zone or type may do."""


class QuotaError(AwsError):
    """The account may not have so many of them."""


class ThrottledError(AwsError):
    """AWS took no more requests, after all retries."""


class UnreachableError(AwsError):
    """AWS did not answer, after all retries."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who acts: the account's number, the ARN, and the ARN's last part."""

    account: str
    arn: str

    @property
    def user(self) -> str:
        """Name of the user, or of the role's session; ``root`` for the account itself."""
        return re.split("[/:]", self.arn)[-1]


class AwsAccount:
    """An account in one region, reached with the standard AWS credential chain.

    Parameters
    ----------
    region
        For example ``eu-west-1``.

    Attributes
    ----------
    region
        The same.

    Raises
    ------
    CredentialsError
        ``AWS_PROFILE`` names a profile that there is not.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        # A session makes one client at a time; clients themselves are for all threads.
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, str, int], Any] = {}
        with aws_errors(doing="read the AWS configuration"):
            import boto3

            self._session = boto3.session.Session(region_name=region)

    def client(
        self,
        service: str,
        *,
        region: str | None = None,
        retries: Literal["standard", "adaptive"] = "standard",
        attempts: int = _ATTEMPTS,
    ) -> Any:
        """Return boto3's client of a service; call it inside `aws_errors`.

        Parameters
        ----------
        service
            boto3's name: ``ec2``, ``iam``, ``sts``, ``ssm``, ``s3``, ``pricing``, …
        region
            Another region than the account's.
        retries
            ``standard``, or ``adaptive``: it slows down by itself when AWS throttles. For what asks
            again and again, such as waiting for an instance; one call would only wait longer.
        attempts
            Of each call, 1 or more, the first one included.
        """
        key = (service, region or self.region, retries, attempts)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._open(*key)
            return self._clients[key]

    def identity(self) -> Identity:
        """Ask AWS whose credentials these are; no permission is needed for that.

        Raises
        ------
        CredentialsError
            There are none, or AWS does not know them.
        AwsError
            They have expired, or AWS can't be reached.
        """
        with aws_errors(doing="find out whose credentials these are"):
            answer = self.client("sts").get_caller_identity()
        return Identity(answer["Account"], answer["Arn"])

    def has_credentials(self) -> bool:
        """Look whether the standard chain finds any; whether AWS takes them is not asked.

        Raises
        ------
        RequestError
            The AWS configuration is wrong.
        """
        with aws_errors(doing="look for credentials"):
            return self._session.get_credentials() is not None

    def _open(self, service: str, region: str, retries: str, attempts: int) -> Any:
        with aws_errors(doing=f"open a connection to {service} in {region}"):
            from botocore.config import Config

            return self._session.client(
                service,
                region_name=region,
                config=Config(
                    retries={"mode": retries, "total_max_attempts": attempts},
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    user_agent_extra="fruits-toolkit",
                ),
            )


@contextmanager
def aws_errors(*, doing: str) -> Iterator[None]:
    """Turn every error of boto3 inside the block into one of the project's.

    The pages of a paginator are fetched while they are read: read them inside, too. A dry run that
    AWS would have let happen is an `AwsError`, whose code is ``DryRunOperation``.

    Parameters
    ----------
    doing
        What goes on, to follow "Could not": ``launch the instance``.

    Raises
    ------
    CredentialsError
        There are no credentials, or AWS does not know them.
    RequestError
        The AWS configuration or a parameter is wrong; nothing was sent.
    AwsError
        AWS refused or did not answer; one of its subclasses where there is one.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        error = _refusal(exc, f"Could not {doing}")
        # Of a signature that is wrong AWS sends back the request that was signed, token included;
        # neither a message nor a traceback may show it.
        raise error from (None if isinstance(error, CredentialsError) else exc)
    except (BotoCoreError, Boto3Error) as exc:
        raise _failure(exc, f"Could not {doing}") from exc


@dataclass(frozen=True, slots=True)
class _Kind:
    """What some errors mean.

    Parameters
    ----------
    names
        AWS's codes, or botocore's classes.
    error
        Ours.
    remedy
        ``{sign_in}`` stands for how to get new credentials.
    says
        Instead of their own words, which may be unreadable or secret.
    """

    names: frozenset[str]
    error: type[CredentialsError | AwsError | RequestError]
    remedy: str
    says: str = ""

    def __call__(self, could_not: str, text: str, *, code: str = "") -> ToolkitError:
        message = f"{could_not}: {self.says or text}" + (f" ({code})" if code else "")
        remedy = self.remedy.format(sign_in=_sign_in())
        if issubclass(self.error, AwsError):
            return self.error(message, remedy=remedy, code=code)
        return self.error(message, remedy=remedy)


_WRONG_CLOCK = _Kind(
    frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"}),
    CredentialsError,
    "Set it: `sudo hwclock --hctosys`. In WSL2, whose clock stops while Windows sleeps, "
    "`wsl --shutdown` in PowerShell does it too.",
    says="this machine's clock differs from AWS's by minutes.",
)
# The codes of EC2 are those of "Error codes for the Amazon EC2 API":
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# The others are what STS, IAM, S3, SSM and Pricing call the same.
_REFUSALS = (
    _WRONG_CLOCK,
    _Kind(
        frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"}),
        ExpiredError,
        "{sign_in} If they are new, set this machine's clock.",
        says="the AWS credentials have expired.",
    ),
    _Kind(
        frozenset(
            {
                "AuthFailure",
                "IncompleteSignature",
                "InvalidAccessKeyId",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "InvalidToken",
                "MissingAuthenticationToken",
                "SignatureDoesNotMatch",
                "UnrecognizedClientException",
            }
        ),
        CredentialsError,
        "See which ones are used with `aws configure list`. {sign_in} A region that the account "
        "has not enabled refuses them, too.",
        # Of a wrong signature AWS sends back the request that was signed, token included.
        says="AWS does not accept the credentials.",
    ),
    _Kind(
        frozenset(
            {
                "InsufficientCapacity",
                "InsufficientCapacityOnHost",
                "InsufficientFreeAddressesInSubnet",
                "InsufficientHostCapacity",
                "InsufficientInstanceCapacity",
                "InsufficientReservedInstanceCapacity",
                "InsufficientVolumeCapacity",
                "SpotMaxPriceTooLow",
                "UnfulfillableCapacity",
                "Unsupported",  # this type is not offered in this zone
            }
        ),
        CapacityError,
        "Try another zone, another instance type, or later.",
    ),
    _Kind(
        frozenset(
            {
                "InstanceLimitExceeded",
                "LimitExceeded",
                "MaxSpotInstanceCountExceeded",
                "ResourceLimitExceeded",
                "SecurityGroupLimitExceeded",
                "VcpuLimitExceeded",
                "VolumeLimitExceeded",
            }
        ),
        QuotaError,
        "Take fewer or smaller instances, or have the quota raised: "
        "https://console.aws.amazon.com/servicequotas/",
    ),
    _Kind(
        frozenset(  # those that botocore retries as throttling: botocore.retries.standard
            {
                "BandwidthLimitExceeded",
                "EC2ThrottledException",
                "LimitExceededException",
                "PriorRequestNotComplete",
                "RequestLimitExceeded",
                "RequestThrottled",
                "RequestThrottledException",
                "SlowDown",
                "ThrottledException",
                "Throttling",
                "ThrottlingException",
                "TooManyRequestsException",
            }
        ),
        ThrottledError,
        "AWS asks for fewer requests: try again in a few minutes.",
    ),
)
_SERVER_FAULT = _Kind(
    frozenset(), AwsError, "The fault is on AWS's side: try again in a few minutes."
)
_OTHER = _Kind(frozenset(), AwsError, "")

_FAILURES = (
    _Kind(
        frozenset({"NoCredentialsError"}),
        CredentialsError,
        "Run `aws configure` or `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY.",
        says="there are no AWS credentials.",
    ),
    _Kind(
        frozenset({"ProfileNotFound"}),
        CredentialsError,
        "List the profiles with `aws configure list-profiles` and set AWS_PROFILE.",
    ),
    _Kind(
        frozenset({"PartialCredentialsError"}),
        CredentialsError,
        "Set both halves of the key pair, or neither.",
    ),
    _Kind(frozenset({"SSOError", "LoginError", "TokenRetrievalError"}), ExpiredError, "{sign_in}"),
    _Kind(
        frozenset({"CredentialRetrievalError", "MetadataRetrievalError", "NoAuthTokenError"}),
        CredentialsError,
        "{sign_in}",
    ),
    _Kind(
        frozenset({"NoRegionError", "InvalidRegionError"}),
        RequestError,
        "Set the region of the profile: TOOLKIT_AWS__REGION, for example eu-west-1.",
    ),
    _Kind(
        frozenset({"HTTPClientError", "ConnectionError"}),
        UnreachableError,
        "Check the network, proxies (HTTPS_PROXY) and AWS_ENDPOINT_URL.",
    ),
    _Kind(
        frozenset({"ParamValidationError", "ValidationError"}),
        RequestError,
        "This is a mistake of the toolkit: call it again with --debug and report it.",
        # Their text holds the parameters, and those may be nobody's business.
        says="boto3 refuses a parameter.",
    ),
    _Kind(
        frozenset({"ConfigParseError", "ConfigNotFound", "InvalidConfigError"}),
        RequestError,
        "Mend ~/.aws/config.",
    ),
)


def _refusal(exc: Any, could_not: str) -> ToolkitError:
    """Translate what AWS answered."""
    error = exc.response.get("Error", {})
    code, text = str(error.get("Code", "")), _clean(str(error.get("Message", "")))
    if code in _DENIED:
        return _denied(exc, code, text, could_not)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = next(
        (each for each in _REFUSALS if code in each.names),
        _SERVER_FAULT if status >= _SERVER_ERROR else _OTHER,
    )
    if _CLOCK.search(text):
        kind = _WRONG_CLOCK
    return kind(could_not, text or "AWS gives no reason.", code=code)


def _denied(exc: Any, code: str, text: str, could_not: str) -> AccessDeniedError:
    named = _ACTION.search(text)
    action = named["action"] if named else str(exc.operation_name)
    return AccessDeniedError(
        f"{could_not}: {action} is not allowed. {text} ({code})",
        remedy=f"Have {action} allowed by the policy of these credentials. "
        "Whose they are: `aws sts get-caller-identity`.",
        code=code,
        action=action,
    )


def _failure(exc: Exception, could_not: str) -> ToolkitError:
    """Translate what went wrong on this side, or on the way."""
    names = {cls.__name__ for cls in type(exc).__mro__}
    kind = next((each for each in _FAILURES if names & each.names), _OTHER)
    return kind(could_not, _clean(str(exc)))


def _sign_in() -> str:
    profile = os.environ.get("AWS_PROFILE")
    named = f" --profile {profile}" if profile else ""
    return f"Sign in again (`aws sso login{named}`), or set new keys (`aws configure{named}`)."


def _clean(text: str) -> str:
    """Take from AWS's words what is secret or unreadable."""
    text = _ENCODED.sub("", " ".join(text.split()))
    text = _USER_IN_URL.sub("…@", text)
    text = _QUERY_IN_URL.sub("…", text)
    text = _ACCESS_KEY.sub(r"\1…", text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
