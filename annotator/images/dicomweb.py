"""Images in a DICOM archive: found by QIDO-RS, fetched by WADO-RS, reports stored by STOW-RS.

The transactions are those of DICOM PS3.18, chapter 10. An address is dicomweb://HOST/PATH?QUERY, of
a service that speaks HTTPS; dicomweb+http:// is one that does not.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from annotator.errors import AnnotatorError, ImageError, first_line
from annotator.images.ref import MAX_BYTES, ImageRef, check_file_size
from index.distribution import pip_install

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pydicom import Dataset
    from requests import Session

    from annotator.images.dicom.tags import Tags

USER = "ANNOTATOR_DICOMWEB_USER"
PASSWORD = "ANNOTATOR_DICOMWEB_PASSWORD"
TOKEN = "ANNOTATOR_DICOMWEB_TOKEN"

_SCHEMES = {"dicomweb": "https", "dicomweb+http": "http"}
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")  # PS3.5, section 9
_RESOURCE = re.compile(
    r"(?P<base>.*?)"
    r"(?:/studies/(?P<study>[^/]+)(?:/series/(?P<series>[^/]+)(?:/instances/(?P<instance>[^/]+))?)?"
    r")?/*"
)
_PAGE = 1000  # instances in an answer
_CHUNK = 1 << 20  # bytes
_TIMEOUT = (10.0, 120.0)  # seconds to connect, and between two pieces of an answer
_RETRIES = 3
_BUSY = (429, 502, 503, 504)
_UIDS = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_EXAMPLE = "Give one such as dicomweb://pacs.example.org/dicom-web?Modality=DX."


def is_archive(name: str) -> bool:
    """Whether a name is the address of a DICOMweb service."""
    return name.partition("://")[0] in _SCHEMES


@dataclass(frozen=True)
class Address:
    """What an address says.

    Attributes:
        base: URL of the service.
        study: UID of the study that is searched; None for all.
        series: UID of the series in it, likewise.
        filters: Keyword and wanted values of each attribute; one of its values has to match.
        limit: Most instances to find; None for all.
        fuzzy: Whether names of persons match fuzzily.
    """

    base: str
    study: str | None = None
    series: str | None = None
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    limit: int | None = None
    fuzzy: bool = False

    @classmethod
    def of(cls, text: str) -> Address:
        """Parse an address.

        Raises:
            AnnotatorError: It is none, holds a password, or names an attribute that there is not.
        """
        parts = urlsplit(text)
        if not parts.hostname:
            raise AnnotatorError(f"{text} names no host.", _EXAMPLE)
        if "@" in parts.netloc:
            raise AnnotatorError(
                "The address of an archive holds a user's name or a password.",
                f"Set {USER} and {PASSWORD}, or {TOKEN}, in the environment.",
            )
        path = _RESOURCE.fullmatch(parts.path)
        assert path is not None  # its base takes anything
        uids = [path[name] for name in ("study", "series", "instance")]
        for uid in uids:
            if uid is not None and not _UID.fullmatch(uid):
                raise AnnotatorError(f"{text}: {uid!r} is no UID.", _EXAMPLE)
        wanted: dict[str, list[str]] = {"SOPInstanceUID": [uids[2]]} if uids[2] else {}
        options: dict[str, str] = {}
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            if key in ("limit", "fuzzymatching"):
                options[key] = value
            else:
                wanted.setdefault(_keyword(key), []).append(value)
        limit = options.get("limit")
        if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit)):
            raise AnnotatorError(f"{text}: limit={limit} is no number of images.", "Give limit=100")
        return cls(
            f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path['base'].rstrip('/')}",
            uids[0],
            uids[1],
            tuple((key, tuple(values)) for key, values in wanted.items()),
            None if limit is None else int(limit),
            options.get("fuzzymatching", "").lower() == "true",
        )


def _keyword(key: str) -> str:
    """The keyword of an attribute by which can be searched, of which the tag may be given."""
    from pydicom.datadict import keyword_for_tag

    from annotator.images.dicom.tags import check_keyword

    if re.fullmatch("[0-9A-Fa-f]{8}", key):
        key = keyword_for_tag(int(key, 16)) or key
    check_keyword(key)
    return key


@dataclass(frozen=True)
class Instance:
    """An image in an archive. To call it is to fetch it.

    Attributes:
        base: URL of the service.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        uid: SOPInstanceUID.
    """

    base: str
    study: str
    series: str
    uid: str

    @property
    def url(self) -> str:
        return f"{self.base}/studies/{self.study}/series/{self.series}/instances/{self.uid}"

    @property
    def where(self) -> str:
        """Its address, for messages."""
        scheme, _, rest = self.url.partition("://")
        return f"{'dicomweb' if scheme == 'https' else 'dicomweb+http'}://{rest}"

    def __call__(self) -> bytes:
        """Fetch the file as it is stored.

        Raises:
            ImageError: It cannot be fetched, or is larger than `MAX_BYTES`.
        """
        import requests

        # Not by `retrieve_instance`, which parses the file and takes one of any size.
        accepted = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        headers = {"Accept": accepted, "Accept-Encoding": "identity"}
        try:
            with _connection(self.base).session.get(
                self.url, headers=headers, stream=True, timeout=_TIMEOUT
            ) as response:
                response.raise_for_status()
                check_file_size(int(response.headers.get("Content-Length") or 0))
                body = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > MAX_BYTES:
                        check_file_size(len(body))
                return _first_part(bytes(body), response.headers.get("Content-Type", ""))
        except (requests.RequestException, OSError) as error:
            message, hint = _explained(error)
            raise ImageError(message, hint) from None

    def header(self) -> Dataset:
        """Its attributes without bulk data.

        Raises:
            ImageError: They cannot be fetched.
        """
        from pydicom import Dataset

        try:
            found = _connection(self.base).client.retrieve_instance_metadata(
                self.study, self.series, self.uid
            )
            return Dataset.from_json(found, lambda *_: b"")
        except Exception as error:  # of requests, or of a library on what the archive says
            message, hint = _explained(error)
            raise ImageError(f"its attributes: {message}", hint) from None


def lasting_name(ref: ImageRef) -> str:
    """A name that stands for the same bytes for ever; "" for an image without one.

    A SOPInstanceUID does, since an instance that is changed gets another one (PS3.3, section
    C.12.1). A file is what its disk has now.
    """
    return ref.read.where if isinstance(ref.read, Instance) else ""


def find(text: str, keywords: Sequence[str] = ()) -> Iterator[tuple[Instance, Tags]]:
    """Search for the instances of an address, each once, with what the archive says of them.

    Args:
        text: The address.
        keywords: Attributes to ask for.

    Raises:
        AnnotatorError: The address is wrong, the package is missing, or the archive refuses.
    """
    from annotator.images.dicom.reader import load_pydicom
    from annotator.images.dicom.tags import Tags

    load_pydicom()
    address = Address.of(text)
    names = [name for name, _ in address.filters]
    found: set[str] = set()
    for values in itertools.product(*(values for _, values in address.filters)):
        for record in _pages(address, dict(zip(names, values, strict=True)), keywords, text):
            texts = {key: _texts(record, key) for key in dict.fromkeys((*keywords, *_UIDS))}
            known = {key: some for key, some in texts.items() if some}
            uids = [known.get(key, ("",))[0] for key in _UIDS]
            # Made into the path of a URL: a stray answer must not lead elsewhere.
            if not all(_UID.fullmatch(uid) for uid in uids[1:]) or uids[3] in found:
                continue
            found.add(uids[3])
            yield Instance(address.base, *uids[1:]), Tags("dicom", _is_image(uids[0]), known)
            if address.limit is not None and len(found) == address.limit:
                return


def _pages(
    address: Address, filters: Mapping[str, str], keywords: Sequence[str], text: str
) -> Iterator[Mapping[str, Any]]:
    """Records of the instances that match, by as many requests as it takes."""
    seen: set[str] = set()
    while True:
        try:
            page = _connection(address.base).client.search_for_instances(
                address.study,
                address.series,
                fuzzymatching=True if address.fuzzy else None,
                limit=min(_PAGE, address.limit or _PAGE),
                offset=len(seen),
                fields=list(dict.fromkeys((*keywords, *_UIDS))),
                search_filters=dict(filters),
            )
            fresh = {repr(_texts(one, "SOPInstanceUID")): one for one in page}
        except AnnotatorError:
            raise
        except Exception as error:  # of requests, or of the library on what the archive says
            message, hint = _explained(error)
            raise AnnotatorError(f"{text} cannot be searched: {message}.", hint) from error
        # An archive may know nothing of offsets, or have less on a page than it is asked for.
        fresh = {uid: one for uid, one in fresh.items() if uid not in seen}
        if not fresh:
            return
        seen |= fresh.keys()
        yield from fresh.values()


def store(address: str, dataset: Dataset) -> None:
    """Store a document in an archive; one that is there already stays as it is.

    Raises:
        AnnotatorError: It was not stored.
    """
    base = Address.of(address).base
    try:
        answer = _connection(base).client.store_instances([dataset])
    except AnnotatorError:
        raise
    except Exception as error:  # of requests, or of the library on what the archive says
        message, hint = _explained(error)
        raise AnnotatorError(f"not stored: {message}", hint) from error
    for failed in answer.get("FailedSOPSequence") or ():
        reason = failed.get("FailureReason", 0)
        raise AnnotatorError(
            f"not stored: the archive refuses it (reason {reason:04X} hexadecimal)",
            "DICOM PS3.18, table I.2-2, has the reasons; the log of the archive may say more.",
        )


def _is_image(sop_class: str) -> bool:
    """Whether instances of a class are images; those of an unknown one are looked into."""
    from pydicom.uid import UID

    name = UID(sop_class).name
    return name == sop_class or "Image Storage" in name


def _texts(record: Mapping[str, Any], keyword: str) -> tuple[str, ...]:
    """The values of an attribute in a record in DICOM's JSON (PS3.18, annex F), as text."""
    from pydicom.datadict import tag_for_keyword

    element = record.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    texts = []
    for value in values if isinstance(values, list) else ():
        one = value.get("Alphabetic") if isinstance(value, dict) else value
        if one is not None and (text := " ".join(str(one).split())):
            texts.append(text)
    return tuple(texts)


