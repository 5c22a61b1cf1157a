"""The two policies on a real S3 server, which judges resources and conditions."""

from __future__ import annotations

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider

import toolkit.storage
from tests.support.launches import ID, IDENTITY, OTHER_ID
from toolkit.cloud.aws.policy import Policy, node_policy, person_policy
from toolkit.errors import JobError
from toolkit.profiles import S3Settings
from toolkit.storage import ObjectNotFound, Storage

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def admin(stack):
    address = stack.s3_endpoint.removeprefix("http://")
    access, secret = stack.access_key_id, stack.secret_access_key
    return MinioAdmin(endpoint=address, credentials=StaticProvider(access, secret), secure=False)


@pytest.fixture
def acting(storage, admin):
    """Return a function that gives the store as one sees it who has a policy."""
    made = []

    def act(document: Policy) -> Storage:
        name = f"tests-{len(made)}-{ID}"
        of_s3 = [
            each.to_dict()
            for each in document.statements
            if all(action.startswith("s3:") for action in each.actions)
        ]
        admin.policy_add(name, policy={"Version": "2012-10-17", "Statement": of_s3})
        admin.user_add(name, "secret-of-the-tests")
        admin.policy_set(name, user=name)
        made.append(name)
        settings = storage.settings.model_copy(
            update={"access_key_id": name, "secret_access_key": "secret-of-the-tests"}
        )
        return Storage(S3Settings.model_validate(settings.model_dump()))

    yield act
    for name in made:
        admin.user_remove(name)
        admin.policy_remove(name)


KEYS = (
    "images/fruits/Apple/1.jpg",
    "models/efficientnet.pth",
    "models/prepared/key/model.json",
    "runs/20261125/features/part-0",
    "toolkit/bundles/sha/wheel.whl",
    f"toolkit/promotions/{ID}/job.json",
    f"toolkit/promotions/{OTHER_ID}/job.json",
    "toolkit/promotions/preflight-probe",
    "private/letter.txt",
)
NODE_MAY = {
    "read": {0, 1, 2, 3, 4, 5},
    "write": {2, 3, 5},
    "delete": {3},
    "list": {0, 1, 2, 3, 4, 5},
}
PERSON_MAY = {
    "read": {0, 1, 2, 3, 4, 5, 6, 7},
    "write": {0, 4, 5, 6, 7},
    "delete": {5, 6, 7},
    "list": {0, 1, 2, 3, 4, 5, 6, 7},
}


@pytest.fixture
def objects(storage):
    for key in KEYS:
        storage.write(storage.location(key), b"content")
    yield storage
    for key in KEYS:
        storage.delete_all(storage.location(key))


@pytest.mark.parametrize(
    ("document", "may"), [(node_policy, NODE_MAY), (person_policy, PERSON_MAY)]
)
def test_objects_are_open_only_as_far_as_needed(objects, acting, document, may):
    promotion = {"promotion": ID} if document is node_policy else {}
    bucket = objects.settings.bucket
    store = acting(document(IDENTITY, region=REGION, bucket=bucket, **promotion))
    for step in ("read", "write", "list", "delete"):
        allowed = {
            number
            for number, key in enumerate(KEYS)
            if is_allowed(lambda key=key, step=step: steps(store)[step](key))
        }
        assert allowed == may[step], step


def is_allowed(call) -> bool:
    try:
        call()
    except JobError as exc:
        # obstore says so of all it does with one object, and leaves it to the server otherwise.
        if "AccessDenied" not in str(exc.__cause__) and "denied" not in exc.message:
            raise
        return False
    return True


def steps(store: Storage) -> dict:
    """Return what can be done with a key."""
    import obstore

    def delete(key: str) -> None:
        location = store.location(key)
        with toolkit.storage._translated(location):
            obstore.delete(store._store(location.bucket), location.key)

    return {
        "read": lambda key: store.read(store.location(key)),
        "write": lambda key: store.write(store.location(key), b"new"),
        "list": lambda key: list(store.objects(store.location(key.rpartition("/")[0]))),
        "delete": delete,
    }


def test_node_is_told_what_is_not_there(objects, acting):
    bucket = objects.settings.bucket
    store = acting(node_policy(IDENTITY, region=REGION, bucket=bucket, promotion=ID))
    for folder in ("runs", "images", "toolkit/bundles", f"toolkit/promotions/{ID}"):
        assert not store.exists(store.location(folder, "not-there"))
        with pytest.raises(ObjectNotFound):
            store.read(store.location(folder, "not-there"))


@pytest.mark.parametrize(
    ("action", "step"),
    [
        ("s3:GetObject", "read"),
        ("s3:PutObject", "write"),
        ("s3:DeleteObject", "delete"),
        ("s3:ListBucket", "list"),
    ],
)
def test_node_needs_each_right(objects, acting, action, step):
    bucket = objects.settings.bucket
    document = node_policy(IDENTITY, region=REGION, bucket=bucket, promotion=ID)
    assert is_allowed(lambda: steps(acting(document))[step](KEYS[3]))
    assert not is_allowed(lambda: steps(acting(document.without(action)))[step](KEYS[3]))
