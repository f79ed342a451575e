#!/usr/bin/env python3
"""Lists the crates in a program as CycloneDX 1.6, from Cargo.lock and what cargo says of it.

    scripts/sbom.py PACKAGE > PACKAGE.cdx.json

Crates that only build scripts, procedural macros or tests use are not in the program and not in the list. Nothing in
it depends on when or where it was made.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    name = sys.argv[1]
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={TARGET}"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {it["id"]: it for it in metadata["packages"]}
    nodes = {it["id"]: it for it in metadata["resolve"]["nodes"]}
    roots = [it for it in metadata["workspace_members"] if packages[it]["name"] == name]
    if not roots:
        sys.exit(f"error: the workspace has no package {name}")
    links = walk(roots[0], nodes, packages)
    sums = checksums()
    crates = sorted((packages[it] for it in links if it != roots[0]), key=lambda it: (it["name"], it["version"]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(packages[roots[0]], sums, "application")},
        "components": [component(it, sums, "library") for it in crates],
        "dependencies": sorted(
            ({"ref": purl(packages[it]), "dependsOn": sorted(purl(packages[on]) for on in on_these)} for it, on_these in links.items()),
            key=lambda it: it["ref"],
        ),
    }
    json.dump(document, sys.stdout, indent=1)
    print()


def walk(root: str, nodes: dict, packages: dict) -> dict[str, set[str]]:
    """What is linked into the program, and by whom."""
    links: dict[str, set[str]] = {}
    waiting = [root]
    while waiting:
        package = waiting.pop()
        if package in links:
            continue
        links[package] = {
            it["pkg"]
            for it in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in it["dep_kinds"]) and not is_macro(packages[it["pkg"]])
        }
        waiting.extend(links[package])
    return links


def is_macro(package: dict) -> bool:
    return any("proc-macro" in it["kind"] for it in package["targets"])


def checksums() -> dict[tuple[str, str], str]:
    lock = tomllib.loads(Path("Cargo.lock").read_text())
    return {(it["name"], it["version"]): it["checksum"] for it in lock["package"] if "checksum" in it}


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, sums: dict, kind: str) -> dict:
    made = {
        "type": kind,
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package["license"]:
        # An old way to write OR.
        made["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


if __name__ == "__main__":
    main()
