// Event loops of unmodified programs in one crossing a turn (docs/batching.md).
//
// A turn begins when epoll_wait has returned. Host mode then peeks at the bytes of the stream sockets
// that are ready. The guest answers the program's reads from them, and keeps what the program writes
// to these sockets. The turn ends with the thread's next call that leaves the guest: the bytes that
// were read are taken out of the sockets, and what was kept is sent.
//
// A slot belongs to one socket in one turn. The thread that owns the turn answers calls from it in
// the guest. Whoever sets `closed` first, the owner or another thread whose call concerns the socket,
// makes the socket what the program believes it to be, and then sets `settled`.
#pragma once

#include <atomic>
#include <cstdint>

#include "libxos/arch/guest_layout.h"

namespace xos::loops {

/// A turn has so many sockets at most, and each so many bytes in either direction. What is more, is
/// left to Linux. A socket's send buffer is surely larger than that.
inline constexpr unsigned slots_in_turn = 32, slot_bytes = 2048;
/// So many threads can have turns; the others' calls are left to Linux.
inline constexpr unsigned most_turns = 16;
/// Sockets from this number on are left to Linux.
inline constexpr unsigned most_descriptors = 16384;

/// The fields of `slot::word`: how many bytes the program has read and written, and flags.
struct progress {
    static constexpr std::uint64_t one_read = 1, one_written = 1 << 16;
    static constexpr std::uint64_t said_empty = std::uint64_t{1} << 32;
    static constexpr std::uint64_t closed = std::uint64_t{1} << 33;
    static constexpr std::uint64_t settled = std::uint64_t{1} << 34;

    static constexpr std::uint64_t bytes_read(std::uint64_t word) { return word & 0xffff; }
    static constexpr std::uint64_t bytes_written(std::uint64_t word) { return word >> 16 & 0xffff; }
};

// MSG_DONTWAIT, MSG_NOSIGNAL.
inline constexpr std::uint64_t dont_wait = 0x40, no_signal = 0x4000;

struct slot {
    std::atomic<std::uint64_t> word;
    std::uint32_t reference;  ///< 1 + its number among all turns' slots
    std::uint32_t descriptor;
    std::uint32_t length;  ///< bytes in `in`
    bool non_blocking;
    bool may_say_empty;  ///< `in` is all that the socket had, and news would be reported
    bool may_keep;       ///< the socket has room for what the program writes
    alignas(64) std::uint8_t in[slot_bytes], out[slot_bytes];
};

struct turn {
    std::uint32_t vcpu;           ///< the owner's
    std::uint32_t busy;           ///< a thread has it
    std::atomic<unsigned> count;  ///< slots in use; 0: no turn is under way
    slot slots[slots_in_turn];
};

struct turn_memory {
    // Both arrays lie in the kernel part of the system arena, which is always mapped.
    turn* turns = nullptr;
    std::atomic<std::uint32_t>* slot_of = nullptr;  ///< by descriptor: slot::reference, or 0
    std::atomic<unsigned> holds = 0;                ///< more than 0: no turn begins

    slot& at(std::uint32_t reference) const {
        const std::uint32_t number = reference - 1;
        return turns[number / slots_in_turn].slots[number % slots_in_turn];
    }
};
extern turn_memory the_turns;

}  // namespace xos::loops

extern "C" {
/// Copies, and returns how many bytes are left over because the program's memory is not there
/// (copy_guest.S).
std::uint64_t xos_copy_or_stop(void* to, const void* from, std::uint64_t n);
}
