"""What went wrong with an object: worth another attempt or not, and the way out in one line.

Drivers raise what they like, so the cause is looked for along the whole chain of an error: a
service's code, an HTTP status, the name of an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from koser.errors import MissingObjectError, ObjectError, StorageError

# Scheme -> what installs its driver. Others are named by fsspec itself.
_INSTALL = {
    "s3": "pip install 'koser[cloud]'",
    "s3a": "pip install 'koser[cloud]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "hf": "pip install 'koser[hub]'",
    "abfs": "pip install adlfs",
    "az": "pip install adlfs",
    "http": "pip install aiohttp",
    "https": "pip install aiohttp",
    "sftp": "pip install paramiko",
}

_CREDENTIALS = (
    "Set the credentials of the store: for s3:// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and "
    "AWS_SESSION_TOKEN), or AWS_PROFILE; for gs:// GOOGLE_APPLICATION_CREDENTIALS; for hf:// "
    "HF_TOKEN. Of a public s3:// bucket: FSSPEC_S3='{\"anon\": true}'"
)


class Kind(Enum):
    """What can be wrong."""

    transient = "transient"  # goes by itself: worth another attempt
    missing = "missing"
    refused = "refused"
    other = "other"  # of this object, and there to stay
    unreachable = "unreachable"  # worth another attempt, but no matter of this object
    credentials = "credentials"
    bucket = "bucket"
    region = "region"
    driver = "driver"


# Those that are the same for every object: going on would fail for each of them.
_SETUP = {Kind.unreachable, Kind.credentials, Kind.bucket, Kind.region, Kind.driver}
_REPEATED = {Kind.transient, Kind.unreachable}

_KIND_OF_CODE = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
         "TokenRefreshRequired", "RequestTimeTooSkewed", "AuthFailure"), Kind.credentials,
    ),
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName"), Kind.bucket),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        Kind.region,
    ),
    **dict.fromkeys(
        ("RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),
        Kind.transient,
    ),
}  # fmt: skip
_KIND_OF_STATUS = {
    401: Kind.credentials,
    403: Kind.refused,
    404: Kind.missing,
    408: Kind.transient,
    429: Kind.transient,
}
# By name, because importing every driver's exceptions would import every driver.
_KIND_OF_NAME = {
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
         "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
         "ProfileNotFound", "DefaultCredentialsError", "RefreshError", "LocalTokenNotFoundError"),
        Kind.credentials,
    ),
    # Not botocore's EndpointConnectionError, which it makes of a reset connection too.
    **dict.fromkeys(
        ("ConnectTimeoutError", "ClientConnectorError", "gaierror", "ConnectionRefusedError"),
        Kind.unreachable,
    ),
    # aiohttp gives a body that ended early the status 400, which it never had.
    **dict.fromkeys(
        ("ClientPayloadError", "ContentLengthError", "ServerDisconnectedError", "ClientOSError",
         "HTTPClientError", "IncompleteRead", "IncompleteReadError", "ResponseParserError",
         "FSTimeoutError", "ConnectionResetError"), Kind.transient,
    ),
    **dict.fromkeys(("GatedRepoError", "DisabledRepoError"), Kind.refused),
    **dict.fromkeys(("RepositoryNotFoundError", "BucketNotFoundError"), Kind.bucket),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A failed attempt.

    Attributes
    ----------
    kind : Kind
        What it comes from.
    reason : str
        What the driver says, in one line.
    """

    kind: Kind
    reason: str

    @property
    def is_repeated(self) -> bool:
        """Whether another attempt may succeed."""
        return self.kind in _REPEATED

    def to_error(self, url: str, what: str, n_attempts: int) -> StorageError:
        """The error for `url`, which could not be ``read``, ``written`` or ``listed``."""
        message = f"{self._say(url, what, n_attempts)} (the store says: {self.reason})"
        if self.kind is Kind.missing:
            return MissingObjectError(message)
        return StorageError(message) if self.kind in _SETUP else ObjectError(message)

    def _say(self, url: str, what: str, n_attempts: int) -> str:
        tried = f"'{url}' could not be {what} in {n_attempts} attempts"
        return {
            Kind.transient: f"{tried}: the store or the network fails. Run the same again later",
            Kind.missing: f"No object at '{url}'. Check bucket and name, byte by byte: the store "
            f"tells apart capitals, and Hangul composed (NFC) from decomposed (NFD)",
            Kind.refused: f"'{url}' may not be {what} with these credentials. Ask its owner for "
            f"the permission (s3:GetObject and s3:ListBucket to read, s3:PutObject to write)",
            Kind.other: f"'{url}' cannot be {what}",
            Kind.unreachable: f"{tried}: the store's server cannot be reached. Check the network, "
            f"and AWS_ENDPOINT_URL if the store is not Amazon's",
            Kind.credentials: f"'{url}' cannot be {what}: no credentials, or none that the store "
            f"accepts. {_CREDENTIALS}",
            Kind.bucket: f"'{url}' cannot be {what}: there is no such bucket. Check its name, and "
            f"AWS_ENDPOINT_URL if the store is not Amazon's",
            Kind.region: f"'{url}' cannot be {what}: its bucket is in another region. Set "
            f"AWS_DEFAULT_REGION to that",
            Kind.driver: f"'{url}' needs a driver that is not installed. Run: {_install(url)}",
        }[self.kind]  # fmt: skip


def find_fault(error: BaseException) -> Fault:
    """What an error of a driver comes from; what is unknown counts as transient.

    Parameters
    ----------
    error : BaseException
        What a call of fsspec raised.
    """
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    chain = list(_chain(error))
    # What a service says in so many words goes before what a driver made of it.
    for look in (_by_name_or_code, _by_status, _by_type):
        for each in chain:
            kind = look(each)
            if kind is not None:
                return Fault(kind, reason)
    return Fault(Kind.transient, reason)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        yield each
        each = each.__cause__ or each.__context__


def _by_name_or_code(error: BaseException) -> Kind | None:
    for base in type(error).__mro__:
        if base.__name__ in _KIND_OF_NAME:
            return _KIND_OF_NAME[base.__name__]
    return _KIND_OF_CODE.get(_code_and_status(error)[0])


def _by_status(error: BaseException) -> Kind | None:
    status = _code_and_status(error)[1]
    if status is None:
        return None
    return _KIND_OF_STATUS.get(status, Kind.transient if status >= 500 else Kind.other)


def _by_type(error: BaseException) -> Kind | None:
    if isinstance(error, FileNotFoundError):
        return Kind.missing
    if isinstance(error, PermissionError):
        return Kind.refused
    if isinstance(error, ImportError):
        return Kind.driver
    if isinstance(error, (IsADirectoryError, NotImplementedError, ValueError, TypeError)):
        return Kind.other
    return None


def _code_and_status(error: BaseException) -> tuple[str, int | None]:
    """The service's code, and the HTTP status, as botocore, aiohttp, gcsfs and httpx keep them."""
    response = getattr(error, "response", None)
    code, status = "", getattr(error, "status", getattr(error, "code", None))
    if isinstance(response, dict):  # botocore's
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        status = getattr(response, "status_code", status)
    try:
        number = int(status)  # type: ignore[arg-type]  # a None is what TypeError is caught for
    except (TypeError, ValueError):
        return code, None
    return code, number if 300 <= number < 600 else None


def _install(url: str) -> str:
    scheme = url.partition("://")[0].lower()
    return _INSTALL.get(scheme, f"pip install the fsspec driver of {scheme}://")
