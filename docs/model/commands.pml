/*
 * Commands of one command key, at two gateway instances.
 *
 * The model follows docs/guarantees.md. It checks, over every interleaving within the bounds below:
 *
 *   (b)  If the reply to a request was readable when an attempt arrived, no record is appended for
 *        that attempt. The exception is (c): a deposed leader answered the attempt's barrier.
 *   P3   A refused attempt (503) has no record on the commands topic, now or later. An attempt that
 *        is answered with a reply gets the result of its own request, never of another request.
 *   (a)  An instance does not append a command key while the key is in flight there.
 *
 * BUG selects a variant that must violate one of them: 1 an attempt uses a barrier that was sent
 * before the attempt arrived; 2 the fingerprint is ignored; 3 an unknown produce outcome is treated
 * as a refusal. 4 leaves exception (c) out of the assertion, to show that the exception is real.
 *
 * What the model leaves out: time (every timeout may fire at any moment at which its promise allows
 * it), the end of the reply window, and the limits of tables.
 */
#ifndef BUG
#define BUG 0
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 3
#endif

#ifndef CRASHES
#define CRASHES 1
#endif

#define INSTANCES 2
#define REQUESTS  2          /* Fingerprints under the one command key. */
#define LOG_MAX   ATTEMPTS   /* Each attempt appends at most once. */
#define NONE      255

/* Life of an attempt: one HTTP request that a client sends. */
#define UNSENT    0
#define ARRIVED   1          /* Waits until a barrier is sent. */
#define COVERED   2          /* A barrier was sent after its arrival. */
#define BOUNDED   3          /* The barrier answered: waits until the instance has applied the end. */
#define WAITING   4          /* Opened the command, or joined it. */
#define ENDED     5

/* Answers. They are checked when they are given, and not kept. */
#define REPLY     1
#define MISMATCH  2          /* 422 */
#define REFUSED   3          /* 503: nothing was produced, and nothing will be. */
#define UNKNOWN   4          /* 504, or the connection broke. */

typedef Attempt {
  byte life;
  byte request;              /* Its fingerprint. */
  byte at;                   /* The instance it was sent to. */
  byte end;                  /* Replies below this must be applied first. */
  bit  readable;             /* Its request's reply was readable when it arrived. */
  bit  deposed;              /* Its barrier was answered by a deposed leader. */
}
Attempt attempt[ATTEMPTS];

/* Entry of the command key in an instance's table. */
#define CLOSED    0
#define PRODUCING 1          /* The produce request is on its way. */
#define IN_FLIGHT 2          /* The record is appended, or may be. */

/* The one barrier that an instance may have in flight. */
#define IDLE      0
#define SENT      1
#define ANSWERED  2

typedef Instance {
  byte applied;              /* Replies below this offset are in the index. */
  byte entry;
  byte request;              /* Of the entry. */
  byte opener;               /* The attempt that opened the entry. */
  byte barrier;
  byte end;                  /* What the barrier's answer says. */
  bit  answered_by_new;      /* Which leader answered it. */
  bit  knows_new;            /* The instance knows the new leader's epoch. */
}
Instance instance[INSTANCES];

/* The produce request of an attempt, from its sending until a broker has appended or dropped it. A
 * crash of the instance does not take it back. Idempotent produce makes retries append once. */
bit on_the_way[ATTEMPTS];
bit appended[ATTEMPTS];

/* The two topics, one partition each: appends of one request are in one partition, guarantee (d). */
chan commands = [LOG_MAX] of { byte }  /* Request of each record that the service has not read. */
byte replies[REQUESTS];      /* Request that each reply answers. */
byte replies_end;

/* The replies partition may get a new leader once. The old one goes on answering whoever asks it,
 * with the end that it had. */
bit  led_by_new;
byte old_end;

#define READABLE_END(i) (instance[i].knows_new || !led_by_new -> replies_end : old_end)

inline has_reply(wanted, below, found) {
  found = false;
  r = 0;
  do
  :: r < below && !found -> found = (replies[r] == wanted || BUG == 2); r++
  :: else -> break
  od;
  r = 0
}

/* Ends an attempt. What no later step looks at is cleared, so that equal states are one. */
inline finish(n, answer) {
  assert(answer != REFUSED || (!appended[n] && !on_the_way[n]));        /* P3 */
  attempt[n].life = ENDED;
  attempt[n].at = 0;
  attempt[n].end = 0;
  if
  :: !on_the_way[n] -> attempt[n].readable = false; attempt[n].deposed = false; attempt[n].request = 0
  :: else
  fi
}

inline close(i) {
  appended[instance[i].opener] = false;
  instance[i].entry = CLOSED; instance[i].request = 0; instance[i].opener = 0
}

