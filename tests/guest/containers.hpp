// Standard containers over a memory resource, whose every byte should come from one arena.
#pragma once

#include <map>
#include <memory_resource>
#include <string>
#include <utility>
#include <xos/memory.hpp>

namespace xos::test {

/// Strings of 0 to 2999 bytes in a map: how many bytes they have, and whether the arena owns all.
inline std::pair<std::size_t, bool> fill_containers(std::pmr::memory_resource& from,
                                                    const memory::arena& a) {
    std::pmr::map<int, std::pmr::string> names(&from);
    for (int i = 0; i < 3000; i++) names[i] = std::pmr::string(static_cast<std::size_t>(i), 'x');
    std::size_t total = 0;
    bool owned = true;
    for (const auto& [n, name] : names) {
        total += name.size();
        owned &= a.owns(&n) && (name.size() < 16 || a.owns(name.data()));
    }
    return {total, owned};
}

}  // namespace xos::test