def _first_part(body: bytes, content_type: str) -> bytes:
    """The file in an answer: its first part, or all of it where an archive sends no parts."""
    from email.message import Message

    head = Message()
    head["Content-Type"] = content_type
    boundary = head.get_boundary()
    if head.get_content_maintype() != "multipart" or not boundary:
        return body
    start = body.find(b"\r\n\r\n")
    end = body.find(f"\r\n--{boundary}".encode(), start + 4)
    if start < 0 or end < 0:
        raise ImageError("the archive's answer is cut off", "Try again.", "broken")
    return body[start + 4 : end]


class _Connection(NamedTuple):
    """A client of a service, and the session that it uses."""

    client: DICOMwebClient
    session: Session


_of_thread = threading.local()


def _connection(base: str) -> _Connection:
    """This thread's connection to a service, with the credentials in the environment.

    Raises:
        AnnotatorError: The package is not installed.
    """
    known: dict[tuple[str, ...], _Connection]
    known = _of_thread.__dict__.setdefault("connections", {})
    user, password, token = (os.environ.get(name, "") for name in (USER, PASSWORD, TOKEN))
    key = (base, user, password, token)
    if key not in known:
        known[key] = _connect(*key)
    return known[key]


def _connect(base: str, user: str, password: str, token: str) -> _Connection:
    try:
        from dicomweb_client import DICOMwebClient
    except ModuleNotFoundError as error:
        raise AnnotatorError(
            f"DICOMweb needs the package {error.name}, which is not installed.",
            pip_install("dicomweb"),
        ) from error
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    # Also without any: requests would look for a password in ~/.netrc.
    session.auth = (user, password) if user else _Bearer(token)
    retry = Retry(_RETRIES, status_forcelist=_BUSY, backoff_factor=0.5, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    client = DICOMwebClient(base, session, timeout=_TIMEOUT)
    client.set_http_retry_params(retry=False)
    return _Connection(client, session)


@dataclass(frozen=True)
class _Bearer:
    """Authentication of requests by a token, or none without one."""

    token: str

    def __call__(self, request: Any) -> Any:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _explained(error: Exception) -> tuple[str, str]:
    """Message and hint for what a request raised."""
    import requests

    if isinstance(error, AnnotatorError):
        return error.message, error.hint
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"the archive does not let us ({status})",
                f"Set {USER} and {PASSWORD}, or {TOKEN}, in the environment.",
            )
        if status == 404:
            return "the archive has nothing there (404)", "Check the path of the service."
        return f"the archive answers {status}", "Its log may say why."
    if isinstance(error, requests.Timeout):
        return "the archive does not answer in time", "Try again; what was done is kept."
    if isinstance(error, requests.exceptions.SSLError):
        hint = "REQUESTS_CA_BUNDLE names a file of certificates; dicomweb+http:// is without TLS."
        return "the archive's certificate is not trusted", hint
    if isinstance(error, requests.ConnectionError):
        return "the archive cannot be reached", "Check host and port."
    return f"the archive's answer cannot be read: {first_line(error)}", "Check the address."
