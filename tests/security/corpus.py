"""The whole corpus of hostile layers."""

import corpus_hardlinks
import corpus_headers
import corpus_metadata
import corpus_names
import corpus_symlinks
import corpus_whiteouts
from cases import Case

GROUPS = {
    "names": corpus_names.cases,
    "symlinks": corpus_symlinks.cases,
    "hardlinks": corpus_hardlinks.cases,
    "whiteouts": corpus_whiteouts.cases,
    "metadata": corpus_metadata.cases,
    "headers": corpus_headers.cases,
}


def all_cases() -> dict[str, Case]:
    """Give every case by its id, ``GROUP: NAME``."""
    found = {f"{group}: {case.name}": case for group, cases in GROUPS.items() for case in cases()}
    count = sum(len(cases()) for cases in GROUPS.values())
    if len(found) != count:
        raise ValueError("two cases of one group share a name")
    return found
