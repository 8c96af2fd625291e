"""`intaglio bench quality`: what every build and every option that changes the picture does to its quality.

options.py   the settings that are tried beside no option
report.py    rows as a table, a page and JSON; differences to no option, scene by scene
plot.py      seconds against every figure, with the front
command.py, command_options.py   the command line
Scenes, drawing, judges and distances are those of `intaglio tune`.
"""
