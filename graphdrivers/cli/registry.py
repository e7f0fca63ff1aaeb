"""``graphdriver pull`` and ``push``: images from registries, and to them."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from graphdrivers import errors
from graphdrivers.api import registries
from graphdrivers.api.images import Image
from graphdrivers.api.registries import ConnectionOptions
from graphdrivers.cli import completing, importing, output, stores
from graphdrivers.cli.described import short
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.cli.surroundings import certificates, proxies_for
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.certificates import certificate_folder, certificate_places
from graphdrivers.images.registry.credentials import Credentials, auth_files
from graphdrivers.images.registry.pushing import PushedLayer, PushState
from graphdrivers.model import DiffID

_Command = TypeVar("_Command", bound=Callable[..., Any])

_TRANSPORT = "docker://"
"""What podman and skopeo write before a reference at a registry (containers-transports(5)); here it may be left out."""

_TOLD = {
    PushState.SENDING: "Pushing",
    PushState.SENT: "Pushed",
    PushState.MOUNTED: "Mounted from another repository",
    PushState.EXISTS: "Layer already exists",
}


def connection_options(command: _Command) -> _Command:
    """Let a command that talks to a registry take what says how."""
    adders = (
        click.option(
            "--creds",
            metavar="USER[:PASSWORD]",
            help="Who to log in as, in place of the auth files; without PASSWORD it is asked for.",
        ),
        click.option("--authfile", metavar="FILE", help="The only auth file to look at."),
        click.option(
            "--cert-dir",
            metavar="DIR",
            help="The registry's certificates and ours for it, in place of certs.d/HOST:PORT (containers-certs.d(5)).",
        ),
        click.option(
            "--tls-verify/--no-tls-verify",
            default=None,
            help="Insist on https and a good certificate, or on neither. By default on both but for the loopback.",
        ),
    )
    for add in reversed(adders):
        command = add(command)
    return command


def connection(
    settings: Settings,
    reference: Reference,
    *,
    creds: str | None = None,
    authfile: str | None = None,
    cert_dir: str | None = None,
    tls_verify: bool | None = None,
) -> ConnectionOptions:
    """Say how to talk to the registry of a reference: what the options say, else the environment.

    Raises:
        click.UsageError: a password is missing, and nobody is there to ask.
    """
    variables = settings.registry
    files = auth_files(variables) if authfile is None else (authfile,)
    user, password = ("", "") if creds is None else _login(reference.host, creds)
    return ConnectionOptions(
        credentials=Credentials(user, password, files),
        insecure=None if tls_verify is None else not tls_verify,
        ca_file=certificates(variables),
        cert_dir=certificate_folder(reference.host, certificate_places(variables)) if cert_dir is None else cert_dir,
        proxies=proxies_for(reference.host, variables),
    )


def _login(host: str, creds: str) -> tuple[str, str]:
    user, colon, password = creds.partition(":")
    if not user:
        raise click.UsageError("--creds needs a user: USER or USER:PASSWORD")
    if colon:
        return user, password
    if not sys.stdin.isatty():
        raise click.UsageError(f"--creds {user} has no password, and there is no terminal to ask for it on")
    return user, str(click.prompt(f"Password of {user} at {host}", hide_input=True, err=True))


@click.command(epilog="Example: graphdriver pull debian:12")
@click.argument("reference", metavar="REF")
@click.option("--platform", metavar="OS/ARCH", help="Which one of several; this machine's by default.")
@connection_options
@importing.jobs_option
@stores.durability_option
@global_options
@click.pass_obj
def pull(
    settings: Settings,
    reference: str,
    *,
    platform: str | None,
    creds: str | None,
    authfile: str | None,
    cert_dir: str | None,
    tls_verify: bool | None,
    jobs: int | None,
    durability: str,
) -> None:
    """Bring in the image REF from its registry; print its ID.

    REF is NAME[:TAG][@DIGEST]; without a host it means the Docker Hub. Layers go
    straight into the store, only those that it lacks. Logins come from the
    files that 'podman login', 'skopeo login' and 'docker login' write.
    """
    wanted = Reference.parse(reference.removeprefix(_TRANSPORT))
    how = connection(settings, wanted, creds=creds, authfile=authfile, cert_dir=cert_dir, tls_verify=tls_verify)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(stores.opened(settings, durability=durability))
        output.message(settings, f"{wanted.digest or wanted.tag}: Pulling from {wanted.repository}")
        opened = stack.enter_context(registries.opened(wanted, platform, **how))
        names = registries.pulled_names(wanted)
        importing.bring(settings, store, opened, names, fresh="Downloaded newer image for", jobs=jobs, asked=wanted)


@click.command(epilog="Example: graphdriver push debian:12 registry.example.org/base/debian:12")
@click.argument("image", shell_complete=completing.images)
@click.argument("reference", metavar="[REF]", required=False)
@click.option(
    "--compress",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="Of layers that are sent; those that are there or can be mounted stay as they came.",
)
@click.option("--jobs", metavar="N", type=click.IntRange(1, 32), default=3, show_default=True, help="Layers at a time.")
@connection_options
@global_options
@click.pass_obj
def push(
    settings: Settings,
    image: str,
    reference: str | None,
    *,
    compress: str,
    jobs: int,
    creds: str | None,
    authfile: str | None,
    cert_dir: str | None,
    tls_verify: bool | None,
) -> None:
    """Send IMAGE to a registry as REF, by default as what it is called here; print the digest.

    Only layers that the registry lacks are sent, and the manifest last: the name
    means there what it meant before, or all of the image.
    """
    with stores.opened(settings) as store:
        found = store.image(image)
        wanted = _destination(found, image, reference)
        how = connection(settings, wanted, creds=creds, authfile=authfile, cert_dir=cert_dir, tls_verify=tls_verify)
        output.message(settings, f"The push refers to repository [{wanted.repository}]")
        told = _Told(settings, found)
        with told.drawn():
            pushed = store.push(
                found,
                str(wanted),
                compression=compress,
                mount_from=_relatives(found, wanted),
                progress=told,
                jobs=jobs,
                **how,
            )
    output.message(
        settings, f"{wanted.tag or wanted.digest}: digest: {pushed.manifest_digest} size: {len(pushed.manifest)}"
    )
    if settings.json:
        layers = [_layer(layer) for layer in pushed.layers]
        output.document({"Reference": wanted.familiar, "Digest": pushed.manifest_digest, "Layers": layers})
    else:
        click.echo(pushed.manifest_digest)


def _layer(layer: PushedLayer) -> dict[str, object]:
    return {"DiffID": layer.diff_id, "Digest": layer.descriptor.digest, "Status": layer.state.value}


def _destination(image: Image, name: str, reference: str | None) -> Reference:
    """Say what to push an image as.

    Raises:
        click.UsageError: it was named by its ID, so nobody has said where to.
        InvalidReference: no reference.
    """
    if reference is not None:
        return Reference.parse(reference.removeprefix(_TRANSPORT))
    with contextlib.suppress(errors.InvalidReference):
        if str(Reference.parse(name)) in image.names:
            return Reference.parse(name)
    raise click.UsageError(f"{name!r} does not say where to: name the image, or add REF")


def _relatives(image: Image, wanted: Reference) -> list[str]:
    """Give the repositories of the same registry that the image is from by its other names."""
    found = [Reference.parse(name) for name in image.names]
    return sorted({one.path for one in found if one.host == wanted.host} - {wanted.path})


class _Told:
    """Tells a line for each layer that is there, and draws one bar for all meanwhile; called from several threads."""

    def __init__(self, settings: Settings, image: Image) -> None:
        self._settings = settings
        self._total = sum({layer.diff_id: layer.tar_size or 0 for layer in image.layers}.values())
        self._done: dict[DiffID, int] = {}
        self._report: output.Report | None = None

    @contextlib.contextmanager
    def drawn(self) -> Any:
        """Draw the bar for the time of a block."""
        with output.progress(self._settings, "Pushing", self._total) as self._report:
            yield

    def __call__(self, diff_id: DiffID, done: int, state: PushState) -> None:
        """Take over how far a layer is."""
        self._done[diff_id] = done
        if self._report is not None:
            self._report(sum(self._done.copy().values()))
        if state is not PushState.SENDING:
            output.message(self._settings, f"{short(diff_id)}: {_TOLD[state]}")
