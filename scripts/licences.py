#!/usr/bin/env python3
"""Checks what we depend on against deny.toml: licences, banned crates, sources.

A part of what cargo-deny does, for machines where building cargo-deny would take longer than all tests. Needs Python 3.11
and cargo. Every finding is one line; the exit code is 1 if there is any.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLATFORMS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]


def packages():
    """Every package in the graph of the platforms we build for, once."""
    found = {}
    for platform in PLATFORMS:
        command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", platform]
        metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
        found.update({package["id"]: package for package in metadata["packages"]})
    return sorted(found.values(), key=lambda package: (package["name"], package["version"]))


def satisfied(expression, allowed):
    """Whether an SPDX expression can be met with the allowed licences alone."""
    # Before SPDX expressions, crates separated alternatives by a slash.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def term():
        if peek() == "(":
            take()
            value = either()
            if peek() != ")":
                raise ValueError(expression)
            take()
            return value
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    def both():
        value = term()
        while peek() == "AND":
            take()
            value = term() and value
        return value

    def either():
        value = both()
        while peek() == "OR":
            take()
            value = both() or value
        return value

    result = either()
    if position != len(tokens):
        raise ValueError(expression)
    return result


def findings(rules):
    """One line for everything that deny.toml forbids."""
    allowed = set(rules["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules["licenses"].get("exceptions", [])}
    banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    unused = set(exceptions)
    for package in packages():
        name, label = package["name"], f"{package['name']} {package['version']}"
        unused.discard(name)
        licence = package["license"]
        try:
            if not licence or not satisfied(licence, allowed | exceptions.get(name, set())):
                yield f"{label}: licence {licence!r} is not allowed"
        except (ValueError, IndexError):
            yield f"{label}: licence {licence!r} is no SPDX expression"
        if name in banned:
            yield f"{label}: banned, {banned[name]}"
        if package["source"] is not None and package["source"] not in registries:
            yield f"{label}: comes from {package['source']}"
        if package["source"] is None and not Path(package["manifest_path"]).is_relative_to(ROOT):
            yield f"{label}: lies outside the checkout"
    for name in sorted(unused):
        yield f"deny.toml: the exception for {name} is not needed any more"


def main():
    for expression, expected in {
        "MIT OR GPL-3.0": True,
        "MIT AND GPL-3.0": False,
        "(MIT OR GPL-3.0) AND ISC": True,
        "GPL-3.0/MIT": True,
        "GPL-3.0 WITH Classpath-exception-2.0": False,
    }.items():
        assert satisfied(expression, {"MIT", "ISC"}) is expected, expression
    found = list(findings(tomllib.loads((ROOT / "deny.toml").read_text())))
    for line in found:
        print(line)
    print(f"licences: {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
