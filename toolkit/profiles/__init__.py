"""Where a run happens: typed settings from defaults, toolkit.toml, the environment and options.

Later sources win: built-in defaults, then ``[profiles.NAME]`` of the nearest ``toolkit.toml``, then
``TOOLKIT_…`` environment variables (``TOOLKIT_S3__BUCKET``), then options of the command line.
`trace_profile` says which of them each setting comes from, and a `ProfileDraft` writes some to the
file.
"""

from toolkit.profiles.credentials import CredentialSource, credential_source
from toolkit.profiles.draft import ProfileDraft
from toolkit.profiles.loading import (
    CONFIG_FILE,
    Origin,
    find_config_file,
    load_profile,
    profile_names,
    trace_profile,
)
from toolkit.profiles.settings import (
    AWS,
    PORT_OPTIONS,
    AwsSettings,
    Profile,
    S3Settings,
    SparkSettings,
    StackSettings,
)

__all__ = [
    "AWS",
    "CONFIG_FILE",
    "PORT_OPTIONS",
    "AwsSettings",
    "CredentialSource",
    "Origin",
    "Profile",
    "ProfileDraft",
    "S3Settings",
    "SparkSettings",
    "StackSettings",
    "credential_source",
    "find_config_file",
    "load_profile",
    "profile_names",
    "trace_profile",
]
