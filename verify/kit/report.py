"""A run as text for terminals, as JSON, as JUnit XML and as Markdown.

All four show the same counts: how many cases were listed, how many ran, and what became of each.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.etree import ElementTree

from refldnq.verify.kit.contract import OPERATIONS
from refldnq.verify.kit.diagnose import Explanation
from refldnq.verify.kit.faults import BY_ID
from refldnq.verify.kit.runner import STATES, KitRun, Outcome

SHOWN = ("FAIL", "blocked", "unanswered", "unexpected pass")
"""States whose cases are shown one by one."""


def summary(run: KitRun) -> str:
    """The line of counts.

    Examples
    --------
    >>> from refldnq.verify.kit.reference import Reference
    >>> empty = KitRun(info=Reference().info(), outcomes=(), explanations={}, handshake=None, seconds=0.0)
    >>> summary(empty)
    'SUMMARY listed 0 | run 0'
    """
    counts = [f"{state} {run.count(state)}" for state in STATES if run.count(state)]
    if run.licensed:
        counts.append(f"licensed branches {run.licensed}")
    return " | ".join([f"SUMMARY listed {len(run.outcomes)}", f"run {run.ran}", *counts])


def to_text(run: KitRun, *, most_cases: int = 5) -> str:
    """The report for a terminal.

    Parameters
    ----------
    run : KitRun
        What was found.
    most_cases : int, optional
        Most failing cases shown of each operation; the others are counted.

    Returns
    -------
    str
        Lines, the counts last.
    """
    info = run.info
    lines = [f"{info.name} {info.version}, {info.dtype}"]
    if not run.echoed:
        lines.append("no handshake: recorded answers")
    if run.handshake:
        lines.append(f"FAIL handshake: {run.handshake}")
    for stage, op in enumerate(OPERATIONS, 1):
        shown = [one for one in run.outcomes if one.case.op == op and one.state in SHOWN]
        for outcome in shown[:most_cases]:
            lines.append(f"{outcome.state} {outcome.case.id}   stage {stage} of {len(OPERATIONS)}, {op}")
            lines += [f"  {message}" for message in outcome.messages[:3]]
            lines += [f"  {name}: {said}" for name, said in outcome.verdicts.items()]
            lines.append(f"  repro: refldnq kit show {outcome.case.id}")
        if len(shown) > most_cases:
            lines.append(f"  and {len(shown) - most_cases} more cases of {op}")
        if op in run.explanations:
            lines += cause(run.explanations[op])
    lines += [f"UNKNOWN {id_}: answers to a question that the kit does not ask" for id_ in run.unknown]
    if not run.ran:
        lines.append("NOTHING WAS RUN: no step of these cases was declared or answered")
    lines += trajectories(run)
    # A candidate's own words stay in their line: they must not look like the kit's, nor move the cursor.
    return "\n".join([*(_one_line(line) for line in lines), summary(run)])


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def trajectories(run: KitRun) -> list[str]:
    """One line that counts the three verdicts on trajectories, or none.

    Examples
    --------
    >>> from refldnq.verify.kit.cases import all_cases
    >>> from refldnq.verify.kit.reference import Reference
    >>> from refldnq.verify.kit.runner import run
    >>> mine = [case for case in all_cases() if case.op == "admm" and case.error is None][:2]
    >>> trajectories(run(Reference(), mine))
    ['TRAJECTORIES 2 | certificate pass 2 | teacher-forced pass 2 | free run the expected codes 2']
    """
    found = [one.verdicts for one in run.outcomes if one.verdicts]
    if not found:
        return []
    parts = [f"TRAJECTORIES {len(found)}"]
    for name in ("certificate", "teacher-forced", "free run"):
        words = Counter(one[name].partition(":")[0] for one in found if name in one)
        parts += [f"{name} {word} {count}" for word, count in sorted(words.items())]
    return [" | ".join(parts)]


def cause(explanation: Explanation) -> list[str]:
    """What an explanation says, line by line.

    Examples
    --------
    >>> cause(Explanation(op="hessian", candidates=(("h-sum",),), covered=2, failing=2))[0]
    ' LIKELY CAUSE in hessian (replay matches 2 of 2 failing cases to 0e+00): h-sum'
    """
    if not explanation.candidates:
        return [f" CAUSE in {explanation.op}: {explanation.text}"]
    sets = " or ".join(" + ".join(one) for one in explanation.candidates)
    likely = explanation.covered == explanation.failing
    lines = [
        f" {'LIKELY' if likely else 'POSSIBLE'} CAUSE in {explanation.op} (replay matches "
        f"{'' if likely else 'only '}{explanation.covered} of {explanation.failing} "
        f"failing cases to {explanation.distance:.0e}): {sets}"
    ]
    if not likely:
        lines.append("  nothing in the catalogue matches all failing cases")
    if explanation.base:
        lines.append(f"  on top of {', '.join(explanation.base)} of earlier steps")
    if len(explanation.candidates) > 1:
        lines.append("  the cases cannot tell these apart")
    for id_ in dict.fromkeys(id_ for one in explanation.candidates for id_ in one):
        lines.append(f"  {id_}: {BY_ID[id_].title}. {BY_ID[id_].explanation}")
    if explanation.excluded:
        more = ", ..." if len(explanation.excluded) > 4 else ""
        lines.append(f"  not explained by: {', '.join(explanation.excluded[:4])}{more}")
    return lines


def to_json(run: KitRun) -> dict[str, Any]:
    """The report as JSON-ready values."""
    info = run.info
    return {
        "schema": "refldnq-kit-report/1",
        "implementation": {
            "name": info.name,
            "version": info.version,
            "dtype": info.dtype,
            "capabilities": sorted(info.capabilities),
            "conventions": info.conventions.to_json(),
        },
        "handshake": run.handshake,
        "exit_code": run.exit_code,
        "counts": {"listed": len(run.outcomes), "run": run.ran, "licensed": run.licensed}
        | {state: run.count(state) for state in STATES},
        "seconds": round(run.seconds, 3),
        "unknown": list(run.unknown),
        "cases": [
            {"id": one.case.id, "op": one.case.op, "state": one.state, "messages": list(one.messages)}
            | ({"verdicts": dict(one.verdicts)} if one.verdicts else {})
            for one in run.outcomes
        ],
        "explanations": {
            op: {
                "candidates": [list(one) for one in found.candidates],
                "earlier": list(found.base),
                "covered": found.covered,
                "failing": found.failing,
                "text": found.text,
            }
            for op, found in run.explanations.items()
        },
    }


def to_junit(run: KitRun) -> str:
    """The report as JUnit XML: what was not run or is expected to fail is skipped, with the reason."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"refldnq kit: {run.info.name}",
        tests=str(len(run.outcomes) + len(run.unknown) + bool(run.handshake)),
        failures=str(run.count("FAIL", "blocked", "unexpected pass") + bool(run.handshake)),
        errors=str(run.count("unanswered") + len(run.unknown)),
        skipped=str(run.count("xfail", "inapplicable", "not implemented")),
        time=f"{run.seconds:.3f}",
    )
    for outcome in run.outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"refldnq.kit.{outcome.case.op}", name=outcome.case.id
        )
        element = _ELEMENTS.get(outcome.state)
        if element is not None:
            message = outcome.messages[0] if outcome.messages else outcome.state
            child = ElementTree.SubElement(case, element, message=_clean(message))
            child.text = _clean("\n".join(_lines(run, outcome)))
    for id_ in run.unknown:
        case = ElementTree.SubElement(suite, "testcase", classname="refldnq.kit.unknown", name=_clean(id_))
        ElementTree.SubElement(case, "error", message="answers to a question that the kit does not ask")
    if run.handshake:
        case = ElementTree.SubElement(suite, "testcase", classname="refldnq.kit", name="handshake")
        ElementTree.SubElement(case, "failure", message=_clean(run.handshake))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


