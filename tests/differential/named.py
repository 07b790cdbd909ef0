# SPDX-License-Identifier: MIT
"""Scenarios with a name: what was once wrong, and each thing that is different on purpose."""

from __future__ import annotations

from tests.differential.scenario import Scenario, parse

NAMED: dict[str, Scenario] = {
    name: parse(line)
    for name, line in {
        # Faults that were found in programs; d1 to d8 as they were reported.
        "d1: workers share a listener": '{"kind":"workers","way":"free"}',
        "d1: one of the workers is busy": '{"kind":"workers","way":"busy"}',
        "d2: a lent socket closed in data_received, its number used again": (
            '{"way":"sock","data":[["close"],["close-lent"],["number"]],"steps":[["send",0,2]]}'
        ),
        "d2: a write after the owner closed the lent socket": (
            '{"way":"sock","steps":[["close-lent"],["number"],["write",0,7]]}'
        ),
        "the owner closed the lent socket, and the peer sends by TLS": (
            '{"way":"sock","tls":true,"steps":[["close-lent"],["send",0,1]]}'
        ),
        "the owner closed the lent socket at once, and the peer sends by TLS": (
            '{"way":"sock","tls":true,"made":[["close-lent"]],"steps":[["send",0,1]]}'
        ),
        "the owner closed the lent socket, and connection_lost is interrupted": (
            '{"way":"sock","made":[["close-lent"]],"lost":[["interrupt"]],"steps":[["end"]]}'
        ),
        "the next owner of a number lends it as well": (
            '{"way":"sock","steps":[["close-lent"],["another"],["write",1,5]]}'
        ),
        "d3: connections paused in connection_made, one beside them": (
            '{"connections":7,"made":[["pause"]],"steps":[["trickle",0,40],["trickle",1,40],'
            '["trickle",2,40],["trickle",3,40],["trickle",4,40],["trickle",5,40],["resume",6],'
            '["send",6,4],["resume",0],["resume",1],["resume",2],["resume",3],["resume",4],'
            '["resume",5]]}'
        ),
        "d3: paused in connection_made, all bytes stay in the socket": (
            '{"made":[["pause"]],"steps":[["send",0,9],["waiting"],["resume"],["waiting"]]}'
        ),
        "d3: paused in connection_made, closed with bytes unread": (
            '{"made":[["pause"]],"steps":[["send",0,9],["close"]]}'
        ),
        "d4: the program ends with all written": (
            '{"way":"connect","close":false,"steps":[["write",0,9]]}'
        ),
        "d4: the program ends, its socket was lent": (
            '{"way":"sock","close":false,"steps":[["write",0,9]]}'
        ),
        "d4: the program ends, connections were accepted": (
            '{"connections":2,"close":false,"steps":[["write",0,9],["write",1,9]]}'
        ),
        "d5: the owner closes the listener, then the server is closed": (
            '{"way":"accept-sock","steps":[["close-listener"],["unlisten"],["another"]]}'
        ),
        "d6: SO_LINGER 0, then close": '{"steps":[["write",0,4],["linger"],["close"]]}',
        "d7: made here, run there": '{"kind":"threads","way":"hth"}',
        "d7: made there, closed here": '{"kind":"threads","way":"tth"}',
        "d7: each run in another thread": '{"kind":"threads","way":"htttt"}',
        "d7: made before a fork, run in the child": '{"kind":"fork","way":"run"}',
        "d7: made and run in the child of a fork": '{"kind":"fork","way":"made"}',
        "d8: the client reset before the accept": ('{"connections":0,"steps":[["another-reset"]]}'),
        "write() and abort() to a client that has reset": (
            '{"made":[["write",0,1],["abort"]],"steps":[["another-reset"]]}'
        ),
        "write() to a client that has reset": (
            '{"made":[["write",0,1]],"steps":[["another-reset"]]}'
        ),
        "no descriptor for an accept": '{"steps":[["short",0,3],["send",1,3]]}',
        "writelines of a wrong type": '{"steps":[["writelines-wrong",0,5]]}',
        "write of a wrong type": '{"steps":[["write-wrong",0,5]]}',
        # What each way, face and end does at all.
        **{
            f"both ends talk, {way}{', TLS' * tls}": (
                f'{{"way":"{way}","tls":{str(tls).lower()},"steps":[["write",0,3000],'
                '["send",0,5000],["writelines",0,80],["shut"]]}'
            )
            for way in ("accept", "accept-sock", "connect", "sock", "accepted")
            for tls in (False, True)
        },
        "a read is cancelled and loses nothing": (
            '{"api":"streams","steps":[["read",0,100],["cancel"],["send",0,50],["read",0,100],'
            '["shut"]]}'
        ),
        "a buffered protocol and a peer that resets": (
            '{"api":"buffered","steps":[["send",0,50000],["reset"]]}'
        ),
        "a half-close is answered": (
            '{"keep_open":true,"steps":[["send",0,5],["shut"],["write",0,9],["eof"]]}'
        ),
        "every method in connection_lost": (
            '{"lost":[["write",0,3],["pause"],["resume"],["eof"],["close"],["abort"]],'
            '"steps":[["end"]]}'
        ),
        "another thread writes, then we do": (
            '{"steps":[["thread-write",0,100,1],["write",0,30]]}'
        ),
        # Each entry of `known` has one here.
        "a large write": '{"steps":[["write",0,100000]]}',
        "a large write, then abort": '{"steps":[["write",0,100000,1],["abort"]]}',
        "abort with bytes unsent": '{"steps":[["stall"],["write",0,6000000],["abort"]]}',
        "write, then abort": '{"steps":[["write",0,40,1],["abort"]]}',
        "closed with bytes unread": '{"steps":[["send",0,9,1],["pause"],["close"]]}',
        "SO_LINGER behind abort() in connection_made": '{"made":[["abort"],["linger"]]}',
        "SO_LINGER in connection_lost": '{"lost":[["linger"]]}',
        "SO_LINGER in connection_lost, and the peer sends": (
            '{"made":[["abort"]],"lost":[["linger"]],"steps":[["send",0,1]]}'
        ),
        "SO_LINGER in connection_lost, bytes unsent": (
            '{"lost":[["linger"]],"steps":[["stall"],["write",0,200000]]}'
        ),
        "write_eof() to a client that has reset": (
            '{"made":[["eof"]],"steps":[["another-reset"]]}'
        ),
        "a pause after the peer's FIN": (
            '{"keep_open":true,"steps":[["shut"],["pause"],["resume"]]}'
        ),
        "a paused transport that nobody refers to": '{"steps":[["pause"],["drop"]]}',
        "a paused transport that nobody refers to, bytes unsent": (
            '{"steps":[["stall"],["pause"],["write",0,6000000],["drop"],["unstall"]]}'
        ),
        "a transport that nobody refers to after the peer's FIN": (
            '{"keep_open":true,"steps":[["write",0,9],["shut"],["drop"]]}'
        ),
        "a write in connection_made that is held up": ('{"made":[["write",0,6000000]]}'),
        "a transport that writes while it is paused": (
            '{"steps":[["pause"],["write",0,9],["send",0,7],["write",0,300],["resume"]]}'
        ),
        "connection_made raises": '{"made":[["raise"]],"steps":[["send",0,5],["shut"]]}',
        "data_received raises": '{"data":[["raise"]],"steps":[["send",0,5],["shut"]]}',
        "connection_made is interrupted": (
            '{"made":[["interrupt"]],"steps":[["send",0,5],["another"],["write",0,9],["shut"]]}'
        ),
        "connection_made pauses and is interrupted": (
            '{"made":[["pause"],["interrupt"]],"steps":[["send",0,5],["resume"],["shut"]]}'
        ),
        "connection_made closes and is interrupted": (
            '{"made":[["write",0,9],["close"],["interrupt"]]}'
        ),
        "data_received is interrupted": (
            '{"data":[["interrupt"]],"steps":[["send",0,5],["send",0,7],["shut"]]}'
        ),
        "eof_received is interrupted": (
            '{"eof":[["interrupt"]],"steps":[["send",0,5],["shut"],["write",0,9]]}'
        ),
        "connection_lost is interrupted": '{"lost":[["interrupt"]],"steps":[["send",0,5],["end"]]}',
        "eof_received raises": '{"eof":[["raise"]],"steps":[["send",0,5],["shut"]]}',
        "two writes in eof_received to a peer that has closed": (
            '{"eof":[["write",0,1],["write",0,1]],"steps":[["end"]]}'
        ),
        "two writes at once to a peer that has closed": (
            '{"keep_open":true,"steps":[["end"],["write",0,1,1],["write",0,1]]}'
        ),
        "eof_received writes": (
            '{"eof":[["write",0,9],["eof"]],"steps":[["send",0,5],["shut"],["write",0,9]]}'
        ),
        "connection_lost raises": '{"lost":[["raise"]],"steps":[["send",0,5],["shut"]]}',
        "a listener of the owner that stays": '{"way":"accept-sock"}',
        "a listener whose owner has closed it": (
            '{"way":"accept-sock","steps":[["close-listener"],["another"]]}'
        ),
    }.items()
}
