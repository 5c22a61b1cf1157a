"""A promotion, from its bundle to its last trace: the story that ``toolkit promote`` tells.

    bundle, rehearse, preflight, plan, (consent), upload, launch, follow, collect, tear down

Nothing is sent or started before the consent. From the launch on, whatever happens here, one of
three holds: the node's work goes on and can be followed again; nothing is left but files in the
bucket; or an error names what is left, and the command that removes it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from toolkit.cloud.aws.account import AwsAccount, CredentialsError
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.bundle import find_manifest, make_bundle, upload
from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.cloud.follow import NodeDiedError, follow, release_run
from toolkit.cloud.job import JOB, JobDescription
from toolkit.cloud.journal import PromotionRecord, load_record, save_record, unfinished
from toolkit.cloud.launch import AT_WORK, LaunchRequest, launch, node_state
from toolkit.cloud.node.user_data import NodeBoot, user_data
from toolkit.cloud.parity import HERE, keep_features, parity
from toolkit.cloud.plan import make_plan, measured_rate
from toolkit.cloud.preflight import preflight
from toolkit.cloud.rehearsal import rehearse
from toolkit.cloud.source import find_images
from toolkit.cloud.status import PromotionFolder
from toolkit.cloud.sweep import sweep
from toolkit.errors import JobError, RequestError
from toolkit.extraction import Stages, find_weights
from toolkit.folders import cache_folder, state_folder
from toolkit.images.sample import ImageSample
from toolkit.models import CALIBRATION_IMAGES, Calibration, prepare
from toolkit.pipeline import check_output
from toolkit.runs import Owner, RunFolder, new_run_id
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from toolkit.cloud.bundle import Bundle
    from toolkit.cloud.estimate import MeasuredRate
    from toolkit.cloud.plan import Plan
    from toolkit.cloud.preflight import Facts, Preflight
    from toolkit.cloud.rehearsal import Rehearsal, StandIn
    from toolkit.cloud.source import ImageSource
    from toolkit.cloud.status import Status
    from toolkit.cloud.sweep import Found
    from toolkit.compare import Comparison
    from toolkit.models import PreparedModel
    from toolkit.pipeline import RunRequest
    from toolkit.profiles import Profile
    from toolkit.progress import Progress
    from toolkit.runs import RunRecord

__all__ = ["Desk", "DetachedError", "Ending", "Here", "come_back", "promote", "resume"]

LastStep = Literal["rehearse", "plan", "tear down"]


class BundleMaker(Protocol):
    """Makes the bundle of a job in a folder: `toolkit.cloud.bundle.make_bundle`."""

    def __call__(self, folder: Path, job: JobDescription, *, profile: Profile) -> Bundle:
        """Make it."""


@dataclass(frozen=True)
class Here:
    """The machine that promotes, as far as that needs it.

    Parameters
    ----------
    storage
        The local store: it takes the rehearsal, and has the runs that were measured here. None: it
        does not run, and there is no rehearsal.
    cores
        Processor cores that the local runs had.
    stand_in
        Runs a boot script here as an instance would.
    make_bundle
        Makes the bundle.
    clock
        Measures how long AWS and the node take, and makes the pauses between two looks.
    """

    storage: Storage | None
    cores: int
    stand_in: StandIn | None = None
    make_bundle: BundleMaker = make_bundle
    clock: Clock = MACHINE_CLOCK

    def rate(self, model: PreparedModel) -> MeasuredRate | None:
        """Return how fast this machine was with a network; None if that is not known."""
        return measured_rate(self.storage, model, cores=self.cores) if self.storage else None


class Desk(Protocol):
    """Whoever promotes: is told, and asked."""

    @property
    def progress(self) -> Progress:
        """Is told of the stages, here and on the node."""

    def log_line(self, line: str) -> None:
        """Get a line of the node's log."""

    def rehearsed(self, rehearsal: Rehearsal) -> None:
        """Get what the rehearsal has made."""

    def checked(self, report: Preflight) -> None:
        """Get what the preflight has found."""

    def planned(self, plan: Plan, *, asks: bool) -> bool:
        """Get the plan, and say whether it may begin; without `asks` there is no question."""


