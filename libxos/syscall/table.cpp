#include "libxos/syscall/table.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <iterator>

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

consteval entry describe(std::string_view name, policy policy, ring_class ring,
                         argument_list arguments) {
    return {name, policy, ring, arguments.kinds, arguments.count};
}

consteval std::array<entry, table_size> build() {
    using enum argument;
    std::array<entry, table_size> table{};
#define XOS_SYSCALL(number, name, who, where, kinds) \
    table[number] = describe(#name, policy::who, ring_class::where, arguments kinds);
#include "libxos/syscall/table.def"
#undef XOS_SYSCALL
    return table;
}

constexpr auto table = build();
constexpr entry unknown{};

constexpr bool is_descriptor(argument kind) {
    return kind == argument::fd || kind == argument::dirfd;
}
/// Of an array or a header at least itself.
constexpr bool is_read(argument kind) {
    using enum argument;
    return kind == path || kind == string || kind == in_bytes || kind == in_struct ||
           kind == in_iovec || kind == out_iovec || kind == in_msghdr || kind == mmsghdr_in ||
           kind == argv;
}
constexpr bool is_written(argument kind) {
    using enum argument;
    return kind == out_bytes || kind == out_struct || kind == inout_struct || kind == out_msghdr ||
           kind == mmsghdr_out;
}

consteval std::array<looked_at, table_size> find_arguments_to_look_at() {
    std::array<looked_at, table_size> found{};
    for (unsigned number : numbers) {
        if (table[number].name == "ptrace") continue;  // a word to write may look like a pointer
        for (unsigned i = 0; i < table[number].argument_count; ++i) {
            const argument kind = table[number].arguments[i];
            found[number].descriptors |= static_cast<std::uint8_t>(is_descriptor(kind) << i);
            found[number].read |= static_cast<std::uint8_t>(is_read(kind) << i);
            found[number].written |= static_cast<std::uint8_t>(is_written(kind) << i);
        }
    }
    return found;
}

consteval bool names_are_unique() {
    for (auto i = std::begin(numbers); i != std::end(numbers); ++i)
        for (auto j = std::next(i); j != std::end(numbers); ++j)
            if (table[*i].name == table[*j].name) return false;
    return true;
}
static_assert(names_are_unique());

// string_view's == calls memcmp, which is libc.
bool same(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a.data()[i] != b.data()[i]) return false;
    return true;
}

}  // namespace

constexpr std::array<looked_at, table_size> arguments_to_look_at = find_arguments_to_look_at();

const entry& lookup(unsigned number) noexcept {
    return number < table_size ? table.data()[number] : unknown;
}

std::optional<unsigned> number_of(std::string_view name) noexcept {
    for (unsigned number : numbers)
        if (same(lookup(number).name, name)) return number;
    return std::nullopt;
}

}  // namespace xos::syscall
