# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
SAMP, the IVOA's Simple Application Messaging Protocol: a hub and clients.

Importing this package is cheap: each name is loaded from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._conf import Conf, conf
    from .aio import AsyncSAMPClient
    from .bridge import Bridge
    from .client.hub_proxy import SAMPHubProxy
    from .client.samp_client import SAMPClient
    from .client.web_hub_proxy import SAMPWebHubProxy
    from .constants import SAFE_MTYPES, SAMP_ICON, SAMP_STATUS_ERROR, SAMP_STATUS_OK, SAMP_STATUS_WARNING
    from .errors import (
        SAMPClientError,
        SAMPError,
        SAMPHubError,
        SAMPProxyError,
        SAMPResponseError,
        SAMPTimeoutError,
        SAMPTransportError,
        SAMPTypeError,
        SAMPValueError,
        SAMPWarning,
    )
    from .hub import SAMPHubServer
    from .integrated_client import SAMPIntegratedClient
    from .utils import SAMPMsgReplierWrapper
    from .vo_helpers import (
        accessible_table,
        connection,
        find_client_id,
        send_image_to,
        send_product_to,
        send_spectrum_to,
        send_table_to,
    )
    from .web_profile import WebProfileDialog

    __version__: str

__all__ = [
    "SAFE_MTYPES",
    "SAMP_ICON",
    "SAMP_STATUS_ERROR",
    "SAMP_STATUS_OK",
    "SAMP_STATUS_WARNING",
    "AsyncSAMPClient",
    "Bridge",
    "Conf",
    "SAMPClient",
    "SAMPClientError",
    "SAMPError",
    "SAMPHubError",
    "SAMPHubProxy",
    "SAMPHubServer",
    "SAMPIntegratedClient",
    "SAMPMsgReplierWrapper",
    "SAMPProxyError",
    "SAMPResponseError",
    "SAMPTimeoutError",
    "SAMPTransportError",
    "SAMPTypeError",
    "SAMPValueError",
    "SAMPWarning",
    "SAMPWebHubProxy",
    "WebProfileDialog",
    "__version__",
    "accessible_table",
    "conf",
    "connection",
    "find_client_id",
    "send_image_to",
    "send_product_to",
    "send_spectrum_to",
    "send_table_to",
]

#: The names that are imported from each module.
_NAMES = {
    "aio": ["AsyncSAMPClient"],
    "bridge": ["Bridge"],
    "client": ["SAMPClient"],
    "_conf": ["Conf", "conf"],
    "constants": ["SAFE_MTYPES", "SAMP_ICON", "SAMP_STATUS_ERROR", "SAMP_STATUS_OK", "SAMP_STATUS_WARNING"],
    "errors": [
        "SAMPClientError",
        "SAMPError",
        "SAMPHubError",
        "SAMPProxyError",
        "SAMPResponseError",
        "SAMPTimeoutError",
        "SAMPTransportError",
        "SAMPTypeError",
        "SAMPValueError",
        "SAMPWarning",
    ],
    "hub": ["SAMPHubServer"],
    "client.web_hub_proxy": ["SAMPWebHubProxy"],
    "hub_proxy": ["SAMPHubProxy"],
    "integrated_client": ["SAMPIntegratedClient"],
    "utils": ["SAMPMsgReplierWrapper"],
    "vo_helpers": [
        "accessible_table",
        "connection",
        "find_client_id",
        "send_image_to",
        "send_product_to",
        "send_spectrum_to",
        "send_table_to",
    ],
    "web_profile": ["WebProfileDialog"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

#: Modules that programs use as attributes without importing them, such as `pyvo.samp.hub`.
_MODULES = {*(name for name in _NAMES if "." not in name), "lockfile_helpers", "standard_profile"}


def __getattr__(name: str) -> object:
    """Load a public name, or a module, when it is first used."""
    value: object
    if name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    elif name in _MODULES:
        return import_module(f"{__name__}.{name}")
    elif name == "__version__":
        value = _find_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


def _find_version() -> str:
    """Return the version that the build has written, or a default for a checkout that was never built."""
    try:
        return str(import_module(f"{__name__}._version").__version__)
    except ImportError:
        return "0.1.dev0"
