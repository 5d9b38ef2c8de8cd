"""Optional packages: looked up where they are used, missed with a sentence that says what to do."""

import importlib
from typing import Any

from ..errors import MissingPackageError


def require(module: str, purpose: str, extra: str = "train") -> Any:
    """Import ``module``, which that extra installs.

    Raises:
        MissingPackageError: the package, or one that it needs itself, is not installed.

    >>> require("json", "an example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).split(".")[0]
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(name, name)
        raise MissingPackageError(
            f"{purpose}: needs {package}, which is not installed: pip install 'spikestrap[{extra}]'"
        ) from error