class DetachedError(KeyboardInterrupt):
    """Whoever followed a promotion has gone (Ctrl-C); its node goes on.

    Parameters
    ----------
    promotion_id
        The promotion.
    """

    def __init__(self, promotion_id: str) -> None:
        super().__init__(f"Promotion {promotion_id} goes on without us")
        self.promotion_id = promotion_id


@dataclass(frozen=True)
class Ending:
    """How a promotion has ended; nothing of it is left in AWS but files in the bucket.

    Attributes
    ----------
    promotion_id
        The promotion.
    status
        The node's last word.
    record
        Of the run; None if it has not begun.
    parity
        How the node's features compare with the rehearsal's; None where one of them is missing.
    removed
        What the sweep has removed.
    files
        Folder on this machine with what was brought back: record and report.
    """

    promotion_id: str
    status: Status
    record: RunRecord | None
    parity: Comparison | None
    removed: tuple[Found, ...]
    files: Path

    @property
    def is_good(self) -> bool:
        """Whether the work is done, and agrees with the rehearsal where there was one."""
        return self.status.phase == "done" and (self.parity is None or self.parity.agree)


def promote(  # noqa: PLR0913 - what, where, and how far
    request: RunRequest,
    profile: Profile,
    *,
    here: Here,
    desk: Desk,
    rehearsing: bool = True,
    last: LastStep = "tear down",
    allow_cross_region: bool = False,
) -> Ending | None:
    """Promote a run to EC2, or go on with the same promotion that was interrupted.

    Parameters
    ----------
    request
        What a run is asked for. A folder of images is mirrored to the bucket.
    profile
        Whose bucket, and whose instances.
    here
        This machine.
    desk
        Is told, and asked for consent.
    rehearsing
        Whether there is a rehearsal.
    last
        The step after which it ends by itself.
    allow_cross_region
        Whether bucket and instances may be in different regions.

    Returns
    -------
    Ending or None
        None if it has ended before the consent, or without one.

    Raises
    ------
    RequestError
        It can't be done as it stands. Nothing was started.
    JobError
        It failed. Nothing is left, or the error names what is.
    DetachedError
        Ctrl-C while the node works.
    """
    storage = Storage(profile.s3)
    source = find_images(request.images, storage, limit=request.limit)
    with tempfile.TemporaryDirectory(prefix="promotion-", dir=_folder(cache_folder())) as scratch:
        with _stage(desk, "Bundle"):
            model = _model(request, source, bucket=here.storage or storage, own=storage)
            job = _describe(request, profile, model, source)
            bundle = here.make_bundle(Path(scratch) / "bundle", job, profile=profile)
        fingerprint = _fingerprint(bundle, job, profile, source)
        before: _Promotion | None = None
        has_looked = False
        if last == "tear down":
            # No credentials, no bucket: the preflight tells all that is wrong at once.
            with suppress(JobError, CredentialsError):
                before = _interrupted(storage, fingerprint, desk, here.clock)
                has_looked = True
        if before and before.is_served():
            return before.see_through()
        sample, rehearsal = before.sample() if before else (), None
        if rehearsing and not sample:
            if last != "rehearse" and not AwsAccount(profile.aws_region).has_credentials():
                # It raises: all that is wrong, before a rehearsal takes its minutes.
                _look(profile, desk, allow_cross_region=allow_cross_region)
            rehearsal = _rehearse(bundle, job, source, here=here, desk=desk)
            desk.rehearsed(rehearsal)
            sample = rehearsal.sample
        if last == "rehearse":
            return None

        job = replace(job, sample=sample)
        facts = _look(profile, desk, allow_cross_region=allow_cross_region)
        _check_job(job, source)
        if not has_looked:
            before = _interrupted(storage, fingerprint, desk, here.clock)
        account = AwsAccount(facts.region)
        plan = make_plan(
            account,
            before.id if before else new_run_id(),
            facts=facts,
            settings=profile.aws,
            source=source,
            model=model,
            model_bytes=bundle.manifest.size_of(job.model_folder),
            bundle_bytes=bundle.size,
            rate=here.rate(model),
        )
        if not desk.planned(plan, asks=last != "plan") or last == "plan":
            return None

        promotion = _Promotion(
            account,
            PromotionFolder(storage, plan.promotion),
            _record(plan, fingerprint=fingerprint, bundle=bundle.identity),
            desk,
            here.clock,
        )
        promotion.save()
        promotion.send(bundle, job, source, rehearsal=rehearsal, here=here)
    return promotion.carry_out(_launch_request(plan, job, bundle.identity))


