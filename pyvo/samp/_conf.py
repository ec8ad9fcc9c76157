# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The two settings that programs written for `astropy.samp` know."""

from __future__ import annotations

from astropy.config import ConfigItem, ConfigNamespace

__all__ = ["Conf", "conf"]


class Conf(ConfigNamespace):
    """Settings of `pyvo.samp`, read from the configuration file ``pyvo.cfg`` or set by a program."""

    use_internet = ConfigItem(
        True,
        "Accepted for programs that set it. Nothing in this package reads the network beyond SAMP itself.",
        module="pyvo.samp",
    )

    n_retries = ConfigItem(
        10,
        "Accepted for compatibility, and ignored: requests are never retried.",
        module="pyvo.samp",
    )


conf = Conf()
