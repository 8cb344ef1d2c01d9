"""The lists of packages hold together: pyproject.toml, requirements.lock, environment.yml and what d3ad imports."""
import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-cluster.lock")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def lock_lines() -> list[str]:
    """Both locks without comments and empty lines."""
    return [line for text in LOCKS.values() for line in text.splitlines() if line and not line.startswith("#")]


def pins() -> dict[str, Version]:
    """The lock as {package: version}, whatever the markers say."""
    requirements = map(Requirement, lock_lines())
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements}


def bounds() -> list[Requirement]:
    """All that pyproject.toml asks for, its extras and its build included."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values(), build]
    return [Requirement(text) for group in groups for text in group]


def conda_pip_section() -> list[str]:
    """What environment.yml leaves to pip."""
    return next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))


def test_every_line_of_the_lock_is_one_exact_public_version():
    for line in lock_lines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; \w+ (==|!=|<|>=) \"[\w.]+\")?", line), line


def test_no_package_is_pinned_twice():
    names = [canonicalize_name(Requirement(line).name) for line in lock_lines()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("requirement", bounds(), ids=str)
def test_what_pyproject_asks_for_is_pinned_within_its_bounds(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def imported() -> set[str]:
    """The top-level modules that some file of d3ad imports, inside functions too, but those of Python and its own."""
    names = set()
    for file in (ROOT / "d3ad").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"d3ad"}


def test_what_d3ad_imports_is_declared():
    """pyproject.toml, or one of its extras, names the package of each imported module."""
    packages, declared = metadata.packages_distributions(), {canonicalize_name(need.name) for need in bounds()}
    undeclared = {module for module in imported()
                  if not declared & {canonicalize_name(name) for name in packages.get(module, [module])}}
    assert not undeclared


def test_the_lock_is_complete_here():
    """Each pinned package that is installed finds what it needs among the pins."""
    pinned, gaps = pins(), []
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system
            continue
        for need in map(Requirement, needs):
            wanted = need.marker is None or need.marker.evaluate({"extra": ""})
            from_torch = name == "torch" and canonicalize_name(need.name) not in pinned  # its CUDA libraries
            if wanted and not from_torch and pinned.get(canonicalize_name(need.name)) not in need.specifier:
                gaps.append(f"{name} needs {need}")
    assert not gaps


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0"])
def test_every_pin_takes_the_oldest_python_that_is_promised(python):
    """Debian 12 has Python 3.11.2: a package for 3.11.5 on would end the installation there."""
    refused = []
    for name in pins():
        try:
            asked = metadata.metadata(name)["Requires-Python"]
        except metadata.PackageNotFoundError:  # of another platform or Python
            continue
        if asked and python not in SpecifierSet(asked):
            refused.append(f"{name}: {asked}")
    assert refused == []


def test_conda_uses_the_same_list():
    assert CONDA["name"] == "d3ad"
    assert conda_pip_section() == ["-r requirements.lock", "-e ."]
    python = next(entry for entry in CONDA["dependencies"] if str(entry).startswith("python="))
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])


def test_conda_pins_nothing_besides_python():
    assert [entry for entry in CONDA["dependencies"] if isinstance(entry, str)] == ["python=3.11", "pip"]


@pytest.mark.parametrize("name", [*LOCKS, "pyproject.toml", "environment.yml",
                                  "scripts/environment.sh"])
def test_no_package_host_is_named(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"(?m)^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", text)


@pytest.mark.parametrize("name", ["run_all.sh", "run_tests.sh", "run_d3ad.sh", ".ci/run"])
def test_the_commands_can_be_run(name):
    assert (ROOT / name).stat().st_mode & 0o111


def test_the_continuous_integration_runs_the_tests():
    assert "./run_tests.sh" in (ROOT / ".ci/run").read_text(encoding="utf-8")
