"""`sbe check`: does the remote do what every remote does."""

from __future__ import annotations

import dataclasses

import click

from sbe.cli import exit_codes
from sbe.cli.session import Session, common_options

__all__ = ["check"]


@click.command()
@click.option(
    "-W",
    "--timeout",
    type=click.FloatRange(min=0.1, max=10_000),
    default=60.0,
    show_default=True,
    help="Seconds that one test may take.",
)
@common_options
@click.pass_obj
def check(session: Session, timeout: float) -> int:
    """Run the conformance suite against the remote.

    It takes from seconds to some minutes, and suspends the remote for moments if that can be done.
    Tests whose service or memory the remote has not are skipped. The last line begins with PASS or
    FAIL.
    """
    from sbe.testing.check import examine  # no other command pays for it

    screen = session.screen()
    verdict = examine(session.uri, timeout=timeout)
    screen.result(verdict.ok, **dataclasses.asdict(verdict))
    for line in verdict.details:
        screen.line(line)
    screen.verdict(verdict.ok, verdict.summary)
    return exit_codes.OK if verdict.ok else exit_codes.FAILED
