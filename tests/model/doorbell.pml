/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings' doorbells as firmware/core has them, for spin: no order of events may leave an end
 * asleep beside frames, or beside room that it waits for. There is no fallback timer here.
 *
 * Memory is weaker than any machine that orders stores of one word: an end's stores wait in a
 * buffer and leave it in any order, but for stores to one word and for a release barrier, which
 * what comes later does not pass; a full barrier waits until all are out. Loads are done in order,
 * so a missing acquire is modelled as the two loads in the other order. What real cores do with
 * both is in the litmus tests beside.
 *
 * A doorbell is one flag for each end: rings coalesce; SPURIOUS of them come for nothing.
 *
 * Names in "step:" comments are those at the lines of the C code. -DBREAK_NAME leaves that step out
 * or does it at the wrong time, which must be found: test_doorbell_model.py has the list.
 *
 *   (nothing)   one ring: end 0 sends frames, end 1 takes them
 *   -DCALLS=n   a channel: end 0 asks as a client does, n calls at once, end 1 answers as the engine
 *   -DRELAY     a channel: two engines, which send a frame for each that they take
 *   -DCRASHES=n with each: end 1 dies n times, at any point; end 0 clears the rings for the next
 */
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef INDICES
#define INDICES 4 /* for 2^32: more than there are slots, so few that they wrap all the time */
#endif
#ifndef SPURIOUS
#define SPURIOUS 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef DEPTH
#define DEPTH 4 /* stores that wait; more of them wait for room in it */
#endif

#define WRAP(index) ((index) & (INDICES - 1))
#define AHEAD_OF(index, other) WRAP((index) - (other))

/* -- memory ---------------------------------------------------------------------------------- */

/* Ring r goes from end r to the other; head and space_wake are its producer's words. */
#define RING_WORDS (4 + SLOTS)
#define HEAD(r) ((r) * RING_WORDS)
#define SPACE_WAKE(r) ((r) * RING_WORDS + 1)
#define TAIL(r) ((r) * RING_WORDS + 2)
#define DATA_WAKE(r) ((r) * RING_WORDS + 3)
#define SLOT(r, index) ((r) * RING_WORDS + 4 + ((index) & (SLOTS - 1)))

byte memory[2 * RING_WORDS];

#define BARRIER 255 /* in place of a word: later stores stay behind it */

typedef store_buffer {
    byte used;
    byte word[DEPTH];
    byte value[DEPTH]
};
store_buffer stores[2];

#define STORE(e, to, what)                     \
    stores[e].used < DEPTH;                    \
    stores[e].word[stores[e].used] = to;       \
    stores[e].value[stores[e].used] = what;    \
    stores[e].used++

#define RELEASE_BARRIER(e)                                \
    if                                                    \
    :: stores[e].used == 0                                \
    :: stores[e].used > 0 && stores[e].used < DEPTH ->    \
        stores[e].word[stores[e].used] = BARRIER;         \
        stores[e].used++                                  \
    fi

#define FULL_BARRIER(e) (stores[e].used == 0)

inline take_out(e, entry)
{
    i = entry;
    do
    :: i + 1 < stores[e].used ->
        stores[e].word[i] = stores[e].word[i + 1];
        stores[e].value[i] = stores[e].value[i + 1];
        i++
    :: else -> break
    od;
    stores[e].used--;
    stores[e].word[stores[e].used] = 0;
    stores[e].value[stores[e].used] = 0
}

/* Makes one store visible that no barrier holds back: of one word the oldest, else any. */
proctype memory_system(byte e)
{
    byte i, oldest;
end_memory:
    do
    :: atomic {
        stores[e].used > 0 ->
        i = 0;
        do
        :: break
        :: i + 1 < stores[e].used && stores[e].word[i + 1] != BARRIER -> i++
        od;
        d_step {
            oldest = 0;
            do
            :: stores[e].word[oldest] != stores[e].word[i] -> oldest++
            :: else -> break
            od;
            i = oldest;
            oldest = 0;
            memory[stores[e].word[i]] = stores[e].value[i];
            take_out(e, i);
            if
            :: stores[e].used > 0 && stores[e].word[0] == BARRIER -> take_out(e, 0)
            :: else
            fi;
            i = 0
        }
       }
    od
}

/* -- doorbells ------------------------------------------------------------------------------- */

