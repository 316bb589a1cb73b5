// The beginning and the end of a turn.
#include <asm/ioctls.h>
#include <linux/eventpoll.h>
#include <linux/poll.h>
#include <linux/sockios.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/loops/descriptors.hpp"
#include "libxos/loops/loops.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::loops {

using base::as_long;
using base::raw_syscall;
using cell::context;

namespace {

constexpr std::uint64_t truncate = 0x20, peek = 0x2;  // MSG_TRUNC, MSG_PEEK

/// recvfrom or sendto, without an address.
long transfer(long call, std::uint32_t number, const void* bytes, std::uint64_t n,
              std::uint64_t flags) {
    return raw_syscall(call, number, as_long(bytes), static_cast<long>(n),
                       static_cast<long>(flags | dont_wait), 0, 0);
}

/// Takes what the program has read out of the socket. The bytes are there: nobody else reads it.
void take_out(std::uint32_t number, std::uint64_t n) {
    while (n > 0) {
        const long taken = transfer(__NR_recvfrom, number, nullptr, n, truncate);
        if (taken == -base::error::intr) continue;
        if (taken <= 0) return;
        n -= static_cast<std::uint64_t>(taken);
    }
}

/// The socket had room when the turn began. Only a machine that is out of memory lets it wait here.
void send(std::uint32_t number, const std::uint8_t* from, std::uint64_t n) {
    while (n > 0) {
        const long sent = transfer(__NR_sendto, number, from, n, no_signal);
        if (sent > 0) {
            from += sent;
            n -= static_cast<std::uint64_t>(sent);
        } else if (sent == -base::error::again) {
            pollfd room{static_cast<int>(number), POLLOUT, 0};
            raw_syscall(__NR_poll, as_long(&room), 1, -1);
        } else if (sent != -base::error::intr) {
            // The peer is gone. EPIPE is what Linux says again, the others it says once.
            if (sent != -base::error::pipe)
                the_descriptors.of[number].error = static_cast<std::uint8_t>(-sent);
            return;
        }
    }
}

/// Unless another slot has taken its place.
void forget_place(const slot& s) {
    std::uint32_t present = s.reference;
    the_turns.slot_of[s.descriptor].compare_exchange_strong(present, 0);
}

void settle(slot& s) {
    const std::uint64_t word = s.word.fetch_or(progress::closed, std::memory_order_acq_rel);
    if (word & progress::closed) {
        // Another thread is at it, and does not wait for this one.
        while (!(s.word.load(std::memory_order_acquire) & progress::settled))
            raw_syscall(__NR_sched_yield);
        return;
    }
    take_out(s.descriptor, progress::bytes_read(word));
    send(s.descriptor, s.out, progress::bytes_written(word));
    forget_place(s);
    s.word.fetch_or(progress::settled, std::memory_order_acq_rel);
}

turn* turn_of(context& c) {
    if (c.loop.turn) return c.loop.turn;
    for (unsigned i = 0; i < most_turns; i++) {
        turn& t = the_turns.turns[i];
        if (__atomic_exchange_n(&t.busy, 1, __ATOMIC_ACQ_REL)) continue;
        t.vcpu = c.id;
        return c.loop.turn = &t;
    }
    return nullptr;
}

void settle_all(turn& t) {
    const unsigned count = t.count.load(std::memory_order_seq_cst);
    for (unsigned i = 0; i < count; i++) settle(t.slots[i]);
}

/// Whether the program learns of what comes to the socket after `events`, so that it may be told now
/// that there is nothing more. Edge-triggered, the end of a stream is reported with the last bytes
/// and never again; it is known only if the program wants to know of it.
bool news_is_reported(const descriptor& d, std::uint32_t events) {
    if (events & EPOLLRDHUP) return false;  // the end of the stream is there
    return !(d.events & EPOLLET) || (d.events & EPOLLRDHUP);
}

/// Fills a slot. False: the socket is left to Linux.
bool prepare(slot& s, const epoll_event& event, std::uint64_t loop, std::uint32_t vcpu) {
    if (!(event.events & EPOLLIN) || (event.events & (EPOLLERR | EPOLLHUP | EPOLLPRI)))
        return false;
    std::uint32_t number;
    descriptor* const d = the_descriptors.socket_of(loop, event.data, number);
    if (!d || !the_descriptors.is_stream(*d, number, vcpu)) return false;
    const std::uint32_t version = d->version;
    const long n = transfer(__NR_recvfrom, number, s.in, slot_bytes, peek);
    // A full slot: there is more, and one large read is better than two.
    if (n <= 0 || n == slot_bytes) return false;
    int unsent = 1;
    if (d->may_keep) raw_syscall(__NR_ioctl, number, SIOCOUTQ, as_long(&unsent));
    s.descriptor = number;
    s.length = static_cast<std::uint32_t>(n);
    s.non_blocking = d->non_blocking;
    s.may_say_empty = news_is_reported(*d, event.events);
    s.may_keep = unsent == 0;
    the_turns.slot_of[number].store(s.reference, std::memory_order_seq_cst);
    // From here on another thread may close the slot.
    s.word.store(0, std::memory_order_seq_cst);
    if (d->version == version && d->kind == descriptor_kind::stream &&
        d->generation == the_descriptors.generation && the_turns.holds == 0)
        return true;
    settle(s);
    return false;
}

}  // namespace

