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

consteval std::array<std::uint8_t, table_size> find_descriptors() {
    std::array<std::uint8_t, table_size> found{};
    for (unsigned number : numbers) {
        for (unsigned i = 0; i < table[number].argument_count; ++i) {
            const argument kind = table[number].arguments[i];
            if (kind == argument::fd || kind == argument::dirfd) found[number] |= 1u << i;
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

constexpr std::array<std::uint8_t, table_size> descriptor_arguments = find_descriptors();

const entry& lookup(unsigned number) noexcept {
    return number < table_size ? table.data()[number] : unknown;
}

std::optional<unsigned> number_of(std::string_view name) noexcept {
    for (unsigned number : numbers)
        if (same(lookup(number).name, name)) return number;
    return std::nullopt;
}

}  // namespace xos::syscall
