"""``toolkit images``: bring images into the bucket, see what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON, PROFILE

__all__ = ["app"]

app = typer.Typer(help="Images in the bucket.", no_args_is_help=True)


@app.command("import")
def import_images(
    folder: Annotated[str, typer.Argument(help="Folder of images, one folder a label.")],
    name: Annotated[
        str | None, typer.Option(help="Name in the bucket. Default: the folder's.")
    ] = None,
    profile: PROFILE = None,
    as_json: JSON = False,
) -> None:
    """Mirror a folder to images/NAME of the bucket, uploading only what changed."""
    import time

    from toolkit.cli.bars import make_progress
    from toolkit.cli.place import local_path, storage_of
    from toolkit.images.listing import mirror_folder

    storage = storage_of(profile)
    path = local_path(folder)
    target = storage.location("images", name or path.name)
    progress = make_progress()
    progress.begin(f"{path} -> {target.uri}")
    begin = time.perf_counter()
    try:
        listing, mirrored = mirror_folder(
            path, storage, location=target, on_progress=progress.advance_to
        )
    finally:
        progress.end(time.perf_counter() - begin)
    facts = {
        "uri": target.uri,
        "images": len(listing),
        "uploaded": mirrored.uploaded,
        "unchanged": mirrored.unchanged,
        "extra": mirrored.extra,
        "skipped": listing.skipped,
    }
    if as_json:
        output.print_json(facts)
    else:
        output.print_table(("", ""), facts.items())


@app.command("list")
def list_images(
    location: Annotated[
        str | None, typer.Argument(help="s3:// URI. Default: images/ of the bucket.")
    ] = None,
    profile: PROFILE = None,
    as_json: JSON = False,
) -> None:
    """Count the images below a prefix by label."""
    from collections import Counter

    from toolkit.cli.place import storage_of
    from toolkit.images.listing import list_images as list_below
    from toolkit.storage import Location

    storage = storage_of(profile)
    prefix = Location.parse(location) if location else storage.location("images")
    labels = Counter(image.label for image in list_below(storage, prefix))
    if as_json:
        output.print_json({"uri": prefix.uri, "images": labels.total(), "labels": dict(labels)})
    else:
        output.print_table(("label", "images"), [*sorted(labels.items()), ("", labels.total())])
