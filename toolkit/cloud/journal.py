"""What has been promoted: the record of each promotion, in its folder in the bucket."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.documents import from_document, to_document
from toolkit.cloud.status import PromotionFolder
from toolkit.errors import RequestError
from toolkit.runs import Owner, now
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from toolkit.storage import Storage

__all__ = ["RECORD", "PromotionRecord", "load_record", "save_record", "unfinished"]

RECORD = "promotion.json"
"""Name of the record in a promotion's folder."""

# Each costs a request; an older one than that is not missed.
_CONSIDERED = 20


@dataclass(frozen=True, kw_only=True)
class PromotionRecord:
    """What ``promotion.json`` holds: enough to come back to a promotion from any machine.

    Attributes
    ----------
    promotion_id
        Sorts by time.
    owner
        The process that sees to it; None: nobody does at the time.
    fingerprint
        What must be equal for a call of `toolkit promote` to go on with it.
    bundle
        Identity of its bundle.
    region
        Region of the instances.
    instance_type, nodes, spot
        What the plan says.
    dead_man_minutes
        After so many minutes a node goes off, whatever runs.
    began_at, ended_at
        ISO 8601 in UTC. It has ended when nothing of it is left in AWS but files in the bucket.
    outcome
        How it ended, in a word: the node's last phase, ``dead`` or ``not started``.
    error
        Why it ended early, for people.
    """

    promotion_id: str
    owner: Owner | None
    fingerprint: str
    bundle: str
    region: str
    instance_type: str
    nodes: int
    spot: bool
    dead_man_minutes: int
    began_at: str = field(default_factory=now)
    ended_at: str | None = None
    outcome: str | None = None
    error: str | None = None

    def ended(self, outcome: str, *, error: str | None = None) -> PromotionRecord:
        """Return the record of this promotion as over."""
        return replace(self, ended_at=now(), outcome=outcome, error=error)

    def to_json(self) -> str:
        """Write the record as one JSON document."""
        return to_document(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> PromotionRecord:
        """Read a record; fields that this version does not know are left out.

        Raises
        ------
        RequestError
            It is no record of a promotion.
        """
        return from_document(cls, text, what="record of a promotion", error=RequestError)


def save_record(folder: PromotionFolder, record: PromotionRecord) -> None:
    """Write the record of a promotion into its folder."""
    folder.storage.write(folder.file(RECORD), record.to_json().encode())


def load_record(folder: PromotionFolder) -> PromotionRecord:
    """Read the record of a promotion.

    Raises
    ------
    RequestError
        There is no such promotion.
    """
    try:
        return PromotionRecord.from_json(folder.storage.read(folder.file(RECORD)))
    except ObjectNotFound as exc:
        raise RequestError(
            f"There is no promotion {folder.promotion_id} in {folder.storage.name}.",
            remedy="Check the id, and the bucket of the profile: `toolkit profile show aws`.",
        ) from exc


def unfinished(storage: Storage, fingerprint: str) -> PromotionRecord | None:
    """Return the newest promotion of the same request that nobody sees to any more; else None.

    Raises
    ------
    RequestError
        Somebody on another machine has begun it, and may see to it.
    JobError
        The store can't be reached or refuses.
    """
    ids = sorted(storage.folders(storage.location(PROMOTIONS)), reverse=True)
    for promotion_id in islice(ids, _CONSIDERED):
        try:
            record = load_record(PromotionFolder(storage, promotion_id))
        except RequestError:
            continue  # another version's, or cut before its first word
        if record.fingerprint == fingerprint and record.ended_at is None:
            return _free(record)
    return None


def _free(record: PromotionRecord) -> PromotionRecord | None:
    owner = record.owner
    if owner is None or not owner.may_be_alive():
        return record
    if owner.host == socket.gethostname():
        return None  # one of two at once
    raise RequestError(
        f"Promotion {record.promotion_id} of the same request was begun on {owner.host} at "
        f"{record.began_at}, and has not ended.",
        remedy=f"Go on with it here: `toolkit promote --follow {record.promotion_id}`. Or remove "
        f"what it has in AWS with `toolkit sweep {record.promotion_id}`, and promote with other "
        "images or options.",
    )
