#include "libxos/syscall/table.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <iterator>

#include "libxos/syscall/module_calls.hpp"

namespace xos::syscall {
namespace {

constexpr unsigned numbers[] = {
#define XOS_SYSCALL(number, ...) number,
#include "libxos/syscall/table.def"
#undef XOS_SYSCALL
};

static_assert(std::ranges::adjacent_find(numbers, std::greater_equal{}) == std::end(numbers),
              "table.def: numbers must be strictly ascending");
static_assert(*std::rbegin(numbers) < table_size);

struct argument_list {
    std::array<argument, 6> kinds;
    std::uint8_t count;
};

template <std::same_as<argument>... Kinds>
requires(sizeof...(Kinds) <= 6) consteval argument_list arguments(Kinds... kinds) {
    return {{kinds...}, sizeof...(kinds)};
}

consteval call_facts describe(std::string_view name, handling handling, ring_class ring,
                              argument_list arguments) {
    return {name, handling, ring, arguments.kinds, arguments.count};
}

consteval std::array<call_facts, table_size> build() {
    using enum argument;
    std::array<call_facts, table_size> table{};
#define XOS_SYSCALL(number, name, who, where, kinds) \
    table[number] = describe(#name, handling::who, ring_class::where, arguments kinds);
#include "libxos/syscall/table.def"
#undef XOS_SYSCALL
    return table;
}

constexpr auto table = build();
constexpr call_facts unknown{};

// string_view's == calls memcmp, which is part of libc.
constexpr bool same(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a.data()[i] != b.data()[i]) return false;
    return true;
}

constexpr bool is_descriptor(argument kind) {
    return kind == argument::fd || kind == argument::dirfd;
}
constexpr bool names_memory(argument kind) {
    using enum argument;
    switch (kind) {
        case path:
        case string:
        case in_bytes:
        case out_bytes:
        case in_iovec:
        case out_iovec:
        case in_struct:
        case out_struct:
        case inout_struct:
        case in_msghdr:
        case out_msghdr:
        case mmsghdr_in:
        case mmsghdr_out:
        case argv:
        case address:
        case futex:
            return true;
        default:
            return false;
    }
}
constexpr bool opens_files(std::string_view name) {
    return same(name, "open") || same(name, "openat") || same(name, "openat2");
}

consteval std::array<looked_at, table_size> find_arguments_to_look_at() {
    std::array<looked_at, table_size> found{};
    for (unsigned number : numbers) {
        const call_facts& call = table[number];
        found[number].unknown = false;
        if (call.name == "ptrace") continue;  // a word to write may look like a pointer
        for (unsigned i = 0; i < call.argument_count; ++i) {
            const argument kind = call.arguments[i];
            found[number].descriptors |= static_cast<std::uint8_t>(is_descriptor(kind) << i);
            found[number].memory |= names_memory(kind);
            if (kind == argument::path && opens_files(call.name))
                found[number].opens = static_cast<std::uint8_t>(i + 1);
        }
    }
    return found;
}

static_assert(table_size == XOS_CALLS);

/// Added to a look at memory that Linux writes.
constexpr unsigned written = 1;

consteval unsigned look_of_module(const call_facts& call, unsigned i) {
    using enum argument;
    const bool size_follows = i + 1 < call.argument_count && call.arguments[i + 1] == size;
    const unsigned bytes = size_follows                             ? XOS_LOOK_NEXT
                           : i > 0 && call.arguments[i - 1] == size ? XOS_LOOK_PREVIOUS
                                                                    : XOS_LOOK_START;
    switch (call.arguments[i]) {
        case fd:
        case dirfd:
            return XOS_LOOK_DESCRIPTOR;
        case path:
            return opens_files(call.name) ? XOS_LOOK_OPENED : XOS_LOOK_START;
        case string:
        case in_struct:
        case argv:
            return XOS_LOOK_START;
        case out_struct:
        case inout_struct:
            return XOS_LOOK_START | written;
        case in_bytes:
            return bytes;
        case out_bytes:
            return bytes | written;
        case address:
            return size_follows ? XOS_LOOK_NEXT : XOS_LOOK_NOT;
        case futex:
            return XOS_LOOK_FUTEX;
        case in_iovec:
            return XOS_LOOK_BUFFERS;
        case out_iovec:
            return XOS_LOOK_BUFFERS | written;
        case in_msghdr:
            return XOS_LOOK_MESSAGE;
        case out_msghdr:
            return XOS_LOOK_MESSAGE | written;
        case mmsghdr_in:
            return XOS_LOOK_MESSAGES;
        case mmsghdr_out:
            return XOS_LOOK_MESSAGES | written;
        default:
            return XOS_LOOK_NOT;
    }
}

consteval std::array<std::uint32_t, XOS_CALLS> list_module_calls() {
    std::array<std::uint32_t, XOS_CALLS> list{};
    for (unsigned number : numbers) {
        const call_facts& call = table[number];
        if (is_own(call.handling)) continue;
        list[number] = XOS_CALL_MADE;
        for (unsigned i = 0; i < call.argument_count; ++i)
            list[number] |= look_of_module(call, i) << i * XOS_LOOK_BITS;
    }
    return list;
}

consteval bool names_are_unique() {
    for (auto i = std::begin(numbers); i != std::end(numbers); ++i)
        for (auto j = std::next(i); j != std::end(numbers); ++j)
            if (table[*i].name == table[*j].name) return false;
    return true;
}
static_assert(names_are_unique());

}  // namespace

constexpr std::array<looked_at, table_size> arguments_to_look_at = find_arguments_to_look_at();

constexpr std::array<bool, table_size> made_as_it_is = [] {
    std::array<bool, table_size> found{};
    for (unsigned number : numbers)
        found[number] = !is_own(table[number].handling) && !arguments_to_look_at[number].any();
    return found;
}();

constexpr std::array<std::uint32_t, XOS_CALLS> module_calls = list_module_calls();

const call_facts& lookup(unsigned number) noexcept {
    return number < table_size ? table.data()[number] : unknown;
}

std::optional<unsigned> number_of(std::string_view name) noexcept {
    for (unsigned number : numbers)
        if (same(lookup(number).name, name)) return number;
    return std::nullopt;
}

}  // namespace xos::syscall