def resume(  # noqa: PLR0913 - what, where, and what is to be other than before
    promotion_id: str,
    profile: Profile,
    *,
    here: Here,
    desk: Desk,
    changes: Mapping[str, object] | None = None,
    allow_cross_region: bool = False,
) -> Ending | None:
    """Let a new node go on with a promotion whose node has ended early.

    It is the same bundle and the same job; the features that are in the bucket stay.

    Parameters
    ----------
    promotion_id
        The promotion.
    profile, here, desk, allow_cross_region
        As for `promote`. But type and number of the nodes, and whether they are spot instances, are
        those of the promotion.
    changes
        Settings of the instances, by name, that are to be others than the promotion's.

    Raises
    ------
    RequestError
        There is no such promotion, its work is done, or its node is still there.
    JobError, DetachedError
        As for `promote`.
    """
    storage = Storage(profile.s3)
    folder = PromotionFolder(storage, promotion_id)
    before = load_record(folder)
    status = folder.status()
    if before.ended_at is None and before.owner and before.owner.is_alive_here():
        raise RequestError(
            f"Promotion {promotion_id} is being seen to by process {before.owner.pid}.",
            remedy="Wait for its end, or end that process first.",
        )
    if status is not None and status.phase == "done":
        raise RequestError(
            f"The work of promotion {promotion_id} is done: there is nothing to resume.",
            remedy=f"See its run with `toolkit report {status.run_id} --profile {profile.name}`.",
        )
    if node_state(AwsAccount(before.region), promotion_id) in AT_WORK:
        raise RequestError(
            f"The node of promotion {promotion_id} is still there.",
            remedy=f"Follow it with `toolkit promote --follow {promotion_id}`, or stop it with "
            f"`toolkit stop {promotion_id}`.",
        )
    kept = {name: getattr(before, name) for name in ("instance_type", "nodes", "spot")}
    aws = profile.aws.model_copy(update=kept | dict(changes or {}))
    profile = profile.model_copy(update={"aws": aws})
    job = JobDescription.from_json(storage.read(folder.file(JOB)), root=Path())
    job = replace(job, nodes=aws.nodes)
    facts = _look(profile, desk, allow_cross_region=allow_cross_region)
    account = AwsAccount(facts.region)
    plan = make_plan(
        account,
        promotion_id,
        facts=facts,
        settings=profile.aws,
        source=find_images(job.images, storage, limit=job.limit),
        model=job.model,
        model_bytes=find_manifest(before.bundle, storage).size_of(job.model_folder),
        bundle_bytes=0,
        rate=here.rate(job.model),
    )
    if not desk.planned(plan, asks=True):
        return None
    record = _record(plan, fingerprint=before.fingerprint, bundle=before.bundle)
    if before.region != facts.region:
        sweep(AwsAccount(before.region), promotion_id, say=desk.progress.say, clock=here.clock)
    promotion = _Promotion(account, folder, record, desk, here.clock)
    promotion.save()
    folder.write_job(job.to_json().encode())
    return promotion.carry_out(_launch_request(plan, job, before.bundle))


