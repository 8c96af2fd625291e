"""`intaglio bench roofline`: what every engine reaches of what the device reaches.

figures.py   the bound of each network, from the ceilings and its work
plot.py      operations a second over operations a byte
command.py   the command line
"""
