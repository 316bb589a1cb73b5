// What host mode knows about the program's descriptors. Only what the program opened itself, and has not shared since,
// can have turns: nobody else can read from such a socket, or write to it.
#pragma once

#include <atomic>
#include <cstdint>

#include "libxos/loops/turns.hpp"

namespace xos::loops {

enum class descriptor_kind : std::uint8_t {
    unknown,  ///< inherited, shared, received, or no socket: left to Linux
    fresh,    ///< a socket of which nothing else is known
    stream,   ///< a TCP connection that can have turns
    loop,     ///< an epoll instance
};

struct descriptor {
    /// Changes with everything below: who has looked, and acts later, looks again.
    std::atomic<std::uint32_t> version;
    std::uint32_t generation;  ///< of descriptor_table::generation, when it was opened
    std::atomic<descriptor_kind> kind;
    bool non_blocking;
    bool may_keep;
    std::uint8_t error;  ///< what a write that has returned already has met; the next call gets it
    // A socket's registration. `loop` is -1 if there is none.
    std::int32_t loop;
    std::uint32_t events;
    std::uint64_t data;
    /// 1 + the vCPU of the only thread that has waited for this epoll instance, or has read or
    /// written this socket; 0: none yet.
    std::atomic<std::uint32_t> owner;

    /// The first that asks becomes the owner.
    bool belongs_to(std::uint32_t vcpu) {
        std::uint32_t present = 0;
        return owner.compare_exchange_strong(present, vcpu + 1) || present == vcpu + 1;
    }
};

struct descriptor_table {
    descriptor of[most_descriptors];
    /// The socket that was registered last with such a value of epoll_data.
    std::uint32_t by_data[4096];
    /// A process that is made, or a descriptor that is sent away, shares all that are open: what is
    /// older than the generation is unknown.
    std::atomic<std::uint32_t> generation;
    /// Ports on which the process listens. If it connects to one of them, its threads talk to each
    /// other, and can tell by memory what a network could not.
    std::uint64_t listened[65536 / 64];
    std::atomic<bool> talks_to_itself;

    descriptor* find(std::uint64_t number) {
        const auto n = static_cast<std::uint32_t>(number);
        return n < most_descriptors ? &of[n] : nullptr;
    }
    bool is(std::uint64_t number, descriptor_kind kind) {
        const descriptor* d = find(number);
        return d && d->kind == kind && d->generation == generation;
    }
    void opened(std::uint64_t number, descriptor_kind kind);
    void forget(std::uint64_t number);
    void share_all() { generation++; }
    /// Looks anew before the next turn.
    void doubt(std::uint64_t number);
    void registered(std::uint64_t loop, std::uint64_t number, std::uint32_t events,
                    std::uint64_t data);
    void unregistered(std::uint64_t loop, std::uint64_t number);
    /// The socket that an event of `loop` is about, or null.
    descriptor* socket_of(std::uint64_t loop, std::uint64_t data, std::uint32_t& number);
    /// Whether it can have turns; asks Linux the first time.
    bool is_stream(descriptor& d, std::uint32_t number, std::uint32_t vcpu);
    void listens(std::uint64_t number);
    void accepts(std::uint64_t number);
    /// Whether the address is one at which the process listens.
    bool connects_to_itself(std::uint64_t address, std::uint64_t length);
};
extern descriptor_table the_descriptors;

}  // namespace xos::loops
