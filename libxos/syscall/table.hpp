// What libxos knows about each Linux system call: who carries it out, on which thread, and what its
// arguments are. The facts, and what the enumerators mean, are in table.def.
//
//     const call_facts& call = lookup(__NR_pread64);
//     call.handling      // handling::forward
//     call.ring          // ring_class::blocking
//     call.arguments[1]  // argument::out_bytes
//
// Constant data and loops over it: usable in host mode and inside the guest.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace xos::syscall {

enum class handling : std::uint8_t { forward, emulate, inside_forward, inside_emulate, refuse };

/// Whether some calls are answered inside the guest.
constexpr bool is_inside(handling p) {
    return p == handling::inside_forward || p == handling::inside_emulate;
}
/// Whether libxos carries out the calls that leave the guest.
constexpr bool is_own(handling p) {
    return p == handling::emulate || p == handling::inside_emulate || p == handling::refuse;
}

enum class ring_class : std::uint8_t { thread, any, blocking };

enum class argument : std::uint8_t {
    none,  // beyond the last argument
    fd,
    dirfd,
    path,
    string,
    in_bytes,
    out_bytes,
    size,
    in_iovec,
    out_iovec,
    count,
    in_struct,
    out_struct,
    inout_struct,
    in_msghdr,
    out_msghdr,
    mmsghdr_in,
    mmsghdr_out,
    argv,
    address,
    futex,
    offset,
    integer,
    flags,
    mode,
    pid,
    signal,
    id,
    clock,
    function,
};

/// Default ones stand for a call the table lacks: Linux decides, on the calling thread.
struct call_facts {
    std::string_view name{};
    syscall::handling handling = syscall::handling::forward;
    ring_class ring = ring_class::thread;
    std::array<argument, 6> arguments{};
    std::uint8_t argument_count = 0;
};

/// Greater than every number in the table; numbers from here on are unknown.
inline constexpr unsigned table_size = 512;

/// Never fails: default ones for an unknown number (x32 numbers are unknown). Lives forever.
const call_facts& lookup(unsigned number) noexcept;

/// What must be checked before a call is forwarded.
struct looked_at {
    std::uint8_t descriptors = 0;  ///< a bit for each argument
    bool memory = false;           ///< whether some argument names memory
    bool unknown = true;           ///< the kinds of its arguments are unknown
    std::uint8_t opens = 0;        ///< the argument, from 1, that names a file to open

    constexpr bool any() const { return descriptors || memory || unknown; }
};
extern const std::array<looked_at, table_size> arguments_to_look_at;
/// By number: whether Linux gets the call as it is, and libxos neither carries it out nor looks at
/// its arguments.
extern const std::array<bool, table_size> made_as_it_is;

/// The number of the call that Linux names `__NR_` + name. Searches the whole table.
std::optional<unsigned> number_of(std::string_view name) noexcept;

}  // namespace xos::syscall
