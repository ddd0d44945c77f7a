"""``vggish-pt weights``: list, download, locate and verify weights that can be loaded by name."""

from __future__ import annotations

from typing import Annotated

import typer

from vggish_pt.errors import WeightsError

app = typer.Typer(help="Weights that can be loaded by name: list, download, verify, path.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="Name from 'weights list', or a Hub repository user/name.")]
_Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")]


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print names, licences, sources, sizes and digests, and which weights are on this machine."""
    from dataclasses import asdict

    from vggish_pt.pretrained import cache, registry

    rows = []
    for entry in registry.entries().values():
        embedded = entry.folder is not None
        folder = registry.weights_root() / entry.folder if entry.folder else cache.location(entry)
        status = {"embedded": embedded, "available": embedded or cache.is_cached(entry), "path": str(folder)}
        rows.append({**asdict(entry), "digest": entry.digest, **status})
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
def download(
    name: _Name,
    revision: _Revision = None,
    mirror_sha256: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEX",
            help="Full SHA-256 of a mirror's file whose digest the registry lacks; repeat it for each such file.",
        ),
    ] = None,
) -> None:
    """Download weights unless they are on this machine, and print their folder."""
    from vggish_pt.pretrained import registry

    typer.echo(registry.resolve(name, revision=revision, mirror_sha256=mirror_sha256 or ()))


@app.command()
def path(name: _Name, revision: _Revision = None) -> None:
    """Print the folder of weights that are on this machine; never use the network."""
    from vggish_pt.pretrained import registry

    typer.echo(registry.resolve(name, revision=revision, local_files_only=True))


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="Name from 'weights list'; default: all that are on this machine.")
    ] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Print the registry's lines that pin downloaded weights, to commit them.")
    ] = False,
) -> None:
    """Compare weights on this machine with the registry: digests, sources and known numbers."""
    from vggish_pt.pretrained import cache, registry
    from vggish_pt.pretrained import verify as verification

    known = registry.entries()
    if name is not None and name not in known:
        raise WeightsError(f"{name!r} is not in the registry; names are {', '.join(map(repr, known))}")
    damaged = []
    for entry in [known[name]] if name else known.values():
        if name is None and not entry.folder and not cache.is_cached(entry):
            typer.echo(f"{entry.name}: not downloaded", err=pin)
            continue
        folder = registry.resolve(entry.name, local_files_only=True)
        wrong = verification.differences(folder, entry)
        if wrong:
            damaged.append(folder)
        unknown = "unchanged since conversion; the registry has no digest of the converted weights"
        typer.echo(f"{entry.name}: {'; '.join(wrong) or ('as in the registry' if entry.sha256 else unknown)}", err=pin)
        if pin and not wrong and not entry.folder:
            typer.echo(verification.registry_lines(folder, entry))
    if damaged:
        raise WeightsError(
            f"damaged: {', '.join(map(str, damaged))}; remove what was downloaded, and download it again"
        )