/* Answers every attempt that waits for the entry of instance i. */
inline answer_waiters(i, outcome) {
  a = 0;
  do
  :: a < ATTEMPTS ->
     if
     :: attempt[a].life == WAITING && attempt[a].at == i -> finish(a, outcome)
     :: else
     fi;
     a++
  :: else -> break
  od;
  a = 0
}

/* An attempt whose barrier is behind it: DESIGN's table of decisions, in its order. */
inline decide(i, n) {
  has_reply(attempt[n].request, instance[i].applied, own);
  if
  :: own ->
     /* P3: a result of its own request. Under BUG 2 the stored reply may be another request's. */
     has_own = false;
     r = 0;
     do
     :: r < instance[i].applied -> has_own = has_own || replies[r] == attempt[n].request; r++
     :: else -> break
     od;
     r = 0;
     assert(has_own);
     finish(n, REPLY);
     has_own = false
  :: !own && instance[i].entry != CLOSED && (instance[i].request == attempt[n].request || BUG == 2) ->
     attempt[n].life = WAITING
  :: !own && instance[i].entry != CLOSED && instance[i].request != attempt[n].request && BUG != 2 ->
     finish(n, MISMATCH)
  :: !own && instance[i].entry == CLOSED && instance[i].applied > 0 && replies[0] != attempt[n].request ->
     finish(n, MISMATCH)
  :: else ->
     assert(instance[i].entry == CLOSED);                              /* (a) */
     instance[i].entry = PRODUCING;
     instance[i].request = attempt[n].request;
     instance[i].opener = n;
     attempt[n].life = WAITING;
     on_the_way[n] = true
  fi;
  own = false
}

proctype Gateway(byte i) {
  byte a = 0;
  byte n = 0;
  byte r = 0;
  bit own = false;
  bit has_own = false;
  bit some = false;
end:
  do
  /* A barrier is sent: it covers the attempts that have arrived by now. */
  :: atomic {
       instance[i].barrier == IDLE ->
       some = false; a = 0;
       do
       :: a < ATTEMPTS ->
          if
          :: attempt[a].life == ARRIVED && attempt[a].at == i -> attempt[a].life = COVERED; some = true
          :: else
          fi;
          a++
       :: else -> break
       od;
       a = 0;
       if :: some -> instance[i].barrier = SENT :: else fi;
       some = false
     }
  /* Its answer comes back. An answer of an epoch older than the newest known one is discarded. */
  :: atomic {
       instance[i].barrier == ANSWERED ->
       a = 0;
       do
       :: a < ATTEMPTS ->
          if
          :: attempt[a].at == i && (attempt[a].life == COVERED || (BUG == 1 && attempt[a].life == ARRIVED)) ->
             if
             :: instance[i].knows_new && !instance[i].answered_by_new -> attempt[a].life = ARRIVED
             :: else ->
                attempt[a].life = BOUNDED;
                attempt[a].end = instance[i].end;
                attempt[a].deposed = led_by_new && !instance[i].answered_by_new
             fi
          :: else
          fi;
          a++
       :: else -> break
       od;
       a = 0;
       instance[i].barrier = IDLE; instance[i].end = 0; instance[i].answered_by_new = 0
     }
  /* The instance decides about an attempt whose end it has applied. */
  :: atomic {
       n = 0;
       do
       :: n < ATTEMPTS && !(attempt[n].life == BOUNDED && attempt[n].at == i && instance[i].applied >= attempt[n].end) -> n++
       :: else -> break
       od;
       if
       :: n < ATTEMPTS -> attempt[n].end = 0; decide(i, n)
       :: else
       fi;
       n = 0
     }
  /* The instance applies the next reply that it can read, and answers whom it answers. */
  :: atomic {
       instance[i].applied < READABLE_END(i) ->
       r = replies[instance[i].applied];
       instance[i].applied++;
       if
       :: instance[i].entry != CLOSED && r == instance[i].request ->
          answer_waiters(i, REPLY);
          close(i)
       :: else
       fi;
       r = 0
     }
  /* The broker has acknowledged the record. */
  :: atomic {
       instance[i].entry == PRODUCING && appended[instance[i].opener] ->
       appended[instance[i].opener] = false;
       instance[i].entry = IN_FLIGHT
     }
  /* The broker has refused the record: it is not appended and never will be. */
  :: atomic {
       instance[i].entry == PRODUCING && on_the_way[instance[i].opener] ->
       on_the_way[instance[i].opener] = false;
       answer_waiters(i, REFUSED);
       close(i)
     }
  /* The produce outcome is unknown: the request may still be on its way, or be appended. */
  :: atomic {
       instance[i].entry == PRODUCING ->
       if
       :: BUG == 3 ->
          finish(instance[i].opener, REFUSED);
          close(i)
       :: else ->
          answer_waiters(i, UNKNOWN);
          appended[instance[i].opener] = false;
          instance[i].entry = IN_FLIGHT
       fi
     }
  /* Deadlines: the waiting attempts end, the entry stays. */
  :: atomic { instance[i].entry == IN_FLIGHT -> answer_waiters(i, UNKNOWN) }
  /* The entry's lifetime ends (`open_limit`, or 2 × `delivery_timeout` after an unknown outcome):
   * no broker appends the record after that. */
  :: atomic {
       instance[i].entry == IN_FLIGHT && !on_the_way[instance[i].opener] ->
       answer_waiters(i, UNKNOWN);
       close(i)
     }
  /* Metadata reports the new leader. */
  :: atomic { led_by_new && !instance[i].knows_new -> instance[i].knows_new = true }
  od
}

