"""What a promotion asks a node to do: ``job.json``, written here and read there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from toolkit.errors import JobError
from toolkit.profiles import AWS, Profile
from toolkit.storage import Location

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.models import PreparedModel

__all__ = ["JOB", "NODE_FOLDER", "JobDescription"]

JOB = "job.json"
"""The job description, beside the bundle's files and not among them."""

NODE_FOLDER = "/opt/fruits-toolkit"
"""Where a node unpacks a bundle."""


@dataclass(frozen=True, kw_only=True)
class JobDescription:
    """What a node is to run, and where: no credentials, no endpoint, no path of this machine.

    Parameters
    ----------
    profile
        Name of the profile, for the run's record.
    bucket, region
        Where images, models and runs are.
    driver_memory, executor_memory
        JVM heaps, in Spark's notation.
    images
        URI of the images.
    model
        The converted network, with its precision and input size. Its folder is one of this machine
        here, and one of the bundle in ``job.json``.
    weights
        What was asked for; a path becomes ``sha256:…`` in ``job.json``.
    components
        Share of the variance to explain (0 to 1, float) or number of components (int).
    limit
        At most so many images, evenly spaced over the listing; None for all.
    output
        URI to write ``result/`` to instead of the run's own folder.
    nodes
        How many nodes share the work; at least 1.
    sample
        Keys, below the images, of those that the rehearsal has seen: of these the node hands over
        what it has made, for comparison.

    Raises
    ------
    RequestError
        `images` or `output` is no URI of an object store.
    """

    profile: str
    bucket: str
    region: str
    driver_memory: str
    executor_memory: str
    images: str
    model: PreparedModel
    weights: str
    components: float | int = 0.95
    limit: int | None = None
    output: str | None = None
    nodes: int = 1
    sample: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for uri in (self.images, self.output):
            if uri is not None:
                Location.parse(uri)

    @classmethod
    def of(  # noqa: PLR0913 - all that a run is asked for
        cls,
        model: PreparedModel,
        profile: Profile,
        *,
        images: str,
        weights: str,
        components: float = 0.95,
        limit: int | None = None,
        output: str | None = None,
    ) -> JobDescription:
        """Describe a job with what a node needs of a profile."""
        return cls(
            profile=profile.name,
            bucket=profile.s3.bucket,
            region=profile.s3.region,
            driver_memory=profile.spark.driver_memory,
            executor_memory=profile.spark.executor_memory,
            images=images,
            model=model,
            weights=weights,
            components=components,
            limit=limit,
            output=output,
            nodes=profile.aws.nodes,
        )

    @property
    def model_folder(self) -> str:
        """Where a bundle holds the converted network, relative to its root."""
        return f"models/prepared/{self.model.key}"

    def node_profile(self) -> Profile:
        """Return the node's profile: Amazon S3, Spark inside the process, all cores.

        ``TOOLKIT_…`` variables of the node come first, as everywhere.
        """
        table = {
            "s3": {"endpoint": AWS, "bucket": self.bucket, "region": self.region},
            "spark": {
                "master": "local[*]",
                "driver_memory": self.driver_memory,
                "executor_memory": self.executor_memory,
            },
        }
        return Profile.model_validate({"name": self.profile, "table": table})

    def to_json(self) -> str:
        """Write the description for another machine, as one JSON document."""
        named = self.weights == "imagenet" or self.weights.startswith("random:")
        is_uri = self.weights.startswith(("s3://", "s3a://"))
        weights = self.weights if named or is_uri else f"sha256:{self.model.weights_sha256}"
        model = replace(self.model, folder=self.model_folder, weights_source=weights)
        fields = asdict(replace(self, model=model, weights=weights))
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, root: Path) -> JobDescription:
        """Read a description.

        Parameters
        ----------
        text
            Content of ``job.json``.
        root
            Folder of the unpacked bundle, in which the model's files are.

        Raises
        ------
        JobError
            It is no description of a job.
        """
        from toolkit.models import PreparedModel

        try:
            fields = json.loads(text)
            model = fields["model"]
            model |= {
                "folder": str(root / model["folder"]),
                "files": tuple(model["files"]),
                "input_size": tuple(model["input_size"]),
            }
            sample = tuple(fields["sample"])
            return cls(**(fields | {"model": PreparedModel(**model), "sample": sample}))
        except (KeyError, TypeError, ValueError) as exc:
            raise JobError(f"This is no description of a job: {exc!r}") from exc
