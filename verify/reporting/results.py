"""Examining claims, in this process or in several, and what is kept of it."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from refldnq.verify.claims import find
from refldnq.verify.claims.base import Claim, Finding

THREADS = "REFLDNQ_NUM_THREADS"
"""Environment variable: threads of the compiled loops."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run found about a claim; unlike the claim itself it can be sent to another process.

    Parameters
    ----------
    id : str
        The claim.
    findings : tuple of Finding
        One a check, in their order.
    seconds : tuple of float
        Time of each check.
    """

    id: str
    findings: tuple[Finding, ...]
    seconds: tuple[float, ...]

    @property
    def ok(self) -> bool:
        """Whether no check contradicts the verdict."""
        return all(finding.ok for finding in self.findings)

    @property
    def certified(self) -> bool:
        """Whether nothing was left uncertified for want of python-flint."""
        return all(finding.certified for finding in self.findings)

    @property
    def established(self) -> bool:
        """Whether the verdict was established, and certified, in this run."""
        return self.ok and self.certified


def run_checks(claim: Claim) -> Result:
    """Run all checks of a claim; a check that raises has failed, and the others still run.

    Parameters
    ----------
    claim : Claim
        The claim.

    Returns
    -------
    Result
        A check that could not run because python-flint is missing is reported as uncertified.
    """
    findings, seconds = [], []
    for check in claim.checks:
        began = time.perf_counter()
        try:
            finding = check.run(claim)
        except Exception as error:  # a broken check must not keep the others from being seen
            text = f"could not run: {type(error).__name__}: {error}"
            finding = Finding(ok=False, text=text, certified=not isinstance(error, ImportError))
        findings.append(finding)
        seconds.append(time.perf_counter() - began)
    return Result(id=claim.id, findings=tuple(findings), seconds=tuple(seconds))


def examine_all(
    claims: Sequence[Claim], *, jobs: int = 1, on_done: Callable[[Result], None] | None = None
) -> tuple[Result, ...]:
    """Examine claims.

    Parameters
    ----------
    claims : sequence of Claim
        Which; with several processes they must be registered, as the processes look them up by name.
    jobs : int, optional
        Number of processes; 1 means this one. The findings do not depend on it, times apart.
    on_done : callable, optional
        Called with every result as it comes.

    Returns
    -------
    tuple of Result
        In the order of `claims`.
    """
    tell = on_done or (lambda result: None)
    found: dict[str, Result] = {}
    if jobs == 1 or len(claims) <= 1:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            for claim in claims:
                found[claim.id] = run_checks(claim)
                tell(found[claim.id])
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(claims)), context, _prepare) as pool:
            waiting = [pool.submit(_examine_named, claim.id) for claim in claims]
            try:
                for future in as_completed(waiting):
                    result = future.result()
                    found[result.id] = result
                    tell(result)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return tuple(found[claim.id] for claim in claims)


def _prepare() -> None:
    # A process a core: threads would only get in each other's way, and might change the last digits.
    from threadpoolctl import threadpool_limits

    os.environ[THREADS] = "1"
    threadpool_limits(1)


def _examine_named(name: str) -> Result:
    return run_checks(find(name))
