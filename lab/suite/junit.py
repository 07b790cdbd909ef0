# SPDX-License-Identifier: MIT
"""What pytest's JUnit XML needs beyond pytest's reports: the end of an entry that has no teardown,
entries of tests that nobody reported, and a suite for each kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from _pytest.junitxml import LogXML, xml_key

PROPERTY = "kernel"
_COUNTED = {"errors": "error", "failures": "failure", "skipped": "skipped"}


def writer(config: pytest.Config) -> LogXML | None:
    """What collects the entries of the file, if there is to be one."""
    return config.stash.get(xml_key, None)


def end_entry(config: pytest.Config, report: pytest.TestReport) -> None:
    """End the entry of a test whose last report this is. pytest ends it with the teardown; without
    one the entry would have neither properties nor what was printed (junit_logging), and the next
    run of the test would be added to it."""
    xml = writer(config)
    if xml is None or report.when == "teardown":
        return
    xml.open_reports = [one for one in xml.open_reports if one is not report]
    if xml.log_passing_tests:  # otherwise pytest has written it with the call
        xml.node_reporter(report).write_captured_output(report)
    xml.finalize(report)


def file_of(config: pytest.Config) -> Path | None:
    """Where the XML goes, if there is any."""
    xml = writer(config)
    return None if xml is None else Path(xml.logfile)


def split_by_kernel(file: Path, cells: Sequence[str]) -> None:
    """Give each of these kernels a suite of its own, named after it: two tests of one name are told
    apart by the suite. What is of no kernel stays where it is. Raises OSError."""
    tree = ElementTree.parse(file)
    for parent in list(tree.iter("testsuites")):
        for suite in parent.findall("testsuite"):
            cases = suite.findall("testcase")
            for cell in cells:
                ours = [case for case in cases if _kernel(case) == cell]
                own = ElementTree.SubElement(parent, "testsuite", suite.attrib | {"name": cell})
                own.extend(suite.findall("properties"))
                own.extend(ours)
                _count(own, ours)
                for case in ours:
                    suite.remove(case)
            left = suite.findall("testcase")
            _count(suite, left)
            if not left:
                parent.remove(suite)
    made = file.with_name(f".{file.name}.lab")
    try:
        tree.write(made, encoding="utf-8", xml_declaration=True)
        made.replace(file)
    except OSError:
        made.unlink(missing_ok=True)
        raise


def _kernel(case: ElementTree.Element) -> str:
    """The last such property: before it may be one that the test itself has recorded."""
    found = [one.get("value", "") for one in case.iter("property") if one.get("name") == PROPERTY]
    return found[-1] if found else ""


def _count(suite: ElementTree.Element, cases: Iterable[ElementTree.Element]) -> None:
    cases = list(cases)
    for attribute, tag in _COUNTED.items():
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("time", f"{sum(float(case.get('time', 0)) for case in cases):.3f}")