def come_back(
    promotion_id: str, profile: Profile, *, desk: Desk, clock: Clock = MACHINE_CLOCK
) -> Ending:
    """Follow a promotion again, from this machine or another one, to its end.

    Parameters
    ----------
    promotion_id
        The promotion.
    profile
        Whose bucket it is in.
    desk
        Is told.
    clock
        As of `Here`.

    Raises
    ------
    RequestError
        There is no such promotion, or it has no node.
    JobError, DetachedError
        As for `promote`.
    """
    folder = PromotionFolder(Storage(profile.s3), promotion_id)
    record = load_record(folder)
    account = AwsAccount(record.region)
    if folder.status() is None and node_state(account, promotion_id) is None:
        raise RequestError(
            f"Promotion {promotion_id} has no node, and none has said a word.",
            remedy=f"Start one with `toolkit promote --resume {promotion_id}`, or remove what is "
            f"there with `toolkit sweep {promotion_id}`.",
        )
    return _Promotion(account, folder, record, desk, clock).see_through()


@dataclass
class _Promotion:
    """A promotion that has its consent; its steps."""

    account: AwsAccount
    folder: PromotionFolder
    record: PromotionRecord
    desk: Desk
    clock: Clock

    @property
    def id(self) -> str:
        return self.folder.promotion_id

    @property
    def storage(self) -> Storage:
        return self.folder.storage

    def save(self) -> None:
        save_record(self.folder, self.record)

    # --- before there is a node ---

    def sample(self) -> tuple[str, ...]:
        """Return the images that have been rehearsed for it; none if it has not come so far."""
        try:
            job = JobDescription.from_json(self.storage.read(self.folder.file(JOB)), root=Path())
        except ObjectNotFound:
            return ()
        return job.sample

    def send(
        self,
        bundle: Bundle,
        job: JobDescription,
        source: ImageSource,
        *,
        rehearsal: Rehearsal | None,
        here: Here,
    ) -> None:
        """Bring everything that the node needs to the bucket, as far as it is not there."""
        progress = self.desk.progress
        with _stage(self.desk, "Upload"):
            uploaded = upload(bundle, self.storage)
            mirrored = source.bring(on_progress=progress.advance_to)
            if rehearsal and here.storage:
                keep_features(
                    self.folder,
                    HERE,
                    storage=here.storage,
                    record=rehearsal.record,
                    sample=rehearsal.sample,
                )
            self.folder.write_job(job.to_json().encode())
        said = f"Bundle {bundle.identity[:12]}: {len(uploaded)} files uploaded"
        if mirrored:
            said += f"; images: {mirrored.uploaded} uploaded, {mirrored.unchanged} there already"
        progress.say(f"{said}.")

    # --- the node ---

    def is_served(self) -> bool:
        """Whether a node works on it, or has done its work."""
        if node_state(self.account, self.id) in AT_WORK:
            return True
        status = self.folder.status()
        return status is not None and status.phase == "done"

    def carry_out(self, request: LaunchRequest) -> Ending:
        """Start the node if there is none, and see it through."""
        if not self.is_served():
            try:
                self._clear_away()
                with _stage(self.desk, "Launch"):
                    launched = launch(self.account, request, say=self.desk.progress.say)
            except BaseException as exc:
                self._give_up(exc)
                raise
            with self._detaching():
                self.desk.progress.say(
                    f"{', '.join(launched.instance_ids)}: {launched.instance_type} in "
                    f"{launched.zone}" + (", there already." if launched.adopted else ".")
                )
        return self.see_through()

    def see_through(self) -> Ending:
        """Follow the node to its end, bring back what it has made, and remove the rest."""
        try:
            with self._detaching():
                if self.record.ended_at is None:
                    self._own(Owner.this_process())
                status = self._followed()
        except NodeDiedError as exc:
            self.tear_down("dead", error=exc.message)
            release_run(self.folder)
            raise
        try:
            files, run = self._collect(status)
            compared = parity(self.folder)
        finally:
            removed = self.tear_down(status.phase, error=status.error)
        if status.phase != "done":
            release_run(self.folder)
            resumed = f"`toolkit promote --resume {self.id}` lets another node go on from there."
            status = replace(status, remedy=status.remedy or resumed)
        return Ending(self.id, status, run, compared, tuple(removed), files)

    def tear_down(self, outcome: str, *, error: str | None = None) -> list[Found]:
        """Remove all that is left in AWS, prove it, and put down that the promotion is over."""
        try:
            with _stage(self.desk, "Tear-down"):
                removed = self._sweep()
        except BaseException:
            self.desk.progress.say(
                f"Something may be left: remove it with `toolkit sweep {self.id}`."
            )
            raise
        if self.record.ended_at is None:
            self.record = self.record.ended(outcome, error=error)
            self.save()
        return removed

    def _sweep(self) -> list[Found]:
        return sweep(self.account, self.id, say=self.desk.progress.say, clock=self.clock)

    @contextmanager
    def _detaching(self) -> Iterator[None]:
        """Leave the node at work when somebody interrupts us."""
        try:
            yield
        except KeyboardInterrupt as exc:
            with suppress(JobError, KeyboardInterrupt):  # a process that is gone owns nothing
                self._own(None)
            raise DetachedError(self.id) from exc

    def _own(self, owner: Owner | None) -> None:
        """Put down who sees to it."""
        self.record = replace(self.record, owner=owner)
        self.save()

    def _followed(self) -> Status:
        """Follow the node to its last word, or to what it had no time to say."""
        try:
            return follow(
                self.folder,
                progress=self.desk.progress,
                on_line=self.desk.log_line,
                instance_state=lambda: node_state(self.account, self.id),
                clock=self.clock,
            )
        except NodeDiedError as exc:
            self.desk.progress.say(exc.message)
            if (done := self._done_after_all()) is not None:
                return done
            raise

    def _clear_away(self) -> None:
        """Remove what a node has left that is gone, and let the next one go on from there."""
        status = self.folder.status()
        if status is not None or node_state(self.account, self.id) is not None:
            self.desk.progress.say("The node that was there has ended: what it has left is removed")
            self._sweep()
            release_run(self.folder)
        self.folder.begin_anew()

    def _done_after_all(self) -> Status | None:
        """Return the status of a node that died when its work was done, and only not said so."""
        with suppress(JobError):
            status = self.folder.status()
            if status is None or status.run_id is None:
                return None
            if RunFolder(self.storage, status.run_id).load().status == "done":
                self.desk.progress.say(f"But its run {status.run_id} is done.")
                return replace(status, phase="done")
        return None

    def _give_up(self, exc: BaseException) -> None:
        """Remove what an unfinished launch has made."""
        is_interrupted = isinstance(exc, KeyboardInterrupt)
        said = "Interrupted." if is_interrupted else str(exc) or type(exc).__name__
        self.desk.progress.say(f"{said}\nThe launch is not finished: what it has made is removed.")
        try:
            self.tear_down("not started", error=said)
        except BaseException as left:
            raise left from exc
        self.desk.progress.say(f"Nothing of promotion {self.id} is left in AWS but files.")

    def _collect(self, status: Status) -> tuple[Path, RunRecord | None]:
        """Bring back the record and the report."""
        files = _folder(state_folder() / "promotions" / self.id)
        if status.run_id is None:
            return files, None
        run = RunFolder(self.storage, status.run_id)
        record = run.load()
        (files / "run.json").write_text(record.to_json(), encoding="utf-8")
        if record.status == "done":
            self.storage.download(run.file("report.html"), files / "report.html")
        self.desk.progress.say(f"What came back of run {record.run_id} is in {files}.")
        return files, record


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _stage(desk: Desk, title: str) -> AbstractContextManager[None]:
    return Stages(desk.progress)(title, title)


