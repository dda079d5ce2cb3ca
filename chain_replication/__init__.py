"""Chain replication (CRAQ) as a library: values in, actions out.

A chunk lies on the targets of one chain. Updates enter at the head, travel to the tail and are
acknowledged back; each gives the chunk the next version. Any serving replica answers reads: at once
if no update is in flight, else when it has settled, so that a reader never sees an older version
after a newer one.

    update    client --> head --> middle --> tail        (stored and forwarded at the same time)
    answer    client <-- head <-- middle <-- tail        (each once it has stored the update itself)

An acknowledged update is thus stored by every serving replica, and any of them may be the only one
left. The cluster manager decides who serves (``membership``, ``manager``); each decision is a new
version of the chain, and a replica takes updates only from a caller at the same version. What was
in flight when the chain changed is sent again to whoever follows now: updates are idempotent,
behind the head by their version, at the head by the client's tag, stored with the chunk.

A replica that comes back is ``SYNCING``: the last serving one forwards all updates to it as whole
chunks, and meanwhile compares the listings and replaces or removes what differs (``resync``).

Start reading at ``replica.Replica.step``. Only ``manager`` does IO; everything else is pure.
"""
