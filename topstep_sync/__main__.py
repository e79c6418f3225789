"""``python -m topstep_sync`` and the ``topstep-sync`` command."""

import sys


def main() -> None:
    """The command line has run; the process has exited with its code."""
    try:
        from topstep_sync.cli import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit(f"topstep-sync needs the package {error.name}: pip install 'topstep-sync[cli]'")
    commands()


if __name__ == "__main__":
    main()
