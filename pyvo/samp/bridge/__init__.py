# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A bridge between hubs: the clients of each hub appear at the others.

`bridge.Bridge` is the engine at one hub. A transport joins it to the engines at other hubs, see `link`.
"""
