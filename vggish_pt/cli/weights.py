"""``vggish-pt weights``: what can be loaded by name."""

from __future__ import annotations

from typing import Annotated

import typer

from vggish_pt.errors import WeightsError

app = typer.Typer(help="Weights that can be loaded by name: list, download, verify, path.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="A name from 'weights list', or a Hub repository user/name.")]
_Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")]


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Shows names, licences, sources, sizes, digests, and what is on this machine."""
    from dataclasses import asdict

    from vggish_pt.pretrained import cache, registry

    rows = []
    for entry in registry.entries().values():
        here = entry.folder is not None or cache.is_cached(entry)
        folder = registry.weights_root() / entry.folder if entry.folder else cache.location(entry)
        kept = {"embedded": entry.folder is not None, "available": here, "path": str(folder)}
        rows.append({**asdict(entry), "digest": entry.digest, **kept})
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = "ships with the package" if row["embedded"] else "downloaded" if row["available"] else "not downloaded"
        typer.echo(f"{row['name']}  ({where})")
        typer.echo(f"  licence  {row['license']}")
        typer.echo(f"  size     {row['megabytes']:g} MB")
        typer.echo(f"  digest   {row['digest'] or 'none'}")
        typer.echo(f"  source   {row['source']}")
        typer.echo(f"  folder   {row['path']}")


@app.command()
def download(name: _Name, revision: _Revision = None) -> None:
    """Downloads weights unless they are here already, and prints their folder."""
    from vggish_pt.pretrained import registry

    typer.echo(registry.resolve(name, revision=revision))


@app.command()
def path(name: _Name, revision: _Revision = None) -> None:
    """Prints the folder of weights that are on this machine; never uses the network."""
    from vggish_pt.pretrained import registry

    typer.echo(registry.resolve(name, revision=revision, local_files_only=True))


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A name from 'weights list'; all on this machine if left out.")
    ] = None,
) -> None:
    """Checks weights on this machine: files against their digests, output against known numbers."""
    from vggish_pt.pretrained import cache, registry

    known = registry.entries()
    if name is not None and name not in known:
        raise WeightsError(f"{name!r} is not in the registry; names are {', '.join(map(repr, known))}")
    failed = []
    for entry in [known[name]] if name else known.values():
        if name is None and not entry.folder and not cache.is_cached(entry):
            typer.echo(f"{entry.name}: not downloaded")
            continue
        folder = registry.resolve(entry.name, local_files_only=True)
        wrong = cache.differences(folder, sha256=entry.sha256, smoke=entry.smoke)
        typer.echo(f"{entry.name}: {'; '.join(wrong) or 'as it should be'}")
        if wrong:
            failed.append(folder)
    if failed:
        raise WeightsError(f"damaged: {', '.join(map(str, failed))}; remove what was downloaded, and download it again")
