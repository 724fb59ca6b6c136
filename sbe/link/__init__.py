"""The host's side of a link, once for all who drive it: the SDK in threads, the daemon in asyncio.

    session.py      negotiation, waiting and loss over one transport after the other
    link.py         contexts, areas and channels at the remote, and questions to it
    pending.py      an answer to come; power.py: suspend, resume and frequency both ways
    rings.py        a channel's memory and doorbells, and how a process attaches to them
    context.py      one application's areas and channels, and their orderly end
    grants.py       what an application is handed; offers.py: the services that it offers
    description.py  what listings and statistics say of all that

Nothing is imported here: who only attaches to rings needs none of the rest.
"""
