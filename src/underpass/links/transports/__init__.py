"""What carries a link's bytes: TCP and TLS connections, WebSockets, memory.

The seam between a handshake and a link is ``transport.py``; its docstring shows how to cross it.

==================  ==============================================================
``connection.py``   TCP and TLS, dialling and accepted (also by ``set_protocol``)
``websocket.py``    WebSocket by picows, dialling and accepted (also by ``set_protocol``)
``messages.py``     anything that sends and receives whole messages, e.g. ASGI
``../memory.py``    both ends in one process
==================  ==============================================================
"""