def _model(
    request: RunRequest, source: ImageSource, *, bucket: Storage, own: Storage
) -> PreparedModel:
    """Convert the network here, or find it converted.

    Parameters
    ----------
    request
        Which network.
    source
        Images that int8 is calibrated on.
    bucket
        Where weights of a name may be: the local store, if it runs.
    own
        Where those of a URI are: the profile's.
    """
    store = own if "://" in request.weights else bucket
    weights = find_weights(request, store)
    calibration = source.sample(CALIBRATION_IMAGES)
    return prepare(
        request.spec,
        weights,
        engine=request.engine,
        precision=request.precision,
        input_size=request.input_size,
        calibration=Calibration(
            identity=calibration.fingerprint, images=ImageSample(source.read, calibration)
        ),
        cache=cache_folder(),
        bucket=store,
    )


def _describe(
    request: RunRequest, profile: Profile, model: PreparedModel, source: ImageSource
) -> JobDescription:
    return JobDescription.of(
        model,
        profile,
        images=source.uri,
        weights=request.weights,
        components=request.components,
        limit=request.limit,
        output=request.output,
    )


def _rehearse(
    bundle: Bundle, job: JobDescription, source: ImageSource, *, here: Here, desk: Desk
) -> Rehearsal:
    if here.storage is None or here.stand_in is None:
        raise RequestError(
            "There is no local stack to rehearse on.",
            remedy="Start it with `toolkit up`, or promote with --no-rehearse.",
        )
    return rehearse(
        bundle,
        job,
        source,
        storage=here.storage,
        stand_in=here.stand_in,
        progress=desk.progress,
        on_line=desk.log_line,
        clock=here.clock,
    )


