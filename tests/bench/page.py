"""docs/performance.md: the results of a run take the place of those before, between two marks."""

from __future__ import annotations

from tests.bench.measures import MEASURES
from tests.bench.report import Results, table

BEGIN, END = "<!-- results: make bench ARGS='--page docs/performance.md' -->", "<!-- end of the results -->"


class NoPlace(Exception):
    """The page has no marks between which results go."""


def section(results: Results) -> str:
    """The machine, who was measured, which goals are reached and missed, and the table."""
    about = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [
        f"{about['when'][:10]}: {about['cores']} cores of {about['cpu']}, {about['memory_gib']:g} GiB, "
        f"Linux {about['kernel']}, Python {about['python']}; load average {about['load_average'][0]:g} before; "
        f"{results.seconds:.0f} seconds. {versions}.",
        "",
        goals(results),
        "",
        table(results),
    ]
    return "\n".join(lines)


def goals(results: Results) -> str:
    """How many of them are reached, and what is missed or can't be told."""
    verdicts = [(measure.what, verdict) for measure in MEASURES for verdict in results.verdicts(measure)]
    text = f"{sum(verdict.reached is True for _, verdict in verdicts)} of {len(verdicts)} goals are reached."
    for reached, word in ((False, "Missed"), (None, "Not to be told")):
        found = [f"{what}: {verdict.text}" for what, verdict in verdicts if verdict.reached is reached]
        text += f" {word}: {'; '.join(found)}." if found else ""
    return text


def placed(page: str, results: str) -> str:
    """The page with these results. Raises NoPlace."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"cannot put results into the page: it has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"
