"""Lists the packages in a directory, with their versions and licences:  bundled.py SITE_PACKAGES"""

from __future__ import annotations

import sys
from email.message import Message
from importlib.metadata import Distribution, distributions
from typing import cast


def licence(about: Message) -> str:
    """As the package says it: an SPDX expression, else classifiers, else free text of which only a line is a name."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classified = [
        value.rpartition(" :: ")[2] for value in about.get_all("Classifier", []) if value.startswith("License :: ")
    ]
    return ", ".join(classified) or str(about.get("License", "unknown")).splitlines()[0]


def line(package: Distribution) -> str:
    """Its name, version and licence."""
    about = cast(Message, package.metadata)
    return f"{about['Name']} {package.version}: {licence(about)}"


if __name__ == "__main__":
    print("\n".join(sorted(map(line, distributions(path=[sys.argv[1]])), key=str.lower)))