/* Kills an instance at any moment, CRASHES times in all. The next process starts with empty tables: its
 * index is what it has read since. */
proctype Crashes() {
  byte left = CRASHES;
  byte i;
  byte a = 0;
end:
  do
  :: atomic {
       left > 0 ->
       if :: i = 0 :: i = 1 fi;
       a = 0;
       do
       :: a < ATTEMPTS ->
          if
          :: attempt[a].at == i && attempt[a].life >= ARRIVED && attempt[a].life <= WAITING -> finish(a, UNKNOWN)
          :: else
          fi;
          a++
       :: else -> break
       od;
       a = 0;
       close(i);
       instance[i].applied = 0; instance[i].barrier = IDLE; instance[i].end = 0;
       instance[i].answered_by_new = 0;
       left--
     }
  od
}

/* Clients send the attempts one after the other, without waiting for answers: every retry and every
 * overlap is among the interleavings. */
proctype Clients() {
  byte n = 0;
  byte r = 0;
  bit found = false;
end:
  do
  :: atomic {
       n < ATTEMPTS ->
       /* The instances are alike, so the first attempt is at the first one. */
       if :: attempt[n].at = 0 :: n > 0 -> attempt[n].at = 1 fi;
       if :: attempt[n].request = 0 :: n > 0 -> attempt[n].request = 1 fi;
       do
       :: r < replies_end -> found = found || replies[r] == attempt[n].request; r++
       :: else -> break
       od;
       r = 0;
       attempt[n].readable = found; found = false;
       attempt[n].life = ARRIVED;
       n++
     }
  od
}

proctype Brokers() {
  byte n = 0;
  byte i = 0;
end:
  do
  /* Appends a produce request that is on its way, or drops it. */
  :: atomic {
       n = 0;
       do
       :: n < ATTEMPTS - 1 && !on_the_way[n] -> n++
       :: else -> break
       od;
       /* Any of them, not only the first. */
       do
       :: n < ATTEMPTS - 1 -> n++
       :: break
       od;
       if
       :: on_the_way[n] ->
          on_the_way[n] = false;
          if
          :: true ->
             assert(!attempt[n].readable || (attempt[n].deposed && BUG != 4));          /* (b) */
             commands ! attempt[n].request;
             /* Only an instance that still waits for the acknowledgement looks at it. */
             appended[n] = ((instance[0].entry == PRODUCING && instance[0].opener == n) || (instance[1].entry == PRODUCING && instance[1].opener == n))
          :: true
          fi;
          if
          :: attempt[n].life == ENDED ->
             attempt[n].readable = false; attempt[n].deposed = false; attempt[n].request = 0
          :: else
          fi
       :: else
       fi;
       n = 0
     }
  /* Answers a barrier. An instance that does not know the new leader asks the old one. */
  :: atomic {
       if :: i = 0 :: i = 1 fi;
       if
       :: instance[i].barrier == SENT ->
          instance[i].end = READABLE_END(i);
          instance[i].answered_by_new = led_by_new && instance[i].knows_new;
          instance[i].barrier = ANSWERED
       :: else
       fi;
       i = 0
     }
  /* The replies partition gets a new leader. */
  :: atomic { !led_by_new -> led_by_new = true; old_end = replies_end }
  od
}

/* The service applies the first record of a correlation id and answers it; further records of the
 * id get no answer. Reply and offset are in one transaction, so a restart does not show. Of two
 * requests under one key, the second is answered by a refusal under its own correlation id. */
proctype Service() {
  bit done[REQUESTS];
  byte request = 0;
end:
  do
  :: atomic {
       commands ? request ->
       if
       :: !done[request] -> done[request] = true; replies[replies_end] = request; replies_end++
       :: else
       fi;
       request = 0
     }
  od
}

init {
  atomic {
    run Gateway(0); run Gateway(1); run Crashes(); run Clients(); run Brokers(); run Service()
  }
}
