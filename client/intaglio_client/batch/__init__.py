"""`intaglio batch`: many pictures from one specification, judged by filters, with a manifest of all of them.

    specification -> items      spec.py, inputs.py, table.py, combining.py
    items -> pictures           schedule.py says which is next, servers.py draw them, several at a time
    pictures -> manifest        run.py judges them in the order of the items, folder.py keeps them

Pictures arrive in any order and are judged in the order of the items. So verdicts, and where "until K are
accepted" stops, do not depend on servers, on how many pictures are drawn at a time, or on stops in between.
"""
