"""Dedicated carriers: connections beside a link, each spent on one stream (docs/adr/0007).

==============  ==================================================================
``preface.py``  the first bytes of a spare connection and their proof, as pure functions
``demand.py``   how many spares to keep, and which targets are worth one
``spare.py``    a connection that is held ready
``stream.py``   the stream it becomes, on the leash of a mux stream
``pool.py``     the node's end: takes spares in, hands them out
``holder.py``   the agent's end: dials spares, opens streams on them
==============  ==================================================================
"""