base::outcome start() {
    static_assert(sizeof(turn) * most_turns + most_descriptors * sizeof(std::uint32_t) +
                      2 * page_size <=
                  cell::event_loop_bytes);
    auto& arena = cell::the_cell.arena;
    const hva turns = arena.allocate_kernel(sizeof(turn) * most_turns);
    const hva references = arena.allocate_kernel(most_descriptors * sizeof(std::uint32_t));
    if (!turns.value || !references.value) return {base::step::reserve_memory, base::error::nomem};
    the_turns.turns = reinterpret_cast<turn*>(turns.value);
    the_turns.slot_of = reinterpret_cast<std::atomic<std::uint32_t>*>(references.value);
    std::uint32_t reference = 0;
    for (unsigned i = 0; i < most_turns; i++) {
        for (slot& s : the_turns.turns[i].slots) {
            s.reference = ++reference;
            s.word = progress::closed | progress::settled;
        }
    }
    return base::success;
}

void forget_turns() {
    the_turns.holds = 0;
    for (unsigned i = 0; i < most_turns; i++) {
        turn& t = the_turns.turns[i];
        if (!t.busy) continue;
        t.busy = 0;
        t.count = 0;
        for (slot& s : t.slots) {
            // Another thread may have been about to begin one.
            forget_place(s);
            s.word = progress::closed | progress::settled;
        }
    }
}

void begin_turn(context& c, std::uint64_t loop, std::uint64_t events, unsigned count) {
    turn* const t = turn_of(c);
    if (!t || the_turns.holds != 0 || c.native.running) return;
    c.loop.seen_by_timer = false;
    unsigned used = 0;
    bool keeps = false;
    epoll_event some[slots_in_turn];
    if (count > slots_in_turn) count = slots_in_turn;
    if (!syscall::copy_in(some, events, count * sizeof *some)) return;
    for (unsigned i = 0; i < count; i++) {
        slot& s = t->slots[used];
        // Who ends all turns finds the slot, or has stopped its preparation.
        t->count.store(used + 1, std::memory_order_seq_cst);
        if (!prepare(s, some[i], loop, t->vcpu)) continue;
        keeps |= s.may_keep;
        used++;
    }
    t->count.store(used, std::memory_order_release);
    if (!keeps || start_timer(c)) return;
    for (unsigned i = 0; i < used; i++) t->slots[i].may_keep = false;
}

void end_turn(context& c) {
    turn* const t = c.loop.turn;
    if (!t || t->count == 0) return;
    settle_all(*t);
    t->count.store(0, std::memory_order_release);
}

void end_other_turns(const context& c) {
    for (unsigned i = 0; i < most_turns; i++) {
        if (&the_turns.turns[i] != c.loop.turn) settle_all(the_turns.turns[i]);
    }
}

void settle_descriptor(std::uint64_t number) {
    const auto n = static_cast<std::uint32_t>(number);
    if (n >= most_descriptors) return;
    if (const std::uint32_t reference = the_turns.slot_of[n].load(std::memory_order_seq_cst))
        settle(the_turns.at(reference));
}

void give_back_turn(context& c) {
    if (!c.loop.turn) return;
    end_turn(c);
    __atomic_store_n(&c.loop.turn->busy, 0, __ATOMIC_RELEASE);
    c.loop.turn = nullptr;
}

void hold_turns() {
    the_turns.holds++;
}
void release_turns() {
    the_turns.holds--;
}

}  // namespace xos::loops
