"""The ``topstep-sync`` command: what a person at a terminal wants before writing any code."""

import sys

import click

from topstep_sync.errors import ConfigError, TopstepError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="topstep-sync", prog_name="topstep-sync")
def commands() -> None:
    """A synchronous client for the ProjectX Gateway API that TopstepX traders use."""


@commands.command()
@click.option("--seconds", type=click.FloatRange(min=3), default=15.0, show_default=True, help="How long it runs.")
@click.option("--plain", is_flag=True, help="Lines for a log, instead of a live display.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the simulated market.")
def demo(seconds: float, plain: bool, seed: int) -> None:
    """Log in to an embedded simulator, pull bars, trade, and survive a lost reply and a dropped hub."""
    try:
        from topstep_sync.demo import Demo, Screen
        from topstep_sync.screens import PlainScreen, RichScreen
    except (ConfigError, ModuleNotFoundError) as error:
        raise click.ClickException(f"the demo is not installed ({error}): pip install 'topstep-sync[demo]'") from None

    screen: Screen = PlainScreen() if plain or not sys.stdout.isatty() else RichScreen()
    try:
        with screen:
            passed = Demo(screen, seconds=seconds, seed=seed).run()
    except KeyboardInterrupt:
        click.echo("\nstopped; nothing is left running")
        sys.exit(130)
    sys.exit(0 if passed else 1)


@commands.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: tuple[str, ...]) -> None:
    """Run the simulated gateway (the same as python -m topstep_sync.simulator; --help shows its options)."""
    try:
        from topstep_sync.simulator.__main__ import main
    except ModuleNotFoundError as error:
        raise click.ClickException(f"the simulator needs {error.name}: pip install 'topstep-sync[simulator]'") from None
    main(list(arguments))


@commands.command()
def doctor() -> None:
    """Check settings, name, route, TLS, clock, login and both hubs of the gateway that TOPSTEP_* names."""
    from topstep_sync.session import Session

    try:
        with Session.from_env() as session:
            report = session.doctor()
    except TopstepError as error:
        raise click.ClickException(str(error)) from None
    click.echo(str(report))
    sys.exit(0 if report else 1)
