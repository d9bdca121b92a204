"""Packaging of bkscaler: the package, and the twistd plugin file beside it."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version: dict[str, str] = {}
for line in (here / "bkscaler" / "__init__.py").read_text().splitlines():
    if line.startswith("__version__"):
        exec(line, version)

setup(
    name="bkscaler",
    version=version["__version__"],
    description="Wakes a buildkitd StatefulSet when a client connects, and lets it sleep when idle",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # twisted.plugins is listed although it has no __init__.py: Twisted itself owns the package,
    # we only add a file to it, and an __init__.py of ours would hide Twisted's own plugins.
    packages=[*find_packages(include=["bkscaler", "bkscaler.*"]), "twisted.plugins"],
    package_data={
        "bkscaler": ["py.typed"],
        "bkscaler.observability": ["*.css", "*.js"],
        "bkscaler.test": ["data/**"],
    },
    install_requires=[
        "twisted >= 25.5",
        "treq >= 24.9",
        "pyopenssl >= 24.1",
        "cryptography >= 41",
        "service-identity >= 24.1",
        "pyyaml >= 6",
        "h2 >= 4.1",
        "hpack >= 4.0",
        "hyperframe >= 6.0",
        "prometheus-client >= 0.20",
    ],
    extras_require={
        "test": ["grpcio", "kubernetes-validate"],
        # Twisted 26 ships annotations that mypy-zope needs; the product itself runs on older ones.
        "dev": [
            "ruff",
            "mypy",
            "mypy-zope",
            "types-PyYAML",
            "types-pyOpenSSL",
            "build",
            "grpcio",
            "kubernetes-validate",
            "types-grpcio",
        ],
    },
    classifiers=[
        "Framework :: Twisted",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    zip_safe=False,
)