bool bell[2];
bool quiet;      /* end 0 begins nothing more */
byte flying;     /* calls that are not answered */
bool kill, lost; /* end 1 is to die; it is dead and end 0 has been told */
byte epoch[2];   /* opened by end 0, which tells end 1, who then attaches */
byte sent[2], taken[2]; /* frames, as indices; for the last assertion */

inline sleep(e)
{
#ifdef BREAK_SLEEP /* forgets what was rung before */
    bell[e] = false;
#endif
    atomic { /* step: sleep */
        bell[e] || (lost && e == 0) -> bell[e] = false
    }
}

proctype noise()
{
    byte left = SPURIOUS;
    do
    :: left > 0 -> left--; bell[0] = true
    :: left > 0 -> left--; bell[1] = true
    :: break
    od
}

/* -- firmware/core/ring.c -------------------------------------------------------------------- */

typedef ring_end {
    byte mine;
    byte published;
    byte theirs
};

/* What each end has to itself. An atomic sequence below begins with what another end can see or
 * make: what follows it there is private, or a store, which nobody sees before it leaves. */
#define PRIVATE       \
    ring_end tx, rx;  \
    byte seen, early; \
    bool rings

inline attach(end, r)
{
    end.mine = memory[TAIL(r)]; /* step: attach */
    end.published = end.mine;
    end.theirs = end.mine
}

inline clear(e, r)
{
    atomic { STORE(e, SPACE_WAKE(r), WRAP(0 - 1)) }
    atomic { STORE(e, DATA_WAKE(r), WRAP(0 - 1)) }
    atomic { RELEASE_BARRIER(e) }
#ifndef BREAK_CLEAR
    atomic { STORE(e, HEAD(r), 0) } /* step: clear */
    atomic { STORE(e, TAIL(r), 0) }
#endif
}

/* Only forward, and at most to `ahead` past our published one. */
inline refresh(end, word, ahead, fence)
{
    atomic {
        fence;
        assert(AHEAD_OF(memory[word], end.theirs) <= AHEAD_OF(end.published + ahead, end.theirs));
        end.theirs = memory[word] /* step: look-at-index */
    }
}

#define FREE (SLOTS - AHEAD_OF(tx.mine, tx.theirs))
#define DATA (rx.mine != rx.theirs)

inline look_for_space(e, wanted, fence)
{
    if
    :: FREE < wanted -> refresh(tx, TAIL(e), 0, fence)
    :: else
    fi
}

inline look_for_data(e, fence)
{
    if
    :: !DATA -> refresh(rx, HEAD(1 - e), SLOTS, fence)
    :: else
    fi
}

#ifdef BREAK_LOOK_AT_WISH /* asks for the last of what was published, not for all of it */
#define PASSES(wish, old, now) ((wish) == WRAP((now) - 1))
#else
#define PASSES(wish, old, now) (AHEAD_OF(wish, old) < AHEAD_OF(now, old))
#endif

inline announce(e, end, index, wish)
{
    if
    :: end.published == end.mine
    :: else ->
#ifdef BREAK_PUBLISH_INDEX /* after the look */
        seen = memory[wish];
#endif
        atomic {
#ifndef BREAK_ORDER_CONTENTS
            RELEASE_BARRIER(e); /* step: order-contents */
#endif
            STORE(e, index, end.mine) /* step: publish-index */
        }
        atomic {
#ifndef BREAK_PUBLISH_FENCE
            FULL_BARRIER(e); /* step: publish-fence */
#endif
#ifndef BREAK_PUBLISH_INDEX
            seen = memory[wish]; /* step: look-at-wish */
#endif
            rings = PASSES(seen, end.published, end.mine);
            end.published = end.mine;
            seen = 0
        }
        if
        :: rings ->
            rings = false;
#ifndef BREAK_RING
            bell[1 - e] = true /* step: ring */
#endif
        :: else
        fi
    fi
}

inline publish(e)
{
    announce(e, tx, HEAD(e), DATA_WAKE(e))
}

inline return_slots(e)
{
    announce(e, rx, TAIL(1 - e), SPACE_WAKE(1 - e))
}

#ifdef BREAK_ARM_SPACE_FENCE
#define ARM_SPACE_FENCE(e) true
#else
#define ARM_SPACE_FENCE(e) FULL_BARRIER(e) /* step: arm-space-fence */
#endif
#ifdef BREAK_ARM_SPACE_VALUE /* one return more than is needed */
#define SPACE_WISH(wanted) WRAP(tx.mine + wanted - SLOTS)
#else
#define SPACE_WISH(wanted) WRAP(tx.mine + wanted - SLOTS - 1)
#endif
#ifdef BREAK_ARM_DATA_FENCE
#define ARM_DATA_FENCE(e) true
#else
#define ARM_DATA_FENCE(e) FULL_BARRIER(e) /* step: arm-data-fence */
#endif

