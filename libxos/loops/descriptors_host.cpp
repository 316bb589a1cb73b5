#include <asm/socket.h>
#include <linux/fcntl.h>
#include <linux/in.h>
#include <linux/in6.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/loops/descriptors.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::loops {

descriptor_table the_descriptors;

namespace {

using base::as_long;
using base::raw_syscall;

constexpr long socket_level = SOL_SOCKET;
constexpr int inet = 2, inet6 = 10, stream = 1;

long option(std::uint32_t number, int name, int otherwise) {
    int value = otherwise, length = sizeof value;
    raw_syscall(__NR_getsockopt, number, socket_level, name, as_long(&value), as_long(&length));
    return value;
}

struct address {
    union {
        std::uint16_t family;
        sockaddr_in four;
        sockaddr_in6 six;
        std::uint8_t room[128];
    };

    bool is_internet() const { return family == inet || family == inet6; }
    // The port is at the same place in both.
    std::uint16_t port() const { return __builtin_bswap16(four.sin_port); }
    bool is_loopback() const {
        if (family == inet) return (__builtin_bswap32(four.sin_addr.s_addr) >> 24) == 127;
        const auto& words = six.sin6_addr.s6_addr32;
        const bool mapped = !words[0] && !words[1] && words[2] == __builtin_bswap32(0xffff);
        if (mapped) return (__builtin_bswap32(words[3]) >> 24) == 127;
        return !words[0] && !words[1] && !words[2] && words[3] == __builtin_bswap32(1);
    }
};

bool ask(long call, std::uint32_t number, address& a) {
    int length = sizeof a.room;
    return raw_syscall(call, number, as_long(&a), as_long(&length)) == 0 && a.is_internet();
}

/// Whether its peer is on this machine: at the loopback address, or at the socket's own.
bool is_local(std::uint32_t number) {
    address peer{}, own{};
    if (!ask(__NR_getpeername, number, peer) || !ask(__NR_getsockname, number, own)) return true;
    if (peer.is_loopback()) return true;
    if (peer.family == inet) return peer.four.sin_addr.s_addr == own.four.sin_addr.s_addr;
    for (int i = 0; i < 4; i++) {
        if (peer.six.sin6_addr.s6_addr32[i] != own.six.sin6_addr.s6_addr32[i]) return false;
    }
    return true;
}

constexpr std::uint32_t place(std::uint64_t data) {
    return static_cast<std::uint32_t>((data * 0x9e3779b97f4a7c15) >> 52);
}

}  // namespace

void descriptor_table::opened(std::uint64_t number, descriptor_kind kind) {
    descriptor* const d = find(number);
    if (!d) return;
    d->version++;
    d->generation = generation;
    d->non_blocking = d->may_keep = false;
    d->error = 0;
    d->loop = -1;
    d->owner = 0;
    d->kind = kind;
}

void descriptor_table::forget(std::uint64_t number) {
    if (descriptor* const d = find(number)) {
        d->kind = descriptor_kind::unknown;
        d->version++;  // last: who finds the new version finds the new kind
        d->error = 0;
    }
}

void descriptor_table::doubt(std::uint64_t number) {
    descriptor* const d = find(number);
    if (!d || d->kind != descriptor_kind::stream) return;
    d->version++;
    d->kind = descriptor_kind::fresh;
}

void descriptor_table::registered(std::uint64_t loop, std::uint64_t number, std::uint32_t events,
                                  std::uint64_t data) {
    descriptor* const d = find(number);
    if (!d || d->kind == descriptor_kind::unknown) return;
    const auto at = static_cast<std::int32_t>(loop);
    // What two instances watch can be found ready by another thread.
    if (d->loop != -1 && d->loop != at) return forget(number);
    d->version++;
    d->loop = at;
    d->events = events;
    d->data = data;
    by_data[place(data)] = static_cast<std::uint32_t>(number);
}

void descriptor_table::unregistered(std::uint64_t loop, std::uint64_t number) {
    descriptor* const d = find(number);
    if (!d || d->loop != static_cast<std::int32_t>(loop)) return;
    d->version++;
    d->loop = -1;
}

descriptor* descriptor_table::socket_of(std::uint64_t loop, std::uint64_t data,
                                        std::uint32_t& number) {
    // Most programs register the descriptor itself, the others a pointer.
    for (const std::uint32_t candidate : {static_cast<std::uint32_t>(data), by_data[place(data)]}) {
        descriptor* const d = find(candidate);
        if (!d || d->data != data || d->loop != static_cast<std::int32_t>(loop) ||
            d->generation != generation)
            continue;
        number = candidate;
        return d;
    }
    return nullptr;
}

bool descriptor_table::is_stream(descriptor& d, std::uint32_t number, std::uint32_t vcpu) {
    if (d.kind != descriptor_kind::stream && d.kind != descriptor_kind::fresh) return false;
    if (!d.belongs_to(vcpu)) return false;
    if (d.kind == descriptor_kind::stream) return true;
    const std::uint32_t version = d.version;
    const long domain = option(number, SO_DOMAIN, 0);
    const bool wanted =
        (domain == inet || domain == inet6) && option(number, SO_TYPE, 0) == stream &&
        option(number, SO_PROTOCOL, 0) == IPPROTO_TCP && option(number, SO_RCVLOWAT, 0) == 1 &&
        !(talks_to_itself && is_local(number));
    const long flags = raw_syscall(__NR_fcntl, number, F_GETFL);
    if (!wanted || flags < 0) {
        forget(number);
        return false;
    }
    d.non_blocking = flags & O_NONBLOCK;
    d.may_keep = option(number, SO_SNDBUF, 0) >= 16 * static_cast<long>(slot_bytes);
    d.kind = descriptor_kind::stream;
    if (d.version == version) return true;
    forget(number);
    return false;
}

void descriptor_table::listens(std::uint64_t number) {
    address a{};
    if (!ask(__NR_getsockname, static_cast<std::uint32_t>(number), a)) return;
    __atomic_fetch_or(&listened[a.port() / 64], std::uint64_t{1} << a.port() % 64,
                      __ATOMIC_SEQ_CST);
}

void descriptor_table::accepts(std::uint64_t number) {
    // Where an inherited socket listens is not known.
    const descriptor* const d = find(number);
    if (!d || d->kind == descriptor_kind::unknown) talks_to_itself = true;
}

bool descriptor_table::connects_to_itself(std::uint64_t at, std::uint64_t length) {
    address a{};
    if (length < sizeof a.four || length > sizeof a.room || !syscall::copy_in(&a, at, length) ||
        !a.is_internet())
        return false;
    const std::uint64_t word = __atomic_load_n(&listened[a.port() / 64], __ATOMIC_SEQ_CST);
    return word >> a.port() % 64 & 1;
}

}  // namespace xos::loops
