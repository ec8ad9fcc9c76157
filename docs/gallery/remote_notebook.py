"""The cells of a notebook on a server that shares tables with TOPCAT on your own computer."""

# %%
from astropy.table import Table
from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.jupyter import HubRelay

relay = HubRelay()
relay  # press "Connect" in the widget, and allow the connection

# %%
client = SAMPIntegratedClient(name="Notebook on the server")
client.connect(web=relay)

# %%
table = Table({"ra": [10.68, 83.82], "dec": [41.27, -5.39], "name": ["M 31", "M 42"]})
client.send(table, to="topcat", name="Two nebulae").check()

# %%
client.disconnect()
relay.close()