/* It may sleep if there is not enough FREE. */
inline wait_space(e, wanted)
{
#ifndef BREAK_ARM_SPACE
    atomic { STORE(e, SPACE_WAKE(e), SPACE_WISH(wanted)) } /* step: arm-space */
#endif
#ifndef BREAK_LOOK_AT_SPACE
    look_for_space(e, wanted, ARM_SPACE_FENCE(e)) /* step: look-at-space */
#endif
}

/* It may sleep if there is no DATA. */
inline wait_data(e)
{
#ifndef BREAK_ARM_DATA
    atomic { STORE(e, DATA_WAKE(1 - e), rx.mine) } /* step: arm-data */
#endif
#ifndef BREAK_LOOK_AT_DATA
    look_for_data(e, ARM_DATA_FENCE(e)) /* step: look-at-data */
#endif
}

/* -- firmware/core/channel.c ----------------------------------------------------------------- */

/* Every frame holds its own index, and in which epoch it was sent. */
#define STAMP(e, index) (WRAP(index) + INDICES * epoch[e])

inline send(e)
{
    assert(FREE > 0);
    atomic {
        STORE(e, SLOT(e, tx.mine), STAMP(e, tx.mine)); /* step: write-frame */
        tx.mine = WRAP(tx.mine + 1);
        sent[e] = tx.mine
    }
}

/* The next frame, of which there is DATA. */
inline take(e)
{
#ifdef BREAK_READ_FRAME /* after its slot was returned */
    rx.mine = WRAP(rx.mine + 1);
    return_slots(e);
    rx.mine = WRAP(rx.mine - 1);
#endif
    atomic {
        assert(memory[SLOT(1 - e, rx.mine)] == STAMP(e, rx.mine)); /* step: read-frame */
        rx.mine = WRAP(rx.mine + 1);
        taken[e] = rx.mine
    }
}

inline receive(e)
{
#ifdef BREAK_LOOK_AT_INDEX /* without acquire the frame may be older than the index */
    early = (DATA -> STAMP(e, rx.mine) : memory[SLOT(1 - e, rx.mine)]);
    look_for_data(e, true);
    assert(!DATA || early == STAMP(e, rx.mine))
#else
    look_for_data(e, true)
#endif
}

inline idle(e)
{
#ifndef BREAK_IDLE_PUBLISH
    publish(e); /* step: idle-publish */
#endif
#ifndef BREAK_IDLE_RETURN
    return_slots(e); /* step: idle-return */
#endif
    wait_data(e)
}

inline wait_room(e, wanted)
{
#ifndef BREAK_ROOM_PUBLISH
    publish(e); /* step: room-publish */
#endif
#ifndef BREAK_ROOM_RETURN
    return_slots(e); /* step: room-return */
#endif
    wait_space(e, wanted)
}

/* -- the ends -------------------------------------------------------------------------------- */

/* End 0 starts over with a peer that is new. */
inline reopen()
{
    stores[1].used == 0; /* what the dead one stored is out, or is lost */
    clear(0, 0);
    clear(0, 1);
    FULL_BARRIER(0); /* the message that opens the channel is after them */
    attach(tx, 0);
    attach(rx, 1);
    atomic {
        flying = 0;
        sent[0] = 0;
        taken[0] = 0;
        lost = false;
        epoch[0]++
    }
}

/* firmware/core/engine.c: nothing is taken before what comes of it has room. */
inline serve(e)
{
    do
    :: true -> look_for_space(e, 1, true);
        if
#ifndef BREAK_ROOM_FIRST
        :: FREE == 0 -> /* step: room-first */
            wait_room(e, 1);
            if
            :: FREE == 0 -> sleep(e)
            :: else
            fi
#endif
        :: else ->
            receive(e);
            if
            :: DATA ->
                take(e);
                send(e);
                if
                :: skip
                :: true -> return_slots(e) /* now and then */
                :: true -> publish(e) /* the end of a turn: it stays on the list */
#ifdef BREAK_TURN_AGAIN
                    ; sleep(e)
#endif
                fi
            :: else ->
                return_slots(e);
                idle(e);
                if
                :: !DATA -> sleep(e)
                :: else /* step: turn-again */
                fi
            fi
        fi
    od
}