_ELEMENTS = {
    "FAIL": "failure",
    "blocked": "failure",
    "unexpected pass": "failure",
    "unanswered": "error",
    "xfail": "skipped",
    "inapplicable": "skipped",
    "not implemented": "skipped",
}


def _lines(run: KitRun, outcome: Outcome) -> list[str]:
    found = run.explanations.get(outcome.case.op)
    explained = cause(found) if found is not None and outcome.state == "FAIL" else []
    return [outcome.state, *outcome.messages, *explained]


def _clean(text: str) -> str:
    # XML has no control characters.
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def to_markdown(run: KitRun) -> str:
    """The report as Markdown: counts by operation, then causes."""
    header = ["operation", *STATES]
    lines = [
        f"# {run.info.name} {run.info.version} ({run.info.dtype})",
        "",
        summary(run),
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    for op in OPERATIONS:
        states = [one.state for one in run.outcomes if one.case.op == op]
        if states:
            lines.append("| " + " | ".join([op, *(str(states.count(state)) for state in STATES)]) + " |")
    if run.handshake:
        lines += ["", f"Handshake: {run.handshake}"]
    lines += [line for one in trajectories(run) for line in ("", one)]
    lines += [line for id_ in run.unknown for line in ("", f"Unknown: `{id_}`")]
    for op, found in run.explanations.items():
        lines += ["", f"## {op}", "", *(f"- {line.strip()}" for line in cause(found))]
    shown = [one for one in run.outcomes if one.state in SHOWN]
    if shown:
        lines += ["", "## Cases", ""]
        lines += [f"- {one.state} `{one.case.id}`: {'; '.join(one.messages[:2])}" for one in shown]
    return "\n".join(lines) + "\n"