def _interrupted(storage: Storage, fingerprint: str, desk: Desk, clock: Clock) -> _Promotion | None:
    """Return the promotion of the same request that somebody was interrupted in; else None."""
    record = unfinished(storage, fingerprint)
    if record is None:
        return None
    desk.progress.say(
        f"Promotion {record.promotion_id} of {record.began_at} was interrupted: it goes on."
    )
    folder = PromotionFolder(storage, record.promotion_id)
    return _Promotion(AwsAccount(record.region), folder, record, desk, clock)


def _check_job(job: JobDescription, source: ImageSource) -> None:
    """Refuse what the node would do otherwise than a run here, or refuse when it is too late.

    Raises
    ------
    RequestError
        The bucket has images beside the folder's, which the node would take as well; or the output
        can't take the result.
    """
    if extra := source.extra():
        raise RequestError(
            f"{source.uri} holds {extra} images that are not in {source.folder}: the node would "
            "take them as well.",
            remedy="Delete them there, or give the folder another name; or promote what the bucket "
            f"holds: `toolkit promote {source.uri}`.",
        )
    if job.output:
        check_output(Location.parse(job.output), source.listing, source.storage)


def _look(profile: Profile, desk: Desk, *, allow_cross_region: bool) -> Facts:
    with _stage(desk, "Preflight"):
        report = preflight(profile, allow_cross_region=allow_cross_region)
    desk.checked(report)
    return report.require()


def _fingerprint(bundle: Bundle, job: JobDescription, profile: Profile, source: ImageSource) -> str:
    identity = [
        bundle.identity,
        json.loads(replace(job, sample=()).to_json()),
        profile.aws.model_dump(mode="json"),
        source.listing.fingerprint,
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _record(plan: Plan, *, fingerprint: str, bundle: str) -> PromotionRecord:
    return PromotionRecord(
        promotion_id=plan.promotion,
        owner=Owner.this_process(),
        fingerprint=fingerprint,
        bundle=bundle,
        region=plan.facts.region,
        instance_type=plan.settings.instance_type,
        nodes=plan.settings.nodes,
        spot=plan.settings.spot,
        dead_man_minutes=plan.dead_man_minutes,
    )


def _launch_request(plan: Plan, job: JobDescription, bundle: str) -> LaunchRequest:
    facts, settings = plan.facts, plan.settings
    boot = NodeBoot(
        bucket=facts.bucket,
        region=facts.bucket_region,
        promotion_id=plan.promotion,
        bundle=bundle,
        dead_man_minutes=plan.dead_man_minutes,
    )
    policy = node_policy(
        facts.identity,
        region=facts.region,
        bucket=facts.bucket,
        promotion=plan.promotion,
        reads=[Location.parse(job.images)],
        output=Location.parse(job.output) if job.output else None,
        has_secret=settings.nodes > 1,
    )
    return LaunchRequest(
        promotion=plan.promotion,
        owner=facts.identity.user,
        image=facts.image,
        zones=facts.zones,
        types=plan.types,
        user_data=user_data(boot),
        policy=policy,
        nodes=settings.nodes,
        spot=settings.spot,
        volume_gib=settings.volume_gib,
        existing=facts.existing,
    )