inline wait_turn(e)
{
    idle(e);
    if
    :: !DATA -> sleep(e) /* step: wait-turn */
    :: else
    fi
}

#if defined(CALLS)

/* sbe/native: sends up to CALLS requests, waits for room if there is none, and for the answers. */
proctype end_0()
{
    PRIVATE;
    do
    :: lost -> reopen()
    :: !quiet && flying < CALLS ->
        look_for_space(0, 1, true);
        if
        :: FREE > 0 -> send(0); flying++
        :: else -> goto wait
        fi
    :: flying > 0 ->
wait:   receive(0);
        do
        :: DATA -> take(0); flying--
        :: else -> break
        od;
        return_slots(0);
        if
        :: flying < CALLS && FREE == 0 -> wait_space(0, 1) /* native_has_room() */
        :: else
        fi;
        if
        :: FREE == 0 || flying > 0 -> wait_turn(0)
        :: else
        fi
    :: flying == 0 && !lost -> quiet = true; break
    od
}

#define IS_DONE (quiet && flying == 0)

#elif defined(RELAY)

proctype end_0()
{
    PRIVATE;
    byte left = SLOTS - 1; /* with the other's one less than both rings hold */
    do
    :: left > 0 -> left--; send(0); if :: true -> publish(0) :: skip fi
    :: left == 0 -> break
    od;
    serve(0)
}

#define IS_DONE false

#else

/* Sends as long as it likes, and waits for any number of free slots. */
proctype end_0()
{
    PRIVATE;
    byte wanted;
    do
    :: lost -> reopen()
    :: true -> look_for_space(0, 1, true);
        if
        :: FREE > 0 -> send(0)
        :: else ->
            wanted = 1;
            do
            :: wanted < SLOTS -> wanted++
            :: break
            od;
            wait_room(0, wanted);
            if
            :: FREE < wanted -> sleep(0)
            :: else
            fi;
            wanted = 0
        fi
    :: tx.mine != tx.published -> publish(0)
    :: !lost -> publish(0); quiet = true; break
    od
}

#define IS_DONE quiet

#endif

inline live()
{
#if defined(CALLS)
    serve(1)
#elif defined(RELAY)
    left = SLOTS;
    do
    :: left > 0 -> left--; send(1); if :: true -> publish(1) :: skip fi
    :: left == 0 -> break
    od;
    serve(1)
#else
    do
    :: true -> receive(1);
        if
        :: DATA -> take(1)
        :: else -> wait_turn(1)
        fi
    :: rx.mine != rx.published -> return_slots(1)
    :: rx.mine != rx.published -> wait_turn(1)
    od
#endif
}

proctype end_1()
{
    PRIVATE;
#ifdef RELAY
    byte left;
#endif
again:
    epoch[1] != epoch[0];
    d_step {
        attach(tx, 1);
        attach(rx, 0);
        epoch[1] = epoch[0];
        sent[1] = 0;
        taken[1] = 0
    }
#if CRASHES
    { live() } unless { kill };
    if
    :: stores[1].used == 0 /* they come out in the end */
    :: d_step { /* or die with it */
        do
        :: stores[1].used > 0 ->
            stores[1].used--;
            stores[1].word[stores[1].used] = 0;
            stores[1].value[stores[1].used] = 0
        :: else -> break
        od
       }
    fi;
    d_step {
        seen = 0;
        early = 0;
        rings = false;
        kill = false;
        lost = true
    };
    goto again
#else
    live()
#endif
}

proctype killer()
{
    byte left = CRASHES;
    do
    :: left > 0 && epoch[0] == epoch[1] && !kill && !lost -> left--; kill = true
    :: break
    od
}

init
{
    atomic {
        run memory_system(0);
        run memory_system(1);
        run noise();
        run end_0();
        run end_1();
#if CRASHES
        run killer();
#endif
        memory[SPACE_WAKE(0)] = WRAP(0 - 1);
        memory[DATA_WAKE(0)] = WRAP(0 - 1);
        memory[SPACE_WAKE(1)] = WRAP(0 - 1);
        memory[DATA_WAKE(1)] = WRAP(0 - 1);
        epoch[0] = 1
    }
    /* Nothing moves any more: that is right only where everything is done. */
    timeout -> assert(IS_DONE && (lost || (taken[1] == sent[0] && taken[0] == sent[1])))
}
