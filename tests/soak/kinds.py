"""What clients do: each kind uses a link in another way, and knows what its way may be refused."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import sbe
from sbe.testing.conformance.services import ref_crc32
from tests.children import end_with_parent, in_child
from tests.soak.client import (
    BOUND_S,
    PATIENCE_S,
    Client,
    Unexplained,
    check_nothing_left,
    held,
)
from tests.soak.jobs import LARGEST, Job, Jobs, Wrong

__all__ = [
    "Async",
    "Batch",
    "Forking",
    "Greedy",
    "Impatient",
    "Kind",
    "Long",
    "Mortal",
    "Plain",
    "Pooled",
    "Serving",
    "Staging",
    "Tight",
]

_SMALL = 1 << 18  # bytes, where sizes are not the point


class Kind:
    """One connection's work in steps."""

    busy: tuple[type[Exception], ...] = (sbe.RemoteError,)
    """mulaw and relay have so many places, which others may have."""

    def __init__(self, client: Client, link: sbe.Connection) -> None:
        self.client = client
        self.chance = client.chance
        self.jobs = client.jobs
        self.link = link
        self.payload_max = link.slot_size - 256  # with the frame's head and its descriptors

    @classmethod
    def warm_up(cls, client: Client) -> None:
        """What a process loads and keeps, before it is counted."""
        asyncio.run(asyncio.sleep(0))

    def step(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Before the connection is closed."""
        self.audit()

    def audit(self) -> None:
        """With nothing under way, both sides of the daemon say the same."""
        with self.client.expecting():
            self.link.call("echo", timeout=PATIENCE_S)
            before, listed, told = self.link.stat(), self.link.list(), self.link.stat()
            ours = told["connection"]
            theirs = [each for each in told["channels"] if each["id"] == ours["channel"]]
            if self.link._core.channel.error is not None or not theirs:
                return  # the remote was lost meanwhile, with the channel
            areas = [each for each in listed["areas"] if each["context"] == self.link.context]
            came = ours["received"] + ours["late"]
            pairs = {
                "frames sent": (theirs[0]["frames_to_remote"], ours["sent"]),
                "frames received": (theirs[0]["frames_from_remote"], came),
                "in flight": (theirs[0]["in_flight"], ours["in_flight"]),
                "bad frames": (0, ours["bad"]),
            }
            if before["connection"]["areas"] == ours["areas"]:  # else staging has freed some
                pairs["areas"] = len(areas), ours["areas"]
            for what, (one, other) in pairs.items():
                if one != other:
                    raise Wrong(f"{what}: {one} by the daemon, {other} here; {told}")
            self.client.tally.add("audits")

    def area(self, most: int = 2 * LARGEST) -> sbe.Area | None:
        """None when it is refused."""
        with self.client.expecting():
            return self.link.allocate(8 + self.jobs.size(most))  # 8: room for any job
        return None

    def free(self, area: sbe.Area) -> None:
        with self.client.expecting():
            area.free()

    def job(self, memory: Any) -> Job:
        return self.jobs.any(memory, self.payload_max)

    def call(self, job: Job) -> None:
        with self.client.expecting(PATIENCE_S, *self.busy):
            reply = self.link.call(
                job.service, *job.buffers, payload=job.payload, timeout=PATIENCE_S
            )
            job.check(reply)
            self.client.did(job)

    def submit(self, job: Job) -> Any:
        """A future, None when it was refused."""
        job.since = self.client.well
        with self.client.expecting():
            return self.link.submit(
                job.service, *job.buffers, payload=job.payload, timeout=PATIENCE_S
            )
        return None

    def result(self, call: Any, job: Job) -> None:
        with self.client.expecting(PATIENCE_S, *self.busy, since=job.since):
            job.check(call.result())
            self.client.did(job)

    def results(self, calls: list[tuple[Any, Job]]) -> None:
        """Of what was submitted at once."""
        for call, job in calls:
            if call is not None:
                self.result(call, job)


class Plain(Kind):
    """Calls over an area, messages, and its own counters beside the daemon's."""

    def __init__(self, client: Client, link: sbe.Connection) -> None:
        super().__init__(client, link)
        self.memory = self.area()

    def step(self) -> None:
        if self.memory is None:
            self.client.rest()
            self.memory = self.area()
            return
        pixels = self.memory.array(np.uint8)
        match self.chance.randrange(10):
            case 0:
                self.free(self.memory)
                self.memory = self.area()
            case 1:
                self.message(pixels)
            case 2:
                self.audit()
            case 3:
                with self.client.expecting():
                    self.link.sync(sbe.InOut(self.memory), timeout=PATIENCE_S)
            case _:
                self.call(self.job(pixels))

    def message(self, pixels: Any) -> None:
        """Nobody answers; what is sent afterwards is done afterwards."""
        job = self.jobs.fill(pixels, self.payload_max)
        with self.client.expecting():
            epoch = self.link.epoch
            self.link.send(job.service, *job.buffers, payload=job.payload, timeout=PATIENCE_S)
            self.link.call("echo", timeout=PATIENCE_S)
            if self.link.epoch == epoch:
                job.check_target()
                self.client.did(job)


class Async(Kind):
    """Coroutines in a loop of their own each time, over areas and other memory."""

    def step(self) -> None:
        asyncio.run(self.round())

    async def round(self) -> None:
        area = await asyncio.to_thread(self.area, 8 * _SMALL)
        if area is None:
            return
        count = self.chance.randint(1, 8)
        parts = np.array_split(area.array(np.uint8), count)
        parts += [np.zeros(self.jobs.size(_SMALL) + 8, np.uint8) for _ in range(3)]
        jobs = [self.job(part) for part in parts if len(part) >= 8]
        await asyncio.gather(*map(self.acall, jobs))
        await asyncio.to_thread(self.free, area)

    async def acall(self, job: Job) -> None:
        with self.client.expecting(PATIENCE_S, *self.busy):
            reply = await self.link.acall(
                job.service, *job.buffers, payload=job.payload, timeout=PATIENCE_S
            )
            job.check(reply)
            self.client.did(job)


class Batch(Kind):
    """Many small calls at once."""

    def step(self) -> None:
        area = self.area(16 * _SMALL)
        if area is None:
            self.client.rest()
            return
        count = self.chance.randint(1, 500)
        each = area.size // count
        offsets = np.arange(count) * each
        pixels = area.array(np.uint8)
        pixels[:] = self.jobs.noise(area.size)
        values = self.jobs.noise(count).reshape(count, 1)
        with self.client.expecting():
            rows = area.descriptors(sbe.In, offsets, each)
            rows = rows.reshape(count, 1)
            sums = self.link.batch("crc32", rows, reply_size=4, timeout=PATIENCE_S)
            sums.check()
            for i in self.chance.sample(range(count), min(count, 20)):
                part = pixels[offsets[i] : offsets[i] + each]
                if sums.payload[i].tobytes() != ref_crc32(part):
                    raise Wrong(f"crc32 {i} of {count} in a batch")
            rows = area.descriptors(sbe.Out, offsets, each)
            filled = self.link.batch("fill", rows.reshape(count, 1), values, timeout=PATIENCE_S)
            filled.check()
            shown = pixels[: count * each].reshape(count, each)
            if not (shown == values).all() or not (filled.written == each).all():
                raise Wrong(f"fill of {count} times {each} bytes in a batch")
            self.client.tally.add("calls", 2 * count)
            self.client.tally.add("bytes", 2 * count * each)
        del pixels
        self.free(area)


class Staging(Kind):
    """Memory of the application's own, up to the largest; one call or some at a time."""

    def step(self) -> None:
        memory = np.zeros(8 + self.jobs.size(LARGEST), np.uint8)
        if self.chance.random() < 0.5:
            self.call(self.job(memory))
            return
        some = np.array_split(memory, self.chance.randint(1, 6))
        jobs = [self.job(part) for part in some if len(part) >= 8]
        self.results([(self.submit(job), job) for job in jobs])


class Serving(Kind):
    """The remote calls this end, which calls it; functions and coroutines."""

    def __init__(self, client: Client, link: sbe.Connection) -> None:
        super().__init__(client, link)
        self.inside = self.area(_SMALL)
        self.names: dict[str, Callable[[bytes], bytes]] = {}
        self.offer("double", lambda payload: payload * 2, lambda payload: payload * 2)
        self.offer("awaited", self.awaited, lambda payload: payload[::-1])
        self.offer("nested", self.nested, lambda payload: payload + b"!")

    def offer(self, name: str, handler: Any, wanted: Callable[[bytes], bytes]) -> None:
        with self.client.expecting():
            self.link.serve(name, handler)
            self.names[name] = wanted

    async def awaited(self, payload: bytes) -> bytes:
        await asyncio.sleep(self.chance.uniform(0, 0.003))
        return payload[::-1]

    def nested(self, payload: bytes) -> bytes:
        reply: bytes = self.link.call("echo", payload=payload, timeout=PATIENCE_S).payload
        return reply + b"!"

    def step(self) -> None:
        if not self.names or self.chance.random() < 0.05:
            name = f"n{self.chance.randrange(1 << 30)}"
            self.offer(name, lambda payload: payload, lambda payload: payload)
            return
        calls = []
        for _ in range(self.chance.randint(1, 6)):
            name = self.chance.choice([*self.names])
            payload = self.jobs.noise(self.chance.randrange(self.payload_max // 2)).tobytes()
            job = Job("relay", (), name.encode() + b"\0" + payload, self.names[name](payload))
            calls.append((self.submit(job), job))
        if self.inside is not None:
            self.call(self.jobs.crc32(self.inside.array(np.uint8), 0))
        self.results(calls)

    def end(self) -> None:
        for name in self.names:
            with self.client.expecting():
                self.link.unserve(name)
        super().end()


class Pooled(Kind):
    """Pieces of one area, used by threads."""

    def __init__(self, client: Client, link: sbe.Connection) -> None:
        super().__init__(client, link)
        area = self.area(64 * _SMALL)
        self.pool = None if area is None else sbe.Pool(area)
        self.largest = 0 if area is None else area.size
        self.failed: list[BaseException] = []

    def step(self) -> None:
        if self.pool is None:
            self.client.rest()
            return
        seeds = [self.chance.random() for _ in range(self.chance.randint(1, 4))]
        threads = [threading.Thread(target=self.guarded, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failed:
            raise self.failed[0]

    def guarded(self, seed: float) -> None:
        try:
            self.work(type(self.chance)(seed))
        except BaseException as error:
            self.failed.append(error)

    def work(self, chance: Any) -> None:
        assert self.pool is not None
        jobs = Jobs(chance)
        for _ in range(chance.randint(1, 5)):
            size = 8 + jobs.size(max(self.largest // 4 - 8, 1))
            try:
                piece = self.pool.allocate(min(size, self.largest))
            except sbe.OutOfResources:  # other threads have the rest
                self.client.tally.add("exhausted")
                continue
            memory = np.frombuffer(memoryview(piece), np.uint8)
            if len(memory) >= 8:
                self.call(jobs.any(memory, self.payload_max))
            del memory
            self.pool.free(piece)


class Forking(Kind):
    """Children while a link is open: refused on it, at home on their own."""

    def step(self) -> None:
        area = self.area(_SMALL)
        status = in_child(self.child)
        if status != 0:
            raise Unexplained(f"the forked child ended with {status}; its words are above")
        if area is not None:
            if area.size >= 8:
                self.call(self.job(area.array(np.uint8)))
            self.free(area)
        if self.chance.random() < 0.5:
            self.call(self.job(np.zeros(_SMALL, np.uint8)))

    def child(self) -> None:
        end_with_parent()
        signal.alarm(int(4 * PATIENCE_S))
        plan = self.client.plan
        plan.tally, plan.seed = plan.children, f"{plan.seed}/child/{self.chance.random()}"
        client = Client(plan)
        try:
            self.link.call("echo")
        except sbe.LinkError as error:
            if "fork" not in str(error):
                raise
        else:
            raise Wrong("a forked child called through its parent's link")
        before = held()
        self.at_home(client)
        check_nothing_left(before)

    @staticmethod
    def at_home(client: Client) -> None:
        link = client.connect()
        if link is not None:
            with link:
                work = Staging(client, link)
                for _ in range(client.chance.randint(1, 5)):
                    work.call(work.job(np.zeros(_SMALL, np.uint8)))


class Mortal(Kind):
    """Dies at any moment, whatever it is at. The runner makes the next one."""

    def __init__(self, client: Client, link: sbe.Connection) -> None:
        super().__init__(client, link)
        seconds = self.chance.uniform(0.0, 1.5)
        threading.Thread(target=self.die, args=(seconds,), daemon=True).start()
        kinds: list[type[Kind]] = [Plain, Async, Batch, Staging, Serving, Pooled, Impatient, Long]
        self.work = self.chance.choice(kinds)(client, link)

    @staticmethod
    def die(seconds: float) -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def step(self) -> None:
        self.work.step()


class Impatient(Kind):
    """Gives calls up: too short a time, cancelled calls and tasks. What they named stays theirs."""

    def step(self) -> None:
        area = self.area(4 * LARGEST // 3)
        if area is None:
            self.client.rest()
            return
        if area.size >= 8:
            pixels = area.array(np.uint8)
            give_up = self.chance.choice([self.too_short, self.cancelled, self.task])
            for _ in range(self.chance.randint(1, 4)):
                give_up(pixels)
                self.until_free(area)
            self.call(self.job(pixels))
            del pixels
        self.free(area)

    def too_short(self, pixels: Any) -> None:
        job, timeout = self.job(pixels), self.chance.uniform(0.0, 0.01)
        with self.client.expecting(timeout, sbe.Timeout, *self.busy):
            reply = self.link.call(job.service, *job.buffers, payload=job.payload, timeout=timeout)
            job.check(reply)
            self.client.did(job)

    def cancelled(self, pixels: Any) -> None:
        parts = [part for part in np.array_split(pixels, 3) if len(part) >= 8]
        jobs = [self.job(part) for part in parts]
        calls = [(self.submit(job), job) for job in jobs]
        for call, job in calls:
            if call is None:
                continue
            call.cancel()
            gone: tuple[type[Exception], ...] = (sbe.Cancelled, *self.busy)
            with self.client.expecting(PATIENCE_S, *gone, since=job.since):
                job.check(call.result())
                self.client.did(job)

    def task(self, pixels: Any) -> None:
        job = self.job(pixels)

        async def run() -> None:
            call = self.link.acall(
                job.service, *job.buffers, payload=job.payload, timeout=PATIENCE_S
            )
            task = asyncio.ensure_future(call)
            await asyncio.wait({task}, timeout=self.chance.uniform(0.0, 0.01))
            task.cancel()
            try:
                job.check(await task)
                self.client.did(job)
            except asyncio.CancelledError:
                self.client.tally.add("cancelled")

        with self.client.expecting(PATIENCE_S, *self.busy):
            asyncio.run(run())

    def until_free(self, area: sbe.Area) -> None:
        """The remote answers also what nobody waits for any more."""
        deadline = time.monotonic() + PATIENCE_S + BOUND_S
        while area.holds:
            with self.client.expecting():
                self.link.call("echo", timeout=PATIENCE_S)
            if time.monotonic() > deadline:
                raise Unexplained(f"{area!r} is still held by calls that were given up")


class Long(Kind):
    """Work that takes the remote many turns, several of it at once."""

    def step(self) -> None:
        area = self.area(LARGEST)
        if area is None:
            self.client.rest()
            return
        parts = np.array_split(area.array(np.uint8), 3)
        if len(parts[-1]) >= 8:
            makers = [self.jobs.fir, self.jobs.mulaw, self.jobs.copy, self.jobs.crc32]
            jobs = [
                maker(part, self.payload_max)
                for maker, part in zip(self.chance.sample(makers, 3), parts, strict=True)
            ]
            self.results([(self.submit(job), job) for job in jobs])
        del parts
        self.free(area)


class Tight(Kind):
    """Has little address space: what can't be mapped is refused in words, the rest goes on."""

    @classmethod
    def warm_up(cls, client: Client) -> None:
        super().warm_up(client)
        client.tight = True
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = used + client.chance.randint(24 << 20, 48 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def step(self) -> None:
        refused = self.client.tally.get("exhausted")
        areas: list[sbe.Area] = []
        while self.client.tally.get("exhausted") == refused and len(areas) < 16:
            area = self.area(LARGEST)
            if area is not None:
                areas.append(area)
            elif self.client.tally.get("exhausted") == refused:
                break  # another reason
        area = None
        while areas:
            self.free(areas.pop())  # its address space is back when nobody has it
        self.call(self.job(np.zeros(_SMALL // 4, np.uint8)))


class Greedy(Kind):
    """Takes all that it may have, and gives it back."""

    def step(self) -> None:
        begun, refused = time.monotonic(), self.client.tally.get("quota")
        areas: list[sbe.Area] = []
        links: list[sbe.Connection] = []
        sizes = self.chance.choice([4096, LARGEST])
        while self.client.tally.get("quota") == refused and self.client.has_time:
            if self.chance.random() < 0.5:
                if (link := self.client.connect()) is not None:
                    links.append(link)
            elif (area := self.area(sizes)) is not None:
                areas.append(area)
        for link in links:
            with self.client.expecting(PATIENCE_S, since=begun):  # each link hears by itself
                job = Job("echo", (), b"greedy", b"greedy")
                job.check(link.call("echo", payload=b"greedy", timeout=PATIENCE_S))
                self.client.did(job)
            link.close()
        for area in areas:
            self.free(area)
        self.client.rest()
